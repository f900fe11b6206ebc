"""What ROME and MEMIT optimise: the vector at each subject's last token that makes its target probable.

ROME's v* stands at the output of one MLP, MEMIT's z after a whole block; the loss is the same. Many facts are
optimised in the same forward passes.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor
from tqdm.auto import tqdm

from workbench.editing.passes.subject_tail import SubjectTail, TailRow
from workbench.editing.passes.target_texts import target_nll
from workbench.encoding import encode_request
from workbench.errors import EditError
from workbench.lm import LanguageModel
from workbench.request import EditRequest

ESSENCE = "{} is a"  # the prompt whose next-token distribution the edit should keep
_MOST_PADDING = 0.1  # of the tokens in a pass


class Settings(Protocol):
    """The hyperparameters of the optimisation, fields of `ROME` and `MEMIT`."""

    contexts: tuple[str, ...] | None
    v_num_grad_steps: int
    v_lr: float
    v_weight_decay: float
    v_loss_threshold: float
    clamp_norm_factor: float
    kl_factor: float


@dataclass(frozen=True, eq=False)
class TargetVector:
    """What was found for one fact.

    Attributes
    ----------
    offset : Tensor (d_model,)
        d, what is added at the place; float32 or wider.
    tail : SubjectTail
        The fact's prompt in its P contexts, the bare one first: `tail.start` (P, d_model) stands there without d.
    losses : list of float
        At every step.
    """

    offset: Tensor
    tail: SubjectTail
    losses: list[float]

    @property
    def target(self) -> Tensor:
        """What the bare prompt should have at the place (d_model,), float64."""
        return self.tail.start[0].double() + self.offset.double()


@dataclass(frozen=True, eq=False)
class _Texts:
    """The texts that one fact's vector is optimised over."""

    prompts: list[TailRow]  # the target in every context
    target_ids: list[tuple[int, ...]]
    essence: TailRow

    @property
    def n_tokens(self) -> int:
        """Of the longest text, from the subject's last token on."""
        return max(len(row.encoded.ids) - row.encoded.subject_last for row in self.prompts)


def optimize_target_vectors(
    lm: LanguageModel,
    requests: Sequence[EditRequest],
    tail_of: Callable[[list[TailRow]], SubjectTail],
    settings: Settings,
    *,
    facts_at_once: int = 1,
) -> Iterator[tuple[int, TargetVector]]:
    """The vector s + d that makes each request's target probable, where s stands now.

    Meng et al. 2022, eq. 4, and 2023, eq. 16, as in the published codes: Adam on d, the mean over contexts of the
    target's NLL per token + `kl_factor` · KL of "{subject} is a", read at the subject's last token + `v_weight_decay` ·
    ‖d‖/‖s‖², s being the bare prompt's, with d clamped to `clamp_norm_factor` · ‖s‖. Each fact has its own loss and
    stops by itself below `v_loss_threshold`; facts only share forward passes, at most `facts_at_once` of like length.

    Parameters
    ----------
    lm : LanguageModel
        Not changed.
    requests : sequence of EditRequest
        N facts.
    tail_of : callable
        Makes the tail of some texts: it says where the offset goes.
    settings : Settings
        Hyperparameters, with the contexts filled in.
    facts_at_once : int
        Facts whose forward passes are shared; changes time and memory, and the result only by rounding.

    Yields
    ------
    (int, TargetVector)
        Index of the request and what was found, each request once, in the order of the passes.

    Raises
    ------
    EditError
        If a loss is not finite.
    RequestError
        If a target tokenises to nothing.
    """
    texts = [_texts(lm, settings.contexts, request) for request in requests]
    with tqdm(total=len(texts), desc="Target vectors", unit="fact", disable=len(texts) == 1) as bar:
        for chosen in _groups([text.n_tokens for text in texts], facts_at_once):
            group = _Group([texts[i] for i in chosen], tail_of)
            names = [requests[i].filled_prompt for i in chosen]
            yield from zip(chosen, group.optimize(settings, names=names, bar=bar), strict=True)


def _texts(lm: LanguageModel, contexts: tuple[str, ...], request: EditRequest) -> _Texts:
    prompts, targets = [], []
    for context in contexts:
        encoded = encode_request(lm.tokenizer, request, context=context)
        targets.append(encoded.target_ids)
        shown = replace(encoded, ids=encoded.ids[:-1])  # the last target token is predicted, never read
        prompts.append(TailRow(shown, encoded.before_targets))
    essence = encode_request(lm.tokenizer, replace(request, prompt=ESSENCE), target="")
    upto = replace(essence, ids=essence.ids[: essence.subject_last + 1])
    return _Texts(prompts, targets, TailRow(upto, (essence.subject_last,)))


