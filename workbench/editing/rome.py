"""ROME: rank-one model editing (Meng et al. 2022, arXiv 2202.05262)."""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from workbench.arguments import checked
from workbench.changes import low_rank
from workbench.edit_record import EditRecord
from workbench.editing.contexts import check_contexts, sample_contexts
from workbench.editing.easyedit import LAYERS, read_hparams
from workbench.editing.editor import (
    Contexts,
    ContextSeed,
    hyperparameters_of,
    require_one_request,
    require_subjects,
    restore_fields,
)
from workbench.editing.passes.subject_tail import ValueTail
from workbench.editing.passes.target_vectors import optimize_target_vectors
from workbench.editing.presets import preset_for
from workbench.editing.second_moment.estimate import SecondMoment, solve
from workbench.errors import EditError
from workbench.lm import LanguageModel
from workbench.parameters import COUNT, NONNEGATIVE, POSITIVE, Interval, check_parameters
from workbench.request import EditRequest
from workbench.update import WeightUpdate

MIN_DENOMINATOR = 1e-12

_LLAMA: dict[str, Any] = {"v_num_grad_steps": 25, "v_lr": 0.5, "v_weight_decay": 1e-3}
# Sources: kmeng01/rome hparams/ROME (gpt2-xl, gpt-j-6b); zjunlp/EasyEdit hparams/ROME/llama-7b.yaml, which holds the
# settings of both Llama models; smollm2-135m: notebooks/04_rome_sweep.ipynb; gemma3-270m: `workbench tune`, see
# docs/methods.md.
PRESETS: dict[str, dict[str, Any]] = {
    "gpt2-xl": {"layer": 17, "v_num_grad_steps": 20, "v_lr": 0.5, "v_weight_decay": 0.5},
    "gpt-j-6b": {"layer": 5, "v_num_grad_steps": 20, "v_lr": 0.5, "v_weight_decay": 0.5},
    "llama-7b": {"layer": 5, "v_num_grad_steps": 20, "v_lr": 0.1, "v_weight_decay": 1e-3},
    "llama-2-7b": {"layer": 5, **_LLAMA},
    "smollm2-135m": {"layer": 5, **_LLAMA},
    "gemma3-270m": {
        **{"layer": 3, "v_num_grad_steps": 25, "v_lr": 0.096, "v_weight_decay": 0.5},
        **{"clamp_norm_factor": 0.75, "kl_factor": 1.0},
    },
}
_DEPTH_SHARE = 1 / 6  # where the presets of gated models lie: layer 5 of 30 or 32

_YAML_FIELDS = ("v_num_grad_steps", "v_lr", "v_weight_decay", "clamp_norm_factor", "kl_factor", "mom2_adjustment")
# what `SecondMoment` and `contexts` say here
_YAML_IGNORED = frozenset(
    {"fact_token", "v_loss_layer", "mom2_dataset", "mom2_n_samples", "mom2_dtype", "context_template_length_params"}
)


