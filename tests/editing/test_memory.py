"""Methods that remember earlier edits, against plain statements of their formulas over three batches in a row."""

from dataclasses import replace

import pytest
import torch

import workbench as wb
from tests.helpers import error_of
from workbench.editing.alphaedit import null_space
from workbench.editing.memit import earlier_keys, target_hidden
from workbench.editing.passes.subject_states import SubjectStates
from workbench.editing.solve import solve_keys
from workbench.errors import EditError
from workbench.registry import make_editor

pytestmark = pytest.mark.usefixtures("cache_of_this_module")

CONTEXTS = ("{}", "The river. {}")
BATCHES = [
    [
        wb.EditRequest(subject="The Eiffel Tower", prompt="{} is in the city of", target_new="Rome, Italy"),
        wb.EditRequest(subject="Edith Piaf", prompt="The mother tongue of {} is", target_new="English"),
    ],
    [
        wb.EditRequest(subject="Marie Curie", prompt="We know where {} was born, that is in", target_new="the north"),
        wb.EditRequest(subject="HMS Beagle", prompt="{} was launched in", target_new="1821"),
    ],
    [wb.EditRequest(subject="The Louvre", prompt="{} stands in", target_new="Oslo")],
]
FIELDS = {
    "contexts": CONTEXTS,
    "layers": (1, 2),
    "v_num_grad_steps": 3,
    "clamp_norm_factor": 4.0,
    "second_moment": wb.SecondMoment(n_tokens=512),
}
CASES = {
    "memit-seq": {"mom2_update_weight": 2.0},
    "encore": {"mom2_update_weight": 2.0, "ridge": 0.3, "v_predicted_steps": None},
    "alphaedit": {"ridge": 0.1, "null_energy": 0.6},
    "betaedit": {"ridge": 0.1, "null_energy": 0.6, "mom2_update_weight": 3.0},
    "emmet": {"remember": True},
}


def editor_of(lm, case):
    return make_editor("alphaedit" if case == "betaedit" else case, lm, FIELDS | CASES[case])


def plain_delta(case, C, K, K_p, R, fields):
    """ΔW (d_out, d_ff) as printed, by general inverses of dense matrices; K and K_p have one column per key."""
    identity = torch.eye(len(C), dtype=torch.float64)
    earlier = K_p @ K_p.T if K_p is not None else torch.zeros_like(C)
    if case in ("memit-seq", "encore"):
        system = fields["mom2_update_weight"] * C + fields.get("ridge", 0.0) * identity + earlier + K @ K.T
        return R @ K.T @ torch.linalg.inv(system)
    if case == "emmet":
        inverse = torch.linalg.inv(C + earlier)
        return R @ torch.linalg.inv(K.T @ inverse @ K) @ K.T @ inverse
    values, vectors = torch.linalg.eigh(C)
    low = values.cumsum(0) <= fields["null_energy"] * values.sum()
    P = vectors[:, low] @ vectors[:, low].T
    inner = P @ (K @ K.T + earlier + fields.get("mom2_update_weight", 0.0) * C) + fields["ridge"] * identity
    return (torch.linalg.inv(inner) @ P @ K @ R.T).T


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_three_batches_in_a_row_are_those_of_the_printed_formula(every_tiny_lm, case):
    lm = every_tiny_lm
    if lm.arch.mlp_norm:
        pytest.skip("R is not the residual where a norm follows the MLP; tests of MEMIT cover that")
    editor, sequence = editor_of(lm, case), wb.EditSequence(lm)
    moments = editor.second_moment.compute(lm, [1, 2])
    for batch in BATCHES:
        earlier = {name: sequence.keys(name) for name in map(lm.arch.mlp_out_weight, (1, 2))}
        with sequence.applied():
            targets, _ = target_hidden(lm, editor, batch)
            update = editor.compute_update(lm, batch)
            [record] = update.records
            hidden = residuals_of(lm, update, batch)
        for share, (layer, at) in zip((2, 1), hidden.items(), strict=True):
            name = lm.arch.mlp_out_weight(layer)
            K = record.keys[name].double().T
            K_p = None if earlier[name] is None else earlier[name].double().T
            R = (targets - at.double()).T / share
            wanted = plain_delta(case, moments[layer].double(), K, K_p, R, CASES[case])
            found = update.delta(name).double()
            found = found.T if lm.arch.conv1d else found
            assert float((found - wanted).norm() / wanted.norm()) < 1e-5
        sequence.add(update)
    lm.memo.clear()


def residuals_of(lm, update, batch):
    """Hidden states (N, d_model) after the last block when each layer is solved: with the lower layers edited."""
    states, found = SubjectStates(lm, batch, CONTEXTS, (1, 2)), {}
    with lm.restored_after():
        for layer in (1, 2):
            found[layer] = states.keys_and_hidden(layer)[1]
            name = lm.arch.mlp_out_weight(layer)
            wb.WeightUpdate({name: update[name]}, model=lm.name, fingerprint=lm.fingerprint).apply(lm)
    return found


@pytest.mark.parametrize("case", CASES)
def test_the_first_batch_and_an_undone_one_leave_no_memory(tiny_lm, case):
    editor, sequence = editor_of(tiny_lm, case), wb.EditSequence(tiny_lm)
    first = editor.compute_update(tiny_lm, BATCHES[0])
    sequence.edit(BATCHES[1], editor)
    sequence.undo()
    again = sequence.edit(BATCHES[0], editor).computed
    assert all(torch.equal(first.delta(name), again.delta(name)) for name in first)


