"""The logit lens: what each hidden state of a model would predict, by the model's own final norm and head.

nostalgebraist 2020, "interpreting GPT: the logit lens". A decoder block adds to the hidden state of each token, so
every state can be read as if it were the last one. After an edit, the lens shows at which layer and at which token
the new answer enters.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from workbench.arguments import checked
from workbench.editing.passes.hooks import Hook, Hooks, first_output
from workbench.editing.passes.upper_blocks import BlockOutput, UpperBlocks
from workbench.encoding import encode
from workbench.errors import RequestError
from workbench.forward import compute_logits, pad_texts, widen
from workbench.lm import LanguageModel
from workbench.request import EditRequest
from workbench.storage.cache import compute_missing

EMBEDDING = -1  # the layer whose output is the input of block 0
OWN = "own answer"  # label of the token that the unedited model finds most probable after the text
_READINGS_KEPT = 64  # a reading of 30 layers and 20 tokens with 50 tokens in each cell takes 0.4 MB
_LOGITS_AT_ONCE = 2**24  # 64 MiB in float32, whatever the size of the vocabulary


@dataclass(frozen=True, eq=False)
class LensReading:
    """What the hidden states of one text predict, from the embedding's output (row 0) to the last block's.

    Row S − 1 is what the model itself predicts. Row s is the output of block s − 1, so `layers` begins at −1.

    Attributes
    ----------
    text : str
        The text.
    tokens : tuple of str
        Its T tokens, special tokens included.
    words : dict of int to str
        Text of every token that occurs in `top_ids` or `watched`.
    watched : dict of str to int
        A watched tokens by label.
    top_ids, top_probabilities : Tensor (S, T, k)
        The k most probable tokens of each state, in descending order; float32, on the CPU like the others.
    log_probs : Tensor (S, T, A)
        Log-probability of each watched token, in nats.
    ranks : Tensor (S, T, A)
        Its rank in the vocabulary; 1 is the most probable token.
    """

    text: str
    tokens: tuple[str, ...]
    words: dict[int, str]
    watched: dict[str, int]
    top_ids: Tensor
    top_probabilities: Tensor
    log_probs: Tensor
    ranks: Tensor

    @property
    def layers(self) -> tuple[int, ...]:
        """The layer of each row: −1 for the embedding, then the blocks."""
        return tuple(range(EMBEDDING, len(self.top_ids) + EMBEDDING))

    @property
    def own_id(self) -> int:
        """The token that the model finds most probable after the text."""
        return int(self.top_ids[-1, -1, 0])

    def tabulate_top(self) -> pd.DataFrame:
        """Return one row per state: layer, position, token, top (its most probable next token), probability."""
        rows = [
            (layer, position, token, self.words[int(ids[position, 0])], float(probabilities[position, 0]))
            for layer, ids, probabilities in zip(self.layers, self.top_ids, self.top_probabilities, strict=True)
            for position, token in enumerate(self.tokens)
        ]
        return pd.DataFrame(rows, columns=["layer", "position", "token", "top", "probability"])

    def tabulate_watched(self) -> pd.DataFrame:
        """Return one row per state and watched token: layer, position, token, answer, probability, log_prob, rank."""
        rows = [
            (layer, position, token, label, float(log_prob.exp()), float(log_prob), int(rank))
            for layer, log_probs, ranks in zip(self.layers, self.log_probs, self.ranks, strict=True)
            for position, token in enumerate(self.tokens)
            for label, log_prob, rank in zip(self.watched, log_probs[position], ranks[position], strict=True)
        ]
        columns = ["layer", "position", "token", "answer", "probability", "log_prob", "rank"]
        return pd.DataFrame(rows, columns=columns)


@checked
def read_lens(lm: LanguageModel, text: str, *, watch: Mapping[str, str | int], top: int = 5) -> LensReading:
    """Read what every hidden state of a text predicts, with the current weights.

    The states go through the model's own final norm and head, so that soft caps, scales and biases are the model's.
    Without updates applied, the reading is kept with the model.

    Parameters
    ----------
    lm : LanguageModel
        The model with its current weights; not changed.
    text : str
        The text.
    watch : mapping of str to str or int
        Tokens whose probability is read at every state, by label: an answer stands for its first token after the text,
        a number for the token of that id.
    top : int
        Number of most probable tokens to keep of each state.

    Returns
    -------
    LensReading

    Raises
    ------
    RequestError
        If the text or an answer has no token, `top` or a token's id is out of range, or the text is too long.
    """
    if not 1 <= top <= lm.vocabulary_size:
        raise RequestError(f"top must lie between 1 and {lm.vocabulary_size}; got {top}.")
    ids = _encode(lm, text)
    watched = {label: _first_id(lm, text, answer) for label, answer in watch.items()}
    known = lm.unedited_memo("lens", _READINGS_KEPT)
    [reading] = compute_missing(
        known, [(text, tuple(watched.items()), top)], lambda _: [_read(lm, text, ids, watched, top)]
    )
    return reading


@checked
def read_lenses(
    lm: LanguageModel, text: str, *, watch: Mapping[str, str | int], top: int = 5
) -> tuple[LensReading, LensReading]:
    """Read a text with the unedited model and with the current one, watching the unedited model's own answer, too.

    Parameters
    ----------
    lm, text, watch, top
        As for `read_lens`.

    Returns
    -------
    before, after : LensReading
        The same reading twice if no update is applied.
    """
    with lm.unedited():
        watch = {**watch, OWN: _find_own(lm, text)}
        before = read_lens(lm, text, watch=watch, top=top)
    return before, read_lens(lm, text, watch=watch, top=top)


def compare_lenses(before: LensReading, after: LensReading) -> pd.DataFrame:
    """Compare two readings of one text, state by state.

    Parameters
    ----------
    before, after : LensReading
        Readings of the same text with the same watched tokens, usually of the unedited and the edited model.

    Returns
    -------
    DataFrame
        One row per state and watched token: layer, position, token, top_before, top_after, answer, and of the watched
        token probability_before, probability_after, change (their difference), rank_before, rank_after.

    Raises
    ------
    RequestError
        If the texts or the watched tokens differ.
    """
    check_comparable(before, after)
    cell = ["layer", "position", "token"]
    sides = []
    for name, reading in (("before", before), ("after", after)):
        tops = reading.tabulate_top().set_index(cell)["top"]
        side = reading.tabulate_watched().join(tops, on=cell).set_index([*cell, "answer"])
        sides.append(side[["top", "probability", "rank"]].add_suffix(f"_{name}"))
    both = sides[0].join(sides[1], validate="one_to_one").reset_index()
    both["change"] = both["probability_after"] - both["probability_before"]
    order = [*cell, "top_before", "top_after", "answer", "probability_before", "probability_after", "change"]
    return both[[*order, "rank_before", "rank_after"]]


def check_comparable(before: LensReading, after: LensReading) -> None:
    """Raise `RequestError` unless two readings are of one text with the same watched tokens."""
    if (before.text, before.tokens) != (after.text, after.tokens):
        raise RequestError(f"the lenses are of two texts, {before.text!r} and {after.text!r}; read the same one twice.")
    if before.watched != after.watched:
        raise RequestError(
            f"the lenses watch different tokens, {before.watched} and {after.watched}; read both with the same ones."
        )


def _find_own(lm: LanguageModel, text: str) -> int:
    """Return the token that the model finds most probable after a text."""
    ids = _encode(lm, text)

    def predict(_: object) -> list[int]:
        return [int(compute_logits(lm, [ids], [[len(ids) - 1]]).argmax())]

    [own] = compute_missing(lm.unedited_memo("own answers"), [ids], predict)
    return own


def _encode(lm: LanguageModel, text: str) -> tuple[int, ...]:
    if not (ids := encode(lm.tokenizer, text).ids if text else ()):
        raise RequestError(f"the text {text!r} has no token; give a text to read.")
    return ids


def _first_id(lm: LanguageModel, text: str, answer: str | int) -> int:
    if isinstance(answer, str):
        return encode(lm.tokenizer, text, answer).target_ids[0]
    if not 0 <= answer < lm.vocabulary_size:
        raise RequestError(f"token {answer} is out of range: {lm.name} has tokens 0 to {lm.vocabulary_size - 1}.")
    return answer


@torch.no_grad()
def _read(lm: LanguageModel, text: str, ids: tuple[int, ...], watched: dict[str, int], top: int) -> LensReading:
    states, head = _compute_states(lm, ids)
    flat = states.flatten(0, 1)  # (S·T, d_model)
    watched_ids = torch.tensor(list(watched.values()), dtype=torch.long)
    pieces = [
        _read_logits(_read_out(head, piece), watched_ids, top)
        for piece in flat.split(max(1, _LOGITS_AT_ONCE // lm.vocabulary_size))
    ]
    found, probabilities, log_probs, ranks = (
        torch.cat(part).unflatten(0, states.shape[:2]) for part in zip(*pieces, strict=True)
    )
    needed = sorted({*found.flatten().tolist(), *watched.values()})
    return LensReading(
        text=text,
        tokens=tuple(lm.tokenizer.batch_decode([[token] for token in ids])),
        words=dict(zip(needed, lm.tokenizer.batch_decode([[token] for token in needed]), strict=True)),
        watched=watched,
        top_ids=found,
        top_probabilities=probabilities,
        log_probs=log_probs,
        ranks=ranks,
    )


def _compute_states(lm: LanguageModel, ids: tuple[int, ...]) -> tuple[Tensor, UpperBlocks]:
    """Hidden states (S, T, d_model) of a text, and the part of the model above its blocks."""
    states: list[Tensor] = []

    def keep_input(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        states.append(args[0])

    def keep_output(module: nn.Module, args: tuple[Tensor, ...], output: BlockOutput) -> None:
        states.append(first_output(output))

    batch = pad_texts(lm, [ids])
    hooks = [Hook(lm.blocks[0], keep_input, before=True), *(Hook(block, keep_output) for block in lm.blocks)]
    with Hooks(hooks):
        head = UpperBlocks.compute(lm, batch, torch.zeros(batch.ids.shape, dtype=torch.bool), lm.n_layers)
    return torch.cat([state.to(states[-1].device) for state in states]), head


def _read_out(head: UpperBlocks, states: Tensor) -> Tensor:
    """Logits (R, V) of states (R, d_model), each of which passes the final norm and the head as a text of one token."""
    first = torch.zeros(len(states), 1, dtype=torch.long, device=head.ids.device)
    alone = replace(
        head,
        ids=first,
        positions=first,
        mask=torch.ones_like(first),
        read=torch.ones(first.shape, dtype=torch.bool),
        block_input=states[:, None],
    )
    return alone.logits()


def _read_logits(logits: Tensor, watched: Tensor, top: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Most probable tokens (R, top) with probabilities, and log-probabilities and ranks of watched ones (R, A)."""
    logits = widen(logits)
    normalizers = logits.logsumexp(dim=-1, keepdim=True)
    most = logits.topk(top)
    chosen = logits[:, watched.to(logits.device)]
    # numpy counts several times faster than torch sums booleans
    above = [np.count_nonzero((logits > each[:, None]).cpu().numpy(), axis=1) for each in chosen.unbind(1)]
    ranks = torch.from_numpy(np.stack(above, axis=1) + 1) if above else chosen.long()
    return most.indices.cpu(), (most.values - normalizers).exp().cpu(), (chosen - normalizers).cpu(), ranks.cpu()


