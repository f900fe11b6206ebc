"""An interactive workbench for studying what model editing does to a language model."""

from workbench.data.facts import load_facts, read_facts
from workbench.editing.rome import ROME
from workbench.editing.second_moment import SecondMoment
from workbench.errors import WorkbenchError
from workbench.evaluation.edits import evaluate_edits, score_edits
from workbench.lm import LanguageModel, load
from workbench.regularize import PCAK, RECT, RandomK, Unregularized
from workbench.request import EditRequest, LocalityProbe
from workbench.update import WeightUpdate
from workbench.weightstats import relative_change, weight_change

__all__ = [
    "PCAK",
    "RECT",
    "ROME",
    "EditRequest",
    "LanguageModel",
    "LocalityProbe",
    "RandomK",
    "SecondMoment",
    "Unregularized",
    "WeightUpdate",
    "WorkbenchError",
    "evaluate_edits",
    "load",
    "load_facts",
    "read_facts",
    "relative_change",
    "score_edits",
    "weight_change",
]
