"""WeightUpdate: the ΔW of an edit, kept as factors, as kept entries, or dense; applied, undone, added, saved."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from workbench.errors import UpdateError
from workbench.lm import LanguageModel
from workbench.selection import entries_where
from workbench.storage.files import write_atomically

FORMAT = "workbench-update-1"


@dataclass(frozen=True)
class LowRank:
    """ΔW = rows @ colsᵀ: rows (n_rows, r), cols (n_cols, r), in the parameter's own orientation."""

    rows: Tensor
    cols: Tensor

    @property
    def shape(self) -> tuple[int, int]:
        """(n_rows, n_cols) of ΔW."""
        return self.rows.shape[0], self.cols.shape[0]

    def dense(self) -> Tensor:
        """ΔW (n_rows, n_cols)."""
        return self.rows @ self.cols.T

    def norm(self) -> float:
        """Frobenius norm of ΔW, from the factors in float64: ‖A Bᵀ‖² = Σ (AᵀA ⊙ BᵀB)."""
        rows, cols = self.rows.double(), self.cols.double()
        return float(((rows.T @ rows) * (cols.T @ cols)).sum().clamp(min=0).sqrt())

    def tensors(self) -> dict[str, Tensor]:
        """What a file holds."""
        return {"rows": self.rows, "cols": self.cols}


@dataclass(frozen=True)
class Sparse:
    """ΔW with only some entries kept: one bit an entry for which, and the values of those in row-major order."""

    bits: Tensor  # uint8 (ceil(n_rows * n_cols / 8),)
    values: Tensor  # (number of kept entries,)
    shape: tuple[int, int]

    @classmethod
    def from_mask(cls, matrix: Tensor, mask: Tensor) -> "Sparse":
        """Keep the entries of `matrix` (n_rows, n_cols) where the boolean `mask` of the same shape is true."""
        bits = torch.from_numpy(np.packbits(mask.cpu().numpy()))
        return cls(bits, entries_where(matrix, mask), tuple(matrix.shape))

    @property
    def mask(self) -> Tensor:
        """Which entries are kept, boolean (n_rows, n_cols)."""
        count = self.shape[0] * self.shape[1]
        flags = np.unpackbits(self.bits.cpu().numpy(), count=count).view(bool)
        return torch.from_numpy(flags).reshape(self.shape).to(self.values.device)

    def dense(self) -> Tensor:
        """ΔW (n_rows, n_cols)."""
        matrix = torch.zeros(self.shape, dtype=self.values.dtype, device=self.values.device)
        return matrix.masked_scatter_(self.mask, self.values)

    def tensors(self) -> dict[str, Tensor]:
        """What a file holds."""
        return {"bits": self.bits, "values": self.values, "shape": torch.tensor(self.shape)}


