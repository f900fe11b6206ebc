"""The long run: endurance and leaderboard, on tables worked out by hand."""

import numpy as np
import pandas as pd
import pytest

from workbench.analysis import long_run
from workbench.errors import SpecError

COLUMNS = {"model": "m", "batch_size": 2, "facts": "bundled", "seed": 0, "parameter": None}


def state(trajectory, method, operation, regularizer="Unregularized", *, perplexity, natural, sigma=1.0):
    """Rows of a results table of one checkpoint."""
    place = {"trajectory": trajectory, "method": method, "regularizer": regularizer, "operation": operation}
    place |= COLUMNS | {"n_edits": 2 * operation}
    rows = [
        {"task": "perplexity", "metric": "perplexity", "value": perplexity},
        {"task": "drift", "metric": "kl", "value": 0.01 * operation},
    ]
    moment = "now" if operation else "before"
    for protocol, value in (("teacher_forced", min(1.0, natural + 0.1)), ("natural", natural)):
        rows.append({"task": "edits", "metric": "reliability", "protocol": protocol, "value": value, "moment": moment})
    if operation:
        for suffix, largest, smallest in (("_before", 4.0, 2.0), ("", 4.0 * sigma, 1.0)):
            ends = {"largest": largest, "smallest": smallest}
            rows += [
                {"task": "weights", "metric": f"{end}_singular_value{suffix}", "value": value, "parameter": "w"}
                for end, value in ends.items()
            ]
    return pd.DataFrame(rows).assign(**{key: value for key, value in place.items() if key != "parameter"})


def results_of(*states):
    table = pd.concat(states, ignore_index=True)
    return table.reindex(columns=[*table.columns, *({"parameter", "moment", "protocol"} - set(table.columns))])


def scores_of(results, changes):
    """Rows of a scores table: two tasks of two examples, whose log-likelihoods change by `changes` by trajectory."""
    rows = []
    for (trajectory, operation), _ in results.groupby(["trajectory", "operation"]):
        for task in ("nli", "ner"):
            for example in range(2):
                value = -1.0 - example + operation * changes[trajectory] * (1 if task == "nli" else 3)
                rows.append((trajectory, operation, task, "log_likelihood", example, value, "standard", None))
        for example in range(2 * operation):
            value = float(example >= 2)  # the facts of the first operation are forgotten
            rows.append((trajectory, operation, "edits", "reliability", example, value, "natural", "now"))
    names = ["trajectory", "operation", "task", "metric", "example", "value", "protocol", "moment"]
    return pd.DataFrame(rows, columns=names).assign(batch_size=2, source="bundled", split="test")


@pytest.fixture
def results():
    return results_of(
        state("a", "MEMIT", 0, perplexity=40.0, natural=0.0),
        state("a", "MEMIT", 1, perplexity=44.0, natural=0.9),
        state("a", "MEMIT", 2, perplexity=80.0, natural=0.8, sigma=3.0),
        state("b", "ROME", 0, "RECT 40 %", perplexity=40.0, natural=0.0),
        state("b", "ROME", 1, "RECT 40 %", perplexity=40.0, natural=0.4),
        state("b", "ROME", 2, "RECT 40 %", perplexity=40.0, natural=0.9),
        state("c", "FT", 0, perplexity=40.0, natural=0.0),
        state("c", "FT", 1, perplexity=40.0, natural=1.0),
        state("c", "FT", 2, perplexity=41.0, natural=0.5),
    )


def test_states_are_compared_with_the_unedited_model(results):
    states = long_run.follow_states(results, scores_of(results, {"a": -0.1, "b": 0.0, "c": -0.2}))
    last = states[states["operation"] == 2].set_index("trajectory")
    assert last.loc["a", ["perplexity", "natural", "reliability", "kl"]].tolist() == pytest.approx(
        [2.0, 0.8, 0.9, 0.02]
    )
    assert last.loc["a", ["sigma", "condition"]].tolist() == pytest.approx([3.0, 12.0 / 2.0])
    # tasks count alike: −0.2 and −0.6 nats after two operations
    assert last["abilities"].to_dict() == pytest.approx({"a": -0.4, "b": 0.0, "c": -0.8})
    before = states[states["operation"] == 0]
    assert before["natural"].isna().all()  # the facts to come
    assert (before["perplexity"] == 1).all()
    assert set(states["contestant"]) == {"MEMIT", "ROME with RECT 40 %", "FT"}


