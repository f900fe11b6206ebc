"""MEMIT's target values: what a block should give at each subject's last token, for many facts at once."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor
from tqdm.auto import tqdm

from workbench.editing.subject_tail import TailRow, from_subject_on
from workbench.editing.upper_blocks import UpperBlocks
from workbench.encoding import encode_request
from workbench.errors import EditError
from workbench.lm import LanguageModel
from workbench.request import EditRequest

ESSENCE = "{} is a"  # the prompt whose next-token distribution the edit should keep


class Settings(Protocol):
    """The hyperparameters of the optimisation, as fields of `MEMIT`."""

    contexts: tuple[str, ...] | None
    v_num_grad_steps: int
    v_lr: float
    v_weight_decay: float
    v_loss_threshold: float
    clamp_norm_factor: float
    kl_factor: float
    facts_at_once: int


@dataclass(frozen=True, eq=False)
class TargetHidden:
    """What the optimisation found.

    Attributes
    ----------
    hidden : Tensor (N, d_model)
        z of each request, float64.
    losses : list of list of float
        Of each request, at every step.
    """

    hidden: Tensor
    losses: list[list[float]]


@dataclass(frozen=True, eq=False)
class _Fact:
    """The texts that one fact's z is optimised over: the target in every context, then the essence prompt."""

    rows: list[TailRow]
    target_ids: list[tuple[int, ...]]

    @property
    def n_tokens(self) -> int:
        """Of the longest text, from the subject's last token on."""
        return max(len(row.encoded.ids) - row.encoded.subject_last for row in self.rows)


def optimize_target_hidden(
    lm: LanguageModel, requests: Sequence[EditRequest], layer: int, settings: Settings
) -> TargetHidden:
    """The hidden state z = h + d after block `layer`, at the subject's last token, that makes each target probable.

    Meng et al. 2023, eq. 16, as in the published code: Adam on d, the mean over contexts of the target's NLL per token
    + `kl_factor` · KL of "{subject} is a", read at the subject's last token + `v_weight_decay` · ‖d‖/‖h‖², with d
    clamped to `clamp_norm_factor` · ‖h‖. The facts do not touch each other: each has its own loss and stops by itself.
    They only share forward passes, `facts_at_once` of like length in each.

    Parameters
    ----------
    lm : LanguageModel
        Not changed.
    requests : sequence of EditRequest
        N facts.
    layer : int
        The block whose output is optimised: the last edited one.
    settings : Settings
        Hyperparameters, with the contexts filled in.

    Returns
    -------
    TargetHidden

    Raises
    ------
    EditError
        If a loss is not finite.
    RequestError
        If a target tokenises to nothing.
    """
    facts = [_texts(lm, settings.contexts, request) for request in requests]
    hidden: list[Tensor] = [torch.empty(0)] * len(facts)
    losses: list[list[float]] = [[] for _ in facts]
    with tqdm(total=len(facts), desc="Target values", unit="fact") as bar:
        for chosen in _groups([fact.n_tokens for fact in facts], settings.facts_at_once):
            group = _Group(lm, [facts[i] for i in chosen], layer)
            found = group.optimize(settings, names=[requests[i].filled_prompt for i in chosen], bar=bar)
            for i, z, history in zip(chosen, *found, strict=True):
                hidden[i], losses[i] = z, history
    return TargetHidden(torch.stack(hidden), losses)


def _texts(lm: LanguageModel, contexts: tuple[str, ...], request: EditRequest) -> _Fact:
    rows, targets = [], []
    for context in contexts:
        encoded = encode_request(lm.tokenizer, request, context=context)
        targets.append(encoded.target_ids)
        shown = replace(encoded, ids=encoded.ids[:-1])  # the last target token is predicted, never read
        rows.append(TailRow(shown, encoded.before_targets))
    essence = encode_request(lm.tokenizer, replace(request, prompt=ESSENCE), target="")
    upto = replace(essence, ids=essence.ids[: essence.subject_last + 1])
    return _Fact([*rows, TailRow(upto, (essence.subject_last,))], targets)


def _groups(lengths: Sequence[int], at_most: int) -> list[list[int]]:
    """Indices in groups of at most so many of like lengths, of which at most a tenth is padding."""
    groups: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lengths.__getitem__):
        together = [*groups[-1], i] if groups else []
        tokens = sum(lengths[j] for j in together)
        if together and len(together) <= at_most and tokens >= 0.9 * len(together) * lengths[i]:
            groups[-1].append(i)
        else:
            groups.append([i])
    return groups


