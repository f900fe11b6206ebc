"""MEND's losses after an edit, on which its hypernetworks are trained (Mitchell et al. 2022, section 3.3)."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from workbench.editing.mend.corpus import Corpus
from workbench.editing.mend.factors import module_of
from workbench.editing.mend.network import MendNetwork
from workbench.editing.passes.hooks import Hook, Hooks
from workbench.forward import target_nll
from workbench.lm import LanguageModel


@dataclass(frozen=True)
class Draw:
    """One fact of an edit, with the texts that its losses are computed on, if any, by their numbers in the corpus."""

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


def sizes_that_fit(batch_sizes: Sequence[int], *, n_facts: int, n_known: int) -> tuple[int, ...]:
    """Return the batch sizes that can be drawn from some training facts; (1,) if there is none.

    Parameters
    ----------
    batch_sizes : sequence of int
        The wanted numbers of facts per edit.
    n_facts : int
        Number of facts per step whose losses are computed.
    n_known : int
        Number of training facts, of which at least one must be left out of a step.

    Returns
    -------
    tuple of int
        Sizes that divide the number of facts per step, and larger ones.
    """
    n_facts = min(n_facts, n_known - 1)
    return tuple(n for n in batch_sizes if n_facts % n == 0 or n_facts < n < n_known) or (1,)


def draw_edits(corpus: Corpus, n_facts: int, batch_sizes: Sequence[int], *, seed: str) -> list[list[Draw]]:
    """Draw the edits of one training step; the same seed always gives the same edits.

    Parameters
    ----------
    corpus : Corpus
        The training facts.
    n_facts : int
        Number of facts whose losses are computed; at least one fact of the corpus is left out.
    batch_sizes : sequence of int
        Possible numbers of facts per edit, of which one that fits is drawn. If it is larger than `n_facts`, one edit of
        that many facts is drawn, whose losses are computed on the first `n_facts` of them: an unbiased estimate of
        those of all.
    seed : str
        Seed of the draw.

    Returns
    -------
    list of list of Draw
        Edits of the same size.
    """
    rng, everything = random.Random(seed), range(len(corpus.facts))
    size = rng.choice(sizes_that_fit(batch_sizes, n_facts=n_facts, n_known=len(everything)))
    n_facts = min(n_facts, len(everything) - 1)
    chosen = rng.sample(everything, max(n_facts, size))
    others = sorted(set(everything) - set(chosen))
    draws = [draw_texts(corpus, i, others, rng) for i in chosen[:n_facts]]
    draws += [Draw(i, (), ()) for i in chosen[n_facts:]]
    return [draws[k : k + size] for k in range(0, len(draws), size)]


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
        E edits of N facts each. A fact without texts takes part in its edit, not in the losses.

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
        Indices of the facts of each of E edits of the same size.

    Returns
    -------
    dict of str to (Tensor, Tensor)
        left (E, R, d_out) and right (E, R, d_in) of each parameter; ΔW of edit e is left[e]ᵀ @ right[e].
    """
    facts = [i for edit in edits for i in edit]
    (n_facts,) = {len(edit) for edit in edits}
    changes = {}
    for name in network.names:
        rows = [corpus.factors[i][name] for i in facts]
        left, right = network(name, torch.cat([u for u, _ in rows]), torch.cat([delta for _, delta in rows]), n_facts)
        sizes = iter([len(u) for u, _ in rows])
        per_edit = [sum(next(sizes) for _ in edit) for edit in edits]
        left, right = (pad_sequence(list(part.split(per_edit)), batch_first=True) for part in (left, right))
        changes[name] = (left, right)
    return changes


def edits_applied(lm: LanguageModel, changes: Mapping[str, tuple[Tensor, Tensor]]) -> Hooks:
    """Let each of E equal parts of every batch see its own edit inside a ``with`` block.

    No weight is written: each edited layer adds (x @ rightᵀ) @ left, through which gradients flow.

    Parameters
    ----------
    lm : LanguageModel
        The model, which is not changed.
    changes : mapping of str to (Tensor, Tensor)
        Factors of the edits by parameter, as `edit_factors` returns them.

    Returns
    -------
    Hooks
        The context manager.
    """

    def make_hook(left: Tensor, right: Tensor) -> Callable[..., Tensor]:
        def add(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
            x = args[0].reshape(len(right), -1, right.shape[-1])  # (E, rows · T, d_in)
            return output + (x @ right.transpose(1, 2).to(x) @ left.to(x)).reshape(output.shape)

        return add

    return Hooks(Hook(module_of(lm, name), make_hook(left, right)) for name, (left, right) in changes.items())
