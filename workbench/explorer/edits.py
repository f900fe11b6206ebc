"""What a session of the explorer keeps of its edits, and shows of its prompts."""

from dataclasses import dataclass

from workbench.editing.editor import Editor
from workbench.editing.kn import KN
from workbench.editing.passes.attribution import n_passes
from workbench.lm import LanguageModel
from workbench.regularize import Regularizer
from workbench.request import EditRequest
from workbench.update import WeightUpdate

_BEFORE_STEPS = 3  # forward passes of ROME and MEMIT before their first step
_PREDICTING = 1  # KN's, of the token whose neurons it looks for


@dataclass(frozen=True, eq=False)
class Edit:
    """One edit of a session.

    Attributes
    ----------
    request : EditRequest
        The fact.
    editor : Editor
        The method with all its hyperparameters, contexts included.
    raw : WeightUpdate
        What the method computed.
    seconds : float
        How long that took.
    regularizer : Regularizer
        What it went through.
    update : WeightUpdate
        What came out.
    total : WeightUpdate
        The sum of all edits up to this one.
    growth : dict
        From `growth_row`, of `total`.
    """

    request: EditRequest
    editor: Editor
    raw: WeightUpdate
    seconds: float
    regularizer: Regularizer
    update: WeightUpdate
    total: WeightUpdate
    growth: dict[str, float]


@dataclass(frozen=True)
class Continued:
    """How a prompt goes on, before and after the edits."""

    prompt: str
    before: str
    after: str


def expected_passes(editor: Editor, lm: LanguageModel) -> int | None:
    """About how many forward passes an edit takes at most; None where its hyperparameters do not say."""
    if isinstance(editor, KN) and editor.attributed == "predicted":
        return n_passes(lm, len(editor.contexts)) + _PREDICTING
    for field in ("v_num_grad_steps", "num_steps"):
        if (steps := getattr(editor, field, None)) is not None:
            return steps + _BEFORE_STEPS
    return None
