"""How the ΔW of one parameter is stored: as low-rank factors, as kept entries, or as the whole matrix."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from workbench.errors import UpdateError
from workbench.inputs import require_text
from workbench.lm import LanguageModel
from workbench.selection import entries_where


@dataclass(frozen=True)
class LowRank:
    """ΔW = rows @ colsᵀ, in the parameter's own orientation.

    Attributes
    ----------
    rows : Tensor (n_rows, r)
        Left factor.
    cols : Tensor (n_cols, r)
        Right factor.
    """

    rows: Tensor
    cols: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape (n_rows, n_cols) of ΔW."""
        return self.rows.shape[0], self.cols.shape[0]

    def dense(self) -> Tensor:
        """Return ΔW (n_rows, n_cols)."""
        return self.rows @ self.cols.T

    def to(self, device: torch.device) -> "LowRank":
        """Return the change on a device."""
        return LowRank(self.rows.to(device), self.cols.to(device))

    def bound(self) -> float:
        """Return a number that no entry of ΔW exceeds in magnitude, from the factors alone; NaN if one of them is."""
        return self.rows.shape[1] * largest(self.rows) * largest(self.cols)

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors that a file holds."""
        return {"rows": self.rows, "cols": self.cols}


@dataclass(frozen=True)
class Sparse:
    """ΔW in which only some entries are kept and the others are zero.

    Attributes
    ----------
    bits : Tensor (ceil(n_rows * n_cols / 8),)
        uint8; one bit per entry says whether it is kept.
    values : Tensor (number of kept entries,)
        Kept entries in row-major order.
    shape : tuple of int
        Shape (n_rows, n_cols) of ΔW.
    """

    bits: Tensor
    values: Tensor
    shape: tuple[int, ...]

    @classmethod
    def from_mask(cls, matrix: Tensor, mask: Tensor) -> "Sparse":
        """Keep the entries of `matrix` (n_rows, n_cols) where the boolean `mask` of the same shape is true."""
        bits = torch.from_numpy(np.packbits(mask.cpu().numpy()))
        return cls(bits, entries_where(matrix, mask), tuple(matrix.shape))

    @property
    def mask(self) -> Tensor:
        """Boolean (n_rows, n_cols), true at the kept entries."""
        count = self.shape[0] * self.shape[1]
        flags = np.unpackbits(self.bits.cpu().numpy(), count=count).view(bool)
        return torch.from_numpy(flags).reshape(self.shape).to(self.values.device)

    def dense(self) -> Tensor:
        """Return ΔW (n_rows, n_cols)."""
        matrix = torch.zeros(self.shape, dtype=self.values.dtype, device=self.values.device)
        return matrix.masked_scatter_(self.mask, self.values)

    def to(self, device: torch.device) -> "Sparse":
        """Return the change with its values on a device."""
        return replace(self, values=self.values.to(device))

    def bound(self) -> float:
        """Return the largest magnitude of an entry; NaN if one of them is."""
        return largest(self.values)

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors that a file holds."""
        return {"bits": self.bits, "values": self.values, "shape": torch.tensor(self.shape)}


@dataclass(frozen=True)
class Dense:
    """ΔW as the whole matrix.

    Attributes
    ----------
    matrix : Tensor (n_rows, n_cols)
        ΔW.
    """

    matrix: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of ΔW."""
        return tuple(self.matrix.shape)

    def dense(self) -> Tensor:
        """Return ΔW itself."""
        return self.matrix

    def to(self, device: torch.device) -> "Dense":
        """Return the change on a device."""
        return Dense(self.matrix.to(device))

    def bound(self) -> float:
        """Return the largest magnitude of an entry; NaN if one of them is."""
        return largest(self.matrix)

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors that a file holds."""
        return {"matrix": self.matrix}


Change = LowRank | Sparse | Dense


def largest(tensor: Tensor) -> float:
    """Return the largest magnitude of an entry, 0 for an empty tensor, NaN if an entry is NaN; one pass, no copy."""
    if not tensor.numel():
        return 0.0
    low, high = map(float, tensor.detach().aminmax())
    return max(-low, high)


