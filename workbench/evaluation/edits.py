"""Edit metrics: reliability, generalization, locality, by teacher forcing, by generation, by probability.

- **reliability**: the edited prompt gives `target_new`.
- **generalization**: so do its rephrasings; a fact's score is their mean.
- **locality**: unrelated prompts give what the *unedited* model gives; a fact's score is the mean of its probes.

Protocols: `teacher_forced` is the share of target tokens that are the argmax given the true tokens before them
(what the paper and EasyEdit report; for locality the share of positions where the argmax stays). `generated` lets
the model continue greedily, for as many tokens as the target has or until it ends its text, and asks for an exact
match after normalisation (for locality: of the unedited model's continuation). `probability` asks whether
`target_new` is more probable, per token, than `target_true` (CounterFact's form; for locality the probe's own target
against `target_new`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd

from workbench.encoding import Encoded, encode
from workbench.errors import EditError
from workbench.evaluation.decoding import continue_greedily
from workbench.evaluation.statistics import summarize
from workbench.evaluation.text import same_answer
from workbench.forward import like_lengths, read_targets
from workbench.lm import LanguageModel
from workbench.request import EditRequest

Protocol = Literal["teacher_forced", "generated", "probability"]
PROTOCOLS: tuple[Protocol, ...] = ("teacher_forced", "generated", "probability")
DEFAULT_PROTOCOLS: tuple[Protocol, ...] = ("teacher_forced", "generated")
METRICS = ("reliability", "generalization", "locality")


@dataclass(frozen=True)
class Probe:
    """One prompt with the answer that is looked for, and the request and metric it speaks for."""

    request: int  # index of the request
    metric: str
    prompt: str
    target: str
    rival: str | None  # the answer it is compared with under `probability`


def probes_of(requests: Sequence[EditRequest]) -> list[Probe]:
    """All prompts that the metrics of these requests read, in order of request and metric."""
    probes = []
    for i, r in enumerate(requests):
        probes.append(Probe(i, "reliability", r.filled_prompt, r.target_new, r.target_true))
        probes += [Probe(i, "generalization", text, r.target_new, r.target_true) for text in r.filled_rephrase]
        probes += [Probe(i, "locality", p.prompt, p.target, r.target_new) for p in r.locality]
    return probes


def score_edits(
    lm: LanguageModel,
    requests: Sequence[EditRequest],
    *,
    protocols: Sequence[Protocol] = DEFAULT_PROTOCOLS,
    batch_size: int = 32,
) -> pd.DataFrame:
    """Scores of each request on the model as it is now.

    Parameters
    ----------
    lm : LanguageModel
        With the edits applied that are to be measured. What the unedited model answers to the locality probes is
        computed once and kept in `lm.memo`.
    requests : sequence of EditRequest
        The facts to measure.
    protocols : sequence of str
        Of `teacher_forced`, `generated`, `probability`; the last leaves out requests without `target_true`.
    batch_size : int
        Prompts in one forward pass.

    Returns
    -------
    DataFrame
        Columns request (index), metric, protocol, value in [0, 1]; no row where a request has no rephrasing or probe.

    Raises
    ------
    EditError
        If a protocol is not known.
    """
    for protocol in protocols:
        if protocol not in PROTOCOLS:
            raise EditError(f"protocol {protocol!r} is not known; known: {', '.join(PROTOCOLS)}.")
    probes = probes_of(requests)
    rows = []
    for protocol, values in _score_probes(lm, probes, protocols, batch_size).items():
        rows += [(p.request, p.metric, protocol, v) for p, v in zip(probes, values, strict=True) if v is not None]
    each = pd.DataFrame(rows, columns=["request", "metric", "protocol", "value"])
    return each.groupby(["request", "metric", "protocol"], sort=False, as_index=False)["value"].mean()


def evaluate_edits(
    lm: LanguageModel,
    requests: Sequence[EditRequest],
    *,
    protocols: Sequence[Protocol] = DEFAULT_PROTOCOLS,
    batch_size: int = 32,
    seed: int = 0,
) -> pd.DataFrame:
    """Reliability, generalization and locality of requests on the model as it is now, with intervals.

    Parameters
    ----------
    lm : LanguageModel
        With the edits applied that are to be measured.
    requests : sequence of EditRequest
        The facts; each counts once, whatever its number of rephrasings and probes.
    protocols : sequence of str
        As for `score_edits`.
    batch_size : int
        Prompts in one forward pass.
    seed : int
        Of the bootstrap.

    Returns
    -------
    DataFrame
        Columns metric, protocol, value, n (facts), low, high (95 % bootstrap interval over facts).

    Raises
    ------
    EditError
        If a protocol is not known.
    """
    scores = score_edits(lm, requests, protocols=protocols, batch_size=batch_size)
    return summarize(scores, ["metric", "protocol"], seed=seed)


@dataclass(frozen=True)
class _Answer:
    """What a model makes of one prompt and its target."""

    argmax: tuple[int, ...]  # the most probable token at each target token, given the true ones before it
    log_probs: tuple[float, ...]  # of the target's tokens
    continuation: str | None = None  # greedy, as long as the target


def _score_probes(
    lm: LanguageModel, probes: list[Probe], protocols: Sequence[Protocol], batch_size: int
) -> dict[Protocol, list[float | None]]:
    texts = [encode(lm.tokenizer, p.prompt, p.target) for p in probes]
    generate = "generated" in protocols
    now = _answers(lm, texts, batch_size, generate)
    probed = [i for i, p in enumerate(probes) if p.metric == "locality"]
    before = dict(zip(probed, _unedited_answers(lm, [texts[i] for i in probed], batch_size, generate), strict=True))
    values: dict[Protocol, list[float | None]] = {}
    if "teacher_forced" in protocols:
        wanted = [before[i].argmax if i in before else text.target_ids for i, text in enumerate(texts)]
        values["teacher_forced"] = [float(np.equal(a.argmax, w).mean()) for a, w in zip(now, wanted, strict=True)]
    if generate:
        said = [before[i].continuation if i in before else p.target for i, p in enumerate(probes)]
        pairs = zip(now, said, strict=True)
        values["generated"] = [float(same_answer(a.continuation, w)) for a, w in pairs]
    if "probability" in protocols:
        rivals = _rival_log_probs(lm, probes, batch_size)
        pairs = zip(now, rivals, strict=True)
        values["probability"] = [None if r is None else float(np.mean(a.log_probs) > r) for a, r in pairs]
    return values


def _rival_log_probs(lm: LanguageModel, probes: list[Probe], batch_size: int) -> list[float | None]:
    """Mean log-probability per token of each probe's rival answer; None where there is no rival."""
    having = [i for i, p in enumerate(probes) if p.rival is not None]
    texts = [encode(lm.tokenizer, probes[i].prompt, probes[i].rival) for i in having]
    means = [float(np.mean(answer.log_probs)) for answer in _answers(lm, texts, batch_size, generate=False)]
    found = dict(zip(having, means, strict=True))
    return [found.get(i) for i in range(len(probes))]