@dataclass(frozen=True)
class ROME:
    """Rank-one model editing: write one fact into one MLP output projection.

    Meng et al. 2022, section 3.1: ΔW = (v* − W k*) uᵀ / (uᵀ k) with u = C⁻¹ k*. k* is the mean, over context
    templates, of the MLP's inner activation at the subject's last token. v* minimizes, by Adam on an offset d from the
    current value v₀, the mean over contexts of the target's NLL per token + `kl_factor` · KL of
    "{subject} is a" + `v_weight_decay` · ‖d‖/‖v₀‖², as in the published code (which reads the KL at the subject's
    last token, and takes the bare prompt's value for v₀).

    With ``variant="rome"``, as published, k in the denominator is the key of the bare prompt alone, and v* is exactly
    what the edited layer returns there. With ``variant="r-rome"`` (Gupta et al. 2024, arXiv 2403.07175) it is k*, the
    averaged key, and k* is what is mapped to v*; so does the code of C-ROME (Yang et al. 2024, arXiv 2406.11263). The
    published mismatch can make the denominator tiny and the update huge; the update's record has the denominator.

    The fields are the hyperparameters; `for_model` returns presets.

    Raises
    ------
    EditError
        If a hyperparameter is not allowed.
    """

    supports_batch: ClassVar[bool] = False
    needs_subject: ClassVar[bool] = True

    layer: Annotated[int, Interval(0), "block whose MLP output projection is edited"]
    v_num_grad_steps: Annotated[int, COUNT, "optimization steps for v*; the last only evaluates the loss"] = 25
    v_lr: Annotated[float, POSITIVE, "learning rate of Adam"] = 0.5
    v_weight_decay: Annotated[float, NONNEGATIVE, "weight of ‖d‖/‖v₀‖² in the loss"] = 1e-3
    v_loss_threshold: Annotated[float, NONNEGATIVE, "loss below which the optimization stops"] = 0.05
    v_predicted_steps: Annotated[
        int | None, COUNT, "steps at which the target is predicted in all contexts, after which it stops (MPES)"
    ] = None
    clamp_norm_factor: Annotated[float, POSITIVE, "largest ‖d‖, as a multiple of ‖v₀‖"] = 4.0
    kl_factor: Annotated[float, NONNEGATIVE, "weight of the KL of '{subject} is a' in the loss"] = 0.0625
    mom2_adjustment: Annotated[bool, "whether the direction u is C⁻¹ k* (true) or k* (false)"] = False
    variant: Annotated[Literal["rome", "r-rome"], "key in the denominator: as published, or the averaged one"] = "rome"
    contexts: Contexts = None
    second_moment: Annotated[SecondMoment | None, "how C is estimated; None: SecondMoment()"] = None
    seed: ContextSeed = 0

    def __post_init__(self) -> None:
        restore_fields(self)
        check_parameters(self)
        check_contexts(self.contexts)

    @classmethod
    @checked
    def for_model(cls, lm: LanguageModel) -> "ROME":
        """Return the hyperparameters for a model: published or measured ones, or by the rule below.

        gpt2-xl, gpt-j-6b, llama-7b and llama-2-7b as published (ROME's code, EasyEdit); the embedded models as measured
        in sweeps. Any other model: what `workbench tune` has found, else the block at one sixth of the depth with the
        rates of llama-2-7b. The published files differ in `mom2_adjustment`; here it is off, as in the runs of Gu et
        al.

        Parameters
        ----------
        lm : LanguageModel
            The model, recognized by its name or the last part of it.

        Returns
        -------
        ROME
        """
        if preset := preset_for(PRESETS, lm.name, n_layers=lm.n_layers, tuned="rome"):
            return cls(**preset)
        return cls(layer=min(round(lm.n_layers * _DEPTH_SHARE), lm.n_layers - 1), **_LLAMA)

    @classmethod
    def from_yaml(cls, path: str | Path) -> "ROME":
        """Read one of EasyEdit's ROME hparams files.

        Parameters
        ----------
        path : str or Path
            A YAML file with EasyEdit's keys.

        Returns
        -------
        ROME

        Raises
        ------
        EditError
            If the file cannot be read, is not for ROME, or has an unknown field or a value that is not allowed.
        """
        given = read_hparams(path, cls, _YAML_FIELDS, others={"layers": LAYERS}, ignored=_YAML_IGNORED)
        layers = given.pop("layers", ())
        if len(layers) != 1:
            raise EditError(f"{path}: layers must hold one layer for ROME; got {list(layers) or None}.")
        return cls(layer=layers[0], **given)

    @property
    def label(self) -> str:
        """Name in tables and legends."""
        return "ROME" if self.variant == "rome" else "R-ROME"

    def prepared(self, lm: LanguageModel) -> "ROME":
        """Return a copy with the context templates filled in, sampled from the unedited `lm`.

        Raises `EditError` if `lm` does not have the layer.
        """
        lm.check_layer(self.layer)
        return self if self.contexts else replace(self, contexts=sample_contexts(lm, seed=self.seed))

    @checked
    def compute_update(self, lm: LanguageModel, requests: list[EditRequest]) -> WeightUpdate:
        """Return the rank-one update that writes one fact; the model is not changed.

        Parameters
        ----------
        lm : LanguageModel
            The model, with earlier edits if any are applied.
        requests : list of EditRequest
            Exactly one request.

        Returns
        -------
        WeightUpdate
            Factors (d_out, 1) and (d_in, 1) of one matrix. The record holds the loss of every step; as key k*, the
            mean over contexts; and as diagnostics `denominator` (uᵀk with ‖u‖ = 1), `value_offset_norm` (‖d‖) and
            `value_norm` (‖v₀‖).

        Raises
        ------
        EditError
            If there is not exactly one request, it has no subject, the layer is out of range, the loss is not finite,
            or the denominator is below 1e-12.
        RequestError
            If the target has no tokens.
        """
        request = require_one_request(self, requests)
        require_subjects(self, requests)
        rome = self.prepared(lm)
        [(_, vector)] = optimize_target_vectors(lm, requests, partial(ValueTail.compute, lm, layer=rome.layer), rome)
        keys, values = vector.tail.keys.double(), vector.tail.start.double()  # (P, d_ff), (P, d_model)
        mean_key = keys.mean(dim=0)
        u = mean_key
        if rome.mom2_adjustment:
            u = solve((rome.second_moment or SecondMoment()).compute(lm, [rome.layer])[rome.layer], u)
        u = u / u.norm()
        key, value = (keys[0], values[0]) if rome.variant == "rome" else (mean_key, values.mean(dim=0))
        denominator = u @ key
        if not denominator.abs() >= MIN_DENOMINATOR:
            raise EditError(
                f"the key of {request.subject!r} at layer {rome.layer} has no direction to write in: uᵀk = 0."
            )
        name = lm.arch.mlp_out_weight(rome.layer)
        change = low_rank(lm, name, ((vector.target - value) / denominator)[:, None], u[:, None])
        record = EditRecord(
            rome.label,
            (request,),
            hyperparameters_of(rome),
            losses=(tuple(vector.losses),),
            keys={name: mean_key[None].float().cpu()},
            diagnostics={
                "denominator": float(denominator),
                "value_offset_norm": float(vector.offset.norm()),
                "value_norm": float(values[0].norm()),
            },
        )
        return WeightUpdate.of_edit(lm, {name: change}, record)
