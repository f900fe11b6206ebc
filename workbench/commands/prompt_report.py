"""What a model makes of the prompts of a request: chances of the answers, next tokens, a continuation."""

from dataclasses import dataclass

from workbench.encoding import encode
from workbench.evaluation import predictions as readings
from workbench.evaluation.decoding import continued_texts
from workbench.evaluation.edits import Probe
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


def read_probes(lm: LanguageModel, probes: list[Probe]) -> list[Reading]:
    """What the model as it is now makes of each probe; raises `RequestError` if an answer tokenises to nothing."""
    read = readings.read_probes(lm, probes, n_top=N_TOP)
    prompts = [encode(lm.tokenizer, probe.prompt, probe.target).prompt_ids for probe in probes]
    return [
        Reading(reading.chances, tuple((token.text, token.chance) for token in reading.next_tokens), text)
        for reading, text in zip(read, continued_texts(lm, prompts, N_CONTINUED), strict=True)
    ]
