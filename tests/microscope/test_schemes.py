"""Schemes side by side: each row is what an edit by that scheme alone would do, and nothing stays behind."""

import math
from dataclasses import dataclass, replace

import pytest

import workbench as wb
from tests.explorer.conftest import CONTEXTS, FACT, SECOND
from tests.helpers import assert_same_bits, error_of, weights_of
from workbench.errors import SpecError
from workbench.evaluation.natural import answer_naturally
from workbench.microscope import schemes as schemes_module
from workbench.microscope.schemes import METRICS, Scheme, compare_schemes, scheme_table

FIELDS = {"layer": 1, "v_num_grad_steps": 3, "contexts": CONTEXTS}
ROME = Scheme("rome", FIELDS)


@pytest.fixture
def sequence(tiny_lm) -> wb.EditSequence:
    """Give a sequence with one edit."""
    sequence = wb.EditSequence(tiny_lm)
    sequence.edit([SECOND], wb.ROME(**FIELDS))
    return sequence


@pytest.fixture
def counted(monkeypatch) -> list[str]:
    """Give the list of the methods that computed an update."""
    calls, compute = [], wb.EditSequence.compute

    def counting(self, requests, method):
        calls.append(method.label)
        return compute(self, requests, method)

    monkeypatch.setattr(wb.EditSequence, "compute", counting)
    return calls


def test_a_row_measures_what_the_same_edit_in_a_sequence_does(sequence):
    lm, scheme = sequence.lm, Scheme("rome", FIELDS, wb.RECT(0.3), wb.PRUNE())
    [row] = scheme_table(compare_schemes(sequence, FACT, [scheme])).to_dict("records")
    alone = wb.EditSequence(lm, accumulated=wb.PRUNE())
    alone.edit([SECOND], wb.ROME(**FIELDS))
    with alone.base.applied(lm):
        update = wb.RECT(0.3)(wb.ROME(**FIELDS).compute_update(lm, [FACT]), lm)
        risk = wb.assess(update, lm)
    alone.add(update)
    kl = wb.assess(alone.total, lm).kl
    with alone.applied():
        scores = wb.score_edits(lm, [FACT], protocols=["natural", "teacher_forced"])
        [answer] = answer_naturally(lm, [FACT.filled_prompt])
    expected = scores.set_index(["metric", "protocol"])["value"]
    for metric in METRICS:
        assert row[metric] == expected[metric, "natural"]
        assert row[f"{metric}_forced"] == expected[metric, "teacher_forced"]
    assert (row["answer"], row["risk"], row["error"]) == (answer, risk.level, "")
    assert row["kl"] == pytest.approx(kl, rel=1e-4)
    assert row["norm"] == pytest.approx(update.norm(), rel=1e-6)
    assert row["relative_norm"] == pytest.approx(
        update.norm() / math.sqrt(sum(float(lm.weight(name).double().square().sum()) for name in update)), rel=1e-6
    )
    assert (row["method"], row["regularizer"]) == ("ROME", "RECT 30 %")
    assert row["settings"] == "layer 1, v_num_grad_steps 3"
    assert row["accumulated"] == "PRUNE"


def test_rows_with_the_same_method_and_hyperparameters_compute_one_update(sequence, counted):
    schemes = [
        ROME,
        Scheme("rome", FIELDS, wb.RECT(0.2)),
        Scheme("r-rome", FIELDS),
        Scheme("rome", FIELDS, None, wb.PRUNE()),
    ]
    results = compare_schemes(sequence, FACT, schemes)
    assert counted == ["ROME", "R-ROME"]
    assert [result.is_shared for result in results] == [False, True, False, True]
    assert results[1].computed is results[0].computed is results[3].computed
    table = scheme_table(results)
    assert table["seconds"][1] == table["seconds"][0] > 0
    assert table["norm"][1] < table["norm"][0]


def test_the_sequence_and_the_model_stay_as_they_were(sequence):
    edits, total, weights = sequence.edits, sequence.total, weights_of(sequence.lm)
    compare_schemes(sequence, FACT, [ROME, Scheme("rome", FIELDS, wb.RECT(0.2), wb.PRUNE())])
    assert sequence.edits == edits
    assert sequence.total is total
    assert sequence.accumulated is None
    assert sequence.lm.applied_updates == ()
    assert_same_bits(sequence.lm, weights)


