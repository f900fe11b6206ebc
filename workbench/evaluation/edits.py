"""Edit metrics: reliability, generalization, locality, portability, under several protocols.

- **reliability**: the edited prompt gives `target_new`.
- **generalization**: so do its rephrasings; a fact's score is their mean.
- **locality**: unrelated prompts give what the *unedited* model gives; a fact's score is the mean of its probes.
- **portability**: one-hop questions give the answer that follows from `target_new` (Yao et al. 2023, arXiv 2305.13172);
  a fact's score is the mean of its questions.

Protocols:

- `teacher_forced`: the share of target tokens that are the argmax given the true tokens before them (the protocol of
  the paper and EasyEdit; for locality, the share of positions where the argmax is unchanged).
- `generated`: the model continues greedily, up to the length of the target or the end of its text; an exact match after
  normalization (for locality, with the unedited model's continuation).
- `probability`: whether `target_new` is more probable, per token, than `target_true` (the form of CounterFact; for
  locality, whether the probe's own target is more probable than `target_new`; there is none for portability).
- `natural` and its variants (`workbench.evaluation.natural`): the model answers by itself, never told the length of the
  target; its text must contain an accepted answer, or with `_exact` be one. For locality that is what the unedited
  model answered: the probe's target if its text contains it, otherwise the text. Aliases of a portability probe are
  accepted; the other protocols compare with its target only. Variants with `_chat` give no rows for a model without
  chat template.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
import pandas as pd
import torch

from workbench.arguments import checked
from workbench.encoding import Encoded, encode
from workbench.errors import EditError
from workbench.evaluation.decoding import continue_greedily, decode_text
from workbench.evaluation.natural import (
    NATURAL_PROTOCOLS,
    NaturalProtocol,
    answer_naturally,
    answer_unedited,
    has_form,
)
from workbench.evaluation.row_updates import RowUpdates
from workbench.evaluation.statistics import summarize
from workbench.evaluation.text import answers_match
from workbench.forward import batch_by_length, score_targets
from workbench.lm import LanguageModel
from workbench.request import EditRequest
from workbench.storage.cache import compute_missing
from workbench.update import WeightUpdate

EditProtocol = Literal[
    "teacher_forced",
    "generated",
    "probability",
    "natural",
    "natural_exact",
    "natural_qa",
    "natural_qa_exact",
    "natural_chat",
    "natural_chat_exact",
]
PROTOCOLS: tuple[EditProtocol, ...] = get_args(EditProtocol)
DEFAULT_PROTOCOLS: tuple[EditProtocol, ...] = ("teacher_forced", "generated", "natural")
METRICS = ("reliability", "generalization", "locality", "portability")


@dataclass(frozen=True)
class Probe:
    """A prompt with its expected answer, which counts towards one metric of one request."""

    request: int  # index of the request
    metric: str
    prompt: str
    target: str
    rival: str | None  # the answer that `probability` compares the target with
    aliases: tuple[str, ...] = ()  # other answers that the natural protocols accept
    context: str = ""  # put before the prompt, but not where the unedited model is asked what locality compares with

    @property
    def asked(self) -> str:
        """The prompt in its context."""
        return self.context + self.prompt


def probes_of(requests: Sequence[EditRequest]) -> list[Probe]:
    """Return the prompts that the metrics of requests need, in the order of requests and metrics."""
    probes = []
    for i, r in enumerate(requests):
        probes.append(Probe(i, "reliability", r.filled_prompt, r.target_new, r.target_true))
        probes += [Probe(i, "generalization", text, r.target_new, r.target_true) for text in r.filled_rephrase]
        probes += [Probe(i, "locality", p.prompt, p.target, r.target_new) for p in r.locality]
        probes += [Probe(i, "portability", p.prompt, p.target, None, p.aliases) for p in r.portability]
    return probes


@checked
def score_edits(
    lm: LanguageModel,
    requests: Sequence[EditRequest],
    *,
    protocols: Sequence[EditProtocol] = DEFAULT_PROTOCOLS,
    batch_size: int = 64,
) -> pd.DataFrame:
    """Score each request on the current model.

    Parameters
    ----------
    lm : LanguageModel
        The model with the edits to be measured applied. The unedited model's answers to the locality probes are
        computed once and kept in its memo.
    requests : sequence of EditRequest
        The facts to measure.
    protocols : sequence of str
        Any of `PROTOCOLS`. `probability` leaves out requests without `target_true`, `natural_chat` and
        `natural_chat_exact` leave out all requests where the model has no chat template.
    batch_size : int
        Number of prompts per forward pass.

    Returns
    -------
    DataFrame
        One row per request, metric and protocol, unless the request has no rephrasing, probe or one-hop question;
        columns request (index), metric, protocol, value (in [0, 1]).

    Raises
    ------
    EditError
        If a protocol is unknown.
    """
    check_protocols(protocols)
    return score_probes(lm, probes_of(requests), protocols, batch_size=batch_size)


def check_protocols(protocols: Sequence[str]) -> None:
    """Raise `EditError` unless all protocols are known."""
    for protocol in protocols:
        if protocol not in PROTOCOLS:
            raise EditError(f"protocol {protocol!r} is not known; known: {', '.join(PROTOCOLS)}.")


def score_probes(
    lm: LanguageModel, probes: list[Probe], protocols: Sequence[EditProtocol], *, batch_size: int = 64
) -> pd.DataFrame:
    """Score requests by their probes on the current model: `score_edits` without its choice of probes.

    Parameters
    ----------
    lm : LanguageModel
        The model that answers.
    probes : list of Probe
        Prompts with what is expected, as from `probes_of`.
    protocols : sequence of str
        Any of `PROTOCOLS`.
    batch_size : int
        Number of prompts per forward pass.

    Returns
    -------
    DataFrame
        As from `score_edits`.
    """
    values = _score_probes(lm, probes, protocols, batch_size)
    return _mean_of_probes(probes, values)


def force_side_by_side(
    lm: LanguageModel, updates: Sequence[WeightUpdate], probes: list[Probe], *, batch_size: int = 64
) -> list[pd.DataFrame]:
    """Score requests by their probes under `teacher_forced` with each of several updates, which share forward passes.

    Parameters
    ----------
    lm, updates, batch_size
        As for `workbench.evaluation.natural.answer_side_by_side`.
    probes : list of Probe
        Prompts with what is expected, as from `probes_of`.

    Returns
    -------
    list of DataFrame
        For each update, as from `score_edits`.

    Raises
    ------
    UpdateError
        If an update is of another model or not finite, or makes weights that are not.
    """
    texts = [encode(lm.tokenizer, p.asked, p.target) for p in probes]
    expected = _expected_tokens(texts, _unedited_answers(lm, probes, batch_size, generate=False))
    rows, of_rows = texts * len(updates), RowUpdates.of_each(lm, updates, len(texts))
    shares = [0.0] * len(rows)
    for batch in batch_by_length([len(text.ids) for text in rows], batch_size):
        with of_rows.select(torch.tensor(batch)).running():
            scores = score_targets(lm, [rows[i] for i in batch])
        for i, of_row in zip(batch, scores, strict=True):
            shares[i] = _share_equal(of_row.argmax.tolist(), expected[i % len(texts)])
    of_updates = [shares[i : i + len(texts)] for i in range(0, len(rows), len(texts))]
    return [_mean_of_probes(probes, {"teacher_forced": each}) for each in of_updates]


def _mean_of_probes(probes: list[Probe], values: Mapping[EditProtocol, Sequence[float | None]]) -> pd.DataFrame:
    """Return the score of each request, metric and protocol from those of the probes; None where there is none."""
    rows = [
        (p.request, p.metric, protocol, value)
        for protocol, of_probes in values.items()
        for p, value in zip(probes, of_probes, strict=True)
        if value is not None
    ]
    each = pd.DataFrame(rows, columns=["request", "metric", "protocol", "value"])
    return each.groupby(["request", "metric", "protocol"], sort=False, as_index=False)[["value"]].mean()


@checked
def evaluate_edits(
    lm: LanguageModel,
    requests: Sequence[EditRequest],
    *,
    protocols: Sequence[EditProtocol] = DEFAULT_PROTOCOLS,
    batch_size: int = 64,
    seed: int = 0,
) -> pd.DataFrame:
    """Measure reliability, generalization, locality and portability of requests on the current model, with intervals.

    Parameters
    ----------
    lm : LanguageModel
        The model with the edits to be measured applied.
    requests : sequence of EditRequest
        The facts to measure; each counts once, whatever its number of rephrasings and probes.
    protocols : sequence of str
        As for `score_edits`.
    batch_size : int
        Number of prompts per forward pass.
    seed : int
        Seed of the bootstrap.

    Returns
    -------
    DataFrame
        One row per metric and protocol; columns metric, protocol, value, n (facts), low, high (95 % interval
        over facts).

    Raises
    ------
    EditError
        If a protocol is unknown.
    """
    scores = score_edits(lm, requests, protocols=protocols, batch_size=batch_size)
    return summarize(scores, ["metric", "protocol"], seed=seed)


@dataclass(frozen=True)
class _Answer:
    """Answer of a model to one prompt, compared with a target."""

    argmax: tuple[int, ...]  # the most probable token at each target token, given the true ones before it
    log_probs: tuple[float, ...]  # of the target's tokens
    continuation: str  # greedy, as long as the target; empty if it was not requested


def _score_probes(
    lm: LanguageModel, probes: list[Probe], protocols: Sequence[EditProtocol], batch_size: int
) -> dict[EditProtocol, list[float | None]]:
    """Return the score of each probe under each protocol, None where it has none."""
    values: dict[EditProtocol, list[float | None]] = {}
    if not NATURAL_PROTOCOLS.keys() >= set(protocols):
        values |= _score_targets(lm, probes, protocols, batch_size)
    return values | _score_natural(lm, probes, protocols, batch_size)


def _score_targets(
    lm: LanguageModel, probes: list[Probe], protocols: Sequence[EditProtocol], batch_size: int
) -> dict[EditProtocol, list[float | None]]:
    """Scores under the protocols that run the targets themselves, or decode for their length."""
    texts = [encode(lm.tokenizer, p.asked, p.target) for p in probes]
    generate = "generated" in protocols
    answers = _compute_answers(lm, texts, batch_size, generate)
    unedited = _unedited_answers(lm, probes, batch_size, generate)
    values: dict[EditProtocol, list[float | None]] = {}
    if "teacher_forced" in protocols:
        pairs_of_tokens = zip(answers, _expected_tokens(texts, unedited), strict=True)
        values["teacher_forced"] = [_share_equal(a.argmax, tokens) for a, tokens in pairs_of_tokens]
    if generate:
        expected = [unedited[i].continuation if i in unedited else p.target for i, p in enumerate(probes)]
        pairs = zip(answers, expected, strict=True)
        values["generated"] = [float(answers_match(a.continuation, e)) for a, e in pairs]
    if "probability" in protocols:
        rivals = zip(answers, _rival_log_probs(lm, probes, batch_size), strict=True)
        values["probability"] = [None if r is None else float(np.mean(a.log_probs) > r) for a, r in rivals]
    return values


def _score_natural(
    lm: LanguageModel, probes: list[Probe], protocols: Sequence[EditProtocol], batch_size: int
) -> dict[EditProtocol, list[float | None]]:
    """Scores under the natural protocols; those of one form of prompts share the model's answers."""
    asked = {name: NATURAL_PROTOCOLS[name] for name in protocols if name in NATURAL_PROTOCOLS}
    prompts = [p.asked for p in probes]
    local = [i for i, p in enumerate(probes) if p.metric == "locality"]
    values: dict[EditProtocol, list[float | None]] = {}
    for form in dict.fromkeys(protocol.form for protocol in asked.values()):
        if not has_form(lm, form):
            continue
        before = answer_unedited(lm, [probes[i].prompt for i in local], form, batch_size=batch_size)
        unedited = dict(zip(local, before, strict=True))
        texts = answer_naturally(lm, prompts, form, batch_size=batch_size)
        for name, protocol in asked.items():
            if protocol.form != form:
                continue
            answered = enumerate(zip(probes, texts, strict=True))
            values[name] = [float(gives_answer(protocol, p, text, unedited.get(i))) for i, (p, text) in answered]
    return values


