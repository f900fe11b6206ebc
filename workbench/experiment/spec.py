"""ExperimentSpec: one trajectory of edits and its measurements."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictInt,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from workbench.assessment import LIMIT, Guard
from workbench.data.records import BUNDLED
from workbench.editing.editor import Editor
from workbench.errors import ModelError, SpecError
from workbench.evaluation.edits import DEFAULT_PROTOCOLS, EditProtocol
from workbench.evaluation.perplexity import WINDOW
from workbench.evaluation.task_names import check_tasks
from workbench.evaluation.tasks.task import TaskProtocol
from workbench.inputs import require_path, shown
from workbench.lm import LanguageModel, dtype_of
from workbench.parameters import LARGEST_SEED, from_plain, parameters_of
from workbench.registry import make_editor, method_row
from workbench.regularize import Regularizer, Unregularized, for_operation, from_settings

MOST_FACTS = 10**6  # of a trajectory, or of one of its operations
LARGEST_LIMIT = 10**6  # of examples, windows of a text, and tokens of a window


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    def __init__(self, **fields: Any) -> None:
        try:
            super().__init__(**fields)
        except ValidationError as err:
            raise SpecError(_sentence(err)) from err


class FactsSpec(_Settings):
    """The facts that are edited.

    Attributes
    ----------
    source : str
        ``"bundled"``, ``"bundled-hard"``, ``"bundled-all"`` or a file, as for `load_facts`.
    seed : int or None
        Seed of the draw; by default that of the spec, so that each seed draws its own facts.
    words_before_subject : bool
        Whether to leave out prompts that open with their subject.
    """

    source: str = BUNDLED
    seed: int | None = Field(default=None, ge=0, le=LARGEST_SEED, strict=True)
    words_before_subject: bool = Field(default=False, strict=True)


class TasksSpec(_Settings):
    """The abilities that are measured.

    Attributes
    ----------
    tasks, limit, protocol, data
        Arguments of `evaluate_tasks`.
    written_at : tuple of int or None
        Checkpoints at which written answers are decoded; at the others there are the scores that need none, which take
        a fraction of the time: log-likelihoods of the reference answers, and choices. By default all checkpoints.
    """

    tasks: tuple[str, ...] | Literal["all"] = Field(default="all", validate_default=True)
    limit: int | None = Field(default=None, ge=1, le=LARGEST_LIMIT, strict=True)
    protocol: TaskProtocol = "standard"
    data: str | None = None
    written_at: tuple[StrictInt, ...] | None = None

    @field_validator("written_at")
    @classmethod
    def _sort_written_at(cls, written_at: tuple[int, ...] | None) -> tuple[int, ...] | None:
        return None if written_at is None else tuple(sorted(set(written_at)))

    @field_validator("tasks")
    @classmethod
    def _check_tasks(cls, tasks: tuple[str, ...] | str) -> tuple[str, ...]:
        return check_tasks(tasks)

    def writes_at(self, operation: int) -> bool:
        """Return whether written answers are decoded after an operation."""
        return self.written_at is None or operation in self.written_at


class DriftSpec(_Settings):
    """The drift that is measured on the bundled paragraphs; the fields are arguments of `drift`."""

    window: int = Field(default=WINDOW, ge=2, le=LARGEST_LIMIT, strict=True)
    limit: int | None = Field(default=None, ge=1, le=LARGEST_LIMIT, strict=True)


class PerplexitySpec(_Settings):
    """The perplexity that is measured on a text of the package; the fields are arguments of `perplexity`.

    Attributes
    ----------
    text : str
        ``"bundled"``, the short paragraphs, or ``"articles"``, long enough for windows of 512 tokens.
    window : int
        Largest number of tokens per window.
    limit : int or None
        Number of windows at checkpoints; all by default.
    each : int or None
        Number of windows after every operation, so that the edit that does the damage can be seen; by default,
        perplexity is measured at checkpoints only.
    """

    text: Literal["bundled", "articles"] = "bundled"
    window: int = Field(default=WINDOW, ge=2, le=LARGEST_LIMIT, strict=True)
    limit: int | None = Field(default=None, ge=1, le=LARGEST_LIMIT, strict=True)
    each: int | None = Field(default=None, ge=1, le=LARGEST_LIMIT, strict=True)


class GuardSpec(_Settings):
    """A guard that refuses or repairs edits with a high risk; the fields are those of `workbench.Guard`."""

    limit: float = Field(default=LIMIT, gt=0, allow_inf_nan=False, strict=True)
    repairs: tuple[str, ...] = Guard().repairs

    @model_validator(mode="after")
    def _check_guard(self) -> "GuardSpec":
        self.make_guard()
        return self

    def make_guard(self) -> Guard:
        """Return the guard."""
        return Guard(limit=self.limit, repairs=self.repairs)


class ExperimentSpec(_Settings):
    """One trajectory: edits of one model by one method under one regularizer, and its measurements.

    Attributes
    ----------
    model, dtype : str
        Name of the model and dtype of its weights, as for `workbench.load`.
    method : str
        Name of a row of `workbench.registry.methods`.
    hyperparameters : dict
        Fields of the method that replace those of its preset for the model.
    regularizer : dict
        Settings of the regularizer: the class as ``kind``, and its fields, such as ``{"kind": "RECT", "keep": 0.4}``.
    accumulated : dict or None
        Settings of a regularizer of the accumulated update W_t − W₀; none by default. Everything that is measured has
        it.
    feed_back : bool
        Whether edits are computed on the accumulated update after its regularizer; by default on the plain sum.
    guard : GuardSpec or None
        Refuses or repairs edits with a high risk before they are added; none by default.
    setting : str
        ``"sequential"``: each operation on the model that the previous one left; ``"single"``: each on the unedited
        model.
    batch_size : int
        Number of facts per operation: 1 is an instance, more are a batch.
    n_operations : int
        Number of editing operations.
    checkpoints : tuple of int
        Numbers of operations after which tasks, perplexity, weights and all facts so far are measured; 0 is the
        unedited model, and the last operation always is a checkpoint. By default the unedited model and the last.
    facts : FactsSpec
        The facts that are edited.
    tasks : TasksSpec or None
        The abilities that are measured; None for none.
    perplexity : PerplexitySpec or None
        The perplexity of held-out text; None for none.
    drift : DriftSpec or None
        The mean KL divergence of predictions on held-out text from those of the unedited model; none by default.
    edit_protocols : tuple of str
        Protocols of the edit metrics, as for `score_edits`.
    assessed : int or None
        Largest number of facts of the trajectory whose edit metrics are measured, spread evenly over it; all by
        default. The cost of a long trajectory then grows with its edits, and not with their square.
    seed : int
        Seed of the draw of facts, the context templates and a random regularizer.

    Raises
    ------
    SpecError
        If a field is unknown or its value is not allowed.
    """

    model: str = Field(default="smollm2-135m", strict=True)
    dtype: str = Field(default="float32", strict=True)
    method: str = "rome"
    hyperparameters: dict[str, Any] = Field(default_factory=dict)
    regularizer: dict[str, Any] = Field(default_factory=lambda: {"kind": "Unregularized"})
    accumulated: dict[str, Any] | None = None
    feed_back: bool = Field(default=False, strict=True)
    guard: GuardSpec | None = None
    setting: Literal["single", "sequential"] = "sequential"
    batch_size: int = Field(default=1, ge=1, le=MOST_FACTS, strict=True)
    n_operations: int = Field(ge=1, le=MOST_FACTS, strict=True)
    checkpoints: tuple[StrictInt, ...] = ()
    facts: FactsSpec = FactsSpec()
    tasks: TasksSpec | None = TasksSpec()
    perplexity: PerplexitySpec | None = PerplexitySpec()
    drift: DriftSpec | None = None
    edit_protocols: tuple[EditProtocol, ...] = Field(default=DEFAULT_PROTOCOLS, min_length=1)
    assessed: int | None = Field(default=None, ge=1, le=MOST_FACTS, strict=True)
    seed: int = Field(default=0, ge=0, le=LARGEST_SEED, strict=True)

    @field_validator("model")
    @classmethod
    def _check_model(cls, model: str) -> str:
        require_path(model, "the model", ModelError)
        return model

    @field_validator("dtype")
    @classmethod
    def _check_dtype(cls, dtype: str) -> str:
        dtype_of(dtype)
        return dtype

    @field_validator("method")
    @classmethod
    def _check_method(cls, method: str) -> str:
        method_row(method)
        return method

    @field_validator("hyperparameters")
    @classmethod
    def _check_hyperparameters(cls, fields: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        if "method" in info.data:  # else its own error is raised
            method_row(info.data["method"]).check_fields(fields)
            _check_values(method_row(info.data["method"]).editor, fields)
        return fields

    @field_validator("regularizer", "accumulated")
    @classmethod
    def _check_regularizer(cls, settings: dict[str, Any] | None) -> dict[str, Any] | None:
        try:
            from_settings(settings or {"kind": "Unregularized"})
        except TypeError as err:  # a field without a default is missing
            raise ValueError(f"{settings} does not make a regularizer: {err}") from err
        return settings

    @model_validator(mode="after")
    def _check_together(self) -> "ExperimentSpec":
        if self.batch_size > 1 and not method_row(self.method).supports_batch:
            raise ValueError(
                f"{self.method} edits one fact per operation, so batch_size must be 1; got {self.batch_size}"
            )
        if self.feed_back and self.accumulated is None:
            raise ValueError("feed_back needs a regularizer in accumulated; give one, such as {'kind': 'PRUNE'}")
        outside = [t for t in self.checkpoints if not 0 <= t <= self.n_operations]
        if outside:
            raise ValueError(f"checkpoint {outside[0]} lies outside 0 to n_operations, {self.n_operations}")
        if self.assessed is not None and self.assessed >= self.n_facts:  # the same trajectory as without the field
            object.__setattr__(self, "assessed", None)
        object.__setattr__(self, "checkpoints", tuple(sorted({*(self.checkpoints or (0,)), self.n_operations})))
        for t in (self.tasks and self.tasks.written_at) or ():
            if t not in self.checkpoints:
                known = ", ".join(map(str, self.checkpoints))
                raise ValueError(f"tasks.written_at names {t}, which is none of the checkpoints {known}")
        return self

    @property
    def setting_name(self) -> str:
        """Name of the setting in the paper: single or sequential, instance or batch."""
        return f"{self.setting}-{'instance' if self.batch_size == 1 else 'batch'}"

    @property
    def n_facts(self) -> int:
        """Number of facts of all operations."""
        return self.n_operations * self.batch_size

    @property
    def assessed_facts(self) -> tuple[int, ...]:
        """Numbers of the facts, from 0, whose edit metrics are measured."""
        count = self.assessed or self.n_facts
        return tuple(i * self.n_facts // count for i in range(count))

    def make_regularizer(self, operation: int = 1) -> Regularizer:
        """Return the regularizer of an operation, from 1; a random one draws other entries in each operation."""
        regularizer = from_settings(self.regularizer)
        if hasattr(regularizer, "seed") and "seed" not in self.regularizer:
            regularizer = from_settings({**self.regularizer, "seed": self.seed})
        return for_operation(regularizer, operation)

    def make_accumulated(self) -> Regularizer | None:
        """Return the regularizer of the accumulated update, if there is one."""
        return None if self.accumulated is None else from_settings(self.accumulated)

    @property
    def regularizer_label(self) -> str:
        """Name in tables and legends: regularizers of one edit and of the sum, whether it is fed back, the guard."""
        own, accumulated = self.make_regularizer(), self.make_accumulated()
        parts = [] if isinstance(own, Unregularized) else [own.label]
        if accumulated is not None:
            parts.append(f"{accumulated.label} of the sum{' fed back' if self.feed_back else ''}")
        if self.guard is not None:
            parts.append("guard")
        return ", ".join(parts) or own.label

    def make_editor(self, lm: LanguageModel) -> Editor:
        """Return the method with its preset for `lm`, the hyperparameters, and the seed unless they contain one."""
        fields = self.hyperparameters
        if "seed" not in fields and "seed" in method_row(self.method).editor.__dataclass_fields__:
            fields = {**fields, "seed": self.seed}
        return make_editor(self.method, lm, fields)

    def __str__(self) -> str:
        """Return a description of the trajectory in one line."""
        size = f" × {self.batch_size}" if self.batch_size > 1 else ""
        label = self.regularizer_label
        return f"{self.model}, {self.method}, {label}, {self.setting} {self.n_operations}{size}, seed {self.seed}"


def _check_values(editor: type, fields: Mapping[str, Any]) -> None:
    """Check hyperparameters that are numbers, texts or lists of them; others are checked when the method is made."""
    declared = parameters_of(editor)
    for name, value in fields.items():
        if declared[name].kind in (bool, float, int, str, tuple):
            declared[name].check(from_plain(value))


def _sentence(err: ValidationError) -> str:
    """Return the first error of the validation, and where it is, in one sentence."""
    first = err.errors()[0]
    where, cause = ".".join(map(str, first["loc"])), (first.get("ctx") or {}).get("error")
    if cause is not None:
        return f"{where}: {cause}" if where else f"{cause}."
    if first["type"] == "extra_forbidden":
        return f"{where} is not a field of a spec; known: {', '.join(ExperimentSpec.model_fields)}."
    return f"{where}: {first['msg']}; got {shown(first['input'])}."
