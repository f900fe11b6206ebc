"""The anatomy of a collapse on tiny models, against single measurements of each state."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import workbench as wb
from tests.helpers import assert_same_bits, error_of, weights_of
from tests.microscope.sequences import FACTS
from workbench.data.facts import load_facts
from workbench.errors import EditError
from workbench.evaluation.perplexity import read_windows
from workbench.microscope import anatomy

FIELDS = {"layer": 1, "v_num_grad_steps": 3, "contexts": ("{}", "The river. {}")}
TASKS = {"tasks": ["nli"], "limit": 2}


@pytest.fixture
def collapse(tiny_lm):
    return anatomy.make_collapse(tiny_lm, FACTS[:3], hyperparameters=FIELDS, limit=2)


def test_the_facts_are_ordinary_ones_with_the_hard_one_in_its_place():
    facts = anatomy.choose_facts(4, hard="Paris", hard_at=3, seed=1)
    ordinary = load_facts("bundled").with_words_before_subject().sample(4, seed=1)
    assert facts[:2] + facts[3:] == list(ordinary)
    assert (facts[2].subject, facts[2].prompt.startswith("{}")) == ("Paris", True)
    assert facts[2] in load_facts("bundled-hard").requests


def test_facts_that_there_are_not_are_refused():
    assert error_of(EditError, anatomy.choose_facts, 2, hard="Atlantis", hard_at=1, seed=0).startswith(
        "no hard fact has the subject 'Atlantis'; known: "
    )
    assert error_of(EditError, anatomy.choose_facts, 2, hard="Paris", hard_at=4, seed=0) == (
        "hard_at must lie in 1 to 3; got 4."
    )


def test_the_fatal_edit_multiplies_perplexity_most(tiny_lm, collapse):
    perplexities = []
    for t in range(4):
        with collapse.sequence.applied(upto=t):
            perplexities.append(wb.perplexity(tiny_lm, limit=2)["value"].item())
    assert collapse.perplexities == pytest.approx(perplexities, rel=1e-5)
    growth = np.divide(perplexities[1:], perplexities[:-1])
    assert collapse.fatal == 1 + int(np.argmax(growth))
    assert collapse.request == FACTS[collapse.fatal - 1]


def test_every_panel_holds_what_the_model_and_plain_algebra_give(tiny_lm, collapse):
    weights = weights_of(tiny_lm)
    table = anatomy.tabulate_collapse(collapse, limit=2, tasks=TASKS)
    assert_same_bits(tiny_lm, weights)
    panels = dict(list(table.groupby("panel")))
    name, fatal = tiny_lm.arch.mlp_out_weight(1), collapse.fatal
    W = tiny_lm.weight(name).double()
    computed = [edit.computed for edit in collapse.sequence.edits]
    keys = panels["key"].pivot(index="x", columns="series", values="value")
    for t, update in enumerate(computed, start=1):
        assert keys.loc[t, anatomy.KEY] == update.records[0].diagnostics["denominator"]
        top = torch.linalg.svdvals(update.delta(name).double())[0]
        assert keys.loc[t, anatomy.RATIO] == pytest.approx(float(top / torch.linalg.svdvals(W)[0]), rel=1e-4)
    after = W + collapse.sequence.total_after(fatal).delta(name).double()
    spectrum = panels["spectrum"].pivot(index="x", columns="series", values="value")
    assert spectrum[anatomy.AFTER].to_numpy() == pytest.approx(torch.linalg.svdvals(after).numpy(), rel=1e-4, abs=1e-5)
    assert spectrum[anatomy.CHANGE].notna().sum() == 1
    assert panels["abilities"]["name"].unique().tolist() == ["NLI"]


def test_activations_are_those_of_the_layer_in_the_models_own_forward_pass(tiny_lm, collapse):
    table = anatomy.tabulate_collapse(collapse, limit=2, tasks=TASKS)
    name = tiny_lm.arch.mlp_out_weight(1)
    rows = torch.tensor(read_windows(tiny_lm, "articles", window=16, limit=8))
    seen = []
    handle = tiny_lm.model.get_submodule(name.removesuffix(".weight")).register_forward_hook(
        lambda module, args, output: seen.append(output.norm(dim=-1).mean(dim=0))
    )
    with collapse.sequence.applied(upto=collapse.fatal), torch.no_grad():
        tiny_lm.model(rows)
    handle.remove()
    found = table[(table["panel"] == "activations") & (table["series"] == anatomy.AFTER)]["value"]
    assert found.to_numpy() == pytest.approx(seen[0].numpy(), rel=1e-4)


def test_remedies_are_put_on_the_model_before_the_edit(tiny_lm, collapse):
    table = anatomy.tabulate_collapse(collapse, limit=2, tasks=TASKS)
    remedies = table[table["panel"] == "remedies"].pivot(index="name", columns="series", values="value")
    before = collapse.sequence.total_after(collapse.fatal - 1)
    computed = collapse.sequence.edits[collapse.fatal - 1].computed
    bare = replace(collapse.request, rephrase=(), locality=(), portability=())
    with tiny_lm.restored_after():
        if len(before):
            before.apply(tiny_lm)
        r_rome = wb.ROME(**FIELDS, variant="r-rome").compute_update(tiny_lm, [collapse.request])
        updates = {"ROME": computed, "RECT 40 %": wb.RECT(0.4)(computed, tiny_lm), "R-ROME": r_rome}
    for label, update in updates.items():
        with (before + update).applied(tiny_lm):
            factor = wb.perplexity(tiny_lm, limit=2)["value"].item() / collapse.perplexities[0]
            hits = wb.score_edits(tiny_lm, [bare], protocols=["teacher_forced"])["value"].item()
        assert remedies.loc[label, "perplexity"] == pytest.approx(factor, rel=1e-3)
        assert remedies.loc[label, "this fact"] == pytest.approx(hits)
    assert set(remedies.index) == {*updates, "PRUNE"}


def test_the_sentence_names_the_edit_and_its_numbers(tiny_lm, collapse):
    table = anatomy.tabulate_collapse(collapse, limit=2, tasks=TASKS)
    text = anatomy.describe_collapse(collapse, table)
    before, after = collapse.perplexities[collapse.fatal - 1 : collapse.fatal + 1]
    assert text.startswith(
        f"Edit {collapse.fatal} of 3 ({collapse.request.name!r}) takes perplexity from {before:.3g} to {after:.3g}: "
    )
    assert "with R-ROME" in text
