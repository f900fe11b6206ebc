"""KN: editing by knowledge neurons (Dai et al. 2022, arXiv 2104.08696)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, cast

import torch
from torch import Tensor

from workbench.arguments import checked
from workbench.changes import LowRank, low_rank
from workbench.edit_record import EditRecord
from workbench.editing.contexts import check_contexts, sample_contexts
from workbench.editing.easyedit import read_hparams
from workbench.editing.editor import Contexts, ContextSeed, hyperparameters_of, require_one_request, restore_fields
from workbench.editing.kn_easyedit import EASYEDIT, SETTINGS, continue_greedily, encode_alone, place_answer
from workbench.editing.passes.attribution import (
    Attribution,
    IntegralForm,
    IntegralPoints,
    NeuronSite,
    attribute_answers,
    attribute_predictions,
)
from workbench.editing.presets import preset_for
from workbench.encoding import Encoded, encode, encode_request
from workbench.errors import EditError
from workbench.forward import compute_logits
from workbench.lm import LanguageModel
from workbench.parameters import COUNT, NONNEGATIVE, Interval, Parameter, check_parameters
from workbench.request import PLACEHOLDER, EditRequest
from workbench.storage.cache import compute_missing
from workbench.update import WeightUpdate

CONTEXT_LENGTHS = ((5, 5),)  # five texts of five tokens, besides the bare prompt
SHARE_STEP = 0.05  # as in Dai et al., who also lower p

_MEASURED: dict[str, Any] = {"lambda_old": 0.5, "lambda_new": 0.5}  # a trial with ten bundled facts
PRESETS: dict[str, dict[str, Any]] = {
    "gpt2-xl": SETTINGS["easyedit-gpt2-xl"],
    "gpt-j-6b": SETTINGS["easyedit-gpt-j-6b"],
    "llama-7b": SETTINGS["easyedit-llama"],
    "llama-2-7b": SETTINGS["easyedit-llama"],
    "smollm2-135m": _MEASURED,
}

_YAML_FIELDS = ("steps", "adaptive_threshold", "p")
_YAML_REFINE = Parameter("refine", bool)
# not read anywhere in EasyEdit's KN, or (batch_size) the number of steps that share a forward pass, here all of them
_YAML_IGNORED = frozenset({"lr_scale", "n_toks", "batch_size", "max_length"})


@dataclass(frozen=True)
class KN:
    """Knowledge neurons: find the MLP neurons that express a fact, and turn their value vectors to the new answer.

    Dai et al. 2022, sections 3 and 5. For each prompt, neurons whose attribution exceeds `adaptive_threshold` times
    the highest are coarse; those that are coarse for more than a share `p` of the prompts are refined. The value vector
    v of each refined neuron, its column of the output projection, becomes v − λ₁ e(old answer) + λ₂ e(new answer).

    The paper edits BERT, where an answer is one word, activations after GELU are hardly ever negative, input and output
    embeddings are one matrix, and the model answers the facts correctly. What it leaves open for other models is
    settled by fields whose defaults are equivalent there:

    - ``attributed="predicted"``: neurons are found by the model's own most probable next token that is not a special
      token; "old": by `target_true`, as in the paper and EasyEdit, which is noise for a fact that the model does not
      know.
    - ``scale="value"``: embeddings are scaled to the length of v, as in the paper's code; "embedding": not scaled, as
      in EasyEdit.
    - ``embeddings="output"``: rows of the output head, which say where the residual stream must point; "input": as in
      EasyEdit. They are the same where they are tied.
    - ``signed=True``: the change of v is reversed where the neuron's activation is negative, as about half are in
      gated MLPs; otherwise it would push away from the new answer. False: as in EasyEdit.

    Prompts are context templates before the prompt. The paper has other phrasings of the fact; here generalization is
    measured on those, so `request.rephrase` is never read. EasyEdit has one prompt, and so no refinement
    (``contexts=("{}",)``). Where no neuron reaches the share `p`, it is lowered by 0.05 until one does, following the
    paper, which adapts it for each relation; the record of the update holds the share that was used.

    For answers of several tokens the embeddings are summed, as in EasyEdit. `old_answer` is the one that is subtracted:
    "true", `target_true`, or without one the predicted token; "predicted", the model's most probable next token, as in
    the paper's code; "greedy", as many tokens of the model's greedy continuation as the new answer has, as in EasyEdit.

    `negative_prompts` drops neurons that are coarse for more than `max_negative_share` of them on the unedited model,
    each by its own predicted token, because such neurons are not specific to the fact. The paper's code drops those
    shared by a tenth of the facts of the same relation; EasyEdit has switched its filter off.

    EasyEdit's code departs from the paper in ways that these fields reproduce: ``neurons="gate"`` attributes the output
    of the gate or input projection, before the activation function; ``points="ends"`` sums the integral at m points
    from 0 to 1, which is at 0 alone for one step; ``answers="easyedit"`` tokenizes answers without the prompt and the
    blank before them but with special tokens such as Llama's ``<s>``, attributes later tokens after the model's own
    greedy ones (in GPT-2 and GPT-J after the prompt alone), and subtracts e(old) twice where the new answer is one
    token. `SETTINGS` holds whole settings by name, and `as_published` and `dai` return them. Only models that EasyEdit
    knows have a published form; others are treated as Llama is.

    The loop of Gu et al. applies the first edit of a sequence twice: the same fact is edited again on the edited model,
    with neurons and old answer found again. `times` is the number of such applications, of every edit.

    The fields are the hyperparameters; `for_model` returns presets.

    Raises
    ------
    EditError
        If a hyperparameter is not allowed.
    """

    supports_batch: ClassVar[bool] = False
    needs_subject: ClassVar[bool] = False
    label: ClassVar[str] = "KN"

    steps: Annotated[int, COUNT, "points of the integral"] = 20
    adaptive_threshold: Annotated[
        float, Interval(0, 1, closed="neither"), "share of the highest score above which a neuron is coarse"
    ] = 0.2
    p: Annotated[
        float, Interval(0, 1, closed="left"), "share of the prompts for more than which a refined neuron is coarse"
    ] = 0.7
    lambda_old: Annotated[float, NONNEGATIVE, "λ₁, factor of the old answer's embedding"] = 1.0
    lambda_new: Annotated[float, NONNEGATIVE, "λ₂, factor of the new answer's embedding"] = 8.0
    attributed: Annotated[Literal["predicted", "old"], "answer by which neurons are found"] = "predicted"
    scale: Annotated[Literal["value", "embedding"], "length of the embeddings"] = "value"
    embeddings: Annotated[Literal["output", "input"], "matrix that the embeddings are rows of"] = "output"
    signed: Annotated[bool, "whether the change is reversed where the activation is negative"] = True
    neurons: Annotated[NeuronSite, "where neurons are read: after the activation function, or before it"] = "activation"
    points: Annotated[IntegralPoints, "points at which the integral is summed"] = "midpoint"
    answers: Annotated[Literal["text", "easyedit"], "answers as running text, or as EasyEdit tokenizes them"] = "text"
    old_answer: Annotated[Literal["true", "predicted", "greedy"], "answer whose embedding is subtracted"] = "true"
    times: Annotated[int, COUNT, "times that the edit is computed and applied, each on the one before"] = 1
    contexts: Contexts = None
    negative_prompts: Annotated[tuple[str, ...], "prompts about other facts"] = ()
    max_negative_share: Annotated[
        float, Interval(0, 1, closed="left"), "share of the negative prompts for more than which a neuron is dropped"
    ] = 0.1
    seed: ContextSeed = 0

    def __post_init__(self) -> None:
        restore_fields(self)
        check_parameters(self)
        check_contexts(self.contexts)
        if self.signed and self.neurons == "gate":
            raise EditError("signed must be false where neurons is 'gate', whose sign is not that of the activation.")
        if not all(text.strip() for text in self.negative_prompts):
            raise EditError("negative_prompts must not hold an empty text.")

    @classmethod
    @checked
    def for_model(cls, lm: LanguageModel) -> "KN":
        """Return the hyperparameters for a model: published or measured ones, or by the rule below.

        gpt2-xl, gpt-j-6b, llama-7b and llama-2-7b as EasyEdit edits them, which is what Gu et al. measured. The
        embedded model, and any other model: the way of finding neurons of Dai et al., with λ₁ = λ₂ = 0.5 as measured on
        the embedded model, which the published λ₁ = 1, λ₂ = 8 ruin.

        Parameters
        ----------
        lm : LanguageModel
            The model, recognized by its name or the last part of it.

        Returns
        -------
        KN
        """
        return cls(**(preset_for(PRESETS, lm.name) or _MEASURED))

    @classmethod
    def as_published(cls, lm: LanguageModel) -> "KN":
        """Return the hyperparameters that reproduce EasyEdit's code, with its file for the model's family.

        Parameters
        ----------
        lm : LanguageModel
            The model. GPT-J and models with a gated MLP have their own file, Llama's for the latter; any other model
            takes GPT-2 XL's.

        Returns
        -------
        KN
        """
        gated = len(lm.arch.mlp_in) > 1 or lm.arch.name == "Phi-3"
        family = "llama" if gated else "gpt-j-6b" if lm.arch.name == "GPT-J" else "gpt2-xl"
        return cls(**SETTINGS[f"easyedit-{family}"])

    @classmethod
    def dai(cls, lm: LanguageModel) -> "KN":
        """Return the hyperparameters of Dai et al. 2022, λ₁ = 1 and λ₂ = 8, which are the same for every `lm`."""
        return cls(**SETTINGS["dai"])

    @classmethod
    def from_yaml(cls, path: str | Path) -> "KN":
        """Read one of EasyEdit's KN hparams files, to edit as EasyEdit does with that file.

        Parameters
        ----------
        path : str or Path
            A YAML file with EasyEdit's keys. With ``refine: true`` prompts are sampled, where EasyEdit has only one.

        Returns
        -------
        KN

        Raises
        ------
        EditError
            If the file cannot be read, is not for KN, or has an unknown field or a value that is not allowed.
        """
        given = read_hparams(path, cls, _YAML_FIELDS, others={"refine": _YAML_REFINE}, ignored=_YAML_IGNORED)
        refined = {"contexts": None} if given.pop("refine", False) else {}
        return cls(**{**EASYEDIT, **refined, **given})

    def prepared(self, lm: LanguageModel) -> "KN":
        """Return a copy with the context templates filled in, sampled from the unedited `lm`."""
        if self.contexts:
            return self
        return replace(self, contexts=sample_contexts(lm, seed=self.seed, lengths=CONTEXT_LENGTHS))

    @checked
    def compute_update(self, lm: LanguageModel, requests: list[EditRequest]) -> WeightUpdate:
        """Return the update that edits one fact; the model is not changed.

        Parameters
        ----------
        lm : LanguageModel
            The model, with earlier edits if any are applied.
        requests : list of EditRequest
            Exactly one request.

        Returns
        -------
        WeightUpdate
            Factors (d_model, times) and (d_ff, times) of the matrix of each layer with refined neurons. The record
            holds as diagnostics `attributed_answer` and `old_answer`, `n_coarse` (for each prompt), `share` (the p that
            was used), `neurons` (layer and index of each refined one) and `n_negative` (number of refined neurons with
            a negative value); where `times` is more than 1, `again` holds those of the later applications.

        Raises
        ------
        EditError
            If there is not exactly one request, no neuron has a positive attribution score or is left by the negative
            prompts, a score is not finite, or the embeddings are not as wide as the value vectors.
        RequestError
            If a target has no tokens.
        """
        request, kn = require_one_request(self, requests), self.prepared(lm)
        parts: list[WeightUpdate] = []
        diagnostics: list[dict[str, Any]] = []
        with lm.restored_after():
            for _ in range(kn.times):
                if parts:
                    parts[-1].apply(lm)
                changes, found = _edit_once(lm, kn, request)
                parts.append(WeightUpdate(changes))
                diagnostics.append(found)
        total, (first, *later) = reduce(add, parts), diagnostics
        found = first | ({"again": later} if later else {})
        record = EditRecord(self.label, (request,), hyperparameters_of(kn), diagnostics=found)
        return WeightUpdate.of_edit(lm, total.changes, record)


def _edit_once(lm: LanguageModel, kn: KN, request: EditRequest) -> tuple[dict[str, LowRank], dict[str, Any]]:
    """Return ΔW by parameter and the diagnostics of one application, on the current weights."""
    assert kn.contexts is not None
    predicted = _predict_token(lm, encode_request(lm.tokenizer, request, target="").ids)
    attributed, attributions = _attribute(lm, kn, request, predicted)
    old, new = _encode_answers(lm, kn, request, predicted)
    coarse = torch.stack([each.coarse_neurons(kn.adaptive_threshold) for each in attributions])  # (P, L, d_ff)
    refined, share = _refine_neurons(kn, coarse, _find_neurons_of_others(lm, kn), request.filled_prompt)
    active = attributions[0].activations
    signs = refined * (1 - 2 * ((active < 0) & kn.signed).int())
    return _add_along(lm, kn, signs, _compute_direction(lm, kn, old, new)), {
        "attributed_answer": lm.tokenizer.decode(list(attributed)),
        "old_answer": lm.tokenizer.decode(list(old)),
        "n_coarse": coarse.sum(dim=(1, 2)).tolist(),
        "share": share,
        "neurons": refined.nonzero().tolist(),
        "n_negative": int((active[refined] < 0).sum()),
    }


def _predict_token(lm: LanguageModel, ids: tuple[int, ...]) -> int:
    """Return the most probable next token that is not a special token."""
    logits = compute_logits(lm, [ids], [(len(ids) - 1,)])[0]
    logits[lm.tokenizer.all_special_ids] = -float("inf")
    return int(logits.argmax())


def _encode_answers(
    lm: LanguageModel, kn: KN, request: EditRequest, predicted: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the token ids of the old and the new answer."""

    def encode_answer(answer: str) -> tuple[int, ...]:
        if kn.answers == "easyedit":
            return encode_alone(lm, answer)
        return encode_request(lm.tokenizer, request, target=answer).target_ids

    new = encode_answer(request.target_new)
    if kn.old_answer == "greedy":
        return tuple(token for _, token in continue_greedily(lm, request.filled_prompt, len(new))), new
    if kn.old_answer == "predicted" or request.target_true is None:
        return (predicted,), new
    return encode_answer(request.target_true), new


