"""Regularizers by singular values and leading subspaces: PRUNE and SPHERE.

Both treat an update as a matrix in its own basis, not entry by entry, and keep a low-rank update low-rank. PRUNE was
published for the accumulated update W_t − W₀, SPHERE for that of one operation; either takes whatever it is given.
"""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor

from workbench.arguments import checked
from workbench.changes import Change, Dense, LowRank
from workbench.lm import LanguageModel
from workbench.parameters import Interval, check_parameters
from workbench.regularize import settings_of
from workbench.update import WeightUpdate
from workbench.weightstats import largest_singular_value, unedited_spectral_norm

PRUNE_FORMS = {"log": math.e, "log2": 2.0, "log1.5": 1.5, "log1.2": 1.2}  # base of the logarithm
_UNIT = Interval(0, 1)


@dataclass(frozen=True)
class PRUNE:
    """Restrain singular values of ΔW above the largest one of W (Ma et al. 2025, arXiv 2405.16821, section 5).

    With ΔW = U diag(σ̂) Vᵀ and m = σ₁(W), every σ̂ ≥ m becomes F(σ̂) = log_α(σ̂) − log_α(m) + m, or (σ̂ + m) / 2 in the
    linear form; the others stay. W is the weight that the update is added to: the unedited one for an accumulated
    update. An update without such a value is returned as it is, bit for bit.

    Departure: where m · ln α < 1, the published F raises values just above m, by up to (1 / ln α) (m ln α − 1 −
    ln(m ln α)); here F(σ̂) never exceeds σ̂. ``as_published=True`` has the published F.

    Attributes
    ----------
    form : {"log", "log2", "log1.5", "log1.2", "linear"}
        Base of the logarithm (``"log"``: e), or the linear form.
    as_published : bool
        Whether values may be raised, as described above.

    Raises
    ------
    EditError
        If `form` is unknown.
    """

    form: Annotated[Literal["log", "log2", "log1.5", "log1.2", "linear"], "function of the singular values"] = "log"
    as_published: Annotated[bool, "whether values just above the largest of W may be raised"] = False

    def __post_init__(self) -> None:
        check_parameters(self)

    @property
    def label(self) -> str:
        """Name in tables and legends."""
        form = "" if self.form == "log" else f" {self.form}"
        return f"PRUNE{form}{' (as published)' if self.as_published else ''}"

    @checked
    def __call__(self, update: WeightUpdate, lm: LanguageModel) -> WeightUpdate:
        """Restrain `update` against the current weights of `lm`; raise `UpdateError` if it does not fit."""
        update.check_fits(lm)
        changes = {name: self._restrain(change, _spectral_norm(lm, name)) for name, change in update.items()}
        return update.regularized(changes, settings_of(self))

    def _restrain(self, change: Change, largest: float) -> Change:
        U, S, V = singular_vectors(change)
        above = largest <= S
        if not above.any():
            return change
        if self.form == "linear":
            restrained = (S + largest) / 2
        else:
            restrained = (S / largest).log() / math.log(PRUNE_FORMS[self.form]) + largest
        if not self.as_published:
            restrained = torch.minimum(restrained, S)
        return _from_singular(U, torch.where(above, restrained, S), V, like=change)


