"""Regularizers: callables (update, lm) → update, one class each.

Each looks at ΔW matrix by matrix, and compares it with the weight that it is about to be added to.
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from workbench.errors import EditError
from workbench.lm import LanguageModel
from workbench.selection import top_mask
from workbench.update import Change, Dense, LowRank, Sparse, WeightUpdate
from workbench.weightstats import relative_change


class Regularizer(Protocol):
    """What turns an editor's update into the one that is applied."""

    @property
    def label(self) -> str:
        """How tables and legends call it."""

    def __call__(self, update: WeightUpdate, lm: LanguageModel) -> WeightUpdate:
        """The update to apply instead of `update`; neither argument is changed."""


def _check_keep(keep: float) -> None:
    if not 0 < keep <= 1:
        raise EditError(f"keep must lie in (0, 1]; got {keep}.")


def _replace(update: WeightUpdate, changes: dict[str, Change], regularizer: "Regularizer") -> WeightUpdate:
    settings = {"regularizer": regularizer.label, "regularizer_settings": asdict(regularizer)}
    info = tuple({**record, **settings} for record in update.info)
    return WeightUpdate(changes, info, update.model, update.fingerprint)


def keep_most_changed(dW: Tensor, W: Tensor, keep: float) -> Sparse:
    """The entries of ΔW with the largest relative change δ = abs(ΔW/W): RECT on one matrix.

    Parameters
    ----------
    dW, W : Tensor (n_rows, n_cols)
        Update, and the weight that it is about to be added to.
    keep : float
        Share of entries kept, in (0, 1]: exactly round(keep · N), equal δ in row-major order.

    Returns
    -------
    Sparse
        Those entries of ΔW, bit for bit.
    """
    dW = dW.to(W.device)
    return Sparse.from_mask(dW, top_mask(relative_change(dW, W).float(), round(keep * dW.numel())))


@dataclass(frozen=True)
class Unregularized:
    """The update as the editor made it."""

    @property
    def label(self) -> str:
        """How tables and legends call it."""
        return "Unregularized"

    def __call__(self, update: WeightUpdate, lm: LanguageModel) -> WeightUpdate:
        """Return `update` itself, whatever `lm` is."""
        return update


@dataclass(frozen=True)
class RECT:
    """Keep the entries with the largest relative change δ = abs(ΔW/W); zero the rest (Gu et al. 2024, section 6).

    Exactly round(keep · N) entries of each matrix keep their values; equal δ are taken in row-major order.

    Attributes
    ----------
    keep : float
        Share of entries kept, in (0, 1]; the paper's headline is 0.4.

    Raises
    ------
    EditError
        If keep is outside (0, 1].
    """

    keep: float = 0.4

    def __post_init__(self) -> None:
        _check_keep(self.keep)

    @property
    def label(self) -> str:
        """How tables and legends call it."""
        return f"RECT {100 * self.keep:g} %"

    def __call__(self, update: WeightUpdate, lm: LanguageModel) -> WeightUpdate:
        """Prune `update` against the weights that `lm` has now; raises `UpdateError` if it does not fit."""
        update.check_fits(lm)
        changes = {name: keep_most_changed(update.delta(name), lm.weight(name), self.keep) for name in update}
        return _replace(update, changes, self)


@dataclass(frozen=True)
class RandomK:
    """Keep a random share of the entries; zero the rest: the control for RECT (Gu et al. 2024, section 6).

    Attributes
    ----------
    keep : float
        Share of entries kept, in (0, 1]; exactly round(keep · N) of each matrix.
    seed : int
        Draws the entries; the same seed and shapes give the same entries on every device.

    Raises
    ------
    EditError
        If keep is outside (0, 1].
    """

    keep: float = 0.4
    seed: int = 0

    def __post_init__(self) -> None:
        _check_keep(self.keep)

    @property
    def label(self) -> str:
        """How tables and legends call it."""
        return f"Random {100 * self.keep:g} %"

    def __call__(self, update: WeightUpdate, lm: LanguageModel) -> WeightUpdate:
        """Prune `update` at random; raises `UpdateError` if it does not fit `lm`."""
        update.check_fits(lm)
        generator = torch.Generator().manual_seed(self.seed)
        changes = {}
        for name in update:
            dW = update.delta(name)
            scores = torch.rand(dW.shape, generator=generator, dtype=torch.float32)
            changes[name] = Sparse.from_mask(dW, top_mask(scores, round(self.keep * dW.numel())).to(dW.device))
        return _replace(update, changes, self)


