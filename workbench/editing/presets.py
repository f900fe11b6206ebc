"""Published and measured hyperparameters, and EasyEdit's hparams files."""

from pathlib import Path
from typing import Any

import yaml

from workbench.errors import EditError

_LLAMA = {"v_num_grad_steps": 25, "v_lr": 0.5, "v_weight_decay": 1e-3}

# Sources: kmeng01/rome hparams/ROME (gpt2-xl, gpt-j-6b); zjunlp/EasyEdit hparams/ROME/llama-7b.yaml, which holds the
# settings of both Llama models; smollm2-135m: notebooks/04_rome_sweep.ipynb.
ROME_PRESETS: dict[str, dict[str, Any]] = {
    "gpt2-xl": {"layer": 17, "v_num_grad_steps": 20, "v_lr": 0.5, "v_weight_decay": 0.5},
    "gpt-j-6b": {"layer": 5, "v_num_grad_steps": 20, "v_lr": 0.5, "v_weight_decay": 0.5},
    "llama-7b": {"layer": 5, "v_num_grad_steps": 20, "v_lr": 0.1, "v_weight_decay": 1e-3},
    "llama-2-7b": {"layer": 5, **_LLAMA},
    "smollm2-135m": {"layer": 5, **_LLAMA},
}
_ALIASES = {"llama-2-7b-hf": "llama-2-7b", "llama-7b-hf": "llama-7b", "llama-1-7b": "llama-7b"}

_DEPTH_SHARE = 1 / 6  # where the presets of gated models lie: layer 5 of 30 or 32


def rome(name: str, n_layers: int) -> dict[str, Any]:
    """ROME's fields for a model known by `name` (or the last part of a path or hub id), else by the depth rule."""
    short = name.rstrip("/").rsplit("/", 1)[-1].lower()
    preset = ROME_PRESETS.get(_ALIASES.get(short, short))
    if preset is not None and preset["layer"] < n_layers:
        return dict(preset)
    return {"layer": min(round(n_layers * _DEPTH_SHARE), n_layers - 1), **_LLAMA}


_ROME_FIELDS = {
    "v_num_grad_steps": int,
    "v_lr": float,
    "v_weight_decay": float,
    "clamp_norm_factor": float,
    "kl_factor": float,
    "mom2_adjustment": bool,
}
# Keys of EasyEdit's files that say where modules are, what runs where, or how a covariance was made: here the
# architecture row, `load` and `SecondMoment` say that.
_ROME_ELSEWHERE = {
    *("alg_name", "model_name", "stats_dir", "device", "layers", "fact_token", "v_loss_layer"),
    *("rewrite_module_tmp", "layer_module_tmp", "mlp_module_tmp", "attn_module_tmp", "ln_f_module", "lm_head_module"),
    *("mom2_dataset", "mom2_n_samples", "mom2_dtype", "context_template_length_params", "model_parallel", "fp16"),
}


def rome_from_yaml(path: Path) -> dict[str, Any]:
    """ROME's fields from one of EasyEdit's hparams files; raises `EditError` in one sentence if it is not one."""
    try:
        given = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as err:
        raise EditError(
            f"{path} cannot be read as YAML ({type(err).__name__}); give an EasyEdit hparams file."
        ) from err
    if not isinstance(given, dict) or given.get("alg_name") != "ROME":
        raise EditError(f"{path} is not an EasyEdit hparams file for ROME; its alg_name must be ROME.")
    unknown = sorted(set(given) - set(_ROME_FIELDS) - _ROME_ELSEWHERE)
    if unknown:
        raise EditError(
            f"{path}: field {unknown[0]!r} is not known for ROME; known: {', '.join(sorted(_ROME_FIELDS))}."
        )
    if given.get("fact_token", "subject_last") != "subject_last":
        raise EditError(f"{path}: fact_token is {given['fact_token']!r}; only 'subject_last' is supported.")
    layers = given.get("layers")
    if not isinstance(layers, list) or len(layers) != 1:
        raise EditError(f"{path}: layers must hold one layer for ROME; got {layers!r}.")
    fields = {key: _as(kind, given[key], f"{path}: {key}") for key, kind in _ROME_FIELDS.items() if key in given}
    return {"layer": _as(int, layers[0], f"{path}: layers")} | fields


_KINDS = {int: "a whole number", float: "a number", bool: "true or false"}


def _as(kind: type, value: Any, where: str) -> int | float | bool:
    """`value` as an int, float or bool; a number may stand in a string, since YAML 1.1 reads 5e-1 as one."""
    try:
        if isinstance(value, bool) == (kind is bool) and (converted := kind(value)) == float(value):
            return converted
    except (TypeError, ValueError):
        pass
    raise EditError(f"{where} must be {_KINDS[kind]}; got {value!r}.")