def low_rank(lm: LanguageModel, name: str, left: Tensor, right: Tensor) -> LowRank:
    """Return ΔW = left rightᵀ of a linear layer, in the orientation of its parameter.

    Parameters
    ----------
    lm : LanguageModel
        The model; its architecture row says how its weights lie.
    name : str
        Name of the weight.
    left, right : Tensor (d_out, r), Tensor (d_in, r)
        Factors, so that output = (W + ΔW) @ key; each on any device.

    Returns
    -------
    LowRank
        In float32 or wider, on the device of the weight.
    """
    W = lm.weight(name)
    dtype = torch.promote_types(W.dtype, torch.float32)
    left, right = left.to(W.device, dtype), right.to(W.device, dtype)
    return LowRank(right, left) if lm.arch.conv1d else LowRank(left, right)


def add_changes(a: Change, b: Change) -> Change:
    """Return the sum of two changes of one parameter, in the smallest form that holds it.

    Factors stay factors while they are smaller than the matrix; kept entries stay sparse while at most half of the
    entries are kept.

    Parameters
    ----------
    a, b : LowRank, Sparse or Dense
        Changes of the same shape.

    Returns
    -------
    LowRank, Sparse or Dense
        On the device of `a`.

    Raises
    ------
    UpdateError
        If the shapes differ.
    """
    if a.shape != b.shape:
        raise UpdateError(f"updates of shapes {a.shape} and {b.shape} cannot be added; they are of different models.")
    b = b.to(_device_of(a))
    if isinstance(a, LowRank) and isinstance(b, LowRank):
        rank = a.rows.shape[1] + b.rows.shape[1]
        if rank * sum(a.shape) <= a.shape[0] * a.shape[1]:
            return LowRank(torch.cat([a.rows, b.rows], dim=1), torch.cat([a.cols, b.cols], dim=1))
    total = a.dense() + b.dense()
    if isinstance(a, Sparse) and isinstance(b, Sparse):
        mask = a.mask | b.mask
        if mask.sum() * 2 <= mask.numel():
            return Sparse.from_mask(total, mask)
    return Dense(total)


def change_from_tensors(kind: str, parts: dict[str, Tensor]) -> Change | None:
    """Return the change whose `tensors` were saved under the name of its class; None if the parts do not fit together.

    Parameters
    ----------
    kind : str
        Name of the class: LowRank, Sparse or Dense.
    parts : dict of str to Tensor
        The tensors by the names that `tensors` gave them.

    Returns
    -------
    LowRank, Sparse, Dense or None
    """
    match kind, parts:
        case "LowRank", {"rows": rows, "cols": cols}:
            if rows.dim() == cols.dim() == 2 and rows.shape[1] == cols.shape[1] and _are_real(rows, cols):
                return LowRank(rows, cols)
        case "Sparse", {"bits": bits, "values": values, "shape": shape} if shape.shape == (2,):
            change = Sparse(bits, values, tuple(shape.tolist()))
            if _is_consistent(change) and _are_real(values):
                return change
        case "Dense", {"matrix": matrix}:
            if _are_real(matrix):
                return Dense(matrix)
    return None


def as_change(name: object, change: object) -> Change:
    """Return a change, or a tensor as one; raise `UpdateError` if it is neither, or its entries are not real floats."""
    require_text(name, "the name of a parameter", UpdateError)
    if isinstance(change, Tensor):
        change = Dense(change)
    if not isinstance(change, Change):
        raise UpdateError(f"ΔW of {name} must be a tensor, LowRank, Sparse or Dense; got {change!r}.")
    if any(tensor.is_complex() for tensor in change.tensors().values()):
        raise UpdateError(f"the update of {name} has complex entries; give real numbers.")
    if isinstance(change, Dense) and not change.matrix.is_floating_point():
        raise UpdateError(f"ΔW of {name} must hold floating-point numbers; got {change.matrix.dtype}.")
    return change


def _device_of(change: Change) -> torch.device:
    match change:
        case LowRank():
            return change.rows.device
        case Sparse():
            return change.values.device
        case Dense():
            return change.matrix.device


def _are_real(*tensors: Tensor) -> bool:
    return all(tensor.is_floating_point() for tensor in tensors)


def _is_consistent(change: Sparse) -> bool:
    if change.bits.dtype != torch.uint8 or not all(isinstance(n, int) and n >= 0 for n in change.shape):
        return False
    n_bytes = -(-change.shape[0] * change.shape[1] // 8)
    return change.bits.shape == (n_bytes,) and change.values.shape == (int(change.mask.sum()),)