@dataclass(frozen=True)
class PCAK:
    """Compress ΔW by principal components of its rows (Gu et al. 2024, section 6).

    ``form="paper"`` follows the paper's published code: the rows of ΔW, centered, are projected on their leading
    ⌊keep · n_columns⌋ components, and the scores are written into the *first columns* of a matrix of zeros. That
    puts coordinates of another basis where weights belong: it is not an approximation of ΔW, and it is why the
    paper's "PCA 40 %" edits mostly fail. Of a rank-one ΔW only the first column is left.
    ``form="reconstruction"`` keeps as many components as keep · N numbers can hold (scores, components and mean)
    and maps them back, which loses nothing of a rank-one ΔW. No two figures should compare across the forms.

    Attributes
    ----------
    keep : float
        Share k, in (0, 1].
    form : {"paper", "reconstruction"}
        See above.

    Raises
    ------
    EditError
        If keep is outside (0, 1] or `form` is unknown.
    """

    keep: float = 0.4
    form: Literal["paper", "reconstruction"] = "paper"

    def __post_init__(self) -> None:
        _check_keep(self.keep)
        if self.form not in ("paper", "reconstruction"):
            raise EditError(f"form must be 'paper' or 'reconstruction'; got {self.form!r}.")

    @property
    def label(self) -> str:
        """How tables and legends call it."""
        suffix = "" if self.form == "paper" else " (reconstruction)"
        return f"PCA {100 * self.keep:g} %{suffix}"

    def __call__(self, update: WeightUpdate, lm: LanguageModel) -> WeightUpdate:
        """Compress `update`; raises `UpdateError` if it does not fit `lm`."""
        update.check_fits(lm)
        compress = _scores_in_first_columns if self.form == "paper" else _reconstruct
        return _replace(update, {name: compress(update[name], self.keep) for name in update}, self)


def _principal_components(change: Change) -> tuple[Tensor, Tensor, Tensor]:
    """Scores (n_rows, r), orthonormal components (n_cols, r) and mean row (n_cols,) of the rows of ΔW, in float64.

    Each component's largest entry in size is positive, so that signs are settled.
    """
    if isinstance(change, LowRank):
        rows, cols = change.rows.double(), change.cols.double()
    else:
        dW = change.dense().double()
        rows, cols = dW, torch.eye(dW.shape[1], dtype=torch.float64, device=dW.device)
    mean = rows.mean(dim=0)
    basis, mixing = torch.linalg.qr(cols)  # cols = basis @ mixing, so centered ΔW = (rows - mean) @ mixingᵀ @ basisᵀ
    U, S, Vh = torch.linalg.svd((rows - mean) @ mixing.T, full_matrices=False)
    components = basis @ Vh.T
    signs = components.gather(0, components.abs().argmax(dim=0, keepdim=True)).sign()
    return U * S * signs, components * signs, cols @ mean


def _scores_in_first_columns(change: Change, keep: float) -> Change:
    scores, _, _ = _principal_components(change)
    n_rows, n_cols = change.shape
    count = min(int(keep * n_cols), n_rows, scores.shape[1])
    dW = torch.zeros(n_rows, n_cols, dtype=scores.dtype, device=scores.device)
    dW[:, :count] = scores[:, :count]
    return Dense(dW.float())


def _reconstruct(change: Change, keep: float) -> Change:
    scores, components, mean = _principal_components(change)
    n_rows, n_cols = change.shape
    count = min(max(int((keep * n_rows * n_cols - n_cols) // (n_rows + n_cols)), 0), scores.shape[1])
    rows = torch.cat([scores[:, :count], torch.ones(n_rows, 1).to(scores)], dim=1)
    cols = torch.cat([components[:, :count], mean[:, None]], dim=1)
    return LowRank(rows.float(), cols.float())


_KINDS = {kind.__name__: kind for kind in (Unregularized, RECT, RandomK, PCAK)}


def settings_of(regularizer: Regularizer) -> dict[str, Any]:
    """A regularizer as JSON values: its class as `kind`, and its fields.

    Parameters
    ----------
    regularizer : Regularizer
        One of this module's.

    Returns
    -------
    dict
        What `from_settings` takes.
    """
    return {"kind": type(regularizer).__name__, **asdict(regularizer)}


def from_settings(settings: dict[str, Any]) -> Regularizer:
    """The regularizer that `settings_of` described.

    Parameters
    ----------
    settings : dict
        `kind` and the fields.

    Returns
    -------
    Regularizer

    Raises
    ------
    EditError
        If there is no such kind.
    """
    fields = dict(settings)
    kind = fields.pop("kind", None)
    if kind not in _KINDS:
        raise EditError(f"no regularizer of kind {kind!r}; known: {', '.join(_KINDS)}.")
    return _KINDS[kind](**fields)
