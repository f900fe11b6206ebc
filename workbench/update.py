"""WeightUpdate: the ΔW of one or more edits, applied, undone, added and saved."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from workbench.arguments import checked
from workbench.changes import Change, add_changes, as_change, change_from_tensors
from workbench.edit_record import EditRecord
from workbench.errors import UpdateError
from workbench.inputs import require_path, shown
from workbench.lm import LanguageModel
from workbench.storage.saved_tensors import load_tensors, save_tensors, with_prefix

FORMAT = "workbench-update-2"
_RECORD_TENSORS = ("keys", "running")  # fields of a record that a file holds as tensors
# below half a unit in the last place of the largest float32 (2¹⁰³) or bfloat16 (2¹¹⁹): keeps finite weights finite
_NO_OVERFLOW = 2.0**100


@dataclass(frozen=True, eq=False)
class WeightUpdate(Mapping[str, Change]):
    """ΔW of one or more parameters: what an editor computes and a regularizer turns into another.

    A mapping from parameter name to its change. ``WeightUpdate({name: tensor})`` makes one by hand.

    Attributes
    ----------
    changes : mapping of str to LowRank, Sparse, Dense or Tensor
        Change of each parameter, in the parameter's own orientation; a tensor becomes `Dense`.
    records : tuple of EditRecord
        One record per edit.
    model : str or None
        Name of the model that the update was computed on.
    fingerprint : str or None
        `LanguageModel.fingerprint` of that model; None for an update made by hand.

    Raises
    ------
    UpdateError
        If `changes` is no mapping of names to changes, or a change has no real floating-point numbers.
    """

    changes: Mapping[str, Change]
    records: tuple[EditRecord, ...] = ()
    model: str | None = None
    fingerprint: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.changes, Mapping):
            raise UpdateError(f"an update is made from a mapping of parameter names to ΔW; got {self.changes!r}.")
        object.__setattr__(self, "changes", {name: as_change(name, c) for name, c in self.changes.items()})

    @classmethod
    def of_edit(cls, lm: LanguageModel, changes: Mapping[str, Change], record: EditRecord) -> "WeightUpdate":
        """Return the update of one edit of `lm`: its `changes` by parameter name, and its `record`."""
        return cls(changes, (record,), lm.name, lm.fingerprint)

    def __getitem__(self, name: str) -> Change:
        return self.changes[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.changes)

    def __len__(self) -> int:
        return len(self.changes)

    # updates are told apart by identity; a mapping would compare tensors
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    @checked
    def __add__(self, other: "WeightUpdate") -> "WeightUpdate":
        if self.fingerprint and other.fingerprint and self.fingerprint != other.fingerprint:
            raise UpdateError(f"an update of {self.model} and one of {other.model} cannot be added.")
        changes = dict(self.changes)
        for name, change in other.changes.items():
            changes[name] = add_changes(changes[name], change) if name in changes else change
        return WeightUpdate(
            changes, self.records + other.records, self.model or other.model, self.fingerprint or other.fingerprint
        )

    def delta(self, name: str) -> Tensor:
        """Return ΔW of parameter `name` as a dense tensor, in the parameter's own orientation."""
        if not isinstance(name, str) or name not in self.changes:
            raise UpdateError(f"the update does not change {shown(name)}; it changes {', '.join(self.changes)}.")
        return self.changes[name].dense()

    def norm(self) -> float:
        """Return ‖ΔW‖, the Frobenius norm over all parameters together, computed in float64."""
        return _norm(map(self.delta, self))

    def relative_norm(self, lm: LanguageModel) -> float:
        """Return ‖ΔW‖/‖W‖ over all parameters together.

        W are the weights that the update is added to: where it is applied to `lm`, those that it replaced.

        Parameters
        ----------
        lm : LanguageModel
            The model that the update belongs to.

        Returns
        -------
        float
            0 for an empty update, infinite where only ‖W‖ is 0.
        """
        norm, norm_before = self.norm(), _norm(lm.weight_before(name, self) for name in self)
        return norm / norm_before if norm_before else (math.inf if norm else 0.0)

    def regularized(self, changes: Mapping[str, Change], regularizer: Mapping[str, Any]) -> "WeightUpdate":
        """Return the update with other `changes`, and the settings of the `regularizer` in its records."""
        records = tuple(replace(record, regularizer=regularizer) for record in self.records)
        return replace(self, changes=changes, records=records)

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

    def check_finite(self) -> None:
        """Raise `UpdateError` if an entry of a ΔW is infinite or NaN."""
        self._bounds()

    def _bounds(self) -> dict[str, float]:
        """Return a bound of the magnitude of each ΔW, from its factors or values where they are enough."""
        bounds = {}
        for name, change in self.items():
            bounds[name] = change.bound()
            # finite factors may have an infinite product
            if not bounds[name] < _NO_OVERFLOW and not torch.isfinite(self.delta(name)).all():
                raise UpdateError(f"the update of {name} is not finite; milder hyperparameters may help.")
        return bounds

    def weights_in(self, lm: LanguageModel) -> dict[str, Tensor]:
        """Return W + ΔW of each parameter that the update changes, which `apply` writes.

        Parameters
        ----------
        lm : LanguageModel
            The model, which is not changed.

        Returns
        -------
        dict of str to Tensor
            In the parameter's own orientation, in float32 or wider; a model in half precision rounds them.

        Raises
        ------
        UpdateError
            If the update is of another model or not finite, or makes weights that are not in the model's dtype.
        """
        self.check_fits(lm)
        edited = {}
        for name, bound in self._bounds().items():
            weight, dtype = lm.weight(name), lm.model.get_parameter(name).dtype
            working = torch.promote_types(weight.dtype, torch.float32)
            edited[name] = weight.to(working) + self.delta(name).to(weight.device, working)
            may_overflow = dtype is torch.float16 or not bound < _NO_OVERFLOW
            if may_overflow and not torch.isfinite(edited[name].to(dtype)).all():
                kind = str(dtype).removeprefix("torch.")
                raise UpdateError(
                    f"with the update of {name}, weights of {lm.name} are not finite in {kind}; a smaller update or a "
                    "wider dtype may help."
                )
        return edited

    @checked
    def apply(self, lm: LanguageModel) -> None:
        """Add ΔW to the weights of `lm`, which keeps the bits that it replaces.

        Parameters
        ----------
        lm : LanguageModel
            The model to edit.

        Raises
        ------
        UpdateError
            If the update is of another model, already applied, not finite, or makes weights that are not; nothing is
            changed then.
        """
        if any(update is self for update in lm.applied_updates):
            raise UpdateError(f"this update is already applied to {lm.name}; undo it first.")
        lm.write(self, self.weights_in(lm))

    @checked
    def undo(self, lm: LanguageModel) -> None:
        """Put back the bits that `apply` replaced.

        Parameters
        ----------
        lm : LanguageModel
            The model that the update is applied to.

        Raises
        ------
        UpdateError
            If this is not the update that was applied last.
        """
        lm.restore(self)

    @checked
    def applied(self, lm: LanguageModel) -> AbstractContextManager[LanguageModel]:
        """Apply this update to `lm` inside a ``with`` block, and undo it at the end."""
        return lm.applied(self)

    def save(self, path: str | Path) -> None:
        """Write a safetensors file, atomically: factors stay factors, kept entries stay sparse.

        Parameters
        ----------
        path : str or Path
            File to write; replaced if it exists.

        Raises
        ------
        UpdateError
            If the update is not finite.
        """
        packed = pack_update(self)
        save_tensors(path, packed.tensors, {"format": FORMAT, "update": json.dumps(packed.metadata)})

    @checked
    def to_peft(self, folder: str | Path) -> None:
        """Write a LoRA adapter that ``peft.PeftModel.from_pretrained`` loads, atomically; for low-rank updates.

        Parameters
        ----------
        folder : str or Path
            Folder to make.

        Raises
        ------
        UpdateError
            If the update is empty, sparse or dense, or of other matrices than MLP projections, or `folder` is not
            empty or cannot be made.
        """
        from workbench.peft_export import write_adapter  # peft is optional, and takes seconds to import

        write_adapter(self.changes, self.model, folder)

    @classmethod
    def load(cls, path: str | Path) -> "WeightUpdate":
        """Read an update that `save` wrote.

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
        require_path(path, "the file of an update", UpdateError)
        metadata, tensors = load_tensors(path, FORMAT, "update")
        try:
            return unpack_update(PackedUpdate(tensors, json.loads(metadata.get("update", ""))))
        except (ValueError, RecursionError) as err:
            raise UpdateError(f"{path} is a damaged update ({err}); save it again.") from err


class PackedUpdate(NamedTuple):
    """An update taken apart into what a file holds: tensors, and JSON values."""

    tensors: dict[str, Tensor]
    metadata: dict[str, Any]


def pack_update(update: WeightUpdate) -> PackedUpdate:
    """Return the tensors and JSON values of an update; raise `UpdateError` if it is not finite."""
    update.check_finite()
    tensors = {f"{name}:{part}": t for name, change in update.items() for part, t in change.tensors().items()}
    for i, record in enumerate(update.records):
        for part in _RECORD_TENSORS:
            tensors |= {f"{name}:{part} {i}": tensor for name, tensor in getattr(record, part).items()}
    metadata = {
        "kinds": {name: type(change).__name__ for name, change in update.items()},
        "records": [record.as_dict() for record in update.records],
        "model": update.model,
        "fingerprint": update.fingerprint,
    }
    return PackedUpdate(tensors, metadata)


def unpack_update(packed: PackedUpdate) -> WeightUpdate:
    """Return the update that `pack_update` took apart; raise `ValueError` if the parts do not fit together."""
    match packed.metadata:
        case {"kinds": dict(kinds), "records": list(records), "model": str() | None, "fingerprint": str() | None}:
            pass
        case _:
            raise ValueError("its metadata are not those of an update")
    changes = {}
    for name, kind in kinds.items():
        if (change := change_from_tensors(kind, with_prefix(f"{name}:", packed.tensors))) is None:
            raise ValueError(f"the tensors of {name} are not those of a {kind} update")
        changes[name] = change
    found = tuple(
        EditRecord.from_dict(values, *(_of_record(part, i, kinds, packed.tensors) for part in _RECORD_TENSORS))
        for i, values in enumerate(records)
    )
    update = WeightUpdate(changes, found, packed.metadata["model"], packed.metadata["fingerprint"])
    try:
        update.check_finite()
    except UpdateError as err:
        raise ValueError("it holds numbers that are not finite") from err
    return update


def _of_record(part: str, number: int, names: Iterable[str], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensors[key] for name in names if (key := f"{name}:{part} {number}") in tensors}


def _norm(matrices: Iterable[Tensor]) -> float:
    return math.sqrt(sum(float(torch.linalg.vector_norm(matrix, dtype=torch.float64)) ** 2 for matrix in matrices))