@dataclass(frozen=True)
class SPHERE:
    """Remove from ΔW what acts on the main input directions of W (Liu et al. 2026, arXiv 2510.01172).

    The rows of W are normalized to Ŵ; U holds the leading eigenvectors of ŴᵀŴ / d_out, one more than those whose
    cumulative share of the eigenvalues is at most η. Then ΔW becomes ΔW (I − α U Uᵀ). W is the weight that the update
    is added to.

    Departure: the input side of a Conv1D weight (GPT-2) is its rows; the published code projects its columns.
    ``as_published=True`` does that.

    Attributes
    ----------
    eta : float
        Cumulative share of eigenvalues that is protected, in [0, 1]; published: 0.5.
    alpha : float
        Share of the protected part that is removed, in [0, 1]; published: 0.8 with MEMIT, PRUNE and RECT, 0.5 with
        AlphaEdit.
    as_published : bool
        Whether Conv1D weights are projected on the output side, as described above.

    Raises
    ------
    EditError
        If `eta` or `alpha` lies outside [0, 1].
    """

    eta: Annotated[float, _UNIT, "cumulative share of eigenvalues that is protected"] = 0.5
    alpha: Annotated[float, _UNIT, "share of the protected part that is removed"] = 0.8
    as_published: Annotated[bool, "whether Conv1D weights are projected on the output side"] = False

    def __post_init__(self) -> None:
        check_parameters(self)

    @property
    def label(self) -> str:
        """Name in tables and legends."""
        given = "" if (self.eta, self.alpha) == (0.5, 0.8) else f" η {self.eta:g}, α {self.alpha:g}"
        return f"SPHERE{given}{' (as published)' if self.as_published else ''}"

    @checked
    def __call__(self, update: WeightUpdate, lm: LanguageModel) -> WeightUpdate:
        """Project `update` off the main directions of the weights of `lm`; raise `UpdateError` if it does not fit."""
        update.check_fits(lm)
        on_rows = lm.arch.conv1d and not self.as_published
        changes = {}
        for name, change in update.items():
            W = lm.weight(name).double()
            U = main_directions(W.T if on_rows else W, self.eta)
            changes[name] = _project(change, U, self.alpha, on_rows=on_rows)
        return update.regularized(changes, settings_of(self))


def singular_vectors(change: Change) -> tuple[Tensor, Tensor, Tensor]:
    """Return the thin singular value decomposition of a ΔW in float64: U (n_rows, r), σ (r,) descending, V (n_cols, r).

    From factors it takes a QR decomposition of each and an r × r decomposition, and never forms ΔW.
    """
    if isinstance(change, LowRank):
        left, right = (torch.linalg.qr(factor.double()) for factor in (change.rows, change.cols))
        U, S, Vh = torch.linalg.svd(left.R @ right.R.T, full_matrices=False)
        return left.Q @ U, S, right.Q @ Vh.T
    U, S, Vh = torch.linalg.svd(change.dense().double(), full_matrices=False)
    return U, S, Vh.T


def main_directions(W: Tensor, eta: float) -> Tensor:
    """Return the leading eigenvectors of ŴᵀŴ / d_out, where Ŵ has the rows of W at unit length.

    Liu et al. 2026 (arXiv 2510.01172): one eigenvector more than there are leading eigenvalues whose cumulative share
    is at most `eta`.

    Parameters
    ----------
    W : Tensor (d_out, d_in)
        The weight.
    eta : float
        Cumulative share, in [0, 1].

    Returns
    -------
    Tensor (d_in, r)
        Orthonormal columns, in float64.
    """
    unit = torch.nn.functional.normalize(W.double(), dim=1)
    values, vectors = torch.linalg.eigh(unit.T @ unit / len(unit))  # ascending
    shares = values.flip(0).clamp_min(0).cumsum(0) / values.clamp_min(0).sum()
    count = min(int((shares <= eta).sum()) + 1, len(values))
    return vectors.flip(1)[:, :count]


def _spectral_norm(lm: LanguageModel, name: str) -> float:
    return largest_singular_value(lm.weight(name)) if lm.applied_updates else unedited_spectral_norm(lm, name)


def _project(change: Change, U: Tensor, alpha: float, *, on_rows: bool) -> Change:
    """Return ΔW (I − α U Uᵀ), or (I − α U Uᵀ) ΔW."""

    def away(vectors: Tensor) -> Tensor:  # (d_in, r)
        wide = vectors.double()
        return (wide - alpha * (U.to(wide.device) @ (U.to(wide.device).T @ wide))).to(vectors.dtype)

    if isinstance(change, LowRank):
        return LowRank(away(change.rows), change.cols) if on_rows else LowRank(change.rows, away(change.cols))
    dW = change.dense()
    return Dense(away(dW) if on_rows else away(dW.T).T.contiguous())


def _from_singular(U: Tensor, S: Tensor, V: Tensor, *, like: Change) -> Change:
    dtype = like.rows.dtype if isinstance(like, LowRank) else like.dense().dtype
    if isinstance(like, LowRank):
        return LowRank((U * S).to(dtype), V.to(dtype))
    return Dense(((U * S) @ V.T).to(dtype))
