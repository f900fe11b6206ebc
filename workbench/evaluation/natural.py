"""Answers of a model that may say what it likes: its own stop, its own length limit, no hint of the expected answer.

Yang et al. 2025 (arXiv 2502.11177) show that teacher forcing, and decoding for just the length of the target, leak the
target: edits that score 97 % there succeed in 39 % of the cases where the model answers by itself. Here the model
continues greedily up to the end of its text, the end of its first line with text, or `MAX_NEW_TOKENS`. A period does
not end an answer, because names contain periods ("St. Petersburg", "J. R. R. Tolkien").

A protocol is a form of the prompt and a comparison of the text with the accepted answers. The name is ``natural``, then
the form (none for the bare prompt, ``_qa``, ``_chat``), then the comparison (none for containment, ``_exact``):

- **containment**: the text contains an accepted answer as a run of whole words (`contains_answer`). It also counts
  "Rome, or perhaps Paris" and "Rome Rome Rome", so it bounds the judgment of a reader from above.
- **exact match**: the text is an accepted answer and nothing else (`answers_match`). It refuses "Rome, Italy" and a
  sentence that goes on, so it bounds the judgment of a reader from below.

Departures from the published code (WanliYoung/Revisit-Editing-Evaluation, `evaluate_utils.py`), which decodes up to 50
tokens, stops at a period or any newline, and lets GPT-4o-mini judge or, without it, compares for an exact match: no
stop at a period; empty lines before the text are skipped; 20 tokens, which hold every answer of the data sets; each
model's own chat template instead of Llama 2's; and no judge.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from workbench.encoding import encode
from workbench.evaluation.decoding import continue_greedily, decode_text
from workbench.evaluation.engine import Query, render_prompt
from workbench.evaluation.row_updates import RowUpdates
from workbench.evaluation.text import answers_match, contains_answer
from workbench.lm import LanguageModel
from workbench.storage.cache import compute_missing
from workbench.update import WeightUpdate

PromptForm = Literal["bare", "qa", "chat"]

MAX_NEW_TOKENS = 20
QA_TEMPLATE = "Please answer the question:\n\nQ: {}\nA:"  # of the published code, `context_type: "qa_inst"`

_MEMO = "natural answers"


@dataclass(frozen=True)
class NaturalProtocol:
    """How a prompt is put to the model, and how its text is compared with an answer."""

    form: PromptForm
    exact: bool  # the text must be the answer; otherwise it must contain it

    def accepts(self, text: str, answer: str) -> bool:
        """Return whether a text of the model gives an answer."""
        return answers_match(text, answer) if self.exact else contains_answer(text, answer)

    def expects_of_unedited(self, text: str, target: str) -> str:
        """Return the answer that the unedited model gave in `text` to a locality probe with this target.

        It is what the edited model must still say: the target if the text contains it, otherwise the whole text, and
        always the whole text for exact match.
        """
        return target if not self.exact and contains_answer(text, target) else text


NATURAL_PROTOCOLS = {
    "natural": NaturalProtocol("bare", exact=False),
    "natural_exact": NaturalProtocol("bare", exact=True),
    "natural_qa": NaturalProtocol("qa", exact=False),
    "natural_qa_exact": NaturalProtocol("qa", exact=True),
    "natural_chat": NaturalProtocol("chat", exact=False),
    "natural_chat_exact": NaturalProtocol("chat", exact=True),
}


def has_form(lm: LanguageModel, form: PromptForm) -> bool:
    """Return whether a model takes prompts of this form: chat needs a chat template."""
    return form != "chat" or bool(lm.tokenizer.chat_template)


def answer_naturally(
    lm: LanguageModel, prompts: Sequence[str], form: PromptForm = "bare", *, batch_size: int = 64
) -> list[str]:
    """Return what the current model says to prompts.

    Parameters
    ----------
    lm : LanguageModel
        The model with its current weights. While no update is applied, its answers are kept in its memo.
    prompts : sequence of str
        The prompts, without instruction or template.
    form : str
        `bare`, `qa` (`QA_TEMPLATE`) or `chat` (the model's chat template, which it must have).
    batch_size : int
        Number of prompts per forward pass; it does not affect the answers.

    Returns
    -------
    list of str
        The first line with text of each greedy continuation, without special tokens and surrounding white space; empty
        if there is none within `MAX_NEW_TOKENS`.
    """
    rows = [encode_prompt(lm, prompt, form) for prompt in prompts]
    return compute_missing(
        lm.unedited_memo(_MEMO), rows, lambda missing: _continue_to_line_end(lm, missing, batch_size)
    )


def answer_unedited(
    lm: LanguageModel, prompts: Sequence[str], form: PromptForm = "bare", *, batch_size: int = 64
) -> list[str]:
    """Return what the unedited model says to prompts: `answer_naturally` of it, computed once for each prompt."""

    def compute(missing: list[tuple[int, ...]]) -> list[str]:
        with lm.unedited():
            return _continue_to_line_end(lm, missing, batch_size)

    rows = [encode_prompt(lm, prompt, form) for prompt in prompts]
    return compute_missing(lm.memo.section(_MEMO), rows, compute)


def answer_side_by_side(
    lm: LanguageModel,
    updates: Sequence[WeightUpdate],
    prompts: Sequence[str],
    form: PromptForm = "bare",
    *,
    batch_size: int = 64,
) -> list[list[str]]:
    """Return what the model says to prompts with each of several updates, all of which write together.

    Writing takes one token at a time, and a pass of a few rows waits for the weights: many rows take little longer.

    Parameters
    ----------
    lm : LanguageModel
        The model with its current weights, to which each update is added by itself; not changed.
    updates : sequence of WeightUpdate
        Updates of linear layers; see `RowUpdates.of` for the memory that they take.
    prompts, form, batch_size
        As for `answer_naturally`; a row is a prompt under an update.

    Returns
    -------
    list of list of str
        For each update, the answers to all prompts.

    Raises
    ------
    UpdateError
        If an update is of another model or not finite, or makes weights that are not.
    """
    rows = [encode_prompt(lm, prompt, form) for prompt in prompts]
    of_rows = RowUpdates.of_each(lm, updates, len(rows))
    texts = iter(_continue_to_line_end(lm, rows * len(updates), batch_size, of_rows))
    return [[next(texts) for _ in rows] for _ in updates]


def encode_prompt(lm: LanguageModel, prompt: str, form: PromptForm) -> tuple[int, ...]:
    """Return the token ids of a prompt in its form, after which the model answers."""
    text = QA_TEMPLATE.format(prompt) if form == "qa" else prompt
    text, special = render_prompt(lm, Query(text, chat=form == "chat"))
    return encode(lm.tokenizer, text, add_special_tokens=special).ids


def _continue_to_line_end(
    lm: LanguageModel, rows: Sequence[tuple[int, ...]], batch_size: int, updates: RowUpdates | None = None
) -> list[str]:
    def has_line(tokens: Sequence[int]) -> bool:
        return "\n" in decode_text(lm, tokens).lstrip()

    unknown, limits = [()] * len(rows), [MAX_NEW_TOKENS] * len(rows)
    continuations = continue_greedily(
        lm, rows, unknown, limits, batch_size=batch_size, is_complete=has_line, updates=updates
    )
    return [decode_text(lm, tokens).strip().split("\n", 1)[0].strip() for tokens in continuations]
