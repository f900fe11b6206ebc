"""ROME: rank-one model editing (Meng et al. 2022, arXiv 2202.05262)."""

from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from workbench.editing.contexts import checked_contexts, sample_contexts
from workbench.editing.easyedit import read_hparams
from workbench.editing.editor import only_request
from workbench.editing.passes.subject_tail import ValueTail
from workbench.editing.passes.target_vectors import optimize_target_vectors
from workbench.editing.presets import known
from workbench.editing.second_moment.estimate import SecondMoment, solve
from workbench.errors import EditError
from workbench.lm import LanguageModel
from workbench.request import EditRequest
from workbench.update import WeightUpdate, low_rank

MIN_DENOMINATOR = 1e-12

_LLAMA = {"v_num_grad_steps": 25, "v_lr": 0.5, "v_weight_decay": 1e-3}
# Sources: kmeng01/rome hparams/ROME (gpt2-xl, gpt-j-6b); zjunlp/EasyEdit hparams/ROME/llama-7b.yaml, which holds the
# settings of both Llama models; smollm2-135m: notebooks/04_rome_sweep.ipynb.
PRESETS: dict[str, dict[str, Any]] = {
    "gpt2-xl": {"layer": 17, "v_num_grad_steps": 20, "v_lr": 0.5, "v_weight_decay": 0.5},
    "gpt-j-6b": {"layer": 5, "v_num_grad_steps": 20, "v_lr": 0.5, "v_weight_decay": 0.5},
    "llama-7b": {"layer": 5, "v_num_grad_steps": 20, "v_lr": 0.1, "v_weight_decay": 1e-3},
    "llama-2-7b": {"layer": 5, **_LLAMA},
    "smollm2-135m": {"layer": 5, **_LLAMA},
}
_DEPTH_SHARE = 1 / 6  # where the presets of gated models lie: layer 5 of 30 or 32

_YAML_FIELDS = {
    "layers": list[int],
    "v_num_grad_steps": int,
    "v_lr": float,
    "v_weight_decay": float,
    "clamp_norm_factor": float,
    "kl_factor": float,
    "mom2_adjustment": bool,
}
# what `SecondMoment` and `contexts` say here
_YAML_ELSEWHERE = frozenset(
    {"fact_token", "v_loss_layer", "mom2_dataset", "mom2_n_samples", "mom2_dtype", "context_template_length_params"}
)