def tabulate_cells(before: LensReading, after: LensReading, *, answer: str) -> pd.DataFrame:
    """Return one row per side and state, with the change of the probability of one watched token.

    Parameters
    ----------
    before, after : LensReading
        As for `compare_lenses`.
    answer : str
        Label of the watched token.

    Returns
    -------
    DataFrame
        Columns side (before, after), layer, position, token, top, probability (of top) and change (of the answer).

    Raises
    ------
    RequestError
        As `compare_lenses`.
    """
    cell = ["layer", "position"]
    compared = compare_lenses(before, after)
    changes = compared.loc[compared["answer"] == answer, [*cell, "change"]]
    sides = [reading.tabulate_top().assign(side=side) for side, reading in (("before", before), ("after", after))]
    table = pd.concat(sides, ignore_index=True).merge(changes, on=cell, validate="many_to_one")
    return table[["side", *cell, "token", "top", "probability", "change"]]


def watch_answers(request: EditRequest) -> dict[str, str]:
    """Return the answers of a fact to watch, by label: the new one, and the true one if it is known."""
    new = {"new answer": request.target_new}
    return new if request.target_true is None else {**new, "true answer": request.target_true}


def describe_entry(before: LensReading, after: LensReading, *, answer: str) -> str:
    """Return a sentence: from which layer on the last token's state reads as one answer, before and after an edit.

    Parameters
    ----------
    before, after : LensReading
        As for `compare_lenses`.
    answer : str
        Label of the watched token.

    Returns
    -------
    str
    """
    check_comparable(before, after)
    column = list(before.watched).index(answer)
    said = []
    for name, reading in (("unedited", before), ("edited", after)):
        first = reading.ranks[:, -1, column] == 1
        held = int(first.flip(0).cumprod(0).sum())  # rows from the last one down
        where = f"from layer {reading.layers[-held]} on" if held else "not at the last layer"
        said.append(f"{where} ({name})")
    word = before.words[before.watched[answer]].strip()
    return f"The state of the last token reads as {word!r}, the {answer}: {', '.join(said)}."
