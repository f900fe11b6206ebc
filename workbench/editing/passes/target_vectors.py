"""The vectors that ROME and MEMIT optimize: at each subject's last token, the one that makes the target probable.

ROME's v* is the output of one MLP, MEMIT's z the hidden state after a whole block; the loss is the same. Many facts
are optimized in the same forward passes.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor
from tqdm.auto import tqdm

from workbench.editing.passes.subject_tail import SubjectTail, TailRow, encode_up_to_subject
from workbench.encoding import encode_request
from workbench.errors import EditError
from workbench.forward import TargetTokens
from workbench.lm import LanguageModel
from workbench.request import EditRequest

ESSENCE = "{} is a"  # the prompt whose next-token distribution the edit should keep
_MAX_PADDING = 0.1  # of the tokens in a pass

Tail = TypeVar("Tail", bound=SubjectTail)


class Settings(Protocol):
    """Hyperparameters of the optimization, which are fields of `ROME` and `MEMIT` and described there."""

    @property
    def contexts(self) -> tuple[str, ...] | None: ...
    @property
    def v_num_grad_steps(self) -> int: ...
    @property
    def v_lr(self) -> float: ...
    @property
    def v_weight_decay(self) -> float: ...
    @property
    def v_loss_threshold(self) -> float: ...
    @property
    def v_predicted_steps(self) -> int | None: ...
    @property
    def clamp_norm_factor(self) -> float: ...
    @property
    def kl_factor(self) -> float: ...


@dataclass(frozen=True, eq=False)
class TargetVector(Generic[Tail]):
    """The vector that was found for one fact.

    Attributes
    ----------
    offset : Tensor (d_model,)
        d, the offset added at the site; float32 or wider.
    tail : SubjectTail
        The fact's prompt in its P contexts, the bare one first; `tail.start` (P, d_model) is at the site without d.
    losses : list of float
        The loss at every step.
    """

    offset: Tensor
    tail: Tail
    losses: list[float]

    @property
    def target(self) -> Tensor:
        """Vector (d_model,) that the bare prompt should have at the site, float64."""
        return self.tail.start[0].double() + self.offset.double()


@dataclass(frozen=True, eq=False)
class _FactTexts:
    """The texts over which one fact's vector is optimized."""

    prompts: list[TailRow]  # the target in every context
    target_ids: list[tuple[int, ...]]
    essence: TailRow

    @property
    def n_tokens(self) -> int:
        """Length of the longest text, from the subject's last token on."""
        return max(len(row.encoded.ids) - row.subject_last for row in self.prompts)


def optimize_target_vectors(
    lm: LanguageModel,
    requests: Sequence[EditRequest],
    compute_tail: Callable[[list[TailRow]], Tail],
    settings: Settings,
    *,
    facts_at_once: int = 1,
) -> Iterator[tuple[int, TargetVector[Tail]]]:
    """Optimize the vector s + d that makes each request's target probable, where s is the current value at the site.

    Meng et al. 2022, eq. 4, and 2023, eq. 16, as in the published codes: Adam on d, the mean over contexts of the
    target's NLL per token + `kl_factor` · KL of "{subject} is a", read at the subject's last token + `v_weight_decay` ·
    ‖d‖/‖s‖², s being the bare prompt's, with d clamped to `clamp_norm_factor` · ‖s‖. Each fact has its own loss and
    stops by itself below `v_loss_threshold`, or at the `v_predicted_steps`-th step at which every target token is the
    most probable one in every context (MPES; Gupta et al. 2025, arXiv 2502.01636). Facts only share forward passes, at
    most `facts_at_once` of similar length.

    Parameters
    ----------
    lm : LanguageModel
        The model, which is not changed.
    requests : sequence of EditRequest
        N facts.
    compute_tail : callable
        Function that computes the tail of some texts, which determines the site of the offset.
    settings : Settings
        Hyperparameters, with the contexts filled in.
    facts_at_once : int
        Number of facts that share forward passes; changes time and memory, and the result only by rounding.

    Yields
    ------
    (int, TargetVector)
        Index of the request and its vector, each request once, in the order of the passes.

    Raises
    ------
    EditError
        If a loss is not finite.
    RequestError
        If a target has no token.
    """
    assert settings.contexts is not None
    texts = [_encode_fact(lm, settings.contexts, request) for request in requests]
    with tqdm(total=len(texts), desc="Target vectors", unit="fact", disable=len(texts) == 1) as bar:
        for chosen in _group_by_length([text.n_tokens for text in texts], facts_at_once):
            group = _FactGroup([texts[i] for i in chosen], compute_tail)
            names = [requests[i].filled_prompt for i in chosen]
            yield from zip(chosen, group.optimize(settings, names=names, advance=bar.update), strict=True)