def _unedited_answers(lm: LanguageModel, texts: list[Encoded], batch_size: int, generate: bool) -> list[_Answer]:
    """What the unedited model answers, computed once for each text."""
    keys = [("answer", text, generate) for text in texts]
    if missing := [key for key in dict.fromkeys(keys) if key not in lm.memo]:
        with lm.unedited():
            lm.memo.update(zip(missing, _answers(lm, [key[1] for key in missing], batch_size, generate), strict=True))
    return [lm.memo[key] for key in keys]


def _answers(lm: LanguageModel, texts: list[Encoded], batch_size: int, generate: bool) -> list[_Answer]:
    answers: list = [None] * len(texts)
    for batch in like_lengths([len(text.ids) for text in texts], batch_size):
        chosen = [texts[i] for i in batch]
        for i, (argmax, log_prob) in zip(batch, read_targets(lm, chosen), strict=True):
            answers[i] = _Answer(tuple(argmax.tolist()), tuple(log_prob.tolist()))
    if not generate:
        return answers
    continuations = _continuations(lm, texts, answers, batch_size)
    return [replace(a, continuation=said) for a, said in zip(answers, continuations, strict=True)]


def _continuations(lm: LanguageModel, texts: list[Encoded], answers: list[_Answer], batch_size: int) -> list[str]:
    """Greedy continuations of the prompts, each as long as its target or until the model ends its text, as text.

    Where every target token is the argmax, greedy decoding writes the target itself; the teacher-forced answers
    settle those texts, and of the others the tokens up to the first miss.
    """
    written = []
    for text, answer in zip(texts, answers, strict=True):
        misses = [i for i, (a, b) in enumerate(zip(answer.argmax, text.target_ids, strict=True)) if a != b]
        written.append(answer.argmax[: misses[0] + 1] if misses else answer.argmax)
    lengths = [len(text.target_ids) for text in texts]
    whole = continue_greedily(lm, [text.prompt_ids for text in texts], written, lengths, batch_size=batch_size)
    return [lm.tokenizer.decode(tokens, skip_special_tokens=True) for tokens in whole]