class _Group:
    """Facts whose z are optimised in the same forward passes."""

    def __init__(self, lm: LanguageModel, facts: list[_Fact], layer: int) -> None:
        prompts = [row for fact in facts for row in fact.rows[:-1]]
        self._prompts = from_subject_on(lm, prompts, layer + 1)
        self._essences = from_subject_on(lm, [fact.rows[-1] for fact in facts], layer + 1)
        self._n_contexts = len(facts[0].rows) - 1
        self._targets = [fact.target_ids for fact in facts]
        self.hidden = self._prompts.block_input[:: self._n_contexts, 0]  # (n, d_model): the bare prompts' are first
        self._first_essence: Tensor | None = None

    def optimize(self, settings: Settings, *, names: list[str], bar: tqdm) -> tuple[list[Tensor], list[list[float]]]:
        """The z of each fact (d_model,), float64, and its losses."""
        n, dtype = len(names), torch.promote_types(self.hidden.dtype, torch.float32)
        limits = settings.clamp_norm_factor * self.hidden.to(dtype).norm(dim=1, keepdim=True)  # (n, 1)
        offsets = torch.zeros_like(self.hidden, dtype=dtype, requires_grad=True)
        adam = torch.optim.Adam([offsets], lr=settings.v_lr)
        found: list[Tensor] = [torch.empty(0)] * n
        losses: list[list[float]] = [[] for _ in names]
        active = torch.arange(n, device=self.hidden.device)
        tails = self._tails(active)
        for step in range(settings.v_num_grad_steps):
            each = self._losses(active, tails, offsets[active], settings)  # (number active,)
            if not torch.isfinite(each).all():
                name = names[active[~torch.isfinite(each)][0]]
                raise EditError(f"the loss of {name!r} became infinite or NaN at step {step}; a lower v_lr may help.")
            for i, loss in zip(active.tolist(), each.tolist(), strict=True):
                losses[i].append(loss)
            last = step == settings.v_num_grad_steps - 1
            done = torch.ones_like(each, dtype=torch.bool) if last else each < settings.v_loss_threshold
            for i in active[done].tolist():
                found[i] = self.hidden[i].double() + offsets[i].detach().double()
                bar.update()
            if done.all():
                break
            adam.zero_grad()
            each[~done].sum().backward()
            adam.step()  # also moves what is done, which is not read again
            with torch.no_grad():
                offsets.mul_((limits / offsets.norm(dim=1, keepdim=True)).clamp(max=1).nan_to_num(1))
            if done.any():
                active = active[~done]
                tails = self._tails(active)
        return found, losses

    def _tails(self, active: Tensor) -> tuple[UpperBlocks, UpperBlocks]:
        """The texts of the facts that are still being optimised."""
        contexts = torch.arange(self._n_contexts, device=active.device)
        rows = (active[:, None] * self._n_contexts + contexts).reshape(-1)
        return self._prompts.rows(rows), self._essences.rows(active)

    def _losses(
        self, active: Tensor, tails: tuple[UpperBlocks, UpperBlocks], offsets: Tensor, settings: Settings
    ) -> Tensor:
        """Loss (n,) of each active fact with its offset (n, d_model)."""
        prompts, essences = tails
        per_row = offsets.repeat_interleave(self._n_contexts, dim=0)
        logits = prompts.logits(_with_offset(prompts.block_input, per_row)).to(offsets)  # (tokens of all targets, V)
        chosen = [ids for i in active.tolist() for ids in self._targets[i]]
        tokens = torch.tensor([token for ids in chosen for token in ids], device=logits.device)
        lengths = torch.tensor([len(ids) for ids in chosen], device=logits.device)
        nll = torch.nn.functional.cross_entropy(logits, tokens, reduction="none")
        rows = torch.arange(len(chosen), device=nll.device).repeat_interleave(lengths)
        per_text = torch.zeros(len(chosen), dtype=nll.dtype, device=nll.device).index_add(0, rows, nll) / lengths
        essence = essences.logits(_with_offset(essences.block_input, offsets)).to(offsets).log_softmax(dim=-1)
        if self._first_essence is None:
            self._first_essence = essence.detach()
        kl = (essence.exp() * (essence - self._first_essence[active])).sum(dim=1)
        decay = offsets.norm(dim=1) / self.hidden[active].to(offsets).norm(dim=1) ** 2
        return (
            per_text.reshape(-1, self._n_contexts).mean(dim=1)
            + settings.kl_factor * kl
            + settings.v_weight_decay * decay
        )


def _with_offset(block_input: Tensor, offsets: Tensor) -> Tensor:
    """Hidden states (B, T, d_model) with an offset (B, d_model) on each text's first token, the subject's last."""
    shifted = block_input[:, :1] + offsets[:, None].to(block_input)
    return torch.cat([shifted, block_input[:, 1:]], dim=1)
