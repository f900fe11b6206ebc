"""Claims, judged on constructed stores with a known answer."""

import re

import numpy as np
import pandas as pd
import pytest

from workbench.analysis.claims import (
    CLAIMS,
    COLUMNS,
    FAILS,
    HOLDS,
    ONE_ONLY,
    UNDECIDED,
    Claim,
    explain,
    format_claims,
    judge,
)
from workbench.analysis.claims import judge_claims as judge_models
from workbench.analysis.contrasts import PLAIN, RECT40, after_one_edit
from workbench.analysis.effects import Effect
from workbench.analysis.pairs import Runs
from workbench.experiment.store import PRESET
from workbench.experiment.stored_files import RESULTS, SCORES

FALL = "Abilities fall as sequential edits accumulate"
FALL_MUCH = "Sequential edits cost a tenth of the abilities or more"
KEEPS = "RECT 40 % keeps at least 94 % of editing performance"
PRESERVES = "RECT 40 % preserves abilities better"
KN = "KN collapses at once"
MOVES = "The weights move further with every edit"
PLACE = {"model": "m", "dtype": "float32", "method": "ROME", "hyperparameters": PRESET, "regularizer": PLAIN}
PLACE |= {"setting": "sequential-instance", "facts": "bundled", "batch_size": 1, "seed": 0, "operation": 0}
PLACE |= {"protocol": "standard", "source": "bundled", "split": "bundled", "moment": None}
QA = {"task": "open_qa", "metric": "span_match"}
EDIT = {"task": "edits", "protocol": "teacher_forced", "setting": "single-instance", "moment": "after_edit"}
EDIT |= {"source": None, "split": None}
SINGLE = {"setting": "single-instance"}


def rows(values, draw=0, **more):
    """Return rows of scores, one per example."""
    place = {**PLACE, "draw": f"draw {draw}", **QA, **more}
    place["n_edits"] = place["operation"] * place["batch_size"]
    names = "method", "regularizer", "setting", "batch_size", "facts", "draw", "seed", "hyperparameters"
    place.setdefault("trajectory", " ".join(str(place[name]) for name in names))
    return pd.DataFrame([{**place, "example": i, "value": float(v), "weight": 1.0} for i, v in enumerate(values)])


def runs(*parts, results=()):
    scores = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=[*SCORES.names, "dtype"])
    table = pd.DataFrame(list(results)).reindex(columns=[*RESULTS.names, "dtype"])
    return Runs.of(scores, table)


def judge_claims(found):
    return judge_models({"m": found})


def judge_claim(found, statement, measured=""):
    """Return the first row with a statement, and with a text in the column measured."""
    table = judge_claims(found)
    chosen = table["claim"].eq(statement) & table["measured"].str.contains(measured, regex=False)
    return table[chosen].iloc[0]


def sequences(after, *, n=5, **more):
    """Return sequences of 20 edits, each measured before and after on 40 examples, of which the model knows most."""
    before = [1.0] * 36 + [0.0] * 4
    parts = [rows(before, draw, **more) for draw in range(n)]
    return parts + [rows(after[draw % len(after)], draw, operation=20, **more) for draw in range(n)]


@pytest.mark.parametrize(
    ("low", "high", "above", "said"),
    [(0.1, 0.2, True, HOLDS), (0.1, 0.2, False, FAILS), (-0.2, -0.1, False, HOLDS), (-0.2, -0.1, True, FAILS)]
    + [(-0.1, 0.1, True, UNDECIDED), (-0.1, 0.1, False, UNDECIDED), (np.nan, np.nan, True, UNDECIDED)],
)
def test_the_interval_decides(low, high, above, said):
    claim = Claim("", "", 0, above, lambda runs: None)
    assert judge(claim, Effect(0.0, low, high, 100, 5)) == said


def test_fewer_than_five_sequences_decide_nothing_whatever_the_interval():
    claim = Claim("", "", 0, True, lambda runs: None)
    said = [judge(claim, Effect(0.5, 0.4, 0.6, 100, J)) for J in (1, 2, 4, 5)]
    assert said == [ONE_ONLY, UNDECIDED, UNDECIDED, HOLDS]
    assert explain(claim, Effect(0.5, 0.4, 0.6, 100, 2)) == "2 trajectories; 5 are needed"
    assert explain(claim, Effect(0.5, 0.4, 0.6, 100, 1)) == "1 trajectory; 5 are needed"


