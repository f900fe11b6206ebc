"""Training facts for MEND: their split into disjoint sets, and their texts, run once up to the edited blocks."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from workbench.data.facts import FactSet
from workbench.editing.mend.factors import Factors, gradient_factors, lowest_block
from workbench.editing.passes.target_texts import compute_upper_blocks, pad_texts
from workbench.editing.passes.upper_blocks import UpperBlocks
from workbench.encoding import Encoded, encode
from workbench.errors import RequestError
from workbench.forward import batch_by_length
from workbench.lm import LanguageModel
from workbench.request import EditRequest

_TEXTS_AT_ONCE = 32


@dataclass(frozen=True)
class Splits:
    """Facts for training, early stopping and reports.

    Attributes
    ----------
    train, validation, test : tuple of EditRequest
        The three sets; no prompt filled with its subject occurs in two of them.
    n_dropped : int
        Number of records left out because another set, or an excluded file, holds the same subject and prompt.
    """

    train: tuple[EditRequest, ...]
    validation: tuple[EditRequest, ...]
    test: tuple[EditRequest, ...]
    n_dropped: int


def split_facts(
    sources: Sequence[FactSet], *, hold_out: int, validation: int, seed: int, exclude: Sequence[FactSet] = ()
) -> Splits:
    """Split facts into training, validation and test sets.

    Parameters
    ----------
    sources : sequence of FactSet
        The facts; the test set is ``sources[0].sample(hold_out, seed=seed)``.
    hold_out, validation : int
        Sizes of the test and validation sets; `hold_out` may be 0.
    seed : int
        Seed of both draws.
    exclude : sequence of FactSet
        Facts whose subject and prompt must not be trained on.

    Returns
    -------
    Splits

    Raises
    ------
    RequestError
        If there are not that many facts.
    """
    test = sources[0].sample(hold_out, seed=seed) if hold_out else ()
    barred = {request.filled_prompt for facts in exclude for request in facts.requests}
    barred |= {request.filled_prompt for request in test}
    everything = [request for facts in sources for request in facts.requests]
    left = list({r.filled_prompt: r for r in everything if r.filled_prompt not in barred}.values())
    if not 2 <= validation <= len(left) - 2:
        raise RequestError(
            f"{len(left)} facts are left to train on and validate with: validation must lie in 2 to {len(left) - 2}; "
            f"got {validation}."
        )
    random.Random(seed).shuffle(left)
    n_dropped = len(everything) - len(left) - len(test)
    return Splits(tuple(left[validation:]), tuple(left[:validation]), test, n_dropped)


@dataclass(frozen=True)
class FactTexts:
    """Numbers of a fact's texts in a corpus."""

    edit: int  # the prompt and the new target
    rephrased: tuple[int, ...]  # the rephrasings and the new target, to which the edit should generalize
    unrelated: tuple[int, ...]  # the locality probes, which the edit should not change
    before: int  # the prompt and the true target, which edits of other facts should not change


class Corpus:
    """Facts whose texts are run once up to the first edited block, with the factors of their edit losses.

    What is below that block does not depend on an edit, and the gradient before an edit does not depend on what is
    trained.

    Parameters
    ----------
    lm : LanguageModel
        The unedited model, whose weights must not change.
    requests : sequence of EditRequest
        The facts.
    names : sequence of str
        Names of the edited parameters.

    Attributes
    ----------
    facts : list of FactTexts
        Texts of each request.
    texts : list of Encoded
        The encoded texts, by number.
    factors : list of Factors
        Factors of the gradient of each request's edit loss.
    n_tokens : int
        Number of tokens of all texts.
    """

    def __init__(self, lm: LanguageModel, requests: Sequence[EditRequest], names: Sequence[str]) -> None:
        self.lm, self._names = lm, tuple(names)
        self._layer = lowest_block(lm, names)
        self._numbers: dict[Encoded, int] = {}
        self.facts = [self._encode_texts(request) for request in requests]
        self.texts = list(self._numbers)
        self._block_inputs: list[Tensor] = [torch.empty(0)] * len(self.texts)
        self._compute_block_inputs()
        self.factors: list[Factors] = [{} for _ in self.facts]
        self._compute_factors()
        self.n_tokens = sum(len(text.ids) for text in self.texts)

    def _encode_texts(self, request: EditRequest) -> FactTexts:
        def number(prompt: str, target: str) -> int:
            return self._numbers.setdefault(encode(self.lm.tokenizer, prompt, target), len(self._numbers))

        return FactTexts(
            number(request.filled_prompt, request.target_new),
            tuple(number(text, request.target_new) for text in request.filled_rephrase),
            tuple(number(probe.prompt, probe.target) for probe in request.locality),
            number(request.filled_prompt, request.target_true or request.target_new),
        )

    def _compute_block_inputs(self) -> None:
        for batch in batch_by_length([len(text.ids) for text in self.texts], _TEXTS_AT_ONCE):
            upper = compute_upper_blocks(self.lm, [self.texts[i] for i in batch], self._layer)
            self._like = replace(upper, block_input=torch.empty(0))
            for i, row in zip(batch, upper.block_input, strict=True):
                self._block_inputs[i] = row[: len(self.texts[i].ids) - 1].clone()

    def _compute_factors(self) -> None:
        edits = [fact.edit for fact in self.facts]
        for batch in batch_by_length([len(self.texts[i].ids) for i in edits], _TEXTS_AT_ONCE):
            rows = [edits[i] for i in batch]
            found, _ = gradient_factors(self.upper(rows), [self.texts[i] for i in rows], self._names)
            for i, factors in zip(batch, found, strict=True):
                self.factors[i] = factors

    def upper(self, rows: Sequence[int]) -> UpperBlocks:
        """Return some of the texts, to be run from the first edited block up.

        Parameters
        ----------
        rows : sequence of int
            Numbers of the texts.

        Returns
        -------
        UpperBlocks
            (B, T), padded on the right.
        """
        batch, read = pad_texts(self.lm, [self.texts[i] for i in rows])
        return replace(
            self._like,
            ids=batch.ids,
            positions=batch.positions,
            mask=batch.mask,
            read=read,
            block_input=pad_sequence([self._block_inputs[i] for i in rows], batch_first=True),
        )
