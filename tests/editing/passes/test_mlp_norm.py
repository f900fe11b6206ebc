"""Values behind an RMS norm, compared with the model's own norm and with points on the ellipsoid."""

import pytest
import torch

from tests.tiny_models import D_MODEL, build_tiny_lm
from workbench.architectures import ARCHITECTURES
from workbench.editing.passes.mlp_norm import closest_on_ellipsoid, value_changes


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def norm_of(lm, layer):
    return lm.model.get_submodule(f"{lm.arch.block(layer)}.post_feedforward_layernorm")


@pytest.fixture(params=["gemma2", "gemma3_text"])
def lm(request):
    """Give a tiny model of each family with a norm after the MLP."""
    return build_tiny_lm(request.param)


def test_the_row_names_a_norm_where_a_block_norms_what_its_mlp_returns(every_tiny_lm):
    lm, seen = every_tiny_lm, {}
    block = lm.blocks[1]
    handles = [lm.mlp_out(1).register_forward_hook(lambda module, args, output: seen.update(value=output))]
    for name, module in block.named_modules():
        if "norm" in name.lower() or "ln_" in name:
            handles.append(module.register_forward_hook(lambda m, args, out, name=name: seen.update({name: args[0]})))
    lm.model(torch.tensor([[5, 6, 7]]))
    for handle in handles:
        handle.remove()
    value = seen.pop("value")
    assert seen
    after = [name for name, given in seen.items() if given.shape == value.shape and torch.equal(given, value)]
    assert after == ([lm.arch.mlp_norm] if lm.arch.mlp_norm else [])


def test_two_families_have_a_norm_after_the_mlp():
    assert [row.name for row in ARCHITECTURES if row.mlp_norm] == ["Gemma 2", "Gemma 3"]


@pytest.mark.parametrize("scale", [0.01, 1.0, 100.0])
def test_no_other_point_of_the_ellipsoid_is_closer(scale):
    gain, wanted = normal(1, 6).abs() + 0.1, scale * normal(4, 6, seed=1)
    found = closest_on_ellipsoid(gain, wanted)
    torch.testing.assert_close(found.square().mean(dim=1), torch.ones(4, dtype=torch.float64))
    best = (gain * found - wanted).norm(dim=1)
    others = normal(20_000, 6, seed=2)
    for step in (1.0, 0.1, 0.001):  # anywhere, near, and very near
        points = found[:, None] * (step < 1) + step * others
        points = points / points.square().mean(dim=2, keepdim=True).sqrt()
        assert bool(((gain * points - wanted[:, None]).norm(dim=2) >= best[:, None] - 1e-12).all())


def test_a_point_of_the_ellipsoid_is_its_own_closest_one_whatever_the_signs_of_the_gain():
    gain, u = normal(1, 6), normal(3, 6, seed=1)
    u = u / u.square().mean(dim=1, keepdim=True).sqrt()
    torch.testing.assert_close(closest_on_ellipsoid(gain, gain * u), u)


def test_a_shift_that_the_norm_can_return_is_met_exactly(lm):
    norm, values = norm_of(lm, 1), normal(3, D_MODEL).float()
    shift = norm(normal(3, D_MODEL, seed=1).float()) - norm(values)
    changed = values + value_changes(lm, 1, values, shift).float()
    torch.testing.assert_close(norm(changed), norm(values) + shift, rtol=1e-4, atol=1e-4)


def test_a_shift_out_of_reach_is_met_better_than_by_adding_it_to_the_value(lm):
    norm, values = norm_of(lm, 1), normal(3, D_MODEL).float()
    shift = 5 * normal(3, D_MODEL, seed=1).float()
    changed = values + value_changes(lm, 1, values, shift).float()
    wanted = norm(values) + shift
    assert bool(((norm(changed) - wanted).norm(dim=1) < (norm(values + shift) - wanted).norm(dim=1)).all())
    torch.testing.assert_close(changed.norm(dim=1), values.norm(dim=1))


def test_no_shift_changes_no_value(lm):
    values = normal(3, D_MODEL).float()
    changes = value_changes(lm, 1, values, torch.zeros_like(values))
    assert float(changes.abs().max()) < 1e-5