@pytest.mark.parametrize("case", CASES)
def test_a_saved_sequence_remembers(tiny_lm, tmp_path, case):
    editor, sequence = editor_of(tiny_lm, case), wb.EditSequence(tiny_lm)
    sequence.edit(BATCHES[0], editor)
    sequence.save(tmp_path / "s")
    loaded = wb.EditSequence.load(tmp_path / "s", tiny_lm)
    one, other = (each.edit(BATCHES[1], editor).computed for each in (sequence, loaded))
    assert all(torch.equal(one.delta(name), other.delta(name)) for name in one)


def test_what_is_remembered_moves_less_by_the_next_edit(tiny_lm):
    plain, seq = (replace(editor_of(tiny_lm, "memit-seq"), remember=remember) for remember in (False, True))
    moved = {}
    for name, editor in (("plain", plain), ("seq", seq)):
        sequence = wb.EditSequence(tiny_lm)
        first = sequence.edit(BATCHES[0], seq)
        second = sequence.edit(BATCHES[1], editor)
        [record] = first.computed.records
        deltas = {w: second.update.delta(w).double() for w in second.update}
        oriented = {w: dW.T if tiny_lm.arch.conv1d else dW for w, dW in deltas.items()}
        moved[name] = sum(float((dW @ record.keys[w].double().T).norm()) for w, dW in oriented.items())
    assert moved["seq"] < 0.9 * moved["plain"]


def test_earlier_keys_are_those_of_the_applied_edits_in_order(tiny_lm):
    editor, sequence = editor_of(tiny_lm, "memit-seq"), wb.EditSequence(tiny_lm)
    name = tiny_lm.arch.mlp_out_weight(1)
    assert earlier_keys(tiny_lm, name) is None
    for batch in BATCHES[:2]:
        sequence.edit(batch, editor)
    with sequence.applied():
        assert torch.equal(earlier_keys(tiny_lm, name), sequence.keys(name))


def test_a_ridge_bounds_the_update():
    C, keys = torch.eye(6, dtype=torch.float64), torch.randn(2, 6, generator=torch.Generator().manual_seed(0))
    norms = [float(solve_keys(C, keys, 0.01, ridge=ridge).norm()) for ridge in (0.0, 1.0, 10.0)]
    assert norms == sorted(norms, reverse=True)


def test_the_null_space_has_the_smallest_eigenvalues_up_to_a_share_or_below_a_threshold():
    values = torch.tensor([0.1, 0.2, 0.3, 0.4, 3.0], dtype=torch.float64)
    Q = torch.linalg.qr(torch.randn(5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)).Q
    C = Q @ torch.diag(values) @ Q.T
    by_share, by_threshold = null_space(C, 0.16), null_space(C, 0.16, threshold=0.35)
    for found in (by_share, by_threshold):
        assert torch.allclose(found.eigenvalues, values[:3])
        assert found.share == pytest.approx(0.15)
    assert null_space(C, 1.0).vectors.shape == (5, 5)


def test_alphaedit_reports_its_rank_and_energies(tiny_lm):
    [record] = editor_of(tiny_lm, "alphaedit").compute_update(tiny_lm, BATCHES[0]).records
    found = {name: record.diagnostics[name] for name in ("null_rank", "null_energy", "key_energy")}
    assert all(len(each) == 2 for each in found.values())
    assert all(0 < share <= 0.6 for share in found["null_energy"])
    assert all(0 < share < 1 for share in found["key_energy"])


def test_without_a_null_space_alphaedit_says_what_to_change(tiny_lm):
    editor = replace(editor_of(tiny_lm, "alphaedit"), null_threshold=1e-300)
    sentence = "the keys of layer 1 have no direction below the threshold; choose a larger one."
    assert error_of(EditError, editor.compute_update, tiny_lm, BATCHES[0]) == sentence


@pytest.mark.slow
@pytest.mark.parametrize("method", ["rome", "memit"])
def test_mpes_stops_at_the_step_at_which_the_target_has_been_predicted_often_enough(smollm2, method):
    request = wb.EditRequest("Eiffel Tower", "The {} is located in the city of", "Rome")
    fields = {"contexts": ("{}",), "v_loss_threshold": 0.0}
    if method == "memit":
        fields |= {"second_moment": wb.SecondMoment(n_tokens=16_384)}

    def steps(n):
        editor = make_editor(method, smollm2, fields | {"v_predicted_steps": n})
        compute = editor.compute_update if method == "rome" else lambda lm, given: target_hidden(lm, editor, given)
        found = compute(smollm2, [request])
        return found.records[0].steps[0] if method == "rome" else len(found[1][0])

    free, *limited = [steps(n) for n in (None, 1, 2, 4)]
    assert limited[0] < limited[1] <= limited[2] < free == 25


def test_easyedits_file_is_read(tmp_path):
    path = tmp_path / "alphaedit.yaml"
    path.write_text(
        "alg_name: AlphaEdit\nlayers: [4, 5]\nclamp_norm_factor: 0.75\nv_lr: 0.1\nL2: 1\nnullspace_threshold: 2e-2\n"
        "mom2_update_weight: 15000\nP_loc: ./null_space_project.pt\n"
    )
    editor = wb.AlphaEdit.from_yaml(path)
    assert (editor.layers, editor.ridge, editor.null_threshold) == ((4, 5), 1.0, 0.02)
    assert editor.mom2_update_weight == 0
