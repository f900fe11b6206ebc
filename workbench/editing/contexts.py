"""Context templates: short texts before a prompt, over which ROME, MEMIT and KN average."""

from collections.abc import Sequence

import torch

from workbench.errors import EditError
from workbench.forward import compute_logits
from workbench.lm import LanguageModel
from workbench.request import PLACEHOLDER

OPENINGS = ("The", "Therefore", "Because", "I", "You")
LENGTHS = ((5, 10), (10, 10))  # (tokens, templates): 21 with the bare prompt, as in the published configuration of ROME
_TOP_K = 5


def sample_contexts(lm: LanguageModel, *, seed: int, lengths: tuple[tuple[int, int], ...] = LENGTHS) -> tuple[str, ...]:
    """Return context templates that the unedited model writes: the bare prompt, then ``"<text>. {}"``.

    The source of the texts is the model itself, not a corpus: they continue five common openings, each token sampled
    among the five most probable, as in the published code of MEMIT, and of EasyEdit for ROME too. ROME's own code
    continues the beginning-of-text token instead, which not every tokenizer has. They are always sampled from the model
    without its updates, so every edit of a sequence uses the same templates, and depend on nothing else but the seed.
    They are kept in `lm.memo`.

    Parameters
    ----------
    lm : LanguageModel
        The model that writes the texts; updates applied to it are lifted while it does.
    seed : int
        Seed of the sampling.
    lengths : tuple of (int, int)
        Pairs (total tokens per text, number of texts); the number is a multiple of 5, the number of openings.

    Returns
    -------
    tuple of str
        The templates, ``"{}"`` first.

    Raises
    ------
    EditError
        If a number of texts is not a multiple of 5.
    """
    known = lm.memo.section("contexts")
    if (seed, lengths) not in known:
        with lm.unedited():
            known[seed, lengths] = _sample_templates(lm, seed, lengths)
    return known[seed, lengths]


def _sample_templates(lm: LanguageModel, seed: int, lengths: tuple[tuple[int, int], ...]) -> tuple[str, ...]:
    generator = torch.Generator().manual_seed(seed)
    templates = [PLACEHOLDER]
    for n_tokens, n_texts in lengths:
        if n_texts % len(OPENINGS):
            raise EditError(
                f"the number of contexts of each length must be a multiple of {len(OPENINGS)}; got {n_texts}."
            )
        starts = [opening for opening in OPENINGS for _ in range(n_texts // len(OPENINGS))]
        for text in _continue_texts(lm, starts, n_tokens, generator):
            templates.append(text.replace("{", " ").replace("}", " ") + f". {PLACEHOLDER}")
    return tuple(templates)


def check_contexts(contexts: Sequence[str] | None) -> None:
    """Raise `EditError` unless the first context template is ``"{}"`` and each holds ``{}`` exactly once.

    Parameters
    ----------
    contexts : sequence of str or None
        The templates, the bare prompt's first; None is accepted.

    Raises
    ------
    EditError
        If there is no template, the first is not the bare prompt's, or one does not hold ``{}`` exactly once.
    """
    if contexts is None:
        return
    if list(contexts[:1]) != [PLACEHOLDER] or any(context.count(PLACEHOLDER) != 1 for context in contexts):
        raise EditError(f"contexts must begin with '{PLACEHOLDER}', the bare prompt, and hold it once each.")


def _continue_texts(lm: LanguageModel, starts: list[str], n_tokens: int, generator: torch.Generator) -> list[str]:
    texts = [tuple(lm.tokenizer(start)["input_ids"]) for start in starts]
    while short := [i for i, text in enumerate(texts) if len(text) < n_tokens]:
        logits = compute_logits(lm, [texts[i] for i in short], [(len(texts[i]) - 1,) for i in short]).cpu()
        top = logits.topk(_TOP_K)
        choice = torch.multinomial(top.values.softmax(dim=-1), 1, generator=generator)
        for i, token in zip(short, top.indices.gather(1, choice)[:, 0].tolist(), strict=True):
            texts[i] += (token,)
    return lm.tokenizer.batch_decode([list(text) for text in texts], skip_special_tokens=True)
