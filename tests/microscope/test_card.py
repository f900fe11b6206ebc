"""The edit card: its level and its sentence follow the assessment, and its repairs are those of the guard."""

from dataclasses import replace

import pytest

import workbench as wb
from tests.test_assessment import FACT, ROME, TooLong, scaled
from workbench.assessment import REPAIRS, Assessment
from workbench.microscope.card import SYMBOLS, WORDS, describe_risk, edit_card
from workbench.microscope.written import read_written

USUAL = Assessment(0.0011, 0.28, 1.0, 10.3, first_token=False)


def test_an_ordinary_edit_is_good():
    card = describe_risk(USUAL, ROME, None)
    assert (card.level, card.repairs, card.offer) == ("good", (), "")
    assert card.sentence == "Predictions on other text move by 0.0011 nats per token, well below the limit of 0.2."
    assert card.title == "✓ Looks safe"


def test_an_edit_that_moves_predictions_or_is_unusual_deserves_caution():
    moving = describe_risk(replace(USUAL, kl=0.05), ROME, None)
    assert (moving.level, moving.sentence) == (
        "caution",
        "Predictions on other text move by 0.05 nats per token, 25 % of the limit of 0.2.",
    )
    unusual = describe_risk(replace(USUAL, first_token=True, denominator=0.14), ROME, None)
    assert (unusual.level, unusual.sentence) == (
        "caution",
        "The subject is one token that opens the prompt, uᵀk is 0.14; predictions on other text move by 0.0011 nats "
        "per token, below the limit of 0.2.",
    )
    assert unusual.repairs == ()


@pytest.mark.parametrize(
    ("editor", "regularizer", "repairs"),
    [
        (ROME, None, ("r-rome", "prune")),
        (ROME, wb.RECT(0.4), ("r-rome",)),
        (replace(ROME, variant="r-rome"), wb.Unregularized(), ("prune",)),
        (replace(ROME, variant="r-rome"), wb.RECT(0.4), ()),
        (wb.FT(layers=(1,)), None, ("prune",)),
    ],
)
def test_a_dangerous_edit_is_offered_the_repairs_of_the_guard(editor, regularizer, repairs):
    card = describe_risk(Assessment(0.8, 6.5, 1.0, 0.145, first_token=True), editor, regularizer)
    assert card.level == "danger"
    assert card.sentence == (
        "Predictions on other text move by 0.8 nats per token, 4 times the limit of 0.2: the subject is one token "
        "that opens the prompt, uᵀk is 0.14, σ₁(ΔW) is 6.5 times that of W."
    )
    assert card.repairs == repairs
    assert all(REPAIRS[name] in card.offer for name in repairs)


def test_predictions_that_are_no_numbers_are_dangerous():
    card = describe_risk(replace(USUAL, kl=float("nan")), ROME, None)
    assert (card.level, card.sentence) == ("danger", "Predictions on other text are no numbers any more.")


def test_levels_are_told_apart_without_color():
    assert len(set(SYMBOLS.values())) == len(set(WORDS.values())) == 3


def test_the_card_of_an_update_is_its_assessment_and_what_it_writes(tiny_lm):
    update = TooLong(1000.0).compute_update(tiny_lm, [FACT])
    limit = wb.assess(update, tiny_lm).kl / 2
    card, written = edit_card(update, tiny_lm, ROME, limit=limit)
    assert card.level == "danger"
    assert card.risk == wb.assess(update, tiny_lm, limit=limit)
    assert written == read_written(update, tiny_lm)
    nothing = scaled(tiny_lm, update, 0.0)
    assert edit_card(nothing, tiny_lm, ROME)[0].risk.kl == 0.0


def test_the_guard_still_repairs_what_is_offered(tiny_lm):
    broken = TooLong(1000.0).compute_update(tiny_lm, [FACT])
    before, after = (wb.assess(update, tiny_lm).kl for update in (broken, wb.PRUNE()(broken, tiny_lm)))
    guard = wb.Guard(limit=(before + after) / 2)
    card, _ = edit_card(broken, tiny_lm, TooLong(1000.0), limit=guard.limit)
    assert card.repairs == ("prune",)
    assert guard.admit(broken, TooLong(1000.0), None, tiny_lm) == (broken, wb.PRUNE())
