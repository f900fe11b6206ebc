"""Lines, points and bars with the intervals of a table, drawn by seaborn.

seaborn computes intervals from repeated observations. The tables here hold them already, in the columns low and high,
and what is drawn must be what the table holds. So each row is repeated with its value, low and high in turn, and
`given_value` and `given_interval` take the place of seaborn's estimator and error bar.
"""

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

from workbench.plots.style import require_columns, styles_of


def stack_intervals(table: pd.DataFrame) -> pd.DataFrame:
    """Return each row three times, with its value, low and high in turn in the column `value`."""
    require_columns(table, "value", "low", "high")
    table = table.dropna(subset=["value"])
    return pd.concat([table.assign(value=table[column]) for column in ("value", "low", "high")], ignore_index=True)


def given_value(stacked: "pd.Series[float]") -> float:
    """Return the value of one stacked row, for seaborn's ``estimator``."""
    return float(stacked.iloc[0])


def given_interval(stacked: "pd.Series[float]") -> tuple[float, float]:
    """Return low and high of one stacked row, for seaborn's ``errorbar``; NaN if the row lacks one of them."""
    if len(stacked) != 3:
        return float("nan"), float("nan")
    return float(stacked.iloc[1]), float(stacked.iloc[2])


def draw_lines(table: pd.DataFrame, ax: Axes, *, x: str, series: str, legend: bool = False) -> Axes:
    """Draw one line per label in the column `series`, in the label's style, with bands from low to high."""
    styles = styles_of(list(dict.fromkeys(table[series])))
    return sns.lineplot(
        stack_intervals(table),
        x=x,
        y="value",
        hue=series,
        style=series,
        palette={label: style.color for label, style in styles.items()},
        markers={label: style.marker for label, style in styles.items()},
        dashes={label: dashes(style.linestyle) for label, style in styles.items()},
        estimator=given_value,
        errorbar=given_interval,
        err_kws={"alpha": 0.15, "linewidth": 0},
        markeredgecolor="auto",
        sort=False,
        legend=legend,
        ax=ax,
    )


def dashes(linestyle: str) -> tuple[float, ...] | str:
    """Return a line style as seaborn takes it: lengths of dashes and gaps, or "" for a solid line."""
    return {"--": (3.7, 1.6), "-.": (6.4, 1.6, 1.0, 1.6), ":": (1.0, 1.65)}.get(linestyle, "")
