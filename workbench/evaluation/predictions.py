"""Predictions of a model for the prompts of a fact: next tokens, probabilities of answers, continuations."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from workbench.encoding import Encoded, encode
from workbench.evaluation.decoding import continue_texts
from workbench.evaluation.edits import Probe
from workbench.forward import compute_logits, score_logits
from workbench.lm import LanguageModel

N_TOP = 4  # next tokens


@dataclass(frozen=True)
class TokenPrediction:
    """A probable next token."""

    id: int
    text: str
    probability: float


@dataclass(frozen=True)
class PromptPrediction:
    """Predictions of a model for one prompt.

    Attributes
    ----------
    next_tokens : tuple of TokenPrediction
        The most probable next tokens, in descending order.
    probabilities : dict of str to float
        Probability of each answer, the product over its tokens; the probe's target comes first.
    first_ids : dict of str to int
        First token of each answer.
    target_ids, argmax : tuple of int
        Tokens of the probe's target, and the most probable tokens in their places, given the target's tokens before.
    continuation : str
        Greedy continuation of the prompt; empty unless it was requested.
    """

    next_tokens: tuple[TokenPrediction, ...]
    probabilities: dict[str, float]
    first_ids: dict[str, int]
    target_ids: tuple[int, ...]
    argmax: tuple[int, ...]
    continuation: str = ""


@dataclass(frozen=True)
class BeforeAfter:
    """A probe with its predictions before and after the edits."""

    probe: Probe
    before: PromptPrediction  # of the unedited model
    after: PromptPrediction

    @property
    def score(self) -> float:
        """The probe's `teacher_forced` score, as in `wb.score_edits`."""
        expected = self.before.argmax if self.probe.metric == "locality" else self.after.target_ids
        return float(np.equal(self.after.argmax, expected).mean())


def answers_of(probe: Probe) -> tuple[str, ...]:
    """Return the answers whose probabilities are computed: the probe's target, then its rival if there is one."""
    return (probe.target,) if probe.rival is None else (probe.target, probe.rival)


def predict_probes(
    lm: LanguageModel, probes: Sequence[Probe], *, n_top: int = N_TOP, n_continued: int = 0
) -> list[PromptPrediction]:
    """Compute the current model's predictions for probes, all but the continuations in one forward pass.

    Parameters
    ----------
    lm : LanguageModel
        The model with its current weights; not changed.
    probes : sequence of Probe
        Probes from `workbench.evaluation.edits.probes_of`.
    n_top : int
        Number of next tokens per probe.
    n_continued : int
        Largest number of tokens of the greedy continuations; 0 for no continuations.

    Returns
    -------
    list of PromptPrediction
        One per probe.

    Raises
    ------
    RequestError
        If an answer tokenizes to nothing.
    """
    texts = [{answer: encode(lm.tokenizer, probe.prompt, answer) for answer in answers_of(probe)} for probe in probes]
    flat = [text for of_probe in texts for text in of_probe.values()]
    if not flat:
        return []
    logits = dict(zip(flat, _compute_target_logits(lm, flat), strict=True))
    continuations = [""] * len(texts)
    if n_continued:
        prompts = [of_probe[probe.target].prompt_ids for of_probe, probe in zip(texts, probes, strict=True)]
        continuations = continue_texts(lm, prompts, n_continued)
    pairs = zip(texts, continuations, strict=True)
    return [_prediction_of(lm, of_probe, logits, n_top, continuation) for of_probe, continuation in pairs]


def _prediction_of(
    lm: LanguageModel, texts: dict[str, Encoded], logits: dict[Encoded, Tensor], n_top: int, continuation: str
) -> PromptPrediction:
    target, *_ = texts.values()
    scores = {answer: score_logits(logits[text], [text.target_ids])[0] for answer, text in texts.items()}
    top = logits[target][0].softmax(dim=-1).topk(n_top)
    words = lm.tokenizer.batch_decode(top.indices[:, None])
    return PromptPrediction(
        next_tokens=tuple(
            TokenPrediction(*each) for each in zip(top.indices.tolist(), words, top.values.tolist(), strict=True)
        ),
        probabilities={answer: float(score.log_probs.sum().exp()) for answer, score in scores.items()},
        first_ids={answer: text.target_ids[0] for answer, text in texts.items()},
        target_ids=target.target_ids,
        argmax=tuple(next(iter(scores.values())).argmax.tolist()),
        continuation=continuation,
    )


def _compute_target_logits(lm: LanguageModel, texts: Sequence[Encoded]) -> list[Tensor]:
    """Logits (target tokens, V) that predict each text's target; a prefix of another text is not run by itself."""
    rows = [text.ids[:-1] for text in texts]
    hosts: list[tuple[int, ...]] = []
    for row in sorted(set(rows), reverse=True):  # a row comes directly after the longest of those that begin with it
        if not hosts or hosts[-1][: len(row)] != row:
            hosts.append(row)
    host_of = [next(i for i, host in enumerate(hosts) if host[: len(row)] == row) for row in rows]
    positions: list[set[int]] = [set() for _ in hosts]
    for i, text in zip(host_of, texts, strict=True):
        positions[i].update(text.before_targets)
    logits = compute_logits(lm, hosts, [sorted(of_host) for of_host in positions])
    order = [(i, position) for i, of_host in enumerate(positions) for position in sorted(of_host)]
    row_of = {key: row for row, key in enumerate(order)}
    return [
        logits[[row_of[i, position] for position in text.before_targets]]
        for i, text in zip(host_of, texts, strict=True)
    ]
