"""MEND's losses after an edit, through which its hypernetworks learn (Mitchell et al. 2022, section 3.3)."""

import random
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from workbench.editing.mend.corpus import Corpus
from workbench.editing.mend.factors import module_of
from workbench.editing.mend.network import MendNetwork
from workbench.editing.passes.hooks import hooked
from workbench.editing.passes.target_texts import target_nll
from workbench.lm import LanguageModel


@dataclass(frozen=True)
class Draw:
    """One fact of an edit, with the texts that its losses read."""

    fact: int
    same: tuple[int, ...]
    apart: tuple[int, ...]


@dataclass(frozen=True)
class Losses:
    """Means over the facts of some edits."""

    edit: Tensor  # L_e: NLL of the new target after the edit, on the prompt and a rephrasing
    locality: Tensor  # L_loc: KL(before ‖ after) at the tokens of unrelated targets
    edit_accuracy: float  # share of the new targets' tokens that are the argmax
    locality_agreement: float  # share of tokens elsewhere where the argmax stays


def draw_edits(corpus: Corpus, n_facts: int, batch_sizes: Sequence[int], *, seed: str) -> list[list[Draw]]:
    """Edits of one training step; the same seed always gives the same.

    Parameters
    ----------
    corpus : Corpus
        Of the training facts.
    n_facts : int
        How many in all; one is always left out.
    batch_sizes : sequence of int
        One of them is drawn: how many facts make one edit, if that divides their number.
    seed : str
        Of the draw.

    Returns
    -------
    list of list of Draw
        Edits of one size.
    """
    rng, everything = random.Random(seed), range(len(corpus.facts))
    size, n_facts = rng.choice(batch_sizes), min(n_facts, len(everything) - 1)
    size = size if n_facts % size == 0 else 1
    chosen = rng.sample(everything, n_facts)
    others = sorted(set(everything) - set(chosen))
    return [[draw_texts(corpus, i, others, rng) for i in chosen[k : k + size]] for k in range(0, n_facts, size)]


def draw_texts(corpus: Corpus, index: int, others: Sequence[int], rng: random.Random) -> Draw:
    """The texts that a fact's losses read.

    Parameters
    ----------
    corpus : Corpus
        Holds the fact.
    index : int
        Which one.
    others : sequence of int
        Facts that no edit of this step writes, at least one.
    rng : random.Random
        Draws.

    Returns
    -------
    Draw
        Its prompt and a rephrasing; a locality probe of its own and the prompt of another fact.
    """
    fact, other = corpus.facts[index], corpus.facts[rng.choice(others)]
    same = (fact.edit, rng.choice(fact.same or (fact.edit,)))
    return Draw(index, same, (rng.choice(fact.apart or (other.before,)), other.before))


def losses_after(corpus: Corpus, network: MendNetwork, edits: Sequence[Sequence[Draw]]) -> Losses:
    """L_e and L_loc of Mitchell et al. 2022, eq. 4, over edits made side by side.

    Parameters
    ----------
    corpus : Corpus
        Of the facts drawn.
    network : MendNetwork
        Gradients flow to it.
    edits : sequence of sequence of Draw
        E edits of N facts each.

    Returns
    -------
    Losses
    """
    changes = edit_factors(corpus, network, [[draw.fact for draw in edit] for edit in edits])
    same = [i for edit in edits for draw in edit for i in draw.same]
    apart = [i for edit in edits for draw in edit for i in draw.apart]
    with edited(corpus.lm, changes):
        after = corpus.upper(same).logits()
    texts = [corpus.texts[i].target_ids for i in same]
    targets = torch.tensor([token for ids in texts for token in ids], device=after.device)
    upper = corpus.upper(apart)
    with torch.no_grad():
        unedited = upper.logits()
    with edited(corpus.lm, changes):
        elsewhere = upper.logits()
    kept = (unedited.argmax(dim=-1) == elsewhere.argmax(dim=-1)).double().mean()
    before, now = (logits.to(network.log_edit_lr.dtype).log_softmax(dim=-1) for logits in (unedited, elsewhere))
    return Losses(
        target_nll(after, texts).mean(),
        (before.exp() * (before - now)).sum(dim=-1).mean(),
        float((after.argmax(dim=-1) == targets).double().mean()),
        float(kept),
    )


def edit_factors(
    corpus: Corpus, network: MendNetwork, edits: Sequence[Sequence[int]]
) -> dict[str, tuple[Tensor, Tensor]]:
    """Factors of the edits of some facts, edits side by side and filled up with zeros.

    Parameters
    ----------
    corpus : Corpus
        Holds the gradients' factors.
    network : MendNetwork
        Transforms them.
    edits : sequence of sequence of int
        E edits, each of some facts.

    Returns
    -------
    dict of str to (Tensor, Tensor)
        left (E, R, d_out) and right (E, R, d_in) of each parameter; ΔW of edit e is left[e]ᵀ @ right[e].
    """
    facts = [i for edit in edits for i in edit]
    changes = {}
    for name in network.names:
        rows = [corpus.factors[i][name] for i in facts]
        left, right = network(name, torch.cat([u for u, _ in rows]), torch.cat([delta for _, delta in rows]))
        sizes = iter([len(u) for u, _ in rows])
        per_edit = [sum(next(sizes) for _ in edit) for edit in edits]
        changes[name] = tuple(pad_sequence(list(part.split(per_edit)), batch_first=True) for part in (left, right))
    return changes


@contextmanager
def edited(lm: LanguageModel, changes: dict[str, tuple[Tensor, Tensor]]) -> Iterator[None]:
    """A model in which each of E equal parts of every batch sees its own edit, for the time of the block.

    No weight is written: each edited layer adds (x @ rightᵀ) @ left, through which gradients flow.

    Parameters
    ----------
    lm : LanguageModel
        Not changed.
    changes : dict of str to (Tensor, Tensor)
        As `edit_factors` gives.
    """

    def adder(left: Tensor, right: Tensor):
        def add(module, args, output):
            x = args[0].reshape(len(right), -1, right.shape[-1])  # (E, rows · T, d_in)
            return output + (x @ right.transpose(1, 2).to(x) @ left.to(x)).reshape(output.shape)

        return add

    with ExitStack() as stack:
        for name, (left, right) in changes.items():
            stack.enter_context(hooked(module_of(lm, name), adder(left, right)))
        yield
