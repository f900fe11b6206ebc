"""What a model makes of a fact's prompts, all read in one forward pass."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from workbench.encoding import Encoded, encode
from workbench.evaluation.edits import Probe
from workbench.forward import logits_at
from workbench.lm import LanguageModel

N_TOP = 4  # next tokens


@dataclass(frozen=True)
class Token:
    """A next token that a model finds probable."""

    id: int
    text: str
    chance: float


@dataclass(frozen=True)
class Reading:
    """What a model makes of one prompt.

    Attributes
    ----------
    next_tokens : tuple of Token
        The most probable ones.
    chances : dict of str to float
        Probability of each answer looked for, all its tokens together; the probe's own first.
    first_ids : dict of str to int
        The first token of each answer.
    target_ids, argmax : tuple of int
        Tokens of the probe's own answer, and the most probable ones in their places, given those before.
    """

    next_tokens: tuple[Token, ...]
    chances: dict[str, float]
    first_ids: dict[str, int]
    target_ids: tuple[int, ...]
    argmax: tuple[int, ...]


@dataclass(frozen=True)
class Answered:
    """A prompt before and after the edits."""

    probe: Probe
    before: Reading  # of the unedited model
    after: Reading

    @property
    def score(self) -> float:
        """The probe's `teacher_forced` score, as `wb.score_edits` gives it."""
        wanted = self.before.argmax if self.probe.metric == "locality" else self.after.target_ids
        return float(np.equal(self.after.argmax, wanted).mean())


def answers_of(probe: Probe) -> tuple[str, ...]:
    """The answers whose chances are read: the probe's own, then the one it is compared with."""
    return (probe.target,) if probe.rival is None else (probe.target, probe.rival)


def read_probes(lm: LanguageModel, probes: Sequence[Probe], *, n_top: int = N_TOP) -> list[Reading]:
    """What the model as it is now makes of each probe.

    Parameters
    ----------
    lm : LanguageModel
        Not changed.
    probes : sequence of Probe
        From `workbench.evaluation.edits.probes_of`.
    n_top : int
        Next tokens of each.

    Returns
    -------
    list of Reading
        One a probe.

    Raises
    ------
    RequestError
        If an answer tokenises to nothing.
    """
    texts = [{answer: encode(lm.tokenizer, probe.prompt, answer) for answer in answers_of(probe)} for probe in probes]
    flat = [text for of_probe in texts for text in of_probe.values()]
    if not flat:
        return []
    logits = dict(zip(flat, _target_logits(lm, flat), strict=True))
    return [_reading(lm, of_probe, logits, n_top) for of_probe in texts]


def _reading(lm: LanguageModel, texts: dict[str, Encoded], logits: dict[Encoded, Tensor], n_top: int) -> Reading:
    own, *_ = texts.values()
    log_probs = {answer: logits[text].log_softmax(dim=-1) for answer, text in texts.items()}  # (target tokens, V)
    top = logits[own][0].softmax(dim=-1).topk(n_top)
    return Reading(
        next_tokens=tuple(
            Token(token, lm.tokenizer.decode([token]), chance)
            for token, chance in zip(top.indices.tolist(), top.values.tolist(), strict=True)
        ),
        chances={
            answer: float(rows.gather(1, rows.new_tensor(texts[answer].target_ids).long()[:, None]).sum().exp())
            for answer, rows in log_probs.items()
        },
        first_ids={answer: text.target_ids[0] for answer, text in texts.items()},
        target_ids=own.target_ids,
        argmax=tuple(logits[own].argmax(dim=-1).tolist()),
    )


def _target_logits(lm: LanguageModel, texts: Sequence[Encoded]) -> list[Tensor]:
    """Logits (target tokens, V) that predict each text's target; a text that begins another is read off that one."""
    rows = [text.ids[:-1] for text in texts]
    hosts: list[tuple[int, ...]] = []
    for row in sorted(set(rows), reverse=True):  # a row stands right behind the longest of those that begin with it
        if not hosts or hosts[-1][: len(row)] != row:
            hosts.append(row)
    host_of = [next(i for i, host in enumerate(hosts) if host[: len(row)] == row) for row in rows]
    reads: list[set[int]] = [set() for _ in hosts]
    for i, text in zip(host_of, texts, strict=True):
        reads[i].update(text.before_targets)
    order = [(i, at) for i, read in enumerate(reads) for at in sorted(read)]
    logits = logits_at(lm, hosts, [tuple(sorted(read)) for read in reads])
    place = {key: row for row, key in enumerate(order)}
    return [logits[[place[i, at] for at in text.before_targets]] for i, text in zip(host_of, texts, strict=True)]