def test_what_would_decide_is_computed_from_the_observed_variance():
    claim = Claim("", "", 0, False, lambda runs: None)
    # the variance of one sequence is 5 · 0.01; with N of them, 1.96 · √(0.05 / N) = 0.1 at N = 19.2
    undecided = Effect(-0.1, -0.35, 0.15, 100, 5, between=0.01)
    assert explain(claim, undecided) == "the interval includes 0; about 20 trajectories would decide it"
    # 1.96² · 0.01 is 3.84 times 0.1²: the examples alone leave too much; the half of it is kept for the sequences
    few = Effect(-0.1, -0.35, 0.15, 100, 5, between=0.0001, within=0.01)
    assert explain(claim, few) == "the interval includes 0; about 7.7 times as many examples would decide it"
    assert explain(claim, Effect(0.2, 0.1, 0.3, 9, 6)) == "all of the interval over 6 trajectories lies above 0"
    assert explain(claim, Effect(-0.2, -0.3, -0.1, 9, 6)) == ""


def test_without_experiments_nothing_is_decided():
    table = judge_models({"a": runs(), "b": runs()})
    assert len(table) == 2 * len(CLAIMS)
    assert len(CLAIMS) >= 40
    assert list(table.columns) == COLUMNS
    assert set(table["model"]) == {"a", "b"}
    assert set(table["verdict"]) == {UNDECIDED}
    assert table["why"].str.startswith("no stored ").all()


def test_abilities_that_fall_are_told_apart_from_those_that_rise():
    rng = np.random.default_rng(0)
    falling = runs(*sequences([rng.random(40) < p for p in (0.2, 0.3, 0.1, 0.4, 0.3)]))
    found = judge_claim(falling, FALL)
    assert (found["verdict"], found["trajectories"], found["abilities"], found["n"]) == (HOLDS, 5, "open_qa", 100)
    assert found["facts"] == "bundled"
    low = [rows([1.0] * 20 + [0.0] * 20, draw) for draw in range(5)]
    high = [rows([1.0] * 38 + [0.0] * 2, draw, operation=20) for draw in range(5)]
    high[0].loc[3, "value"] = 0.0
    assert judge_claim(runs(*low, *high), FALL)["verdict"] == FAILS


def test_one_sequence_decides_nothing():
    found = judge_claim(runs(*sequences([[0.0] * 40], n=1)), FALL)
    assert (found["verdict"], found["why"]) == (ONE_ONLY, "1 trajectory; 5 are needed")
    assert found["effect"] == pytest.approx(-0.9, abs=0.01)
    assert np.isnan(found["low"])


def test_different_facts_under_one_seed_are_different_sequences():
    parts = sequences([[0.0] * 40, [1.0] * 40])  # all have seed 0
    assert judge_claim(runs(*parts), FALL)["trajectories"] == 5
    same = [part.assign(draw="draw 0", seed=i) for i, part in enumerate(sequences([[0.0] * 40], n=3)[:3])]
    after = [part.assign(draw="draw 0", seed=i) for i, part in enumerate(sequences([[0.0] * 40], n=3)[3:])]
    assert judge_claim(runs(*same, *after), FALL)["trajectories"] == 1  # other context templates, the same facts


def test_a_sequence_run_twice_with_other_tasks_and_checkpoints_counts_once():
    parts = sequences([[0.0] * 40, [1.0] * 40])
    again = [part.iloc[:10].assign(trajectory="figure 1") for part in parts]
    later = [rows([0.0] * 10, 0, operation=5, trajectory="figure 1")]
    other = [rows([1.0] * 40, draw, task="ner", metric="f1", trajectory="figure 1") for draw in range(2)]
    pd.testing.assert_frame_equal(judge_claims(runs(*parts)), judge_claims(runs(*parts, *again, *later, *other)))


def single_edits(**regularizers):
    """Return the scores of 20 single edits as the store has them: at every checkpoint, those of all facts so far."""
    parts = []
    for label, values in regularizers.items():
        regularizer = {"plain": PLAIN, "rect": RECT40}[label]
        for t in range(1, 21):
            place = {**EDIT, "metric": "reliability", "regularizer": regularizer, "operation": t}
            parts.append(rows(values[:t], **place))
    return parts


