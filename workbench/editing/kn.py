"""KN: editing by knowledge neurons (Dai et al. 2022, arXiv 2104.08696)."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from workbench.editing.contexts import checked_contexts, sample_contexts
from workbench.editing.easyedit import read_hparams
from workbench.editing.editor import only_request
from workbench.editing.passes.attribution import attribute_answers
from workbench.editing.presets import known
from workbench.encoding import Encoded, encode, encode_request
from workbench.errors import EditError
from workbench.forward import logits_at
from workbench.lm import LanguageModel
from workbench.request import PLACEHOLDER, EditRequest
from workbench.update import LowRank, WeightUpdate, low_rank

CONTEXT_LENGTHS = ((5, 5),)  # five texts of five tokens, beside the bare prompt
SHARE_STEP = 0.05  # by which Dai et al. lower p, too

# How EasyEdit edits, whatever its hparams file says: it has one prompt, and adds the embeddings as they are.
_EASYEDIT = {
    "contexts": (PLACEHOLDER,),
    "attributed": "old",
    "scale": "embedding",
    "embeddings": "input",
    "signed": False,
    "lambda_old": 1.0,
    "lambda_new": 1.0,
}
_MEASURED = {"lambda_old": 0.5, "lambda_new": 0.5}
# Sources: zjunlp/EasyEdit hparams/KN (gpt2-xl.yaml, gpt-j-6B.yaml, and llama-7b.yaml, which is for llama-2-7b and the
# only one for Llama); smollm2-135m: a trial on ten bundled facts.
PRESETS: dict[str, dict[str, Any]] = {
    "gpt2-xl": {**_EASYEDIT, "steps": 20, "adaptive_threshold": 0.2, "p": 0.4},
    "gpt-j-6b": {**_EASYEDIT, "steps": 20, "adaptive_threshold": 0.1, "p": 0.4},
    "llama-7b": {**_EASYEDIT, "steps": 1, "adaptive_threshold": 0.2, "p": 0.4},
    "llama-2-7b": {**_EASYEDIT, "steps": 1, "adaptive_threshold": 0.2, "p": 0.4},
    "smollm2-135m": _MEASURED,
}

_YAML_FIELDS = {"steps": int, "adaptive_threshold": float, "p": float, "refine": bool}
# read nowhere in EasyEdit's KN, or (batch_size) how many steps share a forward pass, which here is all of them
_YAML_ELSEWHERE = frozenset({"lr_scale", "n_toks", "batch_size", "max_length"})

Attributed = Literal["predicted", "old"]
Scale = Literal["value", "embedding"]
Embeddings = Literal["output", "input"]


@dataclass(frozen=True)
class KN:
    """Knowledge neurons: find the MLP neurons that express a fact, and turn their value vectors to the new answer.

    Dai et al. 2022, sections 3 and 5. For each prompt, neurons whose attribution exceeds `adaptive_threshold` times
    the highest are coarse; those that are coarse for more than a share `p` of the prompts are refined. Each refined
    neuron's value vector v, its column of the output projection, becomes v − λ₁ e(old answer) + λ₂ e(new answer).

    The paper edits BERT: one word an answer, activations after GELU, hardly ever negative, input and output embeddings
    one matrix, and facts that the model answers rightly. What it leaves open for other models is settled by fields
    whose defaults are the same thing there:

    - ``attributed="predicted"``: neurons are found by the model's own most probable next token, special tokens left
      out; "old" by the old answer, as EasyEdit does, which for a fact that the model does not know is noise.
    - ``scale="value"``: embeddings take the length of v, as in the paper's code; "embedding": as they are, as in
      EasyEdit.
    - ``embeddings="output"``: rows of the output head, which say where the residual stream must point; "input" as in
      EasyEdit. The same where they are tied.
    - ``signed=True``: the change of v turns round where the neuron's activation is negative, as about half are in
      gated MLPs, else it would push away from the new answer; False as in EasyEdit.

    Prompts are context templates before the prompt. The paper has other phrasings of the fact; here those are what
    generalization is measured on, so `request.rephrase` is never read. EasyEdit has one prompt, and so no refinement
    (``contexts=("{}",)``). Where no neuron reaches the share `p`, it is lowered by 0.05 until one does, after the
    paper, which adapts it for a relation; the share used is in the update's `info`.

    Of answers of several tokens the embeddings are summed, as in EasyEdit. The old answer is `target_true`; without
    one, the predicted token. (EasyEdit takes its greedy answer, as long as the new one, to subtract.)

    `negative_prompts` drops neurons that are coarse for more than `max_negative_share` of them on the unedited model,
    each by its own predicted token: they are not the fact's. The paper's code drops those shared by a tenth of the
    same relation's facts; EasyEdit has switched its filter off.

    Further slips of EasyEdit that are not followed: it attributes the gate's or input's output before the activation
    function, puts Llama's ``<s>`` into the answers, and for answers of one token subtracts twice e(old). The paper's
    loop applies a sequence's first edit twice.

    Attributes are the hyperparameters; `for_model` gives presets.
    """

    supports_batch = False

    steps: int = 20  # points of the integral
    adaptive_threshold: float = 0.2  # share of the highest score above which a neuron is coarse
    p: float = 0.7  # share of the prompts for more than which a refined neuron is coarse
    lambda_old: float = 1.0  # λ₁
    lambda_new: float = 8.0  # λ₂
    attributed: Attributed = "predicted"
    scale: Scale = "value"
    embeddings: Embeddings = "output"
    signed: bool = True
    contexts: tuple[str, ...] | None = None  # templates, "{}" first; None: sampled from the model with `seed`
    negative_prompts: tuple[str, ...] = ()  # about other facts
    max_negative_share: float = 0.1
    seed: int = 0  # draws the contexts

    def __post_init__(self) -> None:
        if isinstance(self.negative_prompts, str):  # tuple() would take it apart into letters
            raise EditError(f"negative_prompts must be a list of texts; got the text {self.negative_prompts!r}.")
        object.__setattr__(self, "negative_prompts", tuple(self.negative_prompts))
        if not all(text.strip() for text in self.negative_prompts):
            raise EditError("negative_prompts must not hold an empty text.")
        if self.steps < 1:
            raise EditError(f"steps must be at least 1; got {self.steps}.")
        if not 0 < self.adaptive_threshold < 1:
            raise EditError(f"adaptive_threshold must lie in (0, 1); got {self.adaptive_threshold}.")
        for name in ("p", "max_negative_share"):
            if not 0 <= getattr(self, name) < 1:
                raise EditError(f"{name} must lie in [0, 1); got {getattr(self, name)}.")
        for name in ("lambda_old", "lambda_new"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise EditError(f"{name} must be a number from 0 up; got {getattr(self, name)}.")
        for name, kind in (("attributed", Attributed), ("scale", Scale), ("embeddings", Embeddings)):
            if getattr(self, name) not in get_args(kind):
                one, other = map(repr, get_args(kind))
                raise EditError(f"{name} must be {one} or {other}; got {getattr(self, name)!r}.")
        object.__setattr__(self, "contexts", checked_contexts(self.contexts))

    @classmethod
    def for_model(cls, lm: LanguageModel) -> "KN":
        """Hyperparameters for a model: published or measured where known, else by the rule below.

        gpt2-xl, gpt-j-6b, llama-7b and llama-2-7b as EasyEdit edits them, which is what the paper measured. The
        embedded model, and any other: the paper's way of finding neurons, with λ₁ = λ₂ = 0.5 as measured on the
        embedded model; the published λ₁ = 1, λ₂ = 8 ruin it.

        Parameters
        ----------
        lm : LanguageModel
            Known by its name, or the last part of it.

        Returns
        -------
        KN
        """
        return cls(**(known(PRESETS, lm.name) or _MEASURED))

    @classmethod
    def from_yaml(cls, path: str | Path) -> "KN":
        """Read one of EasyEdit's KN hparams files, as EasyEdit edits with it.

        Parameters
        ----------
        path : str or Path
            A YAML file with EasyEdit's keys. With ``refine: true`` prompts are sampled, where EasyEdit has but one.

        Returns
        -------
        KN

        Raises
        ------
        EditError
            If the file cannot be read, is not for KN, has a field that is not known, or a value that is not allowed.
        """
        given = read_hparams(path, "KN", _YAML_FIELDS, elsewhere=_YAML_ELSEWHERE)
        refined = {"contexts": None} if given.pop("refine", False) else {}
        return cls(**{**_EASYEDIT, **refined, **given})

    @property
    def label(self) -> str:
        """How tables and legends call it."""
        return "KN"

    def prepared(self, lm: LanguageModel) -> "KN":
        """A copy with the context templates filled in, sampled from `lm` as it is now.

        Call it once, on the unedited model, before a sequence of edits.
        """
        if self.contexts:
            return self
        return replace(self, contexts=sample_contexts(lm, seed=self.seed, lengths=CONTEXT_LENGTHS))

    def compute_update(self, lm: LanguageModel, requests: list[EditRequest]) -> WeightUpdate:
        """The update that edits one fact; the model is not changed.

        Parameters
        ----------
        lm : LanguageModel
            The model as it is now, with earlier edits if any are applied.
        requests : list of EditRequest
            Exactly one.

        Returns
        -------
        WeightUpdate
            Of each layer with refined neurons factors (d_model, 1) and (d_ff, 1). `info` has the contexts,
            `attributed_answer` and `old_answer`, `n_coarse` (for each prompt), `share` (the p that was used),
            `neurons` (layer and index of each refined one), `n_negative` (how many of them have a negative
            activation), and `relative_norm` (‖ΔW‖/‖W‖ by parameter).

        Raises
        ------
        EditError
            If there is not exactly one request, no neuron speaks for the answer or is left by the negative prompts,
            a score is not finite, or the embeddings are not as wide as the value vectors.
        RequestError
            If a target tokenises to nothing.
        """
        request, kn = only_request(self, requests), self.prepared(lm)
        predicted = _predicted_token(lm, encode_request(lm.tokenizer, request, target="").ids)
        old = _old_answer(lm, request, predicted)
        direction = _direction(lm, kn, old, encode_request(lm.tokenizer, request).target_ids)
        texts = [_attributed_text(lm, kn, request, context, predicted) for context in kn.contexts]
        attributions = attribute_answers(lm, texts, steps=kn.steps)
        coarse = torch.stack([each.coarse(kn.adaptive_threshold) for each in attributions])  # (P, L, d_ff)
        refined, share = _refine(kn, coarse, _neurons_of_others(lm, kn), request.filled_prompt)
        active = attributions[0].activations
        signs = refined * (1 - 2 * ((active < 0) & kn.signed).int())
        changes = _changes(lm, kn, signs, direction)
        info = {
            "method": self.label,
            "requests": [asdict(request)],
            "hyperparameters": asdict(kn),
            "attributed_answer": lm.tokenizer.decode(texts[0].target_ids),
            "old_answer": lm.tokenizer.decode(old),
            "n_coarse": coarse.sum(dim=(1, 2)).tolist(),
            "share": share,
            "neurons": refined.nonzero().tolist(),
            "n_negative": int((active[refined] < 0).sum()),
            "relative_norm": {name: change.norm() / float(lm.weight(name).norm()) for name, change in changes.items()},
        }
        return WeightUpdate(changes, (info,), lm.name, lm.fingerprint)


def _predicted_token(lm: LanguageModel, ids: tuple[int, ...]) -> int:
    """The most probable next token that is not a special one."""
    logits = logits_at(lm, [ids], [(len(ids) - 1,)])[0]
    logits[lm.tokenizer.all_special_ids] = -float("inf")
    return int(logits.argmax())


def _old_answer(lm: LanguageModel, request: EditRequest, predicted: int) -> tuple[int, ...]:
    if request.target_true is None:
        return (predicted,)
    return encode_request(lm.tokenizer, request, target=request.target_true).target_ids


def _attributed_text(lm: LanguageModel, kn: KN, request: EditRequest, context: str, predicted: int) -> Encoded:
    """The prompt in a context, with the answer that neurons are found by."""
    if kn.attributed == "old" and request.target_true is not None:
        return encode_request(lm.tokenizer, request, context=context, target=request.target_true)
    prompt = encode_request(lm.tokenizer, request, context=context, target="").ids
    return Encoded((*prompt, predicted), len(prompt))


def _direction(lm: LanguageModel, kn: KN, old: tuple[int, ...], new: tuple[int, ...]) -> Tensor:
    """λ₂ e(new) − λ₁ e(old), (d_model,), in float64; of unit embeddings where `scale` is "value"."""
    module = lm.model.get_output_embeddings() if kn.embeddings == "output" else lm.model.get_input_embeddings()
    e_old, e_new = (module.weight[list(ids)].double().sum(dim=0) for ids in (old, new))
    if len(e_new) != (d_model := lm.model.config.hidden_size):
        raise EditError(
            f"the {kn.embeddings} embeddings of {lm.name} have {len(e_new)} entries, its value vectors {d_model}; "
            "KN adds the one to the other, so use another method."
        )
    if kn.scale == "value":
        e_old, e_new = e_old / e_old.norm(), e_new / e_new.norm()
    return kn.lambda_new * e_new - kn.lambda_old * e_old


def _refine(kn: KN, coarse: Tensor, others: Tensor, prompt: str) -> tuple[Tensor, float]:
    """Refined neurons, boolean (L, d_ff), and the share that they exceed, of coarse ones (P, L, d_ff).

    Those of `others`, boolean (L, d_ff), are left out.
    """
    if not coarse.any():
        raise EditError(f"no neuron speaks for the answer to {prompt!r}: no attribution score is positive.")
    counts = coarse.sum(dim=0) * ~others
    if not counts.any():
        raise EditError(
            f"every neuron found for {prompt!r} is one of the negative prompts' too; raise max_negative_share."
        )
    share, n_prompts, highest = kn.p, len(coarse), int(counts.max())
    while highest <= share * n_prompts:
        share = max(0.0, round(share - SHARE_STEP, 9))
    return counts > share * n_prompts, share


def _neurons_of_others(lm: LanguageModel, kn: KN) -> Tensor:
    """Neurons that are coarse for too many of the negative prompts, boolean (L, d_ff), of the unedited model."""
    keys = [("KN", prompt, kn.steps, kn.adaptive_threshold) for prompt in kn.negative_prompts]
    if missing := [key for key in dict.fromkeys(keys) if key not in lm.memo]:
        with lm.unedited():
            for key in missing:
                ids = encode(lm.tokenizer, key[1]).ids
                text = Encoded((*ids, _predicted_token(lm, ids)), len(ids))
                [attribution] = attribute_answers(lm, [text], steps=kn.steps)
                lm.memo[key] = attribution.coarse(kn.adaptive_threshold)
    if not keys:
        return torch.tensor(False)
    return sum(lm.memo[key].int() for key in keys) > kn.max_negative_share * len(keys)


def _changes(lm: LanguageModel, kn: KN, signs: Tensor, direction: Tensor) -> dict[str, LowRank]:
    """ΔW by parameter, in its own orientation: `direction` on each value vector whose sign (L, d_ff) is not 0."""
    changes = {}
    for layer in signs.any(dim=1).nonzero().flatten().tolist():
        name = lm.arch.mlp_out_weight(layer)
        W = lm.weight(name)
        factors = signs[layer].to(W.device, torch.float64)
        if kn.scale == "value":
            factors = factors * W.double().norm(dim=1 if lm.arch.conv1d else 0)
        changes[name] = low_rank(lm, name, direction.to(W.device)[:, None], factors[:, None])
    return changes
