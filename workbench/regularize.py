"""Regularizers: callables ``(update, lm) -> update``, one class each.

A regularizer treats ΔW matrix by matrix, and may compare it with the weight that it is about to be added to.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any, Literal, Protocol, cast, runtime_checkable

import torch
from torch import Tensor

from workbench.arguments import checked
from workbench.changes import Change, Dense, LowRank, Sparse
from workbench.errors import EditError
from workbench.inputs import shown
from workbench.lm import LanguageModel
from workbench.parameters import COUNT, SEED, SHARE, check_parameters, parameters_of
from workbench.registry import regularizer_row, regularizers
from workbench.selection import top_mask
from workbench.storage.digests import sha256_of_json
from workbench.update import WeightUpdate
from workbench.weightstats import relative_change

_SEED_DIGITS = 15  # hexadecimal; 60 bits, below the largest seed of a generator


@runtime_checkable
class Regularizer(Protocol):
    """A frozen dataclass of settings that turns the update of an editor into the one that is applied."""

    @property
    def label(self) -> str:
        """Name in tables and legends, settings included."""

    @checked
    def __call__(self, update: WeightUpdate, lm: LanguageModel) -> WeightUpdate:
        """Return the update to apply instead of `update`; neither argument is changed."""


def keep_most_changed(dW: Tensor, W: Tensor, keep: float) -> Sparse:
    """Return the entries of ΔW with the largest relative change δ = abs(ΔW/W): RECT on one matrix.

    Parameters
    ----------
    dW, W : Tensor (n_rows, n_cols)
        Update, and the weight that it is about to be added to.
    keep : float
        Share of entries kept, in (0, 1]: exactly round(keep · N), where equal δ are taken in row-major order.

    Returns
    -------
    Sparse
        Those entries of ΔW, bit for bit.
    """
    dW = dW.to(W.device)
    return Sparse.from_mask(dW, top_mask(relative_change(dW, W).float(), round(keep * dW.numel())))


@dataclass(frozen=True)
class Unregularized:
    """The update as the editor computed it."""

    @property
    def label(self) -> str:
        """Name in tables and legends."""
        return "Unregularized"

    @checked
    def __call__(self, update: WeightUpdate, lm: LanguageModel) -> WeightUpdate:
        """Return `update` itself, whatever `lm` is."""
        return update


@dataclass(frozen=True)
class RECT:
    """Keep the entries with the largest relative change δ = abs(ΔW/W); zero the others (Gu et al. 2024, section 6).

    Exactly round(keep · N) entries of each matrix keep their values; equal δ are taken in row-major order.

    Attributes
    ----------
    keep : float
        Share of entries kept, in (0, 1]; the paper's headline is 0.4.

    Raises
    ------
    EditError
        If `keep` is outside (0, 1].
    """

    keep: Annotated[float, SHARE, "share of entries kept"] = 0.4

    def __post_init__(self) -> None:
        check_parameters(self)

    @property
    def label(self) -> str:
        """Name in tables and legends."""
        return f"RECT {100 * self.keep:g} %"

    @checked
    def __call__(self, update: WeightUpdate, lm: LanguageModel) -> WeightUpdate:
        """Prune `update` against the current weights of `lm`; raise `UpdateError` if it does not fit."""
        update.check_fits(lm)
        changes = {name: keep_most_changed(update.delta(name), lm.weight(name), self.keep) for name in update}
        return update.regularized(changes, settings_of(self))


@dataclass(frozen=True)
class RandomK:
    """Keep a random share of the entries; zero the others: the control for RECT (Gu et al. 2024, section 6).

    The draw of a parameter is seeded with a hash of `seed`, `operation` and the parameter's name, so that parameters,
    operations and neighboring seeds draw independently. `EditSequence` numbers the operations.

    Attributes
    ----------
    keep : float
        Share of entries kept, in (0, 1]; exactly round(keep · N) of each matrix.
    seed : int
        Seed of the draw; the same seed, operation, name and shape give the same entries on every device.
    operation : int
        Number of the edit in its sequence, from 1.

    Raises
    ------
    EditError
        If `keep` is outside (0, 1], `seed` is negative or too large, or `operation` is less than 1.
    """

    keep: Annotated[float, SHARE, "share of entries kept"] = 0.4
    seed: Annotated[int, SEED, "seed of the draw"] = 0
    operation: Annotated[int, COUNT, "number of the edit in its sequence"] = 1

    def __post_init__(self) -> None:
        check_parameters(self)

    @property
    def label(self) -> str:
        """Name in tables and legends."""
        return f"Random {100 * self.keep:g} %"

    def for_operation(self, number: int) -> "RandomK":
        """Return the same regularizer with the entries of edit `number` of a sequence, from 1."""
        return replace(self, operation=number)

    @checked
    def __call__(self, update: WeightUpdate, lm: LanguageModel) -> WeightUpdate:
        """Prune `update` at random; raise `UpdateError` if it does not fit `lm`."""
        update.check_fits(lm)
        changes = {}
        for name in update:
            dW = update.delta(name)
            digest = sha256_of_json([self.seed, self.operation, name])
            generator = torch.Generator().manual_seed(int(digest[:_SEED_DIGITS], 16))
            scores = torch.rand(dW.shape, generator=generator, dtype=torch.float32)
            changes[name] = Sparse.from_mask(dW, top_mask(scores, round(self.keep * dW.numel())).to(dW.device))
        return update.regularized(changes, settings_of(self))


@dataclass(frozen=True)
class PCAK:
    """Compress ΔW by principal components of its rows (Gu et al. 2024, section 6).

    ``form="paper"`` follows the paper's published code: the rows of ΔW, centered, are projected on their leading
    ⌊keep · n_columns⌋ components, and the scores are written into the *first columns* of a matrix of zeros. That
    puts coordinates of another basis where weights belong: it is not an approximation of ΔW, and it is why the
    paper's "PCA 40 %" edits mostly fail. Of a rank-one ΔW only the first column is left.
    ``form="reconstruction"`` keeps as many components as keep · N numbers can hold (scores, components and mean)
    and maps them back, which loses nothing of a rank-one ΔW. Figures of the two forms cannot be compared.

    Attributes
    ----------
    keep : float
        Share k of the numbers kept, in (0, 1].
    form : {"paper", "reconstruction"}
        Form of the compression, as described above.

    Raises
    ------
    EditError
        If `keep` is outside (0, 1] or `form` is unknown.
    """

    keep: Annotated[float, SHARE, "share of the numbers kept"] = 0.4
    form: Annotated[Literal["paper", "reconstruction"], "form of the compression"] = "paper"

    def __post_init__(self) -> None:
        check_parameters(self)

    @property
    def label(self) -> str:
        """Name in tables and legends."""
        suffix = "" if self.form == "paper" else " (reconstruction)"
        return f"PCA {100 * self.keep:g} %{suffix}"

    @checked
    def __call__(self, update: WeightUpdate, lm: LanguageModel) -> WeightUpdate:
        """Compress `update`; raise `UpdateError` if it does not fit `lm`."""
        update.check_fits(lm)
        compress = _scores_in_first_columns if self.form == "paper" else _reconstruct
        return update.regularized({name: compress(update[name], self.keep) for name in update}, settings_of(self))


def _principal_components(change: Change) -> tuple[Tensor, Tensor, Tensor]:
    """Return scores (n_rows, r), orthonormal components (n_cols, r) and mean (n_cols,) of the rows of ΔW, in float64.

    The entry of largest magnitude in each component is positive, which fixes the signs.
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