def _encode_fact(lm: LanguageModel, contexts: tuple[str, ...], request: EditRequest) -> _FactTexts:
    prompts, targets = [], []
    for context in contexts:
        encoded = encode_request(lm.tokenizer, request, context=context)
        targets.append(encoded.target_ids)
        without_last = replace(encoded, ids=encoded.ids[:-1])  # the last target token is predicted, never read
        prompts.append(TailRow(without_last, encoded.before_targets))
    essence = encode_up_to_subject(lm, replace(request, prompt=ESSENCE))
    return _FactTexts(prompts, targets, TailRow(essence, (len(essence.ids) - 1,)))


def _group_by_length(lengths: Sequence[int], max_size: int) -> list[list[int]]:
    """Indices in groups of at most `max_size` of similar lengths, so that little is padding."""
    groups: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lengths.__getitem__):
        together = [*groups[-1], i] if groups else []
        tokens = sum(lengths[j] for j in together)
        if together and len(together) <= max_size and tokens >= (1 - _MAX_PADDING) * len(together) * lengths[i]:
            groups[-1].append(i)
        else:
            groups.append([i])
    return groups


@dataclass(frozen=True, eq=False)
class _Active(Generic[Tail]):
    """The facts of a group that are still optimized, with what each step needs of them on the devices."""

    facts: list[int]  # their numbers in the group
    index: Tensor  # the same, on the device of the offsets
    tails: list[Tail]
    targets: TargetTokens  # of every context of each fact


