"""The edit card: what an edit would do to the model, in one sentence, before anybody relies on it."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from workbench.arguments import checked
from workbench.assessment import LIMIT, REPAIRS, Assessment, assess, repairs_for
from workbench.lm import LanguageModel
from workbench.microscope.written import Written, read_written
from workbench.printable import percent
from workbench.update import WeightUpdate

if TYPE_CHECKING:
    from workbench.editing.editor import Editor
    from workbench.regularize import Regularizer

Level = Literal["good", "caution", "danger"]

CAUTION = 0.1  # share of the limit of KL from which an edit deserves a closer look; ordinary ROME edits have 0.005
WORDS: dict[Level, str] = {"good": "Looks safe", "caution": "Look closer", "danger": "Would damage the model"}
SYMBOLS: dict[Level, str] = {"good": "✓", "caution": "!", "danger": "✗"}


@dataclass(frozen=True)
class EditCard:
    """What a reader should know about an edit.

    Attributes
    ----------
    level : {"good", "caution", "danger"}
        ``"danger"``: its risk is high (see `Assessment`). ``"caution"``: something about it is unusual, or it moves
        predictions on other text by more than a tenth of the limit. ``"good"``: neither.
    sentence : str
        Why, with the number that decides.
    risk : Assessment
        The measurements.
    repairs : tuple of str
        Names of the repairs of `REPAIRS` that a guard would try; none unless the risk is high.
    """

    level: Level
    sentence: str
    risk: Assessment
    repairs: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """The level as a symbol and words, so that it never depends on a color."""
        return f"{SYMBOLS[self.level]} {WORDS[self.level]}"

    @property
    def offer(self) -> str:
        """What the repairs do, in one sentence; empty if there are none."""
        return f"A guard would try: {'; then '.join(REPAIRS[name] for name in self.repairs)}." if self.repairs else ""


def describe_risk(risk: Assessment, editor: "Editor", regularizer: "Regularizer | None") -> EditCard:
    """Return the card of an edit whose risk has been assessed.

    Parameters
    ----------
    risk : Assessment
        `assess` of the regularized update.
    editor : Editor
        The method that computed the edit.
    regularizer : Regularizer or None
        The regularizer that it went through.

    Returns
    -------
    EditCard
    """
    moved = f"predictions on other text move by {risk.kl:.2g} nats per token"
    because = f": {', '.join(risk.reasons)}" if risk.reasons else ""
    if risk.is_high:
        times = f"{moved}, {risk.kl / risk.limit:.2g} times the limit of {risk.limit:g}"
        decides = times if math.isfinite(risk.kl) else "predictions on other text are no numbers any more"
        return EditCard("danger", f"{_capital(decides)}{because}.", risk, repairs_for(editor, regularizer))
    if risk.reasons:
        return EditCard(
            "caution", f"{_capital(', '.join(risk.reasons))}; {moved}, below the limit of {risk.limit:g}.", risk
        )
    if risk.kl > CAUTION * risk.limit:
        share = percent(risk.kl / risk.limit)
        return EditCard("caution", f"{_capital(moved)}, {share} of the limit of {risk.limit:g}.", risk)
    return EditCard("good", f"{_capital(moved)}, well below the limit of {risk.limit:g}.", risk)


@checked
def edit_card(
    update: WeightUpdate,
    lm: LanguageModel,
    editor: "Editor",
    *,
    regularizer: "Regularizer | None" = None,
    limit: float = LIMIT,
) -> tuple[EditCard, list[Written]]:
    """Assess an update, and read what it writes.

    Parameters
    ----------
    update : WeightUpdate
        The update of one edit, after its regularizer.
    lm : LanguageModel
        The model that it would be added to; not changed.
    editor : Editor
        The method that computed it.
    regularizer : Regularizer, optional
        The regularizer that it went through.
    limit : float
        KL per token, in nats, above which the risk is high.

    Returns
    -------
    card : EditCard
    written : list of Written
        `read_written` of the update.

    Raises
    ------
    SpecError
        If `limit` is not positive.
    UpdateError
        If the update does not fit the model.
    """
    return describe_risk(assess(update, lm, limit=limit), editor, regularizer), read_written(update, lm)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
