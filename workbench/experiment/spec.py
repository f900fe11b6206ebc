"""ExperimentSpec: one trajectory of edits and what is measured along it; grids of them, from Python or YAML."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from workbench.data.facts import load_facts
from workbench.data.records import BUNDLED
from workbench.editing.editor import Editor
from workbench.errors import SpecError
from workbench.evaluation.edits import DEFAULT_PROTOCOLS, EditProtocol
from workbench.evaluation.perplexity import WINDOW
from workbench.evaluation.task_names import check_tasks
from workbench.evaluation.tasks.task import TaskProtocol
from workbench.lm import LanguageModel
from workbench.registry import make_editor, method_row
from workbench.regularize import Regularizer, from_settings
from workbench.request import EditRequest

GRID = "grid"  # the part of a YAML file whose lists are expanded


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    def __init__(self, **fields: Any) -> None:
        try:
            super().__init__(**fields)
        except ValidationError as err:
            raise SpecError(_sentence(err)) from err


class FactsSpec(_Part):
    """Which facts are edited.

    Attributes
    ----------
    source : str
        ``"bundled"`` or a file, as `load_facts` takes it.
    seed : int or None
        Of the draw; the spec's own by default, so that each seed draws its own facts.
    words_before_subject : bool
        Whether prompts that open with their subject are left out.
    """

    source: str = BUNDLED
    seed: int | None = Field(default=None, ge=0)
    words_before_subject: bool = False


class TasksSpec(_Part):
    """Which abilities are measured, and how; the fields are the arguments of `evaluate_tasks`."""

    tasks: tuple[str, ...] | Literal["all"] = Field(default="all", validate_default=True)
    limit: int | None = Field(default=None, ge=1)
    protocol: TaskProtocol = "standard"
    data: str | None = None

    @field_validator("tasks")
    @classmethod
    def _known(cls, tasks: tuple[str, ...] | str) -> tuple[str, ...]:
        return check_tasks(tasks)


class PerplexitySpec(_Part):
    """How perplexity is measured, of the bundled paragraphs; the fields are arguments of `perplexity`."""

    window: int = Field(default=WINDOW, ge=2)
    limit: int | None = Field(default=None, ge=1)


class ExperimentSpec(_Part):
    """One trajectory: edits of one model by one method under one regularizer, and what is measured along it.

    Attributes
    ----------
    model, dtype : str
        As `workbench.load` takes them.
    method : str
        Name of a row of `workbench.registry.methods`.
    hyperparameters : dict
        Fields of the method that win over its preset for the model.
    regularizer : dict
        `kind` (Unregularized, RECT, RandomK, PCAK) and its fields, such as ``{"kind": "RECT", "keep": 0.4}``.
    setting : str
        ``"sequential"``: each operation on the model that the last one left; ``"single"``: each on the unedited model.
    batch_size : int
        Facts an operation: 1 is an instance, more a batch.
    n_operations : int
        Editing operations.
    checkpoints : tuple of int
        After which operations tasks, perplexity, weights and all facts so far are measured; 0 is the unedited model,
        and the last always is one. By default the unedited model and the last.
    facts : FactsSpec
        What is edited.
    tasks : TasksSpec or None
        The abilities; None measures none.
    perplexity : PerplexitySpec or None
        That of held-out text; None measures none.
    edit_protocols : tuple of str
        As for `score_edits`.
    seed : int
        Of the facts' draw, the context templates and the random regularizer.

    Raises
    ------
    SpecError
        If a field is not known or its value cannot be used.
    """

    model: str = "smollm2-135m"
    dtype: str = "float32"
    method: str = "rome"
    hyperparameters: dict[str, Any] = Field(default_factory=dict)
    regularizer: dict[str, Any] = Field(default_factory=lambda: {"kind": "Unregularized"})
    setting: Literal["single", "sequential"] = "sequential"
    batch_size: int = Field(default=1, ge=1)
    n_operations: int = Field(ge=1)
    checkpoints: tuple[int, ...] = ()
    facts: FactsSpec = FactsSpec()
    tasks: TasksSpec | None = TasksSpec()
    perplexity: PerplexitySpec | None = PerplexitySpec()
    edit_protocols: tuple[EditProtocol, ...] = DEFAULT_PROTOCOLS
    seed: int = Field(default=0, ge=0)

    @field_validator("method")
    @classmethod
    def _known_method(cls, method: str) -> str:
        method_row(method)
        return method

    @field_validator("regularizer")
    @classmethod
    def _known_regularizer(cls, settings: dict[str, Any]) -> dict[str, Any]:
        try:
            from_settings(settings)
        except TypeError as err:  # a field that the class does not have
            raise ValueError(f"{settings} is no regularizer: {err}") from err
        return settings

    @model_validator(mode="after")
    def _fits_together(self) -> "ExperimentSpec":
        if self.batch_size > 1 and not method_row(self.method).supports_batch:
            raise ValueError(
                f"{self.method} edits one fact an operation, so batch_size must be 1; got {self.batch_size}"
            )
        outside = [t for t in self.checkpoints if not 0 <= t <= self.n_operations]
        if outside:
            raise ValueError(f"checkpoint {outside[0]} lies outside 0 to n_operations, {self.n_operations}")
        object.__setattr__(self, "checkpoints", tuple(sorted({*(self.checkpoints or (0,)), self.n_operations})))
        return self

    @property
    def setting_name(self) -> str:
        """The paper's name of the setting: single- or sequential-, instance or batch."""
        return f"{self.setting}-{'instance' if self.batch_size == 1 else 'batch'}"

    @property
    def n_facts(self) -> int:
        """Facts edited in all."""
        return self.n_operations * self.batch_size

    def make_regularizer(self, operation: int = 1) -> Regularizer:
        """The regularizer of an operation, from 1: a random one has the spec's seed, and draws anew each time."""
        regularizer = from_settings(self.regularizer)
        if not hasattr(regularizer, "seed"):
            return regularizer
        return replace(regularizer, seed=self.regularizer.get("seed", self.seed) + operation - 1)

    def make_editor(self, lm: LanguageModel) -> Editor:
        """The method with its preset for `lm`, the spec's hyperparameters, and its seed unless they name one."""
        fields = self.hyperparameters
        if "seed" not in fields and "seed" in method_row(self.method).editor.__dataclass_fields__:
            fields = {**fields, "seed": self.seed}
        return make_editor(self.method, lm, fields)

    def draw_requests(self) -> list[tuple[EditRequest, ...]]:
        """The facts of each operation; raises `RequestError` if the source has not so many."""
        facts = load_facts(self.facts.source)
        if self.facts.words_before_subject:
            facts = facts.with_words_before_subject()
        seed = self.seed if self.facts.seed is None else self.facts.seed
        drawn = facts.sample(self.n_facts, seed=seed)
        return [drawn[i : i + self.batch_size] for i in range(0, len(drawn), self.batch_size)]

    def __str__(self) -> str:
        """Name the trajectory in one line."""
        size = f" × {self.batch_size}" if self.batch_size > 1 else ""
        label = self.make_regularizer().label
        return f"{self.model}, {self.method}, {label}, {self.setting} {self.n_operations}{size}, seed {self.seed}"


