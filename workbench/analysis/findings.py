"""Findings: what a table of curves says, in sentences with its numbers."""

import pandas as pd

from workbench.analysis.curves import select_smooth
from workbench.experiment.measures import AFTER_EDIT, EDITS, NOW
from workbench.printable import percent

_WHEN = {AFTER_EDIT: "right after the edit", NOW: "at the end"}


def describe_changes(curves: pd.DataFrame) -> str:
    """Say of each curve how the model at its end differs from the unedited one.

    Parameters
    ----------
    curves : DataFrame
        Table of `average_over_seeds` with the column `series`, as from `label_series`.

    Returns
    -------
    str
        One line per curve: perplexity, log-likelihood of the reference answers (mean over tasks), and the share of the
        new answers that the model gives by itself (`natural`), as far as they were measured. Empty without any edit.
    """
    lines = []
    for series, rows in curves.groupby("series", sort=False):
        last = rows["n_edits"].max()
        if last:
            parts = [*_perplexity(rows, last), *_likelihood(rows, last), *_answers(rows, last)]
            lines.append(f"{series}, after {last} edits: {'; '.join(parts)}.")
    return "\n".join(lines)


def _perplexity(rows: pd.DataFrame, last: int) -> list[str]:
    values = rows[rows["task"] == "perplexity"].groupby("n_edits")["value"].mean()
    return [f"perplexity {values[last]:.4g}, from {values[0]:.4g}"] if {0, last} <= set(values.index) else []


def _likelihood(rows: pd.DataFrame, last: int) -> list[str]:
    wide = select_smooth(rows).pivot_table(index="task", columns="n_edits", values="value")
    if not {0, last} <= set(wide.columns):
        return []
    change = (wide[last] - wide[0]).dropna()
    return [f"log-likelihood of the reference answers {change.mean():+.3f} nats per token"] if len(change) else []


def _answers(rows: pd.DataFrame, last: int) -> list[str]:
    kept = rows[(rows["task"] == EDITS) & (rows["metric"] == "reliability") & (rows["protocol"] == "natural")]
    shares = kept[kept["n_edits"] == last].groupby("moment")["value"].mean()
    said = [f"{percent(shares[moment])} {when}" for moment, when in _WHEN.items() if moment in shares]
    return [f"the model gives the new answer by itself in {' and '.join(said)}"] if said else []
