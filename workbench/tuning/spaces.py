"""What is tried when a method is tuned: where it edits, then how far and how fast, then what holds it back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from workbench.editing.memit import PRESETS as MEMIT_PRESETS
from workbench.editing.passes.subject_states import SubjectStates
from workbench.editing.presets import preset_for
from workbench.editing.rome import PRESETS as ROME_PRESETS
from workbench.lm import LanguageModel
from workbench.request import PLACEHOLDER, EditRequest

Choices = tuple[Mapping[str, Any], ...]  # settings of one or more hyperparameters, of which a candidate has one

_ROME_SHARES = (0.05, 0.1, 0.17, 0.25, 0.33, 0.42, 0.5)  # of the depth; published presets lie at 0.16 to 0.35
_MEMIT_SHARES = (0.15, 0.25, 0.35, 0.45)  # of the depth, for the last of the edited blocks; published: 0.25 to 0.35
_N_LAYERS = 5
_STEPS = 25
_WEAK = {"v_weight_decay": 1e-3, "kl_factor": 0.0625}  # published for Llama 2 (EasyEdit)
_STRONG = {"v_weight_decay": 0.5, "kl_factor": 1.0}  # the decay as published for GPT-2 XL


@dataclass(frozen=True)
class Stage:
    """One round of successive halving: every survivor of the last one with every combination of some choices.

    Attributes
    ----------
    name : str
        What it decides.
    axes : tuple of tuple of mapping
        Along each axis, the settings that are tried; a survivor's own need not be among them.
    n_facts : int
        Number of facts that every candidate edits.
    keep : int
        Number of candidates that go on.
    """

    name: str
    axes: tuple[Choices, ...]
    n_facts: int
    keep: int


def rome_space(lm: LanguageModel, requests: Sequence[EditRequest]) -> tuple[dict[str, Any], list[Stage]]:
    """Return where the search of ROME starts, and its stages: 7 layers, 3 clamps with 2 penalties, 2 rates.

    A rate is what Adam moves an entry of v by in a step. How long v is differs between models by a factor of ten and
    more, so rates are shares of its root mean square at the subjects of `requests`, the median over the layers.
    """
    layers = tuple(dict.fromkeys(round(share * (lm.n_layers - 1)) for share in _ROME_SHARES))
    sizes = [SubjectStates(lm, requests, [PLACEHOLDER], [layer]).values(layer) for layer in layers]
    slow, fast = _rates(sizes, (0.2, 0.8))
    return {"v_num_grad_steps": _STEPS, "v_lr": fast, "clamp_norm_factor": 1.5, **_STRONG}, [
        Stage("layer", (_each("layer", layers),), 4, 2),
        Stage("clamp and penalties", (_each("clamp_norm_factor", (0.75, 1.5, 4.0)), (_WEAK, _STRONG)), 5, 2),
        Stage("rate", (_each("v_lr", (slow, fast)),), 8, 2),
    ]


def memit_space(lm: LanguageModel, requests: Sequence[EditRequest]) -> tuple[dict[str, Any], list[Stage]]:
    """Return where the search of MEMIT starts, and its stages: 4 windows, 2 clamps with 2 rates, 3 λ with 2 penalties.

    A window has five blocks. Rates are shares of the root mean square of the hidden state behind the window, as in
    `rome_space`. λ is a multiple of d_ff, because the published values are 0.9 to 3.1 times it.
    """
    last_blocks = dict.fromkeys(max(_N_LAYERS - 1, round(share * (lm.n_layers - 1))) for share in _MEMIT_SHARES)
    windows = tuple(tuple(range(max(0, last - _N_LAYERS + 1), min(last, lm.n_layers - 1) + 1)) for last in last_blocks)
    sizes = [SubjectStates(lm, requests, [PLACEHOLDER], [each[-1]]).keys_and_hidden(each[-1])[1] for each in windows]
    slow, fast = _rates(sizes, (0.02, 0.1))
    d_ff, _ = lm.linear_shape(lm.arch.mlp_out_weight(0))
    low, middle, high = (float(round(share * d_ff)) for share in (0.2, 0.65, 2.0))
    start = {"mom2_update_weight": middle, "v_num_grad_steps": _STEPS, "v_lr": fast, "clamp_norm_factor": 0.75}
    return {**start, **_WEAK}, [
        Stage("layers", (_each("layers", windows),), 6, 2),
        Stage("clamp and rate", (_each("clamp_norm_factor", (0.75, 4.0)), _each("v_lr", (slow, fast))), 8, 2),
        Stage("λ and penalties", (_each("mom2_update_weight", (low, middle, high)), (_WEAK, _STRONG)), 10, 2),
    ]


def _each(name: str, values: Sequence[Any]) -> Choices:
    return tuple({name: value} for value in values)


def _rates(vectors: Sequence[torch.Tensor], shares: Sequence[float]) -> list[float]:
    """Return shares of the median root mean square of some sets of vectors (N, d), to two significant digits."""
    sizes = torch.stack([each.float().square().mean().sqrt() for each in vectors])
    return [float(f"{share * float(sizes.median()):.2g}") for share in shares]


SPACES = {"rome": rome_space, "memit": memit_space}
_PRESETS = {"rome": ROME_PRESETS, "memit": MEMIT_PRESETS}


def has_preset(method: str, model: str) -> bool:
    """Return whether the package has a preset of a method in `SPACES` for a model, by the model's name."""
    return preset_for(_PRESETS[method], model) is not None
