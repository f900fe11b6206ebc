"""What is tried when a method is tuned: where it edits, then how fast, then how far."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from workbench.editing.memit import PRESETS as MEMIT_PRESETS
from workbench.editing.presets import preset_for
from workbench.editing.rome import PRESETS as ROME_PRESETS
from workbench.lm import LanguageModel

_ROME_SHARES = (0.05, 0.1, 0.17, 0.25, 0.33, 0.42, 0.5)  # of the depth; published presets lie at 0.16 to 0.35
_MEMIT_SHARES = (0.15, 0.25, 0.35, 0.45)  # of the depth, for the last of the edited blocks; published: 0.25 to 0.35
_N_LAYERS = 5
_STEPS = 25


@dataclass(frozen=True)
class Stage:
    """One round of successive halving: every survivor of the last one with every combination of some values.

    Attributes
    ----------
    name : str
        What it decides.
    values : mapping of str to tuple
        Values of each hyperparameter that are tried; a survivor's own value need not be among them.
    n_facts : int
        Number of facts that every candidate edits.
    keep : int
        Number of candidates that go on.
    """

    name: str
    values: Mapping[str, tuple[Any, ...]]
    n_facts: int
    keep: int


def rome_space(lm: LanguageModel) -> tuple[dict[str, Any], list[Stage]]:
    """Return where the search of ROME starts, and its stages: 7 layers, then 6 rates, then 4 penalties.

    The start has the rates that are published for Llama 2 (EasyEdit); the values lie around those and GPT-2 XL's.
    """
    layers = tuple(dict.fromkeys(round(share * (lm.n_layers - 1)) for share in _ROME_SHARES))
    start = {"layer": layers[0], "v_num_grad_steps": _STEPS, "v_lr": 0.5, "clamp_norm_factor": 4.0}
    return {**start, "v_weight_decay": 1e-3, "kl_factor": 0.0625}, [
        Stage("layer", {"layer": layers}, 4, 3),
        Stage("rate and clamp", {"v_lr": (0.1, 0.25, 0.5), "clamp_norm_factor": (1.0, 4.0)}, 6, 4),
        Stage("penalties", {"v_weight_decay": (1e-3, 0.5), "kl_factor": (0.0625, 1.0)}, 10, 3),
    ]


def memit_space(lm: LanguageModel) -> tuple[dict[str, Any], list[Stage]]:
    """Return where the search of MEMIT starts, and its stages: 4 windows of five blocks, λ and rate, clamp and decay.

    λ is a multiple of d_ff, because the published values are 0.9 to 3.1 times it. The start has the rates that are
    published for Llama 2 (EasyEdit).
    """
    last_blocks = dict.fromkeys(max(_N_LAYERS - 1, round(share * (lm.n_layers - 1))) for share in _MEMIT_SHARES)
    windows = tuple(tuple(range(max(0, last - _N_LAYERS + 1), min(last, lm.n_layers - 1) + 1)) for last in last_blocks)
    d_ff, _ = lm.linear_shape(lm.arch.mlp_out_weight(0))
    weights = tuple(float(round(share * d_ff)) for share in (0.2, 0.65, 2.0))
    start = {"layers": windows[0], "mom2_update_weight": weights[1], "v_num_grad_steps": _STEPS, "v_lr": 0.5}
    return {**start, "clamp_norm_factor": 4.0, "v_weight_decay": 1e-3}, [
        Stage("layers", {"layers": windows}, 6, 2),
        Stage("λ and rate", {"mom2_update_weight": weights, "v_lr": (0.1, 0.5)}, 10, 3),
        Stage("clamp and decay", {"clamp_norm_factor": (0.75, 4.0), "v_weight_decay": (1e-3, 0.5)}, 10, 2),
    ]


SPACES = {"rome": rome_space, "memit": memit_space}
_PRESETS = {"rome": ROME_PRESETS, "memit": MEMIT_PRESETS}


def has_preset(method: str, model: str) -> bool:
    """Return whether the package has a preset of a method in `SPACES` for a model, by the model's name."""
    return preset_for(_PRESETS[method], model) is not None
