"""UltraEdit: against a plain statement of its formulas, one fact and one matrix at a time."""

from contextlib import ExitStack
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch.nn.functional import cross_entropy

import workbench as wb
from tests.helpers import error_of
from tests.tiny_models import ModelOutline, build_tiny_lm
from workbench.editing.running_moments import Moments
from workbench.encoding import encode_request
from workbench.errors import EditError

FACTS = [
    wb.EditRequest(subject=None, prompt=prompt, target_new=target)
    for prompt, target in [
        ("The Eiffel Tower is in the city of", "Rome, Italy"),
        ("The mother tongue of Edith Piaf is", "English or French"),
        ("HMS Beagle was launched in", "1821"),
        ("It rains in", "spring and autumn"),
        ("Nobody knows when the war of the roses, of which he sang, began, but it was in", "March"),
        ("She plays the", "violin"),
        ("The oldest of the seven bridges is made of", "iron and stone"),
    ]
]
BATCHES = [FACTS[:3], FACTS[3:4], FACTS[4:]]


def rows_of(lm, name, request, tokens="answer"):
    """Inputs and output gradients of one matrix in a pass over one fact, without padding, in float64."""
    text, seen = encode_request(lm.tokenizer, request), {}
    start = text.n_prompt - 1

    def keep(module, args, output):
        seen["input"], seen["output"] = args[0], output
        output.retain_grad()

    with ExitStack() as stack, torch.enable_grad():
        module = lm.model.get_submodule(name.removesuffix(".weight"))
        stack.callback(module.register_forward_hook(keep).remove)
        module.weight.requires_grad_(True)
        stack.callback(module.weight.requires_grad_, False)
        logits = lm.model(torch.tensor([text.ids[:-1]])).logits[0, start:]
        cross_entropy(logits, torch.tensor(text.target_ids)).backward()
        module.weight.grad = None
    start = start if tokens == "answer" else 0
    inputs, gradients = (x.reshape(-1, x.shape[-1]).double() for x in (seen["input"].detach(), seen["output"].grad))
    return inputs[start:], gradients[start:]


def plain_update(H, G, rows, lr):
    """ΔWᵀ of one matrix for this edit's rows, standardized by all `rows` so far."""
    Z = ((torch.cat([H, G], dim=1) - rows.mean(dim=0)) / rows.std(dim=0)).nan_to_num(0.0)  # neurons that never fire
    h, g = Z[:, : H.shape[1]], Z[:, H.shape[1] :]
    V = torch.stack([-lr * (row @ row) * step for row, step in zip(h, g, strict=True)])
    return torch.linalg.solve(H.T @ H + torch.eye(H.shape[1], dtype=torch.float64), H.T @ V)


def assert_close(lm, update, name, wanted):
    dW = update.delta(name).double()
    dW = dW if lm.arch.conv1d else dW.T
    assert float((dW - wanted).norm()) < 1e-5 * float(wanted.norm())


@pytest.mark.parametrize("tokens", ["answer", "all"])
def test_three_batches_in_a_row_are_those_of_the_plain_formulas(every_tiny_lm, tokens):
    lm = every_tiny_lm
    editor = replace(wb.UltraEdit.for_model(lm), lr=1e-3, tokens=tokens)
    sequence, seen = wb.EditSequence(lm), {name: [] for name in editor.inner_params}
    for batch in BATCHES:
        computed = sequence.compute(batch, editor)
        with sequence.applied():
            for name in editor.inner_params:
                parts = [rows_of(lm, name, request, tokens) for request in batch]
                H, G = (torch.cat(part) for part in zip(*parts, strict=True))
                seen[name].append(torch.cat([H, G], dim=1))
                assert_close(lm, computed, name, plain_update(H, G, torch.cat(seen[name]), 1e-3))
        sequence.add(computed)


