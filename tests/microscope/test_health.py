"""The health of a sequence against single measurements of each state."""

import numpy as np
import pandas as pd
import pytest
import torch

import workbench as wb
from tests.helpers import assert_same_bits, error_of, ids_of, weights_of
from tests.microscope.sequences import FACTS, make_sequence
from workbench.changes import LowRank
from workbench.data.facts import load_bundled_facts
from workbench.errors import EditError
from workbench.evaluation.edits import Probe
from workbench.microscope.health import choose_neighbors, find_jumps, follow_health, retention_matrix
from workbench.microscope.timeline import Timeline, timeline_of
from workbench.update import WeightUpdate

NEIGHBORS = [Probe(i, "locality", prompt, " Rome", None) for i, prompt in enumerate(("The sea is in", "I think that"))]


def argmax_after(lm, prompt):
    ids = ids_of(lm, f"{prompt} Rome")
    start = len(ids_of(lm, prompt)) - 1
    with torch.no_grad():
        return lm.model(torch.tensor([ids])).logits[0, start:-1].argmax(dim=-1)


def test_neighbors_are_distinct_bundled_prompts_that_share_nothing_with_the_edited_facts():
    edited = load_bundled_facts().requests[:3]
    chosen = choose_neighbors(edited, seed=1)
    assert len({probe.prompt for probe in chosen}) == 20
    by_prompt = {probe.prompt: fact for fact in load_bundled_facts().requests for probe in fact.locality}
    names = {text for fact in edited for text in (fact.subject, fact.target_new, fact.target_true)}
    assert not {by_prompt[probe.prompt].subject for probe in chosen} & names
    assert choose_neighbors(edited, seed=1) == chosen != choose_neighbors(edited, seed=2)
    assert choose_neighbors((), count=1)[0].metric == "locality"


def test_more_neighbors_than_there_are_are_refused():
    assert error_of(EditError, choose_neighbors, (), count=0).startswith("the number of neighbors must lie in 1 to ")


def test_every_row_is_what_the_model_gives_in_that_state(tiny_lm):
    sequence, weights = make_sequence(tiny_lm), weights_of(tiny_lm)
    timeline, rect = timeline_of(sequence), wb.RECT(0.2)
    series = {"as computed": timeline, rect.label: timeline.through(rect)}
    table = follow_health(series, NEIGHBORS)
    assert table[["edits", "series"]].to_numpy().tolist() == [[t, name] for t in range(4) for name in series]
    before = [argmax_after(tiny_lm, probe.prompt) for probe in NEIGHBORS]
    for row in table[table["edits"] > 0].itertuples():
        total = sequence.total_after(row.edits)
        with (total if row.series == "as computed" else rect(total, tiny_lm)).applied(tiny_lm):
            after = [argmax_after(tiny_lm, probe.prompt) for probe in NEIGHBORS]
            perplexity = wb.perplexity(tiny_lm, window=32, limit=8)["value"].item()
            scores = wb.score_edits(tiny_lm, FACTS[: row.edits], protocols=["teacher_forced"])
        assert row.perplexity == pytest.approx(perplexity, rel=1e-5)
        kept = np.mean([float((a == b).float().mean()) for a, b in zip(before, after, strict=True)])
        assert row.locality == pytest.approx(kept)
        assert row.reliability == pytest.approx(scores["value"].mean())
    unedited = table[table["edits"] == 0]
    assert (unedited[["factor", "kl", "locality", "norm"]].to_numpy() == [1, 0, 1, 0]).all()
    assert_same_bits(tiny_lm, weights)


def test_retention_has_a_column_for_each_edit_and_nothing_before_a_facts_own(tiny_lm):
    sequence = make_sequence(tiny_lm)
    matrix = retention_matrix(timeline_of(sequence))
    assert (list(matrix.index), list(matrix.columns)) == ([0, 1, 2], [1, 2, 3])
    assert np.isnan(matrix.to_numpy()[np.tril_indices(3, -1)]).all()
    for t in (1, 2, 3):
        with sequence.applied(upto=t):
            scores = wb.score_edits(tiny_lm, FACTS[:t], protocols=["teacher_forced"])
        wanted = scores[scores["metric"] == "reliability"]["value"]
        assert matrix[t].dropna().to_numpy() == pytest.approx(wanted.to_numpy())
    pd.testing.assert_frame_equal(retention_matrix(timeline_of(sequence), [2]), matrix.loc[:1, [2]])


def edits_of_norms(lm, *norms):
    name = lm.arch.mlp_out_weight(1)
    rows, cols = lm.weight(name).shape
    unit = torch.ones(rows, 1) / rows**0.5, torch.ones(cols, 1) / cols**0.5
    updates = [WeightUpdate({name: LowRank(norm * unit[0], unit[1])}) for norm in norms]
    return Timeline(lm, updates, [(FACTS[i % 4],) for i in range(len(norms))])


def test_an_edit_stands_out_above_three_times_the_median_norm(tiny_lm):
    largest = float(torch.linalg.svdvals(tiny_lm.weight(tiny_lm.arch.mlp_out_weight(1)).double())[0])
    small = largest / 100
    table = find_jumps(edits_of_norms(tiny_lm, small, small, 2.9 * small, 3.1 * small, small))
    assert table["jumps"].tolist() == [False, False, False, True, False]
    assert table["times_median"].to_numpy() == pytest.approx([1, 1, 2.9, 3.1, 1], rel=1e-5)
    assert table["subject"].tolist()[:2] == ["The Eiffel Tower", "Marie Curie"]


def test_a_single_edit_stands_out_where_it_is_longer_than_anything_in_the_matrix(tiny_lm):
    largest = float(torch.linalg.svdvals(tiny_lm.weight(tiny_lm.arch.mlp_out_weight(1)).double())[0])
    found = [find_jumps(edits_of_norms(tiny_lm, times * largest)) for times in (1.9, 2.1)]
    assert [table["jumps"].item() for table in found] == [False, True]
    assert [table["spectral_ratio"].item() for table in found] == pytest.approx([1.9, 2.1], rel=1e-4)
    assert len(find_jumps(edits_of_norms(tiny_lm))) == 0