def test_one_row_per_fact_whatever_the_number_of_checkpoints():
    found = judge_claim(runs(*single_edits(plain=[1.0] * 20, rect=[1.0] * 19 + [0.9])), KEEPS)
    assert (found["n"], found["trajectories"]) == (20, 20)
    assert found["effect"] == pytest.approx(0.995)


def test_twenty_equal_pairs_do_not_show_a_share_of_94_percent():
    found = judge_claim(runs(*single_edits(plain=[1.0] * 20, rect=[1.0] * 20)), KEEPS)
    assert found["effect"] == 1
    assert found["low"] <= 0.025 ** (1 / 20) + 1e-9
    assert found["verdict"] == UNDECIDED


def test_what_other_figures_ran_does_not_matter():
    parts = single_edits(plain=[1.0] * 20, rect=[1.0] * 19 + [0.9])
    alone = judge_claims(runs(*parts))
    fewer = [part[part["example"] < 6].assign(trajectory="table 1") for part in parts if part["operation"].iloc[0] < 6]
    tuned = [part.assign(hyperparameters='{"layer": 3}', value=0.0, trajectory="sweep") for part in parts]
    hard = [part[part["example"] < 5].assign(facts="hard", draw="h", value=0.0, trajectory="hard") for part in parts]
    plain = [part for part in parts if part["regularizer"].iloc[0] == PLAIN]
    unpaired = [part.assign(facts="a", draw="a", value=0.0, trajectory="risk") for part in plain]  # "a" sorts first
    sequence = rows([0.0] * 20, **{**EDIT, "metric": "reliability", "setting": "sequential-instance", "operation": 20})
    others = [*fewer, *tuned, *hard, *unpaired, sequence]
    pd.testing.assert_frame_equal(judge_claims(runs(*parts, *others)), alone)


def test_several_partners_of_one_row_are_refused():
    parts = single_edits(plain=[1.0] * 20, rect=[1.0] * 20)
    found = runs(*parts)
    doubled = Runs(pd.concat([found.scores, found.scores]), found.results)
    with pytest.raises(pd.errors.MergeError):
        judge_claims(doubled)


def test_facts_of_a_batch_are_one_unit_and_memit_has_rows_of_its_own():
    place = {**EDIT, "metric": "generalization", "method": "MEMIT", "setting": "single-batch", "batch_size": 10}
    values = np.random.default_rng(0).random(60)
    plain = rows(values, **place, operation=6)
    rect = rows(values * 0.8, **place, operation=6, regularizer=RECT40)
    found = judge_claim(runs(plain, rect), KEEPS, "MEMIT, generalization (teacher forced)")
    assert found["effect"] == pytest.approx(0.8, abs=0.01)
    assert (found["n"], found["trajectories"], found["verdict"]) == (60, 6, FAILS)
    few = judge_claim(runs(plain[:20], rect[:20]), KEEPS, "MEMIT, generalization (teacher forced)")
    assert few["why"] == "2 batches; 5 are needed"


def test_tasks_at_guessing_do_not_count_and_rankings_do_where_labels_do_not():
    nli = {"task": "nli", "metric": "choice_accuracy"}
    rng = np.random.default_rng(0)
    before, after = [1.0, 0.0] * 20, [0.0, 1.0] * 20
    parts = [rows(before, draw, **nli) for draw in range(6)]
    parts += [rows(after, draw, operation=20, **nli) for draw in range(6)]
    one_label = [1.0, 1.0, 0.0, 0.0] * 10  # of the examples that choose, half are right
    guessed = [part.assign(value=one_label * 1) for part in parts]
    assert judge_claim(runs(*guessed), FALL)["abilities"] == ""
    auc = [rows([1.0] * 36 + [0.5] * 4, draw, task="nli", metric="choice_auc") for draw in range(6)]
    auc += [rows(rng.random(40), draw, operation=20, task="nli", metric="choice_auc") for draw in range(6)]
    found = judge_claim(runs(*guessed, *auc), FALL)
    assert (found["abilities"], found["verdict"]) == ("nli (choice_auc)", HOLDS)