def published_moments(parts):
    """Mean and deviation after the published code's updates with one part after another."""
    n, mean, squares = 0, 0.0, 0.0
    for rows in parts:
        m = len(rows)
        offset = rows.mean(dim=0) - mean
        mean, squares = (
            mean + m * offset / (n + m),
            squares + m * rows.var(dim=0) + n * m * offset**2 / (n + m),
        )
        n += m
    return mean, (squares / (n - 1)).sqrt()


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_as_published_statistics_are_shared_by_shape_and_losses_by_ten_facts(family):
    lm, facts = build_tiny_lm(family), [*FACTS, *(replace(fact, prompt=f"Yes. {fact.prompt}") for fact in FACTS)]
    editor = replace(wb.UltraEdit.for_model(lm), lr=1e-3, as_published=True)
    update = editor.compute_update(lm, facts)
    texts = {fact: encode_request(lm.tokenizer, fact) for fact in facts}
    longest_first = sorted(facts, key=lambda fact: -len(texts[fact].ids))
    rows = {name: [] for name in editor.inner_params}
    for part in (longest_first[:10], longest_first[10:]):
        n_tokens = sum(len(texts[fact].target_ids) for fact in part)
        for name, found in rows.items():
            each = [(rows_of(lm, name, fact), len(texts[fact].target_ids) / n_tokens) for fact in part]
            found.append(torch.cat([torch.cat([H, G * share], dim=1) for (H, G), share in each]))
    for name, found in rows.items():
        alike = [other for other in rows if lm.linear_shape(other) == lm.linear_shape(name)]
        mean, deviation = published_moments([part for i in range(2) for part in (rows[other][i] for other in alike)])
        Z, d_in = (torch.cat(found) - mean) / deviation, lm.linear_shape(name)[0]
        H = torch.cat(found)[:, :d_in]
        V = -1e-3 * Z[:, :d_in].square().sum(dim=1, keepdim=True) * Z[:, d_in:]
        wanted = torch.linalg.solve(H.T @ H + torch.eye(d_in, dtype=torch.float64), H.T @ V)
        assert_close(lm, update, name, wanted)


def test_a_fact_of_a_large_batch_moves_as_it_does_with_others_beside_it(tiny_lm):
    """Passes over ten facts at a time are no part of the formula."""
    editor = replace(wb.UltraEdit.for_model(tiny_lm), lr=1e-3)
    facts = [replace(fact, prompt=f"{i}. {fact.prompt}") for i in range(2) for fact in FACTS]
    one, other = editor.compute_update(tiny_lm, facts), editor.compute_update(tiny_lm, facts[::-1])
    for name in one:
        torch.testing.assert_close(one.delta(name), other.delta(name), rtol=1e-3, atol=1e-6)


def test_statistics_are_those_of_the_applied_edits_so_undo_takes_them_back(tiny_lm):
    editor, sequence = wb.UltraEdit.for_model(tiny_lm), wb.EditSequence(tiny_lm)
    sequence.edit(BATCHES[0], editor)
    again = sequence.edit(BATCHES[1], editor).update
    sequence.edit(BATCHES[2], editor)
    assert [edit.update.records[0].diagnostics["n_earlier_tokens"] > 0 for edit in sequence.edits] == [
        False,
        True,
        True,
    ]
    sequence.undo(2)
    once_more = sequence.edit(BATCHES[1], editor).update
    assert all(torch.equal(again.delta(name), once_more.delta(name)) for name in again)


def test_the_statistics_survive_saving(tiny_lm, tmp_path):
    update = wb.UltraEdit.for_model(tiny_lm).compute_update(tiny_lm, BATCHES[0])
    update.save(tmp_path / "update.safetensors")
    [record] = wb.WeightUpdate.load(tmp_path / "update.safetensors").records
    assert record.running.keys() == set(update)
    for name, packed in record.running.items():
        assert torch.equal(packed, update.records[0].running[name])