def _attribute(
    lm: LanguageModel, kn: KN, request: EditRequest, predicted: int
) -> tuple[tuple[int, ...], list[Attribution]]:
    """Return the answer by which neurons are found, and its attribution in each context."""
    assert kn.contexts is not None
    form = IntegralForm(kn.neurons, kn.points)
    if kn.answers == "easyedit" and kn.attributed == "old" and request.target_true is not None:
        answer = encode_alone(lm, request.target_true)
        prompts = [context.replace(PLACEHOLDER, request.filled_prompt) for context in kn.contexts]
        placed = [place_answer(lm, prompt, answer) for prompt in prompts]
        return answer, attribute_predictions(lm, placed, steps=kn.steps, form=form)
    texts = [_encode_attributed_text(lm, kn, request, context, predicted) for context in kn.contexts]
    return texts[0].target_ids, attribute_answers(lm, texts, steps=kn.steps, form=form)


def _encode_attributed_text(lm: LanguageModel, kn: KN, request: EditRequest, context: str, predicted: int) -> Encoded:
    """Return the prompt in a context, followed by the answer by which neurons are found."""
    if kn.attributed == "old" and request.target_true is not None:
        return encode_request(lm.tokenizer, request, context=context, target=request.target_true)
    prompt = encode_request(lm.tokenizer, request, context=context, target="").ids
    return Encoded((*prompt, predicted), len(prompt))


