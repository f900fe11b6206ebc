"""Causal trace: which states of a model carry a fact to its answer.

Meng et al. 2022 (arXiv 2202.05262), section 2.1. The embeddings of the subject's tokens are corrupted by noise, which
makes the answer improbable; then one state at a time is set to its value in the clean run. The indirect effect of a
state is P(answer | corrupted, this state restored) − P(answer | corrupted).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import pandas as pd
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from workbench.data.facts import load_facts
from workbench.editing.passes.hooks import Hook, Hooks, first_output, hooked
from workbench.editing.passes.upper_blocks import BlockOutput, Prefix, UpperBlocks, compute_prefix
from workbench.encoding import Batch, encode, encode_request, subject_tokens
from workbench.errors import SpecError
from workbench.forward import pad_texts, widen
from workbench.lm import LanguageModel
from workbench.request import EditRequest
from workbench.storage.cache import compute_missing

Kind = Literal["state", "mlp", "attention"]
KINDS: tuple[Kind, ...] = get_args(Kind)
_TOKENS_AT_ONCE = 1024  # in a forward pass
_LOGITS_AT_ONCE = 2**25  # 128 MiB in float32
_TRACES_KEPT = 256


@dataclass(frozen=True, eq=False)
class Trace:
    """The indirect effects of one kind of state on one answer.

    Attributes
    ----------
    settings : CausalTrace
        How it was computed.
    prompt : str
        The prompt with its subject.
    tokens : tuple of str
        Its T tokens, special tokens included.
    subject : range
        Indices of the subject's tokens.
    answer : str
        The token whose probability is traced.
    deviation : float
        Standard deviation of the embeddings; the noise is `settings.noise` times as large.
    clean, corrupted : float
        Probability of the answer without noise, and with it (mean over the samples).
    restored : Tensor (T, L)
        Probability with the state of one token at one layer restored, mean over the samples; float32, on the CPU.
    """

    settings: "CausalTrace"
    prompt: str
    tokens: tuple[str, ...]
    subject: range
    answer: str
    deviation: float
    clean: float
    corrupted: float
    restored: Tensor

    @property
    def effects(self) -> Tensor:
        """The indirect effects (T, L)."""
        return self.restored - self.corrupted

    def tabulate(self) -> pd.DataFrame:
        """Return one row per token and layer: kind, position, token, in_subject, layer, probability, effect."""
        rows = [
            (self.settings.kind, position, token, position in self.subject, layer, float(probability))
            for position, token in enumerate(self.tokens)
            for layer, probability in enumerate(self.restored[position])
        ]
        table = pd.DataFrame(rows, columns=["kind", "position", "token", "in_subject", "layer", "probability"])
        return table.assign(effect=table["probability"] - self.corrupted)


@dataclass(frozen=True)
class CausalTrace:
    """A causal trace, as in section 2.1 of Meng et al. 2022; call it with a model and a fact.

    The noise is drawn once and is the same for all restored states, as in the published code. Its scale is
    `embedding_deviation`.

    Attributes
    ----------
    kind : str
        What is restored at a token: ``"state"``, the hidden state after one block; ``"mlp"`` or ``"attention"``, what
        the MLPs or the attentions of a window of blocks add to it.
    noise : float
        Standard deviation of the noise, in standard deviations of the embeddings.
    n_samples : int
        Number of draws of the noise.
    window : int
        Number of blocks in a window: layer − window // 2 is its first one; cut off at the ends of the model. A hidden
        state is restored after one block, whatever the window.
    seed : int
        Seed of the noise.

    Raises
    ------
    SpecError
        If the kind is unknown or a number is out of range.
    """

    kind: Kind = "state"
    noise: float = 3.0
    n_samples: int = 10
    window: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise SpecError(f"kind must be one of {', '.join(KINDS)}; got {self.kind!r}.")
        if not self.noise >= 0:
            raise SpecError(f"noise must be at least 0; got {self.noise!r}.")
        for name in ("n_samples", "window"):
            if getattr(self, name) < 1:
                raise SpecError(f"{name} must be at least 1; got {getattr(self, name)!r}.")

    def __call__(self, lm: LanguageModel, request: EditRequest, *, answer: str | None = None) -> Trace:
        """Trace a fact with the current weights; without updates applied, the trace is kept with the model.

        Parameters
        ----------
        lm : LanguageModel
            The model; not changed.
        request : EditRequest
            The fact, of which prompt and subject are used.
        answer : str, optional
            The answer whose first token is traced; by default the token that the model finds most probable after the
            prompt.

        Returns
        -------
        Trace

        Raises
        ------
        RequestError
            If the request has no subject, or the answer no token.
        """
        key = (self, request.subject, request.prompt, answer)
        known = lm.unedited_memo("traces", _TRACES_KEPT)
        with torch.no_grad():
            [trace] = compute_missing(known, [key], lambda _: [_trace(self, lm, request, answer)])
        return trace

    def count_passes(self, lm: LanguageModel, request: EditRequest) -> int:
        """Return how many forward passes a trace takes."""
        n_tokens = len(encode_request(lm.tokenizer, request, target="").ids)
        first = subject_tokens(lm.tokenizer, request)[0]
        at_once = _positions_at_once(lm, n_tokens - first, self.n_samples)
        before = 3 + (self.noise > 0) + (first > 0)
        return before + lm.n_layers * -(-(n_tokens - first) // at_once)

    def blocks_restored(self, layer: int, n_layers: int) -> range:
        """Return the blocks whose output, MLP or attention is restored for `layer`."""
        if self.kind == "state":
            return range(layer, layer + 1)
        return range(max(0, layer - self.window // 2), min(n_layers, layer - (-self.window // 2)))


def embedding_deviation(lm: LanguageModel) -> float:
    """Return the standard deviation of the input embeddings of subjects' tokens.

    All entries are pooled, as in the published code, which does it for 1,209 known facts: here over the tokens of the
    subjects of the bundled facts, each subject once and encoded by itself without special tokens. What is measured is
    the output of the embedding module, before positions are added, to which the noise is added too.

    Parameters
    ----------
    lm : LanguageModel
        The model.

    Returns
    -------
    float
    """

    def measure(_: object) -> list[float]:
        subjects = dict.fromkeys(request.subject for request in load_facts().requests if request.subject)
        rows = lm.tokenizer(list(subjects), add_special_tokens=False)["input_ids"]
        ids = torch.tensor([token for row in rows for token in row], device=lm.device)
        return [float(lm.model.get_input_embeddings()(ids).float().std())]

    with torch.no_grad():
        [deviation] = compute_missing(lm.memo.section("embedding deviation"), ("subjects",), measure)
    return deviation


@dataclass(frozen=True, eq=False)
class _Runs:
    """The clean and the corrupted runs of one prompt, from the subject's first token on (T' tokens).

    Attributes
    ----------
    text : UpperBlocks
        The prompt as one row.
    kept : list of Tensor (T', d_model)
        Per layer, what is restored of the clean run.
    inputs : list of Tensor (n_samples, T', d_model)
        Input of each block in the corrupted runs, then the output of the last one.
    """

    text: UpperBlocks
    kept: list[Tensor]
    inputs: list[Tensor]

    def restore(self, settings: CausalTrace, layer: int, positions: Sequence[int], answer: int) -> Tensor:
        """Return the mean probability of the answer (positions,) with the state of each position restored."""
        blocks, n_samples = settings.blocks_restored(layer, self.text.lm.n_layers), settings.n_samples
        rows = torch.arange(n_samples * len(positions))
        columns = torch.tensor(positions).repeat_interleave(n_samples)
        first = layer + 1 if settings.kind == "state" else blocks[0]
        states = self.inputs[first].repeat(len(positions), 1, 1)
        if settings.kind == "state":
            states[rows, columns] = self.kept[layer][columns]
        upper = replace(self.text.select(torch.zeros_like(rows)), layer=first, block_input=states)
        hooks = [] if settings.kind == "state" else self._restoring(settings.kind, blocks, rows, columns)
        with Hooks(hooks):
            return _probability(upper.logits(), answer).reshape(len(positions), n_samples).mean(dim=1)

    def _restoring(self, kind: Kind, blocks: range, rows: Tensor, columns: Tensor) -> list[Hook]:
        def restore_in(layer: int) -> Callable[..., object]:
            def restore(module: nn.Module, args: object, output: BlockOutput) -> BlockOutput:
                given = first_output(output)
                states = given.reshape(len(rows), -1, given.shape[-1]).clone()  # OPT flattens (B, T) for its MLP
                states[rows, columns] = self.kept[layer][columns].to(states)
                restored = states.reshape(given.shape)
                return (restored, *output[1:]) if isinstance(output, tuple) else restored

            return restore

        return [Hook(_module(self.text.lm, kind, layer), restore_in(layer)) for layer in blocks]


def _trace(settings: CausalTrace, lm: LanguageModel, request: EditRequest, answer: str | None) -> Trace:
    encoded, subject = encode_request(lm.tokenizer, request, target=""), subject_tokens(lm.tokenizer, request)
    deviation = embedding_deviation(lm)
    wanted = None if answer is None else encode(lm.tokenizer, request.filled_prompt, answer).target_ids[0]
    n_tail = len(encoded.ids) - subject[0]
    at_once = _positions_at_once(lm, n_tail, settings.n_samples)
    with tqdm(total=settings.count_passes(lm, request), desc=f"Causal trace ({settings.kind})", unit="pass") as bar:
        with hooked(lm.model, lambda module, args: bar.update() and None, before=True):
            text = _tail(lm, encoded.ids, subject[0])
            text, kept, clean = _run_clean(text, settings.kind)
            target = int(clean.argmax()) if wanted is None else wanted
            inputs, corrupted = _run_corrupted(text, len(subject), settings, deviation)
            runs, before = _Runs(text, kept, inputs), float(_probability(corrupted, target).mean())
            restored = torch.full((len(encoded.ids), lm.n_layers), before)
            for layer in range(lm.n_layers):
                for start in range(0, n_tail, at_once):
                    positions = range(start, min(start + at_once, n_tail))
                    found = runs.restore(settings, layer, positions, target).cpu().float()
                    restored[subject[0] + start : subject[0] + start + len(positions), layer] = found
    return Trace(
        settings=settings,
        prompt=request.filled_prompt,
        tokens=tuple(lm.tokenizer.batch_decode([[token] for token in encoded.ids])),
        subject=subject,
        answer=lm.tokenizer.decode([target]),
        deviation=deviation,
        clean=float(_probability(clean, target)),
        corrupted=before,
        restored=restored,
    )


def _positions_at_once(lm: LanguageModel, n_tokens: int, n_samples: int) -> int:
    rows = min(_TOKENS_AT_ONCE // n_tokens, _LOGITS_AT_ONCE // lm.vocabulary_size)
    return min(n_tokens, max(1, rows // n_samples))


def _tail(lm: LanguageModel, ids: tuple[int, ...], first: int) -> UpperBlocks:
    """A text from one token on, with the keys and values of the tokens before, which no noise changes."""
    whole = pad_texts(lm, [ids])
    tail = Batch(whole.ids[:, first:], whole.mask, whole.positions[:, first:])
    read = torch.zeros_like(tail.ids, dtype=torch.bool)
    read[:, -1] = True
    return UpperBlocks.compute(lm, tail, read, 0, prefix=compute_prefix(lm, whole, first))


def _run_clean(text: UpperBlocks, kind: Kind) -> tuple[UpperBlocks, list[Tensor], Tensor]:
    """The text, ready for its blocks to be left out; what is restored, per layer (T', d_model); the logits (1, V)."""
    kept: list[Tensor] = []
    returns_tuples: list[bool] = []

    def keep_kind(module: nn.Module, args: object, output: BlockOutput) -> None:
        returns_tuples.append(isinstance(output, tuple))

    def keep(module: nn.Module, args: object, output: BlockOutput) -> None:
        kept.append(first_output(output).reshape(text.ids.shape[1], -1))

    modules = [_module(text.lm, kind, layer) for layer in range(text.lm.n_layers)]
    with Hooks([Hook(text.lm.blocks[0], keep_kind), *(Hook(module, keep) for module in modules)]):
        logits = text.logits()
    return replace(text, blocks_return_tuples=any(returns_tuples)), kept, logits


def _run_corrupted(
    text: UpperBlocks, n_subject: int, settings: CausalTrace, deviation: float
) -> tuple[list[Tensor], Tensor]:
    """Inputs of all blocks, then the output of the last (each n_samples, T', d_model), and the logits (n_samples, V)."""
    inputs: list[Tensor] = []
    rows = text.select(torch.zeros(settings.n_samples, dtype=torch.long))
    if settings.noise > 0:
        rows = _corrupt(rows, rows.prefix, n_subject, settings, deviation)

    def keep_input(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        inputs.append(args[0])

    def keep_output(module: nn.Module, args: object, output: BlockOutput) -> None:
        inputs.append(first_output(output))

    blocks = text.lm.blocks
    inputs.append(rows.block_input)
    with Hooks([*(Hook(block, keep_input, before=True) for block in blocks[1:]), Hook(blocks[-1], keep_output)]):
        logits = rows.logits()
    return inputs, logits


def _corrupt(
    rows: UpperBlocks, prefix: Prefix | None, n_subject: int, settings: CausalTrace, deviation: float
) -> UpperBlocks:
    """The rows with noise added to the embeddings of their first `n_subject` tokens."""
    lm = rows.lm
    generator = torch.Generator().manual_seed(settings.seed)

    def add_noise(module: nn.Module, args: object, output: Tensor) -> Tensor:
        shape = (len(output), n_subject, output.shape[-1])
        noise = settings.noise * deviation * torch.randn(shape, generator=generator)
        return torch.cat([output[:, :n_subject] + noise.to(output), output[:, n_subject:]], dim=1)

    batch = Batch(rows.ids, rows.mask, rows.positions)
    with hooked(lm.model.get_input_embeddings(), add_noise):
        return UpperBlocks.compute(lm, batch, rows.read, 0, prefix=prefix)


def _module(lm: LanguageModel, kind: Kind, layer: int) -> nn.Module:
    if kind == "state":
        return lm.blocks[layer]
    return lm.mlp_out(layer) if kind == "mlp" else lm.model.get_submodule(lm.arch.attention_module(layer))


def _probability(logits: Tensor, answer: int) -> Tensor:
    """Probability of the answer (R,) from logits (R, V)."""
    logits = widen(logits)
    return (logits[:, answer] - logits.logsumexp(dim=-1)).exp()