class _FactGroup(Generic[Tail]):
    """Facts whose vectors are optimized in the same forward passes."""

    def __init__(self, texts: list[_FactTexts], compute_tail: Callable[[list[TailRow]], Tail]) -> None:
        prompts = [row for text in texts for row in text.prompts]
        essences = [text.essence for text in texts]
        # an essence is one token: beside many prompts it would be mostly padding, for one fact it saves a pass
        passes = [[*prompts, *essences]] if len(texts) == 1 else [prompts, essences]
        self._tails = [compute_tail(rows) for rows in passes]
        self._n, self._n_contexts = len(texts), len(texts[0].prompts)
        self._targets = [text.target_ids for text in texts]
        self._start = self._tails[0].start[: len(prompts) : self._n_contexts]  # (n, d_model), the bare prompts'
        self._first_essence: Tensor | None = None

    @torch.enable_grad()
    def optimize(
        self, settings: Settings, *, names: list[str], advance: Callable[[int], object]
    ) -> list[TargetVector[Tail]]:
        """Return the vector of each fact; `advance` is called with the number of facts that are done."""
        dtype = torch.promote_types(self._start.dtype, torch.float32)
        limits = settings.clamp_norm_factor * self._start.to(dtype).norm(dim=1, keepdim=True)  # (n, 1)
        offsets = torch.zeros_like(self._start, dtype=dtype, requires_grad=True)
        adam = torch.optim.Adam([offsets], lr=settings.v_lr)
        found: dict[int, Tensor] = {}
        losses: list[list[float]] = [[] for _ in names]
        n_predicted = [0] * self._n  # steps at which all tokens of the target were
        active = self._activate(list(range(self._n)))
        for step in range(settings.v_num_grad_steps):
            each, hits = self._losses(active, offsets[active.index], settings)  # (number active,) both
            values, predicted = torch.stack([each.detach().double(), hits.double()]).tolist()  # the one wait of a step
            going = []  # places among the active ones
            for place, (i, loss, hit) in enumerate(zip(active.facts, values, predicted, strict=True)):
                losses[i].append(loss)
                n_predicted[i] += int(hit)
                if not math.isfinite(loss):
                    raise EditError(f"the loss of {names[i]!r} became {loss} at step {step}; a lower v_lr may help.")
                if loss < settings.v_loss_threshold or self._is_learned(n_predicted[i], settings):
                    found[i] = offsets[i].detach().clone()
                else:
                    going.append(place)
            if step == settings.v_num_grad_steps - 1:
                found |= {active.facts[place]: offsets[active.facts[place]].detach().clone() for place in going}
                going = []
            advance(len(active.facts) - len(going))
            if not going:
                break
            adam.zero_grad()
            (each if len(going) == len(active.facts) else each[torch.tensor(going)]).sum().backward()
            adam.step()  # also moves the offsets that are done, which are not read again
            with torch.no_grad():
                offsets.mul_((limits / offsets.norm(dim=1, keepdim=True)).clamp(max=1).nan_to_num(1))
            if len(going) < len(active.facts):
                active = self._activate([active.facts[place] for place in going])
        return [TargetVector(found[i], self._prompts_of(i), losses[i]) for i in range(self._n)]

    def _is_learned(self, n_predicted: int, settings: Settings) -> bool:
        return settings.v_predicted_steps is not None and n_predicted >= settings.v_predicted_steps

    def _activate(self, facts: list[int]) -> _Active[Tail]:
        index = torch.tensor(facts)
        tails = (
            self._tails if len(facts) == self._n else [each.select(self._rows_of(each, index)) for each in self._tails]
        )
        targets = TargetTokens.of([ids for i in facts for ids in self._targets[i]], tails[0].lm.device)
        return _Active(facts, index.to(self._start.device), tails, targets)

    def _rows_of(self, tail: Tail, facts: Tensor) -> Tensor:
        """Row numbers of some facts in one of the tails."""
        each = len(tail.start) // self._n  # the number of contexts, or one for the essences
        return (facts[:, None] * each + torch.arange(each)).reshape(-1)

    def _prompts_of(self, fact: int) -> Tail:
        return self._tails[0].select(fact * self._n_contexts + torch.arange(self._n_contexts))

    def _losses(self, active: _Active[Tail], offsets: Tensor, settings: Settings) -> tuple[Tensor, Tensor]:
        """Loss (n,) of each active fact with its offset (n, d_model), and whether its target is predicted everywhere.

        Both are on the device of the logits, which need not be that of the offsets.
        """
        prompts = offsets.repeat_interleave(self._n_contexts, dim=0)
        given = [torch.cat([prompts, offsets])] if len(active.tails) == 1 else [prompts, offsets]
        logits = [tail.logits(part).to(offsets.dtype) for tail, part in zip(active.tails, given, strict=True)]
        if len(active.tails) == 1:
            n = len(active.facts)
            logits = [logits[0][:-n], logits[0][-n:]]
        essence = logits[1].log_softmax(dim=-1)
        if self._first_essence is None:
            self._first_essence = essence.detach()
        # KL(edited ‖ unedited), the published direction
        kl = (essence.exp() * (essence - self._first_essence[active.index.to(essence.device)])).sum(dim=1)
        decay = offsets.norm(dim=1) / self._start[active.index].to(offsets.dtype).norm(dim=1) ** 2
        nll = active.targets.mean_nll(logits[0]).reshape(-1, self._n_contexts).mean(dim=1)
        loss = nll + settings.kl_factor * kl + settings.v_weight_decay * decay.to(nll.device)
        if settings.v_predicted_steps is None:
            return loss, torch.zeros_like(loss)
        return loss, active.targets.are_predicted(logits[0]).reshape(-1, self._n_contexts).all(dim=1)