def _compute_direction(lm: LanguageModel, kn: KN, old: tuple[int, ...], new: tuple[int, ...]) -> Tensor:
    """Return λ₂ e(new) − λ₁ e(old) (d_model,) in float64; the embeddings have unit length if `scale` is "value"."""
    module = lm.model.get_output_embeddings() if kn.embeddings == "output" else lm.model.get_input_embeddings()
    weight = cast(Tensor, module.weight)
    e_old, e_new = (weight[list(ids)].double().sum(dim=0) for ids in (old, new))
    if kn.answers == "easyedit" and len(new) == 1:
        e_old = 2 * e_old  # EasyEdit tells one token from several on the old side only
    if len(e_new) != (d_model := lm.model.config.hidden_size):
        raise EditError(
            f"the {kn.embeddings} embeddings of {lm.name} have {len(e_new)} entries, its value vectors {d_model}; "
            "KN adds one to the other, so use another method."
        )
    if kn.scale == "value":
        e_old, e_new = e_old / e_old.norm(), e_new / e_new.norm()
    return kn.lambda_new * e_new - kn.lambda_old * e_old


def _refine_neurons(kn: KN, coarse: Tensor, others: Tensor, prompt: str) -> tuple[Tensor, float]:
    """Return the refined neurons, boolean (L, d_ff), among the coarse ones (P, L, d_ff), and the share they exceed.

    Neurons in `others`, boolean (L, d_ff), are left out.
    """
    if not coarse.any():
        raise EditError(f"no neuron expresses the answer to {prompt!r}: no attribution score is positive.")
    counts = coarse.sum(dim=0) * ~others
    if not counts.any():
        raise EditError(
            f"every neuron found for {prompt!r} is also found for the negative prompts; raise max_negative_share."
        )
    share, n_prompts, highest = kn.p, len(coarse), int(counts.max())
    while highest <= share * n_prompts:
        share = max(0.0, round(share - SHARE_STEP, 9))
    return counts > share * n_prompts, share


