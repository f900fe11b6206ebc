"""What an update writes: its leading output directions, read as tokens through the final norm and the unembedding."""

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from workbench.arguments import checked
from workbench.changes import Change, LowRank
from workbench.editing.passes.upper_blocks import UpperBlocks
from workbench.encoding import encode_request
from workbench.forward import pad_rows, widen
from workbench.lm import LanguageModel
from workbench.spectral import singular_vectors
from workbench.update import WeightUpdate

N_VECTORS = 3
N_TOKENS = 8
# output projection of the attention in a block, where it is not that of Llama's descendants
_ATTENTION_OUT = {
    "GPT-2": "attn.c_proj",
    "GPT-J": "attn.out_proj",
    "GPT-NeoX/Pythia": "attention.dense",
    "OPT": "self_attn.out_proj",
    "Phi": "self_attn.dense",
}
_USUAL_ATTENTION_OUT = "self_attn.o_proj"
_ATTENTION_NORM = "post_attention_layernorm"  # of the blocks that also have an `mlp_norm`


@dataclass(frozen=True)
class WrittenToken:
    """A token that a direction promotes or suppresses.

    Attributes
    ----------
    id : int
        Token id.
    text : str
        The token as text.
    score : float
        Logit that the direction gives to the token, without what a constant adds; negative if it is suppressed.
    """

    id: int
    text: str
    score: float


@dataclass(frozen=True)
class WrittenVector:
    """One left singular vector of a ΔW, read as tokens.

    Attributes
    ----------
    share : float
        σ² of the vector over ‖ΔW‖², from 0 to 1.
    promoted, suppressed : tuple of WrittenToken
        The tokens with the largest and with the smallest scores, the extreme one first.
    is_signed : bool
        Whether the sign is that with which the update writes the vector at the keys of its edits. Without keys, as in
        fine-tuning, it is arbitrary, and what is promoted may be suppressed.
    answer : WrittenToken or None
        First token of the new answer; None for an update of several facts, or of none.
    answer_rank : int or None
        Rank of that token among all by its score, from 1.
    """

    share: float
    promoted: tuple[WrittenToken, ...]
    suppressed: tuple[WrittenToken, ...]
    is_signed: bool
    answer: WrittenToken | None = None
    answer_rank: int | None = None


@dataclass(frozen=True)
class Written:
    """What the update of one matrix writes.

    Attributes
    ----------
    parameter : str
        Name of the matrix.
    vectors : tuple of WrittenVector
        Its leading vectors, in descending order of share; none if they cannot be read.
    refused : str or None
        Why they cannot be read, in one sentence; None if they can.
    """

    parameter: str
    vectors: tuple[WrittenVector, ...]
    refused: str | None = None


class _Directions(NamedTuple):
    """Leading left singular vectors."""

    vectors: Tensor  # (k, d_out), orthonormal rows, float64
    shares: list[float]  # of ‖ΔW‖²


@checked
@torch.no_grad()
def read_written(
    update: WeightUpdate, lm: LanguageModel, *, n_vectors: int = N_VECTORS, n_tokens: int = N_TOKENS
) -> list[Written]:
    """Return the tokens that the leading left singular vectors of each ΔW promote and suppress.

    A linear layer whose output is added to the residual stream writes, for any input, a combination of the left
    singular vectors u of ΔW. Each is put through the norm of the layer's output where the family has one, the model's
    own final norm and its head: the logit lens, applied to weights as by Dar et al. 2023 (arXiv 2209.02535). A norm
    divides by the length of the whole stream, of which u is only a part, so that only the direction is meaningful: u
    is given the length √d_model, and the scores are (f(u) − f(−u)) / 2, from which the biases of norm and head cancel.
    Later blocks, which also read what is written, are left out: in a low layer the tokens seldom name the new answer.

    Singular vectors come from the factors where the update has some, otherwise from the d_model × d_model Gram matrix.

    Parameters
    ----------
    update : WeightUpdate
        The update of one edit, or a sum.
    lm : LanguageModel
        The model that the update belongs to; not changed.
    n_vectors : int
        Largest number of vectors per matrix.
    n_tokens : int
        Number of tokens per vector and side.

    Returns
    -------
    list of Written
        One per matrix of the update.

    Raises
    ------
    UpdateError
        If the update does not fit the model.
    """
    update.check_fits(lm)
    return [_read_matrix(update, name, lm, n_vectors, n_tokens) for name in update]


