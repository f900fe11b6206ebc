"""An interactive workbench for studying what model editing does to a language model."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from workbench.assessment import Assessment, Guard, assess
    from workbench.data.facts import load_facts, read_facts
    from workbench.data.tasks.load import load_task
    from workbench.edit_record import EditRecord
    from workbench.editing.alphaedit import AlphaEdit
    from workbench.editing.emmet import EMMET
    from workbench.editing.ft import FT
    from workbench.editing.kn import KN
    from workbench.editing.lora import LoRA
    from workbench.editing.memit import MEMIT
    from workbench.editing.mend.editor import MEND
    from workbench.editing.rome import ROME
    from workbench.editing.second_moment.estimate import SecondMoment
    from workbench.editing.ultraedit import UltraEdit
    from workbench.energy import EnergyRECT
    from workbench.errors import RiskError, WorkbenchError
    from workbench.evaluation.abilities import ask_tasks, evaluate_tasks
    from workbench.evaluation.drift import drift, drift_tokens
    from workbench.evaluation.edits import evaluate_edits, score_edits
    from workbench.evaluation.harness import evaluate_harness
    from workbench.evaluation.in_context import score_in_context
    from workbench.evaluation.perplexity import perplexity
    from workbench.experiment.grids import grid, read_specs
    from workbench.experiment.runner import run
    from workbench.experiment.spec import ExperimentSpec, FactsSpec, TasksSpec
    from workbench.experiment.store import Store
    from workbench.lm import LanguageModel, load
    from workbench.regularize import PCAK, RECT, RandomK, Unregularized
    from workbench.request import EditRequest, LocalityProbe, PortabilityProbe
    from workbench.sequence import EditSequence
    from workbench.spectral import PRUNE, SPHERE
    from workbench.update import WeightUpdate
    from workbench.weightstats import relative_change, weight_change

__all__ = [
    "EMMET",
    "FT",
    "KN",
    "MEMIT",
    "MEND",
    "PCAK",
    "PRUNE",
    "RECT",
    "ROME",
    "SPHERE",
    "AlphaEdit",
    "Assessment",
    "EditRecord",
    "EditRequest",
    "EditSequence",
    "EnergyRECT",
    "ExperimentSpec",
    "FactsSpec",
    "Guard",
    "LanguageModel",
    "LoRA",
    "LocalityProbe",
    "PortabilityProbe",
    "RandomK",
    "RiskError",
    "SecondMoment",
    "Store",
    "TasksSpec",
    "UltraEdit",
    "Unregularized",
    "WeightUpdate",
    "WorkbenchError",
    "ask_tasks",
    "assess",
    "drift",
    "drift_tokens",
    "evaluate_edits",
    "evaluate_harness",
    "evaluate_tasks",
    "grid",
    "load",
    "load_facts",
    "load_task",
    "perplexity",
    "read_facts",
    "read_specs",
    "relative_change",
    "run",
    "score_edits",
    "score_in_context",
    "weight_change",
]

# Public names are imported on first use: torch and transformers take seconds, and `workbench --help` needs neither.
_MODULES = {
    "assessment": ("Assessment", "Guard", "assess"),
    "data.facts": ("load_facts", "read_facts"),
    "edit_record": ("EditRecord",),
    "editing.alphaedit": ("AlphaEdit",),
    "editing.emmet": ("EMMET",),
    "editing.ft": ("FT",),
    "editing.kn": ("KN",),
    "editing.lora": ("LoRA",),
    "editing.memit": ("MEMIT",),
    "editing.mend.editor": ("MEND",),
    "editing.rome": ("ROME",),
    "editing.second_moment.estimate": ("SecondMoment",),
    "editing.ultraedit": ("UltraEdit",),
    "energy": ("EnergyRECT",),
    "errors": ("RiskError", "WorkbenchError"),
    "data.tasks.load": ("load_task",),
    "evaluation.abilities": ("ask_tasks", "evaluate_tasks"),
    "evaluation.drift": ("drift", "drift_tokens"),
    "evaluation.harness": ("evaluate_harness",),
    "evaluation.in_context": ("score_in_context",),
    "evaluation.perplexity": ("perplexity",),
    "evaluation.edits": ("evaluate_edits", "score_edits"),
    "experiment.grids": ("grid", "read_specs"),
    "experiment.runner": ("run",),
    "experiment.spec": ("ExperimentSpec", "FactsSpec", "TasksSpec"),
    "experiment.store": ("Store",),
    "lm": ("LanguageModel", "load"),
    "regularize": ("PCAK", "RECT", "RandomK", "Unregularized"),
    "request": ("EditRequest", "LocalityProbe", "PortabilityProbe"),
    "sequence": ("EditSequence",),
    "spectral": ("PRUNE", "SPHERE"),
    "update": ("WeightUpdate",),
    "weightstats": ("relative_change", "weight_change"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> object:
    """Import the module of a public name, and keep the name here."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