@dataclass(frozen=True)
class ROME:
    """Rank-one model editing: write one fact into one MLP output projection.

    Meng et al. 2022, section 3.1: ΔW = (v* − W k*) uᵀ / (uᵀ k) with u = C⁻¹ k*. k* is the mean, over context
    templates, of the MLP's inner activation at the subject's last token; v* minimises, by Adam on an offset d from
    the present value v₀, the mean over contexts of the target's NLL per token + `kl_factor` · KL of
    "{subject} is a" + `v_weight_decay` · ‖d‖/‖v₀‖², as in the published code (which reads the KL at the subject's
    last token, and takes the bare prompt's value for v₀).

    With ``variant="rome"``, as published, k in the denominator is the key of the bare prompt alone (and
    v* is exactly what the edited layer gives there); with ``"r-rome"`` (Gupta et al. 2024, arXiv 2403.07175) it is
    k*, the averaged key, which is then what is mapped to v*. The published mismatch can make the denominator tiny
    and the update huge; both numbers are in the update's `info`.

    Attributes are the hyperparameters; `for_model` gives presets.
    """

    supports_batch = False

    layer: int  # block whose MLP output projection is edited
    v_num_grad_steps: int = 25  # optimisation steps for v*; the last only evaluates, as published
    v_lr: float = 0.5  # learning rate of Adam
    v_weight_decay: float = 1e-3  # times ‖d‖/‖v₀‖²
    v_loss_threshold: float = 0.05  # stop as soon as the loss is below
    clamp_norm_factor: float = 4.0  # ‖d‖ at most this many times ‖v₀‖
    kl_factor: float = 0.0625
    mom2_adjustment: bool = False  # True: u = C⁻¹ k*; False: u = k*
    variant: Literal["rome", "r-rome"] = "rome"
    contexts: tuple[str, ...] | None = None  # templates, "{}" first; None: sampled from the model with `seed`
    second_moment: SecondMoment | None = None  # how C is estimated; None: SecondMoment()
    seed: int = 0  # draws the contexts

    def __post_init__(self) -> None:
        if self.variant not in ("rome", "r-rome"):
            raise EditError(f"variant must be 'rome' or 'r-rome'; got {self.variant!r}.")
        if self.v_num_grad_steps < 1:
            raise EditError(f"v_num_grad_steps must be at least 1; got {self.v_num_grad_steps}.")
        if not 0 < self.v_lr < float("inf"):
            raise EditError(f"v_lr must be a positive number; got {self.v_lr}.")
        if isinstance(self.second_moment, dict):  # from a saved update's record
            object.__setattr__(self, "second_moment", SecondMoment(**self.second_moment))
        object.__setattr__(self, "contexts", checked_contexts(self.contexts))

    @classmethod
    def for_model(cls, lm: LanguageModel) -> "ROME":
        """Hyperparameters for a model: published or measured where known, else by the rule below.

        gpt2-xl, gpt-j-6b, llama-7b and llama-2-7b as published (ROME's code, EasyEdit); the embedded model by
        the sweep in notebooks/04_rome_sweep. Any other: the block at one sixth of the depth, rates as for
        llama-2-7b. The published files differ in `mom2_adjustment`; here it is off, as in the paper's runs.

        Parameters
        ----------
        lm : LanguageModel
            Known by its name, or the last part of it.

        Returns
        -------
        ROME
        """
        preset = known(PRESETS, lm.name)
        if preset is not None and preset["layer"] < lm.n_layers:
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
            If the file cannot be read, is not for ROME, or has a field that is not known.
        """
        given = read_hparams(path, "ROME", _YAML_FIELDS, elsewhere=_YAML_ELSEWHERE)
        layers = given.pop("layers", None)
        if layers is None or len(layers) != 1:
            raise EditError(f"{path}: layers must hold one layer for ROME; got {layers!r}.")
        return cls(layer=layers[0], **given)

    @property
    def label(self) -> str:
        """How tables and legends call it."""
        return "ROME" if self.variant == "rome" else "R-ROME"

    def prepared(self, lm: LanguageModel) -> "ROME":
        """A copy with the context templates filled in, sampled from `lm` as it is now.

        Call it once, on the unedited model, before a sequence of edits.
        """
        lm.check_layer(self.layer)
        return self if self.contexts else replace(self, contexts=sample_contexts(lm, seed=self.seed))

    def compute_update(self, lm: LanguageModel, requests: list[EditRequest]) -> WeightUpdate:
        """The rank-one update that writes one fact; the model is not changed.

        Parameters
        ----------
        lm : LanguageModel
            The model as it is now, with earlier edits if any are applied.
        requests : list of EditRequest
            Exactly one.

        Returns
        -------
        WeightUpdate
            Factors (d_out, 1) and (d_in, 1) of one matrix; `info` has the contexts, the loss of every step,
            `denominator` (uᵀk with ‖u‖ = 1), `relative_norm` (‖ΔW‖/‖W‖), and the norms of d and v₀.

        Raises
        ------
        EditError
            If there is not exactly one request, the layer is out of range, the loss is not finite, or the
            denominator is below 1e-12.
        RequestError
            If the target tokenises to nothing.
        """
        request, rome = only_request(self, requests), self.prepared(lm)
        [(_, found)] = optimize_target_vectors(lm, requests, partial(ValueTail.of, lm, layer=rome.layer), rome)
        keys, values = found.tail.keys.double(), found.tail.start.double()  # (P, d_ff), (P, d_model)
        u = keys.mean(dim=0)
        if rome.mom2_adjustment:
            u = solve((rome.second_moment or SecondMoment()).of(lm, [rome.layer])[rome.layer], u)
        u = u / u.norm()
        key, value = (keys[0], values[0]) if rome.variant == "rome" else (keys.mean(dim=0), values.mean(dim=0))
        denominator = u @ key
        if not denominator.abs() >= MIN_DENOMINATOR:
            raise EditError(
                f"the key of {request.subject!r} at layer {rome.layer} has no direction to write in: uᵀk = 0."
            )
        name = lm.arch.mlp_out_weight(rome.layer)
        change = low_rank(lm, name, ((found.target - value) / denominator)[:, None], u[:, None])
        info = {
            "method": rome.label,
            "requests": [asdict(request)],
            "hyperparameters": asdict(rome),
            "losses": found.losses,
            "denominator": float(denominator),
            "relative_norm": change.norm() / float(lm.weight(name).norm()),
            "value_offset_norm": float(found.offset.norm()),
            "value_norm": float(values[0].norm()),
        }
        return WeightUpdate({name: change}, (info,), lm.name, lm.fingerprint)