def test_abilities_are_chosen_on_examples_that_are_not_compared():
    parts = sequences([[0.0] * 40])
    for part in parts:
        part.loc[part["example"] % 2 == 0, "value"] = 0.0  # those that choose are all wrong
    assert judge_claim(runs(*parts), FALL)["n"] == 0
    for part in parts:
        part["value"] = np.where(part["example"] % 2 == 0, 1.0, part["value"])
    found = judge_claim(runs(*parts), FALL)
    assert found["n"] == 5 * 20
    assert found["effect"] == pytest.approx(-18 / 20)  # of the others


def test_an_ability_is_one_under_its_protocol_and_source():
    paper = {"task": "sentiment", "metric": "accuracy", "protocol": "paper"}
    parts = [rows([0.0] * 40, draw, **paper) for draw in range(5)]  # invalid answers are wrong, and below guessing
    other = {"task": "sentiment", "metric": "choice_accuracy", "source": "sst2"}
    parts += [rows([1.0] * 40, draw, **other) for draw in range(5)]
    after = [part.assign(operation=20, n_edits=20, value=0.5) for part in parts]
    found = judge_claim(runs(*parts, *after), FALL)
    assert (found["abilities"], found["n"]) == ("sentiment", 100)


def test_kn_is_judged_over_single_edits_of_different_facts():
    known = [1.0] * 36 + [0.0] * 4
    place = {**SINGLE, "method": "KN"}
    rng = np.random.default_rng(0)
    before = rows(known, **place)
    after = [rows(np.array(known) * (rng.random(40) < 0.1), operation=t, **place) for t in range(1, 13)]
    found = judge_claim(runs(before, *after), KN)
    assert (found["trajectories"], found["verdict"]) == (12, HOLDS)
    assert found["effect"] == pytest.approx(0.1, abs=0.05)
    assert judge_claim(runs(before, *after[:9]), KN)["why"] == "9 single edits; 10 are needed"


def test_a_setting_other_than_the_preset_is_chosen_by_its_hyperparameters():
    place = {**SINGLE, "method": "KN", "hyperparameters": '{"factor": 1}'}
    found = runs(rows([1.0] * 40, **place), *(rows([0.5] * 40, operation=t, **place) for t in range(1, 13)))
    assert judge_claim(found, KN)["n"] == 0
    effect = after_one_edit("KN", "abilities", hyperparameters='{"factor": 1}')(found)
    assert effect.value == pytest.approx(0.5)


def test_rect_is_compared_over_the_whole_curve_and_not_after_the_collapse():
    rng, parts = np.random.default_rng(0), []
    for draw in range(6):
        for regularizer, collapse in ((PLAIN, 5), (RECT40, 10)):
            for t in (0, 5, 10, 20):
                alive = np.array([1.0] * 36 + [0.0] * 4) * (rng.random(40) < 0.95)
                parts.append(rows(alive * (t < collapse), draw, operation=t, regularizer=regularizer))
    found = judge_claim(runs(*parts), PRESERVES)
    assert found["verdict"] == HOLDS
    # between 0 and 10 edits: RECT has 1, 1, 0, none has 1, 0, 0, so the trapezoids differ by 5 of 20 edits
    assert found["effect"] == pytest.approx(0.25 * 0.9 * 0.95, abs=0.05)
    assert found["n"] == 6 * 20


def number(draw, t, value, **more):
    return {**PLACE, "draw": f"draw {draw}", "operation": t, "n_edits": t, "value": value, "trajectory": "u", **more}


def test_log_perplexity_stands_beside_the_abilities():
    place = {"task": "perplexity", "metric": "perplexity", "protocol": "windows of 512"}
    results = [
        number(draw, t, 50.0 * factor ** (t / 10) * (1 + 0.01 * draw), regularizer=label, **place)
        for draw in range(5)
        for t in (0, 10, 20)
        for label, factor in ((PLAIN, 2.0 + 0.1 * draw), (RECT40, 1.0))
    ]
    found = judge_claim(runs(results=results), PRESERVES, "log perplexity")
    # ln(1 / 2.2) · t / 10, averaged over 0 to 20
    assert found["effect"] == pytest.approx(-np.mean(np.log([2.0, 2.1, 2.2, 2.3, 2.4])))
    assert (found["verdict"], found["trajectories"]) == (HOLDS, 5)