def gives_answer(protocol: NaturalProtocol, probe: Probe, text: str, unedited: str | None) -> bool:
    """Return whether what a model says to a probe is the answer that its metric expects.

    Parameters
    ----------
    protocol : NaturalProtocol
        How texts are compared with answers.
    probe : Probe
        The prompt with its expected answer.
    text : str
        What the model says, as from `answer_naturally`.
    unedited : str or None
        What the unedited model says, for a probe of locality; None for the others.

    Returns
    -------
    bool
    """
    if unedited is not None:
        return protocol.accepts(text, protocol.expects_of_unedited(unedited, probe.target))
    return any(protocol.accepts(text, answer) for answer in (probe.target, *probe.aliases))


def _rival_log_probs(lm: LanguageModel, probes: list[Probe], batch_size: int) -> list[float | None]:
    """Mean log-probability per token of each probe's rival answer; None if there is no rival."""
    rivals = {i: encode(lm.tokenizer, p.asked, p.rival) for i, p in enumerate(probes) if p.rival is not None}
    answers = _compute_answers(lm, list(rivals.values()), batch_size, generate=False)
    means = {i: float(np.mean(answer.log_probs)) for i, answer in zip(rivals, answers, strict=True)}
    return [means.get(i) for i in range(len(probes))]


def _unedited_answers(lm: LanguageModel, probes: list[Probe], batch_size: int, generate: bool) -> dict[int, _Answer]:
    """Return by index the answers of the unedited model to the probes of locality, computed once for each text."""

    def compute(missing: list[tuple[Encoded, bool]]) -> list[_Answer]:
        with lm.unedited():
            return _compute_answers(lm, [text for text, _ in missing], batch_size, generate)

    local = {i: encode(lm.tokenizer, p.prompt, p.target) for i, p in enumerate(probes) if p.metric == "locality"}
    keys = [(text, generate) for text in local.values()]
    return dict(zip(local, compute_missing(lm.memo.section("edit answers"), keys, compute), strict=True))


