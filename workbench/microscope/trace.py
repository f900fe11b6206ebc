"""Causal trace: which states of a model carry a fact to its answer.

Meng et al. 2022 (arXiv 2202.05262), section 2.1. The embeddings of the subject's tokens are corrupted by noise, which
makes the answer improbable; then one state at a time is set to its value in the clean run. The indirect effect of a
state is P(answer | corrupted, this state restored) − P(answer | corrupted).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import pandas as pd
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from workbench.arguments import checked
from workbench.data.facts import load_facts
from workbench.editing.passes.hooks import Hook, Hooks, first_output, hooked
from workbench.editing.passes.upper_blocks import BlockOutput, Prefix, UpperBlocks, compute_prefix
from workbench.encoding import Batch, encode, encode_request, subject_tokens
from workbench.errors import SpecError
from workbench.forward import compute_logits, pad_texts, widen
from workbench.lm import LanguageModel
from workbench.request import EditRequest
from workbench.storage.cache import compute_missing

Kind = Literal["state", "mlp", "attention"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Tokens = Literal["all", "subject last"]
_RUNS = 3  # passes of the clean and the corrupted runs, and of the latter's head
_POSITIONS_AT_ONCE = 2  # more would run more tokens that precede the restored ones
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
        NaN for tokens that are left out by `settings.tokens`.
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
        """Return one row per traced token and layer: kind, position, token, in_subject, layer, probability, effect."""
        rows = [
            (self.settings.kind, position, token, position in self.subject, layer, float(probability))
            for position, token in enumerate(self.tokens)
            for layer, probability in enumerate(self.restored[position])
        ]
        table = pd.DataFrame(rows, columns=["kind", "position", "token", "in_subject", "layer", "probability"])
        return table.assign(effect=table["probability"] - self.corrupted).dropna(ignore_index=True)


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
    tokens : str
        Tokens whose states are restored: ``"all"``, or ``"subject last"``, which is what `suggest_layer` reads.

    Raises
    ------
    SpecError
        If the kind or the tokens are unknown or a number is out of range.
    """

    kind: Kind = "state"
    noise: float = 3.0
    n_samples: int = 10
    window: int = 10
    seed: int = 0
    tokens: Tokens = "all"

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise SpecError(f"kind must be one of {', '.join(KINDS)}; got {self.kind!r}.")
        if self.tokens not in get_args(Tokens):
            raise SpecError(f"tokens must be one of {', '.join(get_args(Tokens))}; got {self.tokens!r}.")
        if not self.noise >= 0:
            raise SpecError(f"noise must be at least 0; got {self.noise!r}.")
        for name in ("n_samples", "window"):
            if getattr(self, name) < 1:
                raise SpecError(f"{name} must be at least 1; got {getattr(self, name)!r}.")

    @checked
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
        positions = self.restored_positions(subject_tokens(lm.tokenizer, request), n_tokens)
        return _RUNS + lm.n_layers * len(_split_positions(lm, positions, self.n_samples))

    def restored_positions(self, subject: range, n_tokens: int) -> range:
        """Return the tokens that are restored: none before the subject, which the noise does not change."""
        return range(subject[0], n_tokens) if self.tokens == "all" else subject[-1:]

    def blocks_restored(self, layer: int, n_layers: int) -> range:
        """Return the blocks whose output, MLP or attention is restored for `layer`."""
        if self.kind == "state":
            return range(layer, layer + 1)
        return range(max(0, layer - self.window // 2), min(n_layers, layer - (-self.window // 2)))


@checked
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
    """The clean run of one prompt (T tokens), and its corrupted runs, one row per sample.

    Attributes
    ----------
    lm : LanguageModel
        The model.
    batch : Batch
        The prompt, once per sample: (n_samples, T).
    kept : list of Tensor (T, d_model)
        Per layer, what is restored of the clean run.
    inputs : list of Tensor (n_samples, T, d_model)
        Input of each block in the corrupted runs, then the output of the last one.
    prefix : tuple
        Attention keys and values of the corrupted runs.
    blocks_return_tuples : bool
        Whether the model's blocks return tuples of tensors.
    """

    lm: LanguageModel
    batch: Batch
    kept: list[Tensor]
    inputs: list[Tensor]
    prefix: Prefix
    blocks_return_tuples: bool

    def restore(self, settings: CausalTrace, layer: int, positions: range, answer: int) -> Tensor:
        """Return the mean probability of the answer (positions,) with the state of each position restored.

        Neither the tokens before the first of the positions nor the blocks below the first restored one change.
        """
        blocks, n_samples = settings.blocks_restored(layer, self.lm.n_layers), len(self.batch.ids)
        rows = torch.arange(n_samples * len(positions))
        columns = torch.tensor(positions).repeat_interleave(n_samples)
        upper = self.from_site(layer + 1 if settings.kind == "state" else blocks[0], positions[0])
        upper = upper.select(rows % n_samples)
        if settings.kind == "state":
            upper.block_input[rows, columns - positions[0]] = self.kept[layer][columns].to(upper.block_input)
            return _probability(upper.logits(), answer).reshape(len(positions), n_samples).mean(dim=1)

        def restore_in(block: int) -> Callable[..., object]:
            def restore(module: nn.Module, args: object, output: BlockOutput) -> BlockOutput:
                given = first_output(output)
                states = given.reshape(len(rows), -1, given.shape[-1]).clone()  # OPT flattens (B, T) for its MLP
                states[rows, columns - positions[0]] = self.kept[block][columns].to(states)
                restored = states.reshape(given.shape)
                return (restored, *output[1:]) if isinstance(output, tuple) else restored

            return restore

        with Hooks([Hook(_module(self.lm, settings.kind, block), restore_in(block)) for block in blocks]):
            return _probability(upper.logits(), answer).reshape(len(positions), n_samples).mean(dim=1)

    def from_site(self, layer: int, position: int) -> UpperBlocks:
        """Return the corrupted runs from one block and one token on, to be read at the last token."""
        ids = self.batch.ids[:, position:]
        read = torch.zeros(ids.shape, dtype=torch.bool)
        read[:, -1] = True
        whole = self.prefix if position else ()
        earlier = tuple((keys[:, :, :position], values[:, :, :position]) for keys, values in whole)
        return UpperBlocks(
            self.lm,
            ids,
            self.batch.positions[:, position:],
            self.batch.mask,
            read,
            layer,
            self.inputs[layer][:, position:],
            self.blocks_return_tuples,
            earlier or None,
        )


def _trace(settings: CausalTrace, lm: LanguageModel, request: EditRequest, answer: str | None) -> Trace:
    ids, subject = encode_request(lm.tokenizer, request, target="").ids, subject_tokens(lm.tokenizer, request)
    deviation = embedding_deviation(lm)
    wanted = None if answer is None else encode(lm.tokenizer, request.filled_prompt, answer).target_ids[0]
    passes = tqdm(total=settings.count_passes(lm, request), desc=f"Causal trace ({settings.kind})", unit="pass")
    with passes, hooked(lm.model, lambda module, args: passes.update() and None, before=True):
        clean, kept, returns_tuples = _run_clean(lm, ids, settings.kind)
        target = int(clean.argmax()) if wanted is None else wanted
        batch = pad_texts(lm, [ids] * settings.n_samples)
        runs = _Runs(lm, batch, kept, *_run_corrupted(lm, batch, subject, settings, deviation), returns_tuples)
        before = float(_probability(runs.from_site(lm.n_layers, len(ids) - 1).logits(), target).mean())
        restored = torch.full((len(ids), lm.n_layers), before if settings.tokens == "all" else torch.nan)
        for layer in range(lm.n_layers):
            for positions in _split_positions(lm, settings.restored_positions(subject, len(ids)), settings.n_samples):
                restored[positions, layer] = runs.restore(settings, layer, positions, target).cpu().float()
    return Trace(
        settings=settings,
        prompt=request.filled_prompt,
        tokens=tuple(lm.tokenizer.batch_decode([[token] for token in ids])),
        subject=subject,
        answer=lm.tokenizer.batch_decode([[target]])[0],
        deviation=deviation,
        clean=float(_probability(clean, target)),
        corrupted=before,
        restored=restored,
    )


def _split_positions(lm: LanguageModel, positions: range, n_samples: int) -> list[range]:
    """Positions that are restored in one pass, each in rows of its own: adjacent ones share what precedes them."""
    at_once = max(1, min(_POSITIONS_AT_ONCE, _LOGITS_AT_ONCE // (lm.vocabulary_size * n_samples)))
    return [positions[start : start + at_once] for start in range(0, len(positions), at_once)]


def _run_clean(lm: LanguageModel, ids: tuple[int, ...], kind: Kind) -> tuple[Tensor, list[Tensor], bool]:
    """Logits (1, V); what is restored, per layer (T, d_model); whether blocks return tuples."""
    kept: list[Tensor] = []
    returns_tuples: list[bool] = []

    def keep(module: nn.Module, args: object, output: BlockOutput) -> None:
        kept.append(first_output(output).reshape(len(ids), -1))

    def keep_kind(module: nn.Module, args: object, output: BlockOutput) -> None:
        returns_tuples.append(isinstance(output, tuple))

    hooks = [Hook(_module(lm, kind, layer), keep) for layer in range(lm.n_layers)]
    with Hooks([*hooks, Hook(lm.blocks[0], keep_kind)]):
        logits = compute_logits(lm, [ids], [[len(ids) - 1]])
    return logits, kept, any(returns_tuples)


def _run_corrupted(
    lm: LanguageModel, batch: Batch, subject: range, settings: CausalTrace, deviation: float
) -> tuple[list[Tensor], Prefix]:
    """Inputs of all blocks, then the output of the last (each n_samples, T, d_model); attention keys and values."""
    inputs: list[Tensor] = []
    generator = torch.Generator().manual_seed(settings.seed)

    def add_noise(module: nn.Module, args: object, output: Tensor) -> Tensor:
        noise = torch.randn((len(output), len(subject), output.shape[-1]), generator=generator)
        corrupted = output.clone()
        corrupted[:, subject[0] : subject[-1] + 1] += (settings.noise * deviation * noise).to(output)
        return corrupted

    def keep_input(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        inputs.append(args[0])

    def keep_output(module: nn.Module, args: object, output: BlockOutput) -> None:
        inputs.append(first_output(output))

    keep = [*(Hook(block, keep_input, before=True) for block in lm.blocks), Hook(lm.blocks[-1], keep_output)]
    with Hooks([Hook(lm.model.get_input_embeddings(), add_noise), *keep]):
        prefix = compute_prefix(lm, batch, batch.ids.shape[1])
    assert prefix is not None
    return inputs, prefix


def _module(lm: LanguageModel, kind: Kind, layer: int) -> nn.Module:
    if kind == "state":
        return lm.blocks[layer]
    return lm.mlp_out(layer) if kind == "mlp" else lm.model.get_submodule(lm.arch.attention_module(layer))


def _probability(logits: Tensor, answer: int) -> Tensor:
    """Probability of the answer (R,) from logits (R, V)."""
    logits = widen(logits)
    return (logits[:, answer] - logits.logsumexp(dim=-1)).exp()
