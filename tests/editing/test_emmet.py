"""EMMET: the equality constraint, against algebra and against ROME."""

from dataclasses import replace

import pytest
import torch

import workbench as wb
from tests.helpers import error_of
from workbench.editing.memit import target_hidden
from workbench.editing.passes.subject_states import SubjectStates
from workbench.errors import EditError

pytestmark = pytest.mark.usefixtures("cache_of_this_module")

FACTS = [
    wb.EditRequest(subject="The Eiffel Tower", prompt="{} is in the city of", target_new="Rome, Italy"),
    wb.EditRequest(subject="Edith Piaf", prompt="The mother tongue of {} is", target_new="English"),
    wb.EditRequest(subject="HMS Beagle", prompt="{} was launched in", target_new="1821"),
]
EDITOR = wb.EMMET(
    layers=(1,),
    contexts=("{}", "The river. {}"),
    v_num_grad_steps=3,
    clamp_norm_factor=4.0,
    second_moment=wb.SecondMoment(n_tokens=512),
)


def oriented(lm, update):
    """ΔW of the only matrix as (d_out, d_in), in float64, its keys (d_in, N), and the residuals (d_out, N)."""
    [name], [record] = update, update.records
    dW = update.delta(name).double()
    targets, _ = target_hidden(lm, EDITOR, list(record.requests))
    hidden = SubjectStates(lm, list(record.requests), EDITOR.contexts, (1,)).keys_and_hidden(1)[1]
    return dW.T if lm.arch.conv1d else dW, record.keys[name].double().T, (targets - hidden.double()).T


def test_every_fact_gets_exactly_its_residual(tiny_lm):
    dW, K, R = oriented(tiny_lm, EDITOR.compute_update(tiny_lm, FACTS))
    assert float((dW @ K - R).norm()) < 1e-5 * float(R.norm())


def test_no_other_exact_update_moves_ordinary_keys_less(tiny_lm):
    dW, K, R = oriented(tiny_lm, EDITOR.compute_update(tiny_lm, FACTS))
    C = EDITOR.second_moment.compute(tiny_lm, [1])[1].double()
    free = torch.eye(len(C), dtype=torch.float64) - K @ torch.linalg.pinv(K)  # what can be added without moving K
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        other = dW + 0.1 * torch.randn(dW.shape, generator=generator, dtype=torch.float64) @ free
        assert float((other @ K - R).norm()) < 1e-5 * float(R.norm())
        assert torch.trace(other @ C @ other.T) > torch.trace(dW @ C @ dW.T)


def test_one_fact_is_written_along_romes_direction(tiny_lm):
    dW, K, R = oriented(tiny_lm, EDITOR.compute_update(tiny_lm, FACTS[:1]))
    u = torch.linalg.solve(EDITOR.second_moment.compute(tiny_lm, [1])[1].double(), K)
    torch.testing.assert_close(dW, R @ u.T / (u.T @ K), rtol=1e-4, atol=1e-6 * float(dW.abs().max()))


def test_without_a_ridge_the_weight_of_the_second_moment_cancels(tiny_lm):
    name = tiny_lm.arch.mlp_out_weight(1)
    one, other = (
        replace(EDITOR, mom2_update_weight=w).compute_update(tiny_lm, FACTS).delta(name) for w in (1.0, 1000.0)
    )
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6 * float(one.abs().max()))


@pytest.mark.parametrize("fields", [{"ridge": 0.5}, {"absolute_ridge": 0.1, "mom2_update_weight": 7.0}], ids=str)
def test_a_ridge_is_added_to_the_diagonal(tiny_lm, fields):
    dW, K, R = oriented(tiny_lm, replace(EDITOR, **fields).compute_update(tiny_lm, FACTS))
    u = torch.linalg.solve(
        fields.get("mom2_update_weight", 1.0) * EDITOR.second_moment.compute(tiny_lm, [1])[1].double(), K
    )
    D = K.T @ u
    ridge = fields.get("absolute_ridge", 0.5 * float(torch.trace(D)) / 3)
    wanted = R @ torch.linalg.inv(D + ridge * torch.eye(3, dtype=torch.float64)) @ u.T
    assert float((dW - wanted).norm()) < 1e-5 * float(wanted.norm())


def test_two_facts_with_the_same_key_are_refused_and_a_ridge_writes_them(tiny_lm):
    twins = [FACTS[0], replace(FACTS[0], prompt="{} stands in", target_new="Oslo")]
    sentence = (
        "no update of layer 1 writes all 2 facts exactly, because their keys depend linearly on each other; "
        "set ridge to 0.01 or more."
    )
    assert error_of(EditError, EDITOR.compute_update, tiny_lm, twins) == sentence
    [record] = replace(EDITOR, ridge=0.01).compute_update(tiny_lm, twins).records
    assert record.diagnostics["own_share"][0] < 1e-10


def test_the_published_file_is_read(tmp_path):
    path = tmp_path / "emmet.yaml"
    path.write_text(
        "alg_name: EMMET\nlayers: [5]\nclamp_norm_factor: 4\nmom2_update_weight: 1\n"
        "update_norm_lambda: 0\nemmet_lambda: 0.1\n"
    )
    editor = wb.EMMET.from_yaml(path)
    assert (editor.layers, editor.absolute_ridge, editor.label) == ((5,), 0.1, "EMMET")
