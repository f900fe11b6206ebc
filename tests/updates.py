"""Updates of every kind for tests, and what says whether a model is as it was."""

import numpy as np
import pytest
import torch

from workbench.changes import Dense, LowRank, Sparse
from workbench.edit_record import EditRecord
from workbench.errors import UpdateError
from workbench.request import EditRequest, LocalityProbe, PortabilityProbe
from workbench.update import WeightUpdate

REQUEST = EditRequest(
    "Musée d’Orsay",
    "{} is in",
    "Rome",
    rephrase=("Where is {}?",),
    locality=(LocalityProbe("a", "b"),),
    portability=(PortabilityProbe("c", "d", ("e",)),),
)


def record_of(method, **about):
    return EditRecord(method, (REQUEST,), {"layer": 1, "contexts": ["{}"]}, **about)


def bits_of(lm):
    """Every weight of a model as bytes."""
    return {name: p.detach().clone().view(torch.uint8) for name, p in lm.model.named_parameters()}


def same_bits(a, b):
    assert len(a) == len(b) > 20
    return all(torch.equal(a[name], b[name]) for name in a)


def random_change(kind, shape, *, seed=0, dtype=torch.float32):
    g = torch.Generator().manual_seed(seed)
    if kind == "LowRank":
        return LowRank(
            torch.randn(shape[0], 2, generator=g, dtype=dtype), torch.randn(shape[1], 2, generator=g, dtype=dtype)
        )
    matrix = torch.randn(shape, generator=g, dtype=dtype)
    if kind == "Sparse":
        return Sparse.from_mask(matrix, torch.rand(shape, generator=g) < 0.3)
    return Dense(matrix)


def random_update(kind, lm, *, seed=0, layer=1, **about):
    name = lm.arch.mlp_out_weight(layer)
    change = random_change(kind, tuple(lm.weight(name).shape), seed=seed)
    return WeightUpdate({name: change}, **{"model": lm.name, "fingerprint": lm.fingerprint, **about})


def naive_dense(change):
    """ΔW (n_rows, n_cols) in float64, from the stored parts, entry by entry."""
    if isinstance(change, LowRank):
        return np.einsum("ir,jr->ij", change.rows.double().numpy(), change.cols.double().numpy())
    if isinstance(change, Dense):
        return change.matrix.double().numpy()
    matrix, values = np.zeros(change.shape), iter(change.values.double().tolist())
    for place in range(matrix.size):
        if change.bits[place // 8] >> (7 - place % 8) & 1:
            matrix.flat[place] = next(values)
    assert next(values, None) is None
    return matrix


KINDS = pytest.mark.parametrize("kind", ["LowRank", "Sparse", "Dense"])


def refused(sentence, action, lm):
    before, applied = bits_of(lm), lm.applied_updates
    with pytest.raises(UpdateError) as caught:
        action()
    assert str(caught.value) == sentence
    assert same_bits(before, bits_of(lm))
    assert lm.applied_updates == applied