def _find_neurons_of_others(lm: LanguageModel, kn: KN) -> Tensor:
    """Return the neurons of the unedited model, boolean (L, d_ff), that are coarse for too many negative prompts."""

    def compute(missing: Sequence[tuple[str, int, float, IntegralForm]]) -> list[Tensor]:
        neurons = []
        with lm.unedited():
            for prompt, steps, threshold, form in missing:
                ids = encode(lm.tokenizer, prompt).ids
                text = Encoded((*ids, _predict_token(lm, ids)), len(ids))
                [attribution] = attribute_answers(lm, [text], steps=steps, form=form)
                neurons.append(attribution.coarse_neurons(threshold))
        return neurons

    if not kn.negative_prompts:
        return torch.tensor(False)
    form = IntegralForm(kn.neurons, kn.points)
    keys = [(prompt, kn.steps, kn.adaptive_threshold, form) for prompt in kn.negative_prompts]
    found = compute_missing(lm.memo.section("KN neurons"), keys, compute)
    return torch.stack(found).sum(dim=0) > kn.max_negative_share * len(keys)


def _add_along(lm: LanguageModel, kn: KN, signs: Tensor, direction: Tensor) -> dict[str, LowRank]:
    """Return ΔW by parameter, which adds `direction` to each value vector whose sign (L, d_ff) is not 0."""
    changes = {}
    for layer in signs.any(dim=1).nonzero().flatten().tolist():
        name = lm.arch.mlp_out_weight(layer)
        W = lm.weight(name)
        factors = signs[layer].to(W.device, torch.float64)
        if kn.scale == "value":
            factors = factors * W.double().norm(dim=1 if lm.arch.conv1d else 0)
        changes[name] = low_rank(lm, name, direction[:, None], factors[:, None])
    return changes