def _read_matrix(update: WeightUpdate, name: str, lm: LanguageModel, n_vectors: int, n_tokens: int) -> Written:
    norms = _norms_on_the_way(lm, name)
    if norms is None:
        return Written(name, (), f"{name} is not read: its output stays in its block instead of the residual stream.")
    found = _leading_directions(update[name], n_vectors, conv1d=lm.arch.conv1d)
    if not found.shares:
        return Written(name, (), f"{name} is not read: its update is zero.")
    signs = _signs(update, name, found.vectors, conv1d=lm.arch.conv1d)
    vectors = found.vectors if signs is None else found.vectors * signs[:, None]
    scores = _score_tokens(lm, vectors, norms)
    if signs is None:  # the side that stands out is shown as promoted
        scores = scores * torch.where(scores.amax(dim=1) >= -scores.amin(dim=1), 1.0, -1.0)[:, None]
    answer, read = _answer_of(update, lm), []
    for share, of_vector in zip(found.shares, scores, strict=True):
        count = min(n_tokens, len(of_vector))
        promoted, suppressed = (
            _tokens(lm, of_vector, of_vector.topk(count, largest=up).indices) for up in (True, False)
        )
        vector = WrittenVector(share, promoted, suppressed, is_signed=signs is not None)
        if answer is not None:
            [token], rank = (
                _tokens(lm, of_vector, torch.tensor([answer])),
                1 + int((of_vector > of_vector[answer]).sum()),
            )
            vector = replace(vector, answer=token, answer_rank=rank)
        read.append(vector)
    return Written(name, tuple(read))


def _answer_of(update: WeightUpdate, lm: LanguageModel) -> int | None:
    """Return the first token of the new answer of an update of one fact."""
    requests = [request for record in update.records for request in record.requests]
    return encode_request(lm.tokenizer, requests[0]).target_ids[0] if len(requests) == 1 else None


def _norms_on_the_way(lm: LanguageModel, name: str) -> list[nn.Module] | None:
    """Return the norms between a layer and the residual stream; None if its output is not added to it."""
    module, attention_out = name.removesuffix(".weight"), _ATTENTION_OUT.get(lm.arch.name, _USUAL_ATTENTION_OUT)
    for layer in range(lm.n_layers):
        for part, norm in ((lm.arch.mlp_out, lm.arch.mlp_norm), (attention_out, lm.arch.mlp_norm and _ATTENTION_NORM)):
            if module == f"{lm.arch.block(layer)}.{part}":
                return [lm.model.get_submodule(f"{lm.arch.block(layer)}.{norm}")] if norm else []
    return None


def _leading_directions(change: Change, n_vectors: int, *, conv1d: bool) -> _Directions:
    """Return the leading output directions of a ΔW; fewer than `n_vectors` if the others are rounding errors."""
    if isinstance(change, LowRank):
        rows, values, cols = singular_vectors(change)
        vectors, squares = (cols if conv1d else rows).T, values.square()
    else:
        dW = change.dense().double()
        M = dW.T if conv1d else dW  # (d_out, d_in)
        squares, columns = torch.linalg.eigh(M @ M.T)  # ascending
        vectors, squares = columns.T.flip(0), squares.flip(0).clamp_min(0)
    total = float(squares.sum())
    count = min(n_vectors, int((squares > torch.finfo(torch.float32).eps ** 2 * total).sum())) if total > 0 else 0
    return _Directions(vectors[:count], [float(square) / total for square in squares[:count]])


def _signs(update: WeightUpdate, name: str, vectors: Tensor, *, conv1d: bool) -> Tensor | None:
    """Return the sign with which ΔW writes each vector (k, d_out) at the keys of its edits; None without keys."""
    keys = [record.keys[name] for record in update.records if name in record.keys]
    if not keys:
        return None
    key = torch.cat(keys).double().sum(dim=0).to(vectors.device)  # (d_in,)
    change = update[name]
    if isinstance(change, LowRank):
        left, right = (change.cols, change.rows) if conv1d else (change.rows, change.cols)
        written = left.double() @ (right.double().T @ key)
    else:
        dW = change.dense().double()
        written = (dW.T if conv1d else dW) @ key
    return torch.where(vectors @ written >= 0, 1.0, -1.0).to(vectors)


def _score_tokens(lm: LanguageModel, vectors: Tensor, norms: list[nn.Module]) -> Tensor:
    """Return the logits (k, V) of directions (k, d_model), in float32 or wider, on the CPU."""
    both = torch.cat([vectors, -vectors]) * math.sqrt(vectors.shape[1])
    batch, read = pad_rows(lm, [(0,) * len(both)], [range(len(both))])
    upper = UpperBlocks.compute(lm, batch, read, lm.n_layers)
    states = both.to(upper.block_input)
    for norm in norms:
        up, down = norm(states).chunk(2)
        direction = torch.nn.functional.normalize((up - down).double(), dim=1) * math.sqrt(vectors.shape[1])
        states = torch.cat([direction, -direction]).to(upper.block_input)
    up, down = widen(upper.logits(states[None])).chunk(2)
    return ((up - down) / 2).cpu()


def _tokens(lm: LanguageModel, scores: Tensor, ids: Tensor) -> tuple[WrittenToken, ...]:
    triples = zip(ids.tolist(), lm.tokenizer.batch_decode(ids[:, None]), scores[ids].tolist(), strict=True)
    return tuple(WrittenToken(*each) for each in triples)