def grid(base: ExperimentSpec | Mapping[str, Any], lists: Mapping[str, Sequence[Any]]) -> list[ExperimentSpec]:
    """Every combination of some fields' values, the other fields as in `base`.

    Parameters
    ----------
    base : ExperimentSpec or mapping
        What stays, or the fields of it.
    lists : mapping of str to sequence
        Values of a field, by its name; of a field of `facts` or `tasks` by both names, such as ``facts.seed``.

    Returns
    -------
    list of ExperimentSpec
        The last list varies fastest.

    Raises
    ------
    SpecError
        If a list is empty or no list, or a combination is not a spec.
    """
    fields = base.model_dump() if isinstance(base, ExperimentSpec) else dict(base)
    for name, values in lists.items():
        if isinstance(values, str) or not isinstance(values, Sequence) or not values:
            raise SpecError(f"{GRID}: {name} must be a list of at least one value; got {values!r}.")
    chosen = (dict(zip(lists, values, strict=True)) for values in product(*lists.values()))
    return [ExperimentSpec(**_changed(fields, values)) for values in chosen]


def read_specs(path: str | Path) -> list[ExperimentSpec]:
    """Specs from a YAML file: the fields of one, and under ``grid`` lists of values to expand.

    Parameters
    ----------
    path : str or Path
        The file.

    Returns
    -------
    list of ExperimentSpec
        As `grid` makes them.

    Raises
    ------
    SpecError
        If the file cannot be read, is not YAML, or what it says is no spec.
    """
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as err:
        raise SpecError(f"{path} cannot be read ({getattr(err, 'strerror', None) or err}); give a YAML file.") from err
    except yaml.YAMLError as err:
        raise SpecError(f"{path} is not YAML: {' '.join(str(err).split())}.") from err
    if not isinstance(content, dict) or not isinstance(content.get(GRID, {}), dict):
        raise SpecError(f"{path} must hold the fields of a spec, and lists to expand under {GRID!r}.")
    lists = content.pop(GRID, {})
    try:
        return grid(content, lists)
    except SpecError as err:
        raise SpecError(f"{path}, {err}") from err


def _changed(fields: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    changed = dict(fields)
    for name, value in values.items():
        part, _, inner = str(name).partition(".")
        changed[part] = {**(changed.get(part) or {}), inner: value} if inner else value
    return changed


def _sentence(err: ValidationError) -> str:
    """The first thing that is wrong, where it is, in one sentence."""
    first = err.errors()[0]
    where, cause = ".".join(map(str, first["loc"])), (first.get("ctx") or {}).get("error")
    if cause is not None:
        return f"{where}: {cause}" if where else f"{cause}."
    if first["type"] == "extra_forbidden":
        return f"{where} is no field of a spec; known: {', '.join(ExperimentSpec.model_fields)}."
    return f"{where}: {first['msg']}; got {first['input']!r}."