def test_a_sequence_lasts_up_to_the_first_checkpoint_that_breaks_a_limit(results):
    states = long_run.follow_states(results, scores_of(results, dict.fromkeys("abc", 0.0)))
    endurance = long_run.find_endurance(states).set_index("trajectory")
    assert endurance["lasts"].to_dict() == {"a": 2, "b": 0, "c": 4}
    assert endurance["ended_by"].to_dict() == {"a": "model", "b": "facts", "c": ""}
    assert long_run.find_endurance(states, damage=2.0).set_index("trajectory")["lasts"]["a"] == 4
    assert long_run.describe_endurance(endurance.reset_index()) == (
        "Of 4 facts, FT lasts to the end; the others hold their facts and the model up to: MEMIT 2, ROME with RECT "
        "40 % 0 (1 sequence each)."
    )


def test_a_perplexity_that_is_no_number_ends_a_sequence(results):
    results.loc[
        (results["trajectory"] == "c") & (results["operation"] == 1) & (results["task"] == "perplexity"), "value"
    ] = np.nan
    states = long_run.follow_states(results, scores_of(results, dict.fromkeys("abc", 0.0)))
    [row] = long_run.find_endurance(states).query("trajectory == 'c'").to_dict("records")
    assert (row["lasts"], row["ended_by"]) == (0, "model")


def test_the_leaderboard_has_means_over_sequences_and_their_intervals(results):
    other = results[results["trajectory"] == "c"].assign(trajectory="d", seed=1)
    other.loc[(other["operation"] == 2) & (other["task"] == "perplexity"), "value"] = 43.0
    both = pd.concat([results, other], ignore_index=True)
    scores = scores_of(both, dict.fromkeys("abcd", 0.0))
    operations = pd.DataFrame(
        {
            "trajectory": [*"aabbccdd"],
            "batch_size": 2,
            "seconds": [2.0, 4.0, 8.0, 8.0, 1.0, 1.0, 1.0, 1.0],
            "failed": [None, "no", *[None] * 6],
        }
    )
    board = long_run.rank_contestants(long_run.follow_states(both, scores), operations, scores)
    assert board["contestant"].tolist() == ["FT", "MEMIT", "ROME with RECT 40 %"]
    rows = board.set_index("contestant")
    assert rows.loc["FT", ["lasts_low", "lasts_high", "sequences"]].tolist() == [4, 4, 2]
    mean, half = 42 / 40, 12.706 * (1 / 40)  # t of one degree of freedom, standard error |41 − 43|/2/40
    assert rows.loc["FT", ["perplexity", "perplexity_low", "perplexity_high"]].tolist() == pytest.approx(
        [mean, mean - half, mean + half], rel=1e-3
    )
    assert np.isnan(rows.loc["MEMIT", "perplexity_low"])
    assert rows["seconds"].to_dict() == pytest.approx({"FT": 0.5, "MEMIT": 1.5, "ROME with RECT 40 %": 4.0})
    assert rows["failed"].to_dict() == {"FT": 0, "MEMIT": 1, "ROME with RECT 40 %": 0}
    assert (rows["oldest"] == 0).all()


def test_contestants_share_the_facts_of_a_seed():
    specs = long_run.list_specs(
        {"n_operations": 2, "batch_size": 3}, [{"method": "memit"}, {"method": "mend", "feed_back": False}], [0, 5]
    )
    assert [(spec.method, spec.seed) for spec in specs] == [("memit", 0), ("mend", 0), ("memit", 5), ("mend", 5)]
    with pytest.raises(SpecError):
        long_run.list_specs({"n_operations": 2}, [{"method": "no such method"}], [0])
