"""What a model makes of the prompts of a request: chances of the answers, next tokens, a continuation."""

from dataclasses import dataclass

import torch

from workbench.encoding import Encoded, encode
from workbench.evaluation.decoding import continue_greedily
from workbench.evaluation.edits import Probe
from workbench.forward import logits_at, read_targets
from workbench.lm import LanguageModel

N_TOP = 3
N_CONTINUED = 12


@dataclass(frozen=True)
class Reading:
    """What a model makes of one prompt.

    Attributes
    ----------
    chances : dict of str to float
        Probability of each answer looked for, all its tokens together.
    next_tokens : tuple of (str, float)
        The most probable next tokens, and their probabilities.
    continuation : str
        Greedy.
    """

    chances: dict[str, float]
    next_tokens: tuple[tuple[str, float], ...]
    continuation: str


def answers_of(probe: Probe) -> tuple[str, ...]:
    """The answers whose chances are read: the probe's own, then the one it is compared with."""
    return (probe.target,) if probe.rival is None else (probe.target, probe.rival)


def read_probes(lm: LanguageModel, probes: list[Probe]) -> list[Reading]:
    """What the model as it is now makes of each probe.

    Parameters
    ----------
    lm : LanguageModel
        Not changed.
    probes : list of Probe
        From `workbench.evaluation.edits.probes_of`.

    Returns
    -------
    list of Reading
        One a probe.

    Raises
    ------
    RequestError
        If an answer tokenises to nothing.
    """
    texts = [[encode(lm.tokenizer, probe.prompt, answer) for answer in answers_of(probe)] for probe in probes]
    prompts = [first.prompt_ids for first, *_ in texts]
    chances = iter(_chances(lm, [text for of_probe in texts for text in of_probe]))
    top = _next_tokens(lm, prompts)
    said = _continuations(lm, prompts)
    return [
        Reading({answer: next(chances) for answer in answers_of(probe)}, top[i], said[i])
        for i, probe in enumerate(probes)
    ]


def _chances(lm: LanguageModel, texts: list[Encoded]) -> list[float]:
    """exp(Σ log p) over the tokens of each text's target."""
    return [float(log_probs.sum().exp()) for _, log_probs in read_targets(lm, texts)]


def _next_logits(lm: LanguageModel, rows: list[tuple[int, ...]]) -> torch.Tensor:
    return logits_at(lm, rows, [(len(row) - 1,) for row in rows])  # (B, V)


def _next_tokens(lm: LanguageModel, prompts: list[tuple[int, ...]]) -> list[tuple[tuple[str, float], ...]]:
    top = _next_logits(lm, prompts).softmax(dim=-1).topk(N_TOP)
    return [
        tuple((lm.tokenizer.decode([token]), chance) for token, chance in zip(tokens, chances, strict=True))
        for tokens, chances in zip(top.indices.tolist(), top.values.tolist(), strict=True)
    ]


def _continuations(lm: LanguageModel, prompts: list[tuple[int, ...]]) -> list[str]:
    written = continue_greedily(lm, prompts, [()] * len(prompts), [N_CONTINUED] * len(prompts))
    return lm.tokenizer.batch_decode(written, skip_special_tokens=True)