@dataclass(frozen=True)
class Dense:
    """ΔW as the whole matrix (n_rows, n_cols)."""

    matrix: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of ΔW."""
        return tuple(self.matrix.shape)

    def dense(self) -> Tensor:
        """ΔW itself."""
        return self.matrix

    def tensors(self) -> dict[str, Tensor]:
        """What a file holds."""
        return {"matrix": self.matrix}


Change = LowRank | Sparse | Dense


def low_rank(lm: LanguageModel, name: str, left: Tensor, right: Tensor) -> LowRank:
    """ΔW = left rightᵀ of a linear layer, turned into the parameter's own orientation.

    Parameters
    ----------
    lm : LanguageModel
        Its architecture row says which way the weight lies.
    name : str
        The weight.
    left, right : Tensor (d_out, r), Tensor (d_in, r)
        Factors, so that output = (W + ΔW) @ key.

    Returns
    -------
    LowRank
        float32 or wider.
    """
    dtype = torch.promote_types(lm.weight(name).dtype, torch.float32)
    left, right = left.to(dtype), right.to(dtype)
    return LowRank(right, left) if lm.arch.conv1d else LowRank(left, right)


def _add(a: Change, b: Change) -> Change:
    if a.shape != b.shape:
        raise UpdateError(f"updates of shapes {a.shape} and {b.shape} cannot be added; they are of different models.")
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


@dataclass(frozen=True, eq=False)
class WeightUpdate(Mapping):
    """ΔW of one or more parameters: what an editor returns and a regularizer turns into another.

    A mapping from parameter name to its change. ``WeightUpdate({name: tensor})`` makes one by hand.

    Attributes
    ----------
    changes : dict
        Parameter name to `LowRank`, `Sparse`, `Dense` or a tensor (made `Dense`), in the parameter's own
        orientation.
    info : tuple of dict
        One record an edit: the request, method, hyperparameters, contexts and diagnostics (JSON values).
    model : str or None
        Name of the model it was computed on.
    fingerprint : str or None
        `LanguageModel.fingerprint` of that model; None for an update made by hand.
    """

    changes: dict[str, Change | Tensor]
    info: tuple[dict, ...] = ()
    model: str | None = None
    fingerprint: str | None = None

    def __post_init__(self) -> None:
        wrapped = {name: Dense(c) if isinstance(c, Tensor) else c for name, c in self.changes.items()}
        object.__setattr__(self, "changes", wrapped)

    def __getitem__(self, name: str) -> Change:
        return self.changes[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.changes)

    def __len__(self) -> int:
        return len(self.changes)

    # updates are told apart by identity; a mapping would compare tensors
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def __add__(self, other: "WeightUpdate") -> "WeightUpdate":
        if self.fingerprint and other.fingerprint and self.fingerprint != other.fingerprint:
            raise UpdateError(f"an update of {self.model} and one of {other.model} cannot be added.")
        changes = dict(self.changes)
        for name, change in other.changes.items():
            changes[name] = _add(changes[name], change) if name in changes else change
        return WeightUpdate(
            changes, self.info + other.info, self.model or other.model, self.fingerprint or other.fingerprint
        )

    def delta(self, name: str) -> Tensor:
        """ΔW of parameter `name` as a dense tensor, in the parameter's own orientation."""
        return self.changes[name].dense()

    def check_fits(self, lm: LanguageModel) -> None:
        """Raise `UpdateError` unless this update can be applied to `lm`."""
        if self.fingerprint and self.fingerprint != lm.fingerprint:
            raise UpdateError(
                f"the update was computed on {self.model} (fingerprint {self.fingerprint}), not on {lm.name} "
                f"(fingerprint {lm.fingerprint}); load the model it was made for."
            )
        for name, change in self.changes.items():
            if change.shape != (shape := tuple(lm.weight(name).shape)):
                raise UpdateError(f"the update of {name} has shape {change.shape}; in {lm.name} it is {shape}.")

    def apply(self, lm: LanguageModel) -> None:
        """Add ΔW to the weights of `lm`, which remembers the bits it replaces.

        Raises
        ------
        UpdateError
            If the update is of another model, or already applied; nothing is changed then.
        """
        self.check_fits(lm)
        if any(update is self for update in lm.applied_updates):
            raise UpdateError(f"this update is already applied to {lm.name}; undo it first.")
        edited = {}
        for name in self.changes:
            weight = lm.weight(name)
            working = torch.promote_types(weight.dtype, torch.float32)
            edited[name] = weight.to(working) + self.delta(name).to(weight.device, working)
        lm.write(self, edited)

    def undo(self, lm: LanguageModel) -> None:
        """Put back the bits that `apply` replaced in `lm`.

        Raises
        ------
        UpdateError
            If this is not the update applied last.
        """
        lm.restore(self)

    @contextmanager
    def applied(self, lm: LanguageModel) -> Iterator[LanguageModel]:
        """`lm` with this update, for the time of the block."""
        self.apply(lm)
        try:
            yield lm
        finally:
            self.undo(lm)

    def save(self, path: str | Path) -> None:
        """Write a safetensors file: factors stay factors, kept entries stay sparse. Atomic.

        Parameters
        ----------
        path : str or Path
            File to write; replaced if it exists.
        """
        tensors, kinds, storages = {}, {}, set()
        for name, change in self.changes.items():
            kinds[name] = type(change).__name__
            for part, tensor in change.tensors().items():
                tensor = tensor.detach().cpu().contiguous()
                storage = tensor.untyped_storage().data_ptr()
                # safetensors refuses tensors that share memory
                tensors[f"{name}:{part}"] = tensor.clone() if storage in storages else tensor
                storages.add(storage)
        meta = {"kinds": kinds, "info": self.info, "model": self.model, "fingerprint": self.fingerprint}
        metadata = {"format": FORMAT, "update": json.dumps(meta)}
        write_atomically(path, lambda scratch: save_file(tensors, scratch, metadata=metadata))

    def to_peft(self, folder: str | Path) -> None:
        """Write a LoRA adapter that ``peft.PeftModel.from_pretrained`` loads; for low-rank updates. Atomic.

        Parameters
        ----------
        folder : str or Path
            Folder to make.

        Raises
        ------
        UpdateError
            If the update is empty, sparse or dense, or of other matrices than MLP projections, or `folder` holds
            something or cannot be made.
        """
        from workbench.peft_export import write_adapter  # peft takes seconds

        write_adapter(self, folder)

    @classmethod
    def load(cls, path: str | Path) -> "WeightUpdate":
        """Read what `save` wrote.

        Parameters
        ----------
        path : str or Path
            A file that `save` wrote.

        Returns
        -------
        WeightUpdate

        Raises
        ------
        UpdateError
            If the file is missing, damaged, or not a saved update.
        """
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  not a dict
        except (OSError, SafetensorError) as err:
            raise UpdateError(
                f"{path} cannot be read as a saved update ({err}); give a file that save() wrote."
            ) from err
        if metadata.get("format") != FORMAT:
            raise UpdateError(f"{path} is a safetensors file, but not a saved update; give a file that save() wrote.")
        try:
            meta = _parse_meta(metadata.get("update", ""))
            changes = {name: _rebuild(kind, name, tensors) for name, kind in meta["kinds"].items()}
        except (ValueError, RecursionError) as err:
            raise UpdateError(f"{path} is a damaged update ({err}); save it again.") from err
        return cls(changes, tuple(meta["info"]), meta["model"], meta["fingerprint"])