def for_operation(regularizer: Regularizer, number: int) -> Regularizer:
    """Return the regularizer of one edit of a sequence.

    Parameters
    ----------
    regularizer : Regularizer
        The regularizer of the sequence.
    number : int
        Number of the edit, from 1.

    Returns
    -------
    Regularizer
        What its method `for_operation` returns, if it has one, as a random regularizer does; otherwise itself.
    """
    own = getattr(regularizer, "for_operation", None)
    return regularizer if own is None else cast(Regularizer, own(number))


def make_regularizer(name: str, *, keep: float | None = None, seed: int = 0) -> Regularizer:
    """Return the regularizer that the command line and the explorer know by `name`.

    Parameters
    ----------
    name : str
        Name of a row of `workbench.registry.regularizers`, such as ``"rect"``.
    keep : float, optional
        Share of entries kept; the default of the regularizer if not given.
    seed : int
        Seed of a regularizer that draws at random; ignored by the others.

    Returns
    -------
    Regularizer

    Raises
    ------
    SpecError
        If there is no such regularizer.
    EditError
        If `keep` is out of range, or the regularizer keeps no share.
    """
    cls = regularizer_row(name).regularizer
    known = parameters_of(cls)
    if keep is not None and "keep" not in known:
        raise EditError(f"regularizer {name!r} has no keep; got {keep}.")
    settings: dict[str, Any] = {} if keep is None else {"keep": keep}
    return cls(**settings, **({"seed": seed} if "seed" in known else {}))


def settings_of(regularizer: Regularizer) -> dict[str, Any]:
    """Return the settings of a regularizer as JSON values.

    Parameters
    ----------
    regularizer : Regularizer
        The regularizer.

    Returns
    -------
    dict of str to JSON values
        Name of the class as ``kind``, and the fields; `from_settings` takes them.
    """
    return {"kind": type(regularizer).__name__, **_fields_of(regularizer)}


def from_settings(settings: Mapping[str, Any]) -> Regularizer:
    """Return the regularizer that `settings_of` described.

    Parameters
    ----------
    settings : mapping of str to JSON values
        Name of the class as ``kind``, and its fields; defaults stand in for missing ones.

    Returns
    -------
    Regularizer

    Raises
    ------
    EditError
        If there is no such class, it has no such field, or the value of a field is not allowed.
    """
    if not isinstance(settings, Mapping):
        raise EditError(f"the settings of a regularizer must be a mapping with a kind; got {shown(settings)}.")
    fields = dict(settings)
    kind = fields.pop("kind", None)
    kinds = {row.kind: row for row in regularizers().values()}
    if not isinstance(kind, str) or kind not in kinds:
        raise EditError(f"no regularizer of kind {shown(kind)}; known: {', '.join(kinds)}.")
    cls = kinds[kind].regularizer
    if unknown := [name for name in fields if name not in parameters_of(cls)]:
        known = ", ".join(parameters_of(cls)) or "none"
        raise EditError(f"{kind} has no setting {unknown[0]!r}; known: {known}.")
    return cls(**fields)


def _fields_of(regularizer: Regularizer) -> dict[str, Any]:
    return asdict(regularizer)  # type: ignore[call-overload]  # a protocol cannot say that it is a dataclass
