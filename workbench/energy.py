"""RECT with a share of entries that the update itself decides: as many as hold a given part of ‖ΔW‖²."""

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from workbench.arguments import checked
from workbench.changes import Sparse
from workbench.lm import LanguageModel
from workbench.parameters import SHARE, check_parameters
from workbench.regularize import settings_of
from workbench.selection import top_mask
from workbench.update import WeightUpdate
from workbench.weightstats import relative_change


@dataclass(frozen=True)
class EnergyRECT:
    """Keep the fewest entries, in order of δ = abs(ΔW/W), whose squares reach a part of the energy ‖ΔW‖².

    RECT (Gu et al. 2024, section 6) with a rule in place of its fixed k: the entries are those of ``RECT(keep=k)``, and
    each matrix has a k of its own. An update whose entries of large δ are its large entries is pruned more than one
    whose energy is spread. The share kept is `share_changed` of `weight_change` and `share_applied` of
    `Store.operations`.

    A part of Σδ would not do: where W = 0, as in a few entries of quantized weights, δ is infinite.

    Attributes
    ----------
    energy : float
        Part of ‖ΔW‖² that the kept entries reach, in (0, 1].

    Raises
    ------
    EditError
        If `energy` is outside (0, 1].
    """

    energy: Annotated[float, SHARE, "part of ‖ΔW‖² that the kept entries reach"] = 0.9

    def __post_init__(self) -> None:
        check_parameters(self)

    @property
    def label(self) -> str:
        """Name in tables and legends."""
        return f"RECT energy {100 * self.energy:g} %"

    @checked
    def __call__(self, update: WeightUpdate, lm: LanguageModel) -> WeightUpdate:
        """Prune `update` against the current weights of `lm`; raise `UpdateError` if it does not fit."""
        update.check_fits(lm)
        changes = {}
        for name in update:
            W = lm.weight(name)
            dW = update.delta(name).to(W.device)
            delta = relative_change(dW, W).float()
            changes[name] = Sparse.from_mask(dW, top_mask(delta, _count_reaching(dW, delta, self.energy)))
        return update.regularized(changes, settings_of(self))


def _count_reaching(dW: Tensor, delta: Tensor, energy: float) -> int:
    """Return the number of entries, by descending δ and then in row-major order, whose squares reach the energy."""
    order = delta.reshape(-1).argsort(descending=True, stable=True)
    reached = dW.reshape(-1)[order].double().square_().cumsum_(dim=0)
    total = float(reached[-1])
    if not math.isfinite(total):
        return dW.numel()
    return int(torch.searchsorted(reached, energy * total)) + 1 if total else 0
