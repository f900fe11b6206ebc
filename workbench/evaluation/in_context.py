"""Facts in context: the edit metrics of a model that reads the new facts before each prompt instead of being edited.

A baseline for editing that changes no weight. Zheng et al. 2023 (IKE, arXiv 2305.12740) put the new fact before the
prompt, after demonstrations that show when to use a fact and when to leave it aside; this is the form without
demonstrations.
"""

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from workbench.arguments import checked
from workbench.encoding import encode, join_target
from workbench.errors import RequestError
from workbench.evaluation.edits import (
    DEFAULT_PROTOCOLS,
    EditProtocol,
    Probe,
    check_protocols,
    probes_of,
    score_probes,
)
from workbench.evaluation.natural import MAX_NEW_TOKENS, NATURAL_PROTOCOLS, encode_prompt, has_form
from workbench.lm import LanguageModel
from workbench.request import EditRequest

_SENTENCE_ENDS = (".", "!", "?")


@checked
def score_in_context(
    lm: LanguageModel,
    requests: Sequence[EditRequest],
    *,
    protocols: Sequence[EditProtocol] = DEFAULT_PROTOCOLS,
    batch_size: int = 32,
) -> pd.DataFrame:
    """Score each request on the unedited model, with all new facts put before every prompt.

    What changes is the prompt: a line for each request, its prompt with `target_new`, comes before the prompts of all
    metrics, those of locality and portability included. The weights do not change, and updates that are applied are
    lifted meanwhile. Locality compares, as for an edit, with what the unedited model says to the prompt alone, so it
    tells how much the facts distract.

    The facts take context: the prompts have fewer tokens left, each prompt costs the time of all facts, and the
    number of facts is limited by the positions of the model.

    Zheng et al. 2023 (IKE, arXiv 2305.12740) edit in context with demonstrations; this is the form without them.

    Parameters
    ----------
    lm : LanguageModel
        The model whose unedited weights answer.
    requests : sequence of EditRequest
        The facts that are put before the prompts, and measured.
    protocols : sequence of str
        As for `score_edits`.
    batch_size : int
        Number of prompts per forward pass.

    Returns
    -------
    DataFrame
        As from `score_edits`: one row per request, metric and protocol; columns request (index), metric, protocol,
        value (in [0, 1]).

    Raises
    ------
    EditError
        If a protocol is unknown.
    RequestError
        If the facts, a prompt and its answer have more tokens than the model has positions.
    """
    check_protocols(protocols)
    context = facts_as_text(requests)
    probes = [replace(probe, context=context) for probe in probes_of(requests)]
    _check_length(lm, probes, protocols, n_facts=len(requests))
    with lm.unedited():
        return score_probes(lm, probes, protocols, batch_size=batch_size)


def facts_as_text(requests: Sequence[EditRequest]) -> str:
    """Return the new facts in lines, each the prompt of a request and its `target_new` as one sentence."""
    return "".join(f"{_as_sentence(request)}\n" for request in requests)


def _as_sentence(request: EditRequest) -> str:
    text = join_target(request.filled_prompt, request.target_new).rstrip()
    return text if text.endswith(_SENTENCE_ENDS) else f"{text}."


def _check_length(
    lm: LanguageModel, probes: Sequence[Probe], protocols: Sequence[EditProtocol], *, n_facts: int
) -> None:
    """Raise `RequestError` if a prompt in its context, with its answer, is too long for the model."""
    longest = max((_n_tokens(lm, probe, protocols) for probe in probes), default=0)
    if lm.max_tokens is not None and longest > lm.max_tokens:
        raise RequestError(
            f"{n_facts} fact{'s' * (n_facts != 1)}, a prompt and its answer take {longest} tokens, and {lm.name} has "
            f"{lm.max_tokens} positions; put fewer facts into the context."
        )


def _n_tokens(lm: LanguageModel, probe: Probe, protocols: Sequence[EditProtocol]) -> int:
    """Return the largest number of tokens of a probe's prompt and answer under any of the protocols."""
    forms = {NATURAL_PROTOCOLS[name].form for name in protocols if name in NATURAL_PROTOCOLS}
    sizes = [len(encode_prompt(lm, probe.asked, form)) + MAX_NEW_TOKENS for form in forms if has_form(lm, form)]
    if not NATURAL_PROTOCOLS.keys() >= set(protocols):
        answers = [probe.target]
        if "probability" in protocols and probe.rival is not None:
            answers.append(probe.rival)
        sizes += [len(encode(lm.tokenizer, probe.asked, answer).ids) for answer in answers]
    return max(sizes, default=0)