def _expected_tokens(texts: list[Encoded], unedited: Mapping[int, _Answer]) -> list[tuple[int, ...]]:
    """Return the tokens that `teacher_forced` expects of each probe: its target, or what the unedited model gives."""
    return [unedited[i].argmax if i in unedited else text.target_ids for i, text in enumerate(texts)]


def _share_equal(tokens: Sequence[int], expected: Sequence[int]) -> float:
    return float(np.equal(tokens, expected).mean())


def _compute_answers(lm: LanguageModel, texts: list[Encoded], batch_size: int, generate: bool) -> list[_Answer]:
    answers: dict[int, _Answer] = {}
    for batch in batch_by_length([len(text.ids) for text in texts], batch_size):
        for i, scores in zip(batch, score_targets(lm, [texts[i] for i in batch]), strict=True):
            answers[i] = _Answer(tuple(scores.argmax.tolist()), tuple(scores.log_probs.tolist()), "")
    in_order = [answers[i] for i in range(len(texts))]
    if not generate:
        return in_order
    continuations = _continue_prompts(lm, texts, in_order, batch_size)
    return [replace(a, continuation=text) for a, text in zip(in_order, continuations, strict=True)]


def _continue_prompts(lm: LanguageModel, texts: list[Encoded], answers: list[_Answer], batch_size: int) -> list[str]:
    """Greedy continuations of the prompts, as text, each up to the length of its target or the end of the model's text.

    Where every target token is the argmax, greedy decoding writes the target itself: for those texts the teacher-forced
    answers are enough. For the others they give the tokens up to and including the first that differs.
    """
    written = []
    for text, answer in zip(texts, answers, strict=True):
        misses = [i for i, (a, b) in enumerate(zip(answer.argmax, text.target_ids, strict=True)) if a != b]
        written.append(answer.argmax[: misses[0] + 1] if misses else answer.argmax)
    lengths = [len(text.target_ids) for text in texts]
    prompts = [text.prompt_ids for text in texts]
    continuations = continue_greedily(lm, prompts, written, lengths, batch_size=batch_size)
    return [decode_text(lm, tokens) for tokens in continuations]
