"""MEND's losses after an edit, on which its hypernetworks are trained (Mitchell et al. 2022, section 3.3)."""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from workbench.editing.mend.corpus import Corpus
from workbench.editing.mend.factors import module_of
from workbench.editing.mend.network import MendNetwork
from workbench.editing.passes.hooks import hooked
from workbench.forward import target_nll
from workbench.lm import LanguageModel


@dataclass(frozen=True)
class Draw:
    """One fact of an edit, with the texts that its losses are computed on, by their numbers in the corpus."""

    fact: int
    edited: tuple[int, ...]  # texts whose target should become probable
    unrelated: tuple[int, ...]  # texts on which the model should not change


@dataclass(frozen=True)
class Losses:
    """Losses after some edits: means over their facts."""

    edit: Tensor  # L_e: NLL of the new target after the edit, on the prompt and a rephrasing
    locality: Tensor  # L_loc: KL(before ‖ after) at the tokens of unrelated targets
    edit_accuracy: float  # share of the new targets' tokens that are the argmax
    locality_agreement: float  # share of the unrelated targets' tokens where the argmax is unchanged


def draw_edits(corpus: Corpus, n_facts: int, batch_sizes: Sequence[int], *, seed: str) -> list[list[Draw]]:
    """Draw the edits of one training step; the same seed always gives the same edits.

    Parameters
    ----------
    corpus : Corpus
        The training facts.
    n_facts : int
        Number of facts to draw; at least one fact of the corpus is left out.
    batch_sizes : sequence of int
        Possible numbers of facts per edit, of which one is drawn; 1 is used if it does not divide the number of facts.
    seed : str
        Seed of the draw.

    Returns
    -------
    list of list of Draw
        Edits of the same size.
    """
    rng, everything = random.Random(seed), range(len(corpus.facts))
    size, n_facts = rng.choice(batch_sizes), min(n_facts, len(everything) - 1)
    size = size if n_facts % size == 0 else 1
    chosen = rng.sample(everything, n_facts)
    others = sorted(set(everything) - set(chosen))
    return [[draw_texts(corpus, i, others, rng) for i in chosen[k : k + size]] for k in range(0, n_facts, size)]


def draw_texts(corpus: Corpus, index: int, others: Sequence[int], rng: random.Random) -> Draw:
    """Draw the texts on which a fact's losses are computed.

    Parameters
    ----------
    corpus : Corpus
        The facts.
    index : int
        Index of the fact.
    others : sequence of int
        Indices of facts that no edit of this step writes, at least one.
    rng : random.Random
        Random generator of the draw.

    Returns
    -------
    Draw
        The prompt and a rephrasing of the fact; one of its locality probes and the prompt of another fact.
    """
    fact, other = corpus.facts[index], corpus.facts[rng.choice(others)]
    edited = (fact.edit, rng.choice(fact.rephrased or (fact.edit,)))
    return Draw(index, edited, (rng.choice(fact.unrelated or (other.before,)), other.before))


def losses_after(corpus: Corpus, network: MendNetwork, edits: Sequence[Sequence[Draw]]) -> Losses:
    """Compute L_e and L_loc of Mitchell et al. 2022, eq. 4, over edits made side by side.

    Parameters
    ----------
    corpus : Corpus
        The facts that the edits were drawn from.
    network : MendNetwork
        The networks, to which gradients flow.
    edits : sequence of sequence of Draw
        E edits of N facts each.

    Returns
    -------
    Losses
    """
    changes = edit_factors(corpus, network, [[draw.fact for draw in edit] for edit in edits])
    numbers = [i for edit in edits for draw in edit for i in draw.edited]
    with edits_applied(corpus.lm, changes):
        logits = corpus.upper(numbers).logits()
    targets = [corpus.texts[i].target_ids for i in numbers]
    tokens = torch.tensor([token for ids in targets for token in ids], device=logits.device)
    upper = corpus.upper([i for edit in edits for draw in edit for i in draw.unrelated])
    with torch.no_grad():
        logits_before = upper.logits()
    with edits_applied(corpus.lm, changes):
        logits_after = upper.logits()
    unchanged = (logits_before.argmax(dim=-1) == logits_after.argmax(dim=-1)).double().mean()
    dtype = network.log_edit_lr.dtype
    before, after = (each.to(dtype).log_softmax(dim=-1) for each in (logits_before, logits_after))
    return Losses(
        target_nll(logits, targets).mean(),
        (before.exp() * (before - after)).sum(dim=-1).mean(),
        float((logits.argmax(dim=-1) == tokens).double().mean()),
        float(unchanged),
    )


def edit_factors(
    corpus: Corpus, network: MendNetwork, edits: Sequence[Sequence[int]]
) -> dict[str, tuple[Tensor, Tensor]]:
    """Compute the factors of the edits of some facts, padded with zeros to the same rank R.

    Parameters
    ----------
    corpus : Corpus
        The facts, with the factors of their gradients.
    network : MendNetwork
        The networks that transform these factors.
    edits : sequence of sequence of int
        Indices of the facts of each of E edits.

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
        left, right = (pad_sequence(list(part.split(per_edit)), batch_first=True) for part in (left, right))
        changes[name] = (left, right)
    return changes


@contextmanager
def edits_applied(lm: LanguageModel, changes: Mapping[str, tuple[Tensor, Tensor]]) -> Iterator[None]:
    """Let each of E equal parts of every batch see its own edit inside the ``with`` block.

    No weight is written: each edited layer adds (x @ rightᵀ) @ left, through which gradients flow.

    Parameters
    ----------
    lm : LanguageModel
        The model, which is not changed.
    changes : mapping of str to (Tensor, Tensor)
        Factors of the edits by parameter, as `edit_factors` returns them.
    """

    def make_hook(left: Tensor, right: Tensor) -> Callable[..., Tensor]:
        def add(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
            x = args[0].reshape(len(right), -1, right.shape[-1])  # (E, rows · T, d_in)
            return output + (x @ right.transpose(1, 2).to(x) @ left.to(x)).reshape(output.shape)

        return add

    with ExitStack() as stack:
        for name, (left, right) in changes.items():
            stack.enter_context(hooked(module_of(lm, name), make_hook(left, right)))
        yield