def test_growth_is_one_exponent_per_sequence():
    place = {"task": "weights", "metric": "manhattan_distance", "parameter": "w", "protocol": None}
    results = [
        number(draw, t, 100 * t**b, **place) for draw, b in enumerate((0.6, 0.7, 0.8, 0.7, 0.7)) for t in (1, 5, 20)
    ]
    found = judge_claim(runs(results=results), MOVES)
    assert found["effect"] == pytest.approx(0.7)
    assert (found["trajectories"], found["verdict"]) == (5, HOLDS)
    assert found["high"] - found["low"] == pytest.approx(
        2 * 2.776445 * np.std([0.6, 0.7, 0.8, 0.7, 0.7], ddof=1) / 5**0.5
    )


def test_larger_batches_are_compared_within_a_draw():
    place = {"method": "MEMIT", "operation": 1}
    known = [1.0] * 36 + [0.0] * 4
    parts = [rows(known, draw, method="MEMIT", setting="single-instance") for draw in range(5)]
    parts += [rows(known, draw, setting="single-instance", **place) for draw in range(5)]
    lost = np.random.default_rng(0).random((5, 40)) < 0.5
    parts += [rows(known * ~lost[d], d, setting="single-batch", batch_size=30, **place) for d in range(5)]
    found = judge_claim(runs(*parts), "Larger batches harm more", "MEMIT")
    assert (found["trajectories"], found["verdict"]) == (5, HOLDS)


def test_smooth_scores_stand_beside_the_headline_of_every_task():
    rng, parts = np.random.default_rng(0), []
    for draw in range(5):
        base = rng.normal(-2, 0.5, 40)
        smooth = {"metric": "log_likelihood"}
        parts += [rows(base, draw, **smooth), rows(base - 1 + rng.normal(0, 0.2, 40), draw, operation=20, **smooth)]
    found = judge_claim(runs(*parts), FALL, "log-likelihood")
    assert found["effect"] == pytest.approx(-1, abs=0.05)
    assert (found["verdict"], found["n"]) == (HOLDS, 200)


def test_claims_are_written_as_a_table_with_each_statement_once_and_its_models_side_by_side():
    found = runs(*sequences(after=[[0.0] * 40, [0.0] * 39 + [1.0], [0.0] * 38 + [1.0] * 2]))
    table = judge_models({"first": found, "second": found})
    lines = [line.split(" | ") for line in format_claims(table[table["claim"] == FALL]).splitlines()]
    assert {len(line) for line in lines} == {8}
    statements, measured, models, effects = (list(part) for part in zip(*(line[:4] for line in lines[2:]), strict=True))
    assert statements == [f"| {FALL}"] + ["| "] * (len(statements) - 1)
    assert models == ["first", "second"] * (len(models) // 2)
    assert measured[0]
    assert not measured[1]
    assert re.fullmatch(r"-[\d.]+ \(-[\d.]+ to -[\d.]+\)", effects[0])
    assert effects[0] == effects[1]
    assert lines[2][6] == HOLDS


@pytest.mark.slow
def test_a_small_fall_is_no_large_one():
    rng = np.random.default_rng(1)
    likelihoods = {"metric": "log_likelihood"}
    before = rng.normal(-2, 0.5, 40)
    falls = [0.03 + 0.01 * rng.random(40) for _ in range(5)]
    parts = [rows(before, draw, setting="sequential-instance", **likelihoods) for draw in range(5)]
    small, large = (
        runs(*parts, *(rows(before - c * each, draw, operation=20, **likelihoods) for draw, each in enumerate(falls)))
        for c in (1, 10)
    )
    verdicts = [judge_claim(found, claim, "nats")["verdict"] for found in (small, large) for claim in (FALL, FALL_MUCH)]
    assert verdicts == [HOLDS, FAILS, HOLDS, HOLDS]


def test_what_is_left_of_the_abilities_is_a_share():
    rng = np.random.default_rng(2)
    found = runs(*sequences([0.4 + 0.1 * rng.random(40) for _ in range(5)]))
    claim = judge_claim(found, FALL_MUCH, "share left")
    assert (claim["verdict"], claim["bound"]) == (HOLDS, "< 0.9")
    assert claim["effect"] == pytest.approx(0.45 / 0.9, abs=0.02)
