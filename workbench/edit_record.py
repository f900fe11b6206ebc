"""EditRecord: how an edit was computed."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import Tensor

from workbench.errors import RequestError
from workbench.request import EditRequest


@dataclass(frozen=True, eq=False)
class EditRecord:
    """How one edit was computed: what it takes to compute it again, and what was seen on the way.

    Attributes
    ----------
    method : str
        Label of the editor, such as ``"ROME"``.
    requests : tuple of EditRequest
        The N facts of the edit.
    hyperparameters : mapping of str to JSON values
        All fields of the editor, context templates included.
    losses : tuple of tuple of float
        Loss at each optimization step: one tuple per request where each is optimized by itself (ROME, MEMIT), one for
        the whole batch where all are optimized together (FT), none where nothing is optimized (KN, MEND).
    keys : mapping of str to Tensor (N, d_in)
        Keys that the edit writes to, by parameter; empty for methods without keys.
    running : mapping of str to Tensor (n,)
        By parameter, what later edits of the same method need of this one beside its keys, such as UltraEdit's
        statistics; empty for other methods.
    diagnostics : mapping of str to JSON values
        What the method reports about itself, such as ROME's ``denominator``; `compute_update` of the editor lists it.
    regularizer : mapping of str to JSON values, or None
        `settings_of` the regularizer that the update went through; None for an unregularized one.
    """

    method: str
    requests: tuple[EditRequest, ...]
    hyperparameters: Mapping[str, Any]
    losses: tuple[tuple[float, ...], ...] = ()
    keys: Mapping[str, Tensor] = field(default_factory=dict)
    running: Mapping[str, Tensor] = field(default_factory=dict)
    diagnostics: Mapping[str, Any] = field(default_factory=dict)
    regularizer: Mapping[str, Any] | None = None

    @property
    def steps(self) -> tuple[int, ...]:
        """Number of optimization steps of each optimization, the last of which only evaluates the loss."""
        return tuple(map(len, self.losses))

    def as_dict(self) -> dict[str, Any]:
        """Return the record as JSON values, without its tensors."""
        return {
            "method": self.method,
            "requests": [asdict(request) for request in self.requests],
            "hyperparameters": dict(self.hyperparameters),
            "losses": [list(steps) for steps in self.losses],
            "diagnostics": dict(self.diagnostics),
            "regularizer": None if self.regularizer is None else dict(self.regularizer),
        }

    @classmethod
    def from_dict(
        cls,
        values: Mapping[str, Any],
        keys: Mapping[str, Tensor] | None = None,
        running: Mapping[str, Tensor] | None = None,
    ) -> "EditRecord":
        """Return the record that `as_dict` described, with its `keys` and `running`.

        Raises `ValueError` if `values` describe none.
        """
        match values:
            case {
                "method": str(method),
                "requests": list(requests),
                "hyperparameters": dict(hyperparameters),
                "losses": list(losses),
                "diagnostics": dict(diagnostics),
                "regularizer": dict() | None as regularizer,
            }:
                pass
            case _:
                raise ValueError("its metadata hold a malformed record")
        try:
            facts = tuple(EditRequest.from_dict(each) for each in requests)
            steps = tuple(tuple(map(float, each)) for each in losses)
        except (TypeError, KeyError, RequestError) as err:
            raise ValueError(f"its metadata hold a malformed record: {err}") from err
        return cls(method, facts, hyperparameters, steps, keys or {}, running or {}, diagnostics, regularizer)