def test_a_row_that_fails_has_a_sentence_and_the_others_are_measured(sequence):
    lm = sequence.lm
    schemes = [Scheme("rome", {**FIELDS, "layer": 9}), Scheme("nothing"), ROME]
    table = scheme_table(compare_schemes(sequence, FACT, schemes))
    assert table["error"][0] == f"layer 9 is out of range: {lm.name} has layers 0 to 3."
    assert table["error"][1].startswith("no method 'nothing'")
    assert table["error"][2] == ""
    assert table["risk"].tolist()[:2] == ["", ""]
    assert table[["kl", "norm"]].isna().all(axis=1).tolist() == [True, True, False]


@dataclass(frozen=True)
class NoMemory:
    """A regularizer for which there is too little memory."""

    label = "No memory"

    def __call__(self, update, lm):
        raise RuntimeError("not enough memory\nfor this")


def test_a_regularizer_that_fails_is_the_sentence_of_its_row(sequence):
    weights = weights_of(sequence.lm)
    failed, good = compare_schemes(sequence, FACT, [replace(ROME, regularizer=NoMemory()), ROME])
    assert (failed.error, good.error) == ("RuntimeError: not enough memory", None)
    assert_same_bits(sequence.lm, weights)


def test_rows_of_one_update_answer_together_and_each_as_it_does_alone(sequence, monkeypatch):
    schemes = [
        ROME,
        Scheme("rome", FIELDS, wb.RECT(0.2)),
        Scheme("rome", FIELDS, None, wb.PRUNE()),
        Scheme("r-rome", FIELDS),
    ]
    together, answer = [], schemes_module.answer_side_by_side

    def noted(lm, updates, prompts):
        together.append(len(updates))
        return answer(lm, updates, prompts)

    monkeypatch.setattr(schemes_module, "answer_side_by_side", noted)
    results = compare_schemes(sequence, FACT, schemes)
    assert together == [3, 1]
    for scheme, result in zip(schemes, results, strict=True):
        [alone] = compare_schemes(sequence, FACT, [scheme])
        assert (result.answer, result.risk.level) == (alone.answer, alone.risk.level)
        assert result.scores == pytest.approx(alone.scores, rel=1e-4)


def test_rows_that_cannot_answer_together_answer_one_after_another(sequence, monkeypatch):
    answer, weights = schemes_module.answer_side_by_side, weights_of(sequence.lm)
    schemes = [ROME, Scheme("rome", FIELDS, wb.RECT(0.2))]
    expected = scheme_table(compare_schemes(sequence, FACT, schemes))

    def short_of_memory(lm, updates, prompts):
        if len(updates) > 1:
            raise RuntimeError("not enough memory")
        return answer(lm, updates, prompts)

    monkeypatch.setattr(schemes_module, "answer_side_by_side", short_of_memory)
    table = scheme_table(compare_schemes(sequence, FACT, schemes))
    assert table.drop(columns="seconds").equals(expected.drop(columns="seconds"))
    assert_same_bits(sequence.lm, weights)


class StoppedError(Exception):
    """What a caller raises to end a comparison."""


def test_a_comparison_can_be_stopped_between_rows_and_the_rows_before_are_known(sequence):
    known, weights = [], weights_of(sequence.lm)

    def stop_at_second(number, scheme):
        if number == 1:
            raise StoppedError

    schemes = [ROME, Scheme("r-rome", FIELDS)]
    with pytest.raises(StoppedError):
        compare_schemes(sequence, FACT, schemes, before_row=stop_at_second, after_row=known.append)
    assert [result.scheme for result in known] == [ROME]
    assert_same_bits(sequence.lm, weights)


def test_a_fact_without_rephrasings_has_no_generalization(tiny_lm):
    [row] = scheme_table(compare_schemes(wb.EditSequence(tiny_lm), SECOND, [ROME])).to_dict("records")
    assert math.isnan(row["generalization"])
    assert not math.isnan(row["reliability"])


def test_the_first_edit_without_regularizer_of_the_sum_is_assessed_once(tiny_lm, monkeypatch):
    asked, assess = [], schemes_module.assess_side_by_side
    monkeypatch.setattr(
        schemes_module, "assess_side_by_side", lambda updates, lm: asked.append(updates) or assess(updates, lm)
    )
    results = compare_schemes(wb.EditSequence(tiny_lm), FACT, [ROME, Scheme("rome", FIELDS, wb.RECT(0.2))])
    assert [len(updates) for updates in asked] == [2]
    assert [result.scores["kl"] for result in results] == [result.risk.kl for result in results]


@pytest.mark.parametrize("count", [0, 7])
def test_too_few_or_too_many_schemes_are_refused(tiny_lm, count):
    sentence = f"compare 1 to 6 schemes; got {count}."
    assert error_of(SpecError, compare_schemes, wb.EditSequence(tiny_lm), FACT, [ROME] * count) == sentence