def _parse_meta(text: str) -> dict:
    """What `save` wrote beside the tensors; raises `ValueError` if it is not of that form."""
    match json.loads(text):
        case {"kinds": dict(), "info": list(info), "model": str() | None, "fingerprint": str() | None} as meta:
            if all(isinstance(record, dict) for record in info):
                return meta
    raise ValueError("its metadata are not those of an update")


def _rebuild(kind: str, name: str, tensors: dict[str, Tensor]) -> Change:
    """The change that `save` took apart; raises `ValueError` unless its parts are there and fit together."""
    parts = {key.removeprefix(f"{name}:"): t for key, t in tensors.items() if key.startswith(f"{name}:")}
    match kind, parts:
        case "LowRank", {"rows": rows, "cols": cols}:
            if rows.dim() == cols.dim() == 2 and rows.shape[1] == cols.shape[1] and _real(rows, cols):
                return LowRank(rows, cols)
        case "Sparse", {"bits": bits, "values": values, "shape": shape} if shape.shape == (2,):
            change = Sparse(bits, values, tuple(shape.tolist()))
            if _consistent(change) and _real(values):
                return change
        case "Dense", {"matrix": matrix}:
            if _real(matrix):
                return Dense(matrix)
    raise ValueError(f"the tensors of {name} are not those of a {kind} update")


def _real(*tensors: Tensor) -> bool:
    return all(tensor.is_floating_point() for tensor in tensors)


def _consistent(change: Sparse) -> bool:
    if change.bits.dtype != torch.uint8 or not all(isinstance(n, int) and n >= 0 for n in change.shape):
        return False
    n_bytes = -(-change.shape[0] * change.shape[1] // 8)
    return change.bits.shape == (n_bytes,) and change.values.shape == (int(change.mask.sum()),)