def _groups(lengths: Sequence[int], at_most: int) -> list[list[int]]:
    """Indices in groups of at most so many of like lengths, so that little is padding."""
    groups: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lengths.__getitem__):
        together = [*groups[-1], i] if groups else []
        tokens = sum(lengths[j] for j in together)
        if together and len(together) <= at_most and tokens >= (1 - _MOST_PADDING) * len(together) * lengths[i]:
            groups[-1].append(i)
        else:
            groups.append([i])
    return groups


class _Group:
    """Facts whose vectors are optimised in the same forward passes."""

    def __init__(self, texts: list[_Texts], tail_of: Callable[[list[TailRow]], SubjectTail]) -> None:
        prompts = [row for text in texts for row in text.prompts]
        essences = [text.essence for text in texts]
        # one token each: among the prompts they are padding for the most part, alone a pass of their own
        passes = [[*prompts, *essences]] if len(texts) == 1 else [prompts, essences]
        self._tails = [tail_of(rows) for rows in passes]
        self._n, self._n_contexts = len(texts), len(texts[0].prompts)
        self._targets = [text.target_ids for text in texts]
        self._start = self._tails[0].start[: len(prompts) : self._n_contexts]  # (n, d_model), the bare prompts'
        self._first_essence: Tensor | None = None

    @torch.enable_grad()
    def optimize(self, settings: Settings, *, names: list[str], bar: tqdm) -> list[TargetVector]:
        """What is found for each fact."""
        dtype = torch.promote_types(self._start.dtype, torch.float32)
        limits = settings.clamp_norm_factor * self._start.to(dtype).norm(dim=1, keepdim=True)  # (n, 1)
        offsets = torch.zeros_like(self._start, dtype=dtype, requires_grad=True)
        adam = torch.optim.Adam([offsets], lr=settings.v_lr)
        found = torch.zeros_like(offsets)
        losses: list[list[float]] = [[] for _ in names]
        active = torch.arange(self._n, device=self._start.device)
        tails = self._tails
        for step in range(settings.v_num_grad_steps):
            each = self._losses(active, tails, offsets[active], settings)  # (number active,)
            for i, loss in zip(active.tolist(), each.tolist(), strict=True):
                losses[i].append(loss)
                if not math.isfinite(loss):
                    raise EditError(f"the loss of {names[i]!r} became {loss} at step {step}; a lower v_lr may help.")
            last = step == settings.v_num_grad_steps - 1
            done = torch.ones_like(each, dtype=torch.bool) if last else each < settings.v_loss_threshold
            found[active[done]] = offsets.detach()[active[done]]
            bar.update(int(done.sum()))
            if done.all():
                break
            adam.zero_grad()
            each[~done].sum().backward()
            adam.step()  # also moves what is done, which is not read again
            with torch.no_grad():
                offsets.mul_((limits / offsets.norm(dim=1, keepdim=True)).clamp(max=1).nan_to_num(1))
            if done.any():
                active = active[~done]
                tails = [tail.rows(self._rows_of(tail, active)) for tail in self._tails]
        return [TargetVector(found[i], self._prompts_of(i), losses[i]) for i in range(self._n)]

    def _rows_of(self, tail: SubjectTail, facts: Tensor) -> Tensor:
        """Row numbers, in one of the tails of several facts, of some of them."""
        each = len(tail.start) // self._n  # the number of contexts, or one for the essences
        return (facts[:, None] * each + torch.arange(each, device=facts.device)).reshape(-1)

    def _prompts_of(self, fact: int) -> SubjectTail:
        rows = torch.arange(self._n_contexts, device=self._start.device)
        return self._tails[0].rows(fact * self._n_contexts + rows)

    def _losses(self, active: Tensor, tails: list[SubjectTail], offsets: Tensor, settings: Settings) -> Tensor:
        """Loss (n,) of each active fact with its offset (n, d_model)."""
        prompts = offsets.repeat_interleave(self._n_contexts, dim=0)
        given = [torch.cat([prompts, offsets])] if len(tails) == 1 else [prompts, offsets]
        logits = [tail.logits(part).to(offsets) for tail, part in zip(tails, given, strict=True)]
        if len(tails) == 1:
            logits = [logits[0][: -len(active)], logits[0][-len(active) :]]
        essence = logits[1].log_softmax(dim=-1)
        if self._first_essence is None:
            self._first_essence = essence.detach()
        # KL(edited ‖ unedited), the published direction
        kl = (essence.exp() * (essence - self._first_essence[active])).sum(dim=1)
        decay = offsets.norm(dim=1) / self._start[active].to(offsets).norm(dim=1) ** 2
        return self._nll(active, logits[0]) + settings.kl_factor * kl + settings.v_weight_decay * decay

    def _nll(self, active: Tensor, logits: Tensor) -> Tensor:
        """Mean over contexts (n,) of the NLL per token of each active fact's target."""
        targets = [ids for i in active.tolist() for ids in self._targets[i]]
        return target_nll(logits, targets).reshape(-1, self._n_contexts).mean(dim=1)