def test_moments_of_parts_are_those_of_all_rows():
    rows = torch.randn(17, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 3
    moments = Moments.of_parts(map(Moments.of, rows.split([1, 9, 7])))
    again = Moments.unpack(moments.packed())
    assert again.count == 17
    torch.testing.assert_close(again.mean, rows.mean(dim=0))
    torch.testing.assert_close(again.squares / 16, rows.var(dim=0))
    torch.testing.assert_close(again.standardized(rows), (rows - rows.mean(dim=0)) / rows.std(dim=0))


def test_a_single_token_has_no_deviation_to_be_compared_with(tiny_lm):
    requests = [wb.EditRequest(subject=None, prompt="This is", target_new=word) for word in ("the", "in", "of", "and")]
    request = next(r for r in requests if len(encode_request(tiny_lm.tokenizer, r).target_ids) == 1)
    assert error_of(EditError, wb.UltraEdit.for_model(tiny_lm).compute_update, tiny_lm, [request]) == (
        "UltraEdit compares the tokens of answers, and there is one only; write another fact with it, or a longer "
        "answer."
    )


def test_equal_facts_without_a_ridge_are_refused(tiny_lm):
    editor = replace(wb.UltraEdit.for_model(tiny_lm), ridge=0.0)
    with pytest.raises(EditError, match=r"HᵀH of .* is singular; set ridge to a positive number, such as 1\."):
        editor.compute_update(tiny_lm, [FACTS[0], FACTS[0]])


@pytest.mark.parametrize(
    ("name", "n_layers", "number", "first"),
    [
        ("gpt-j-6b", 28, 9, "transformer.h.18.mlp.fc_out.weight"),
        ("Meta-Llama-3-8B-Instruct", 32, 12, "model.layers.11.mlp.gate_proj.weight"),
        ("Mistral-7B-v0.3", 32, 2, "model.layers.29.mlp.down_proj.weight"),
        ("Qwen2.5-7B", 28, 18, "model.layers.18.mlp.gate_proj.weight"),
    ],
)
def test_the_matrices_of_published_models_are_those_of_the_authors(name, n_layers, number, first):
    forms = ["transformer.h.{}.mlp.fc_out", *(f"model.layers.{{}}.mlp.{part}_proj" for part in ("gate", "up", "down"))]
    names = [f"{form.format(i)}.weight" for form in forms for i in range(n_layers)]
    outline = ModelOutline(name, n_layers)
    outline.model = SimpleNamespace(named_parameters=lambda: [(each, None) for each in names])
    editor = wb.UltraEdit.for_model(outline)
    assert (len(editor.inner_params), editor.inner_params[0], editor.lr) == (number, first, 1e-6)


def test_other_models_are_edited_where_qwen_is(tiny_lm):
    editor = wb.UltraEdit.for_model(tiny_lm)
    assert all(int(name.split(".")[2]) >= tiny_lm.n_layers // 2 for name in editor.inner_params)


def test_easyedits_file_is_read(tmp_path):
    path = tmp_path / "llama.yaml"
    path.write_text(
        "alg_name: ULTRAEDIT\nmodel_name: x\ninner_params:\n- model.layers.11.mlp.gate_proj\ndropout: 0.0\n"
        "no_grad_layers: null\nlr: 1e-6\ntoken: mask\nbatch_size: 100\nbatch_size_once: 10\neditor_batch_size: 1024\n"
        "silent: False\nhalf: true\nmodel_parallel: false\nresults_dir: ./results\n"
    )
    editor = wb.UltraEdit.from_yaml(path)
    assert editor == wb.UltraEdit(inner_params=("model.layers.11.mlp.gate_proj.weight",), tokens="all")
    path.write_text("alg_name: ULTRAEDIT\ninner_params: [a]\ntoken: both\n")
    assert error_of(EditError, wb.UltraEdit.from_yaml, path) == f"{path}: token must be 'ans' or 'mask'; got 'both'."
