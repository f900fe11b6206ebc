"""What a session of the explorer keeps of its edits and shows of its prompts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from workbench.assessment import Assessment
from workbench.editing.editor import Editor
from workbench.editing.kn import KN
from workbench.editing.passes.attribution import count_passes
from workbench.errors import EditError
from workbench.evaluation.predictions import BeforeAfter
from workbench.lm import LanguageModel
from workbench.registry import methods
from workbench.request import EditRequest
from workbench.sequence_parts import SequenceEdit

_BEFORE_STEPS = 3  # forward passes of ROME and MEMIT before their first step
_PREDICTING = 1  # forward pass of KN that predicts the token whose neurons it looks for


@dataclass(frozen=True, eq=False)
class Edit(SequenceEdit):
    """One edit of a session.

    Attributes
    ----------
    request : EditRequest
        The fact.
    editor : Editor
        The method with all its hyperparameters, context templates included.
    growth : dict of str to float
        `growth_row` of the sum of all edits up to this one.
    risk : Assessment
        What the regularized update does to the model with all earlier edits.
    """

    request: EditRequest
    editor: Editor
    growth: dict[str, float]
    risk: Assessment


class Answers(NamedTuple):
    """Answers of the unedited and the edited model.

    Attributes
    ----------
    prompts : list of BeforeAfter
        To the prompts of one fact: its own prompt, rephrasings, locality probes, one-hop questions.
    history : list of BeforeAfter
        To the prompt of each edit, in order.
    """

    prompts: list[BeforeAfter]
    history: list[BeforeAfter]


@dataclass(frozen=True)
class Continuation:
    """The greedy continuations of a prompt by the unedited and the edited model."""

    prompt: str
    before: str
    after: str


def expected_passes(editor: Editor, lm: LanguageModel) -> int | None:
    """Return about how many forward passes an edit takes at most; None where its hyperparameters do not say."""
    if isinstance(editor, KN) and editor.attributed == "predicted":
        return editor.times * (count_passes(lm, len(editor.contexts or ())) + _PREDICTING)
    for field in {row.options.get("steps", "") for row in methods().values()}:
        if (steps := getattr(editor, field, None)) is not None:
            return int(steps) + _BEFORE_STEPS
    return None


def check_prompts(lm: LanguageModel, prompts: Sequence[str], ids: Sequence[tuple[int, ...]], n_tokens: int) -> None:
    """Raise `EditError` unless the model can continue all prompts, with their token ids, by `n_tokens`."""
    if not prompts or not all(prompt.strip() for prompt in prompts):
        raise EditError("there is no prompt to continue; type at least one.")
    if n_tokens < 1:
        raise EditError(f"the number of tokens must be at least 1; got {n_tokens}.")
    if lm.max_tokens and (length := max(map(len, ids)) + n_tokens) > lm.max_tokens:
        raise EditError(f"prompt and continuation have {length} tokens; {lm.name} takes {lm.max_tokens}.")
