"""Lines, points and bars with the intervals of a table, drawn by seaborn.

seaborn computes intervals from repeated observations. The tables here hold them already, in the columns low and high,
and what is drawn must be what the table holds. So each row is repeated with its value, low and high in turn, and
`GIVEN` replaces seaborn's estimator and error bar with functions that read them back.
"""

from collections.abc import Callable, Mapping

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

from workbench.plots.style import require_columns, styles_of
from workbench.rows import SeriesStyle

_DASHES = {"-": "", "--": (3.7, 1.6), "-.": (6.4, 1.6, 1.0, 1.6), ":": (1.0, 1.65)}  # lengths of dashes and gaps


def stack_intervals(table: pd.DataFrame) -> pd.DataFrame:
    """Return each row three times, with its value, low and high in turn in the column `value`."""
    require_columns(table, "value", "low", "high")
    table = table.dropna(subset=["value"])
    return pd.concat([table.assign(value=table[column]) for column in ("value", "low", "high")], ignore_index=True)


def _value(stacked: "pd.Series[float]") -> float:
    return float(stacked.iloc[0])


def _interval(stacked: "pd.Series[float]") -> tuple[float, float]:
    """Return low and high, or NaN if the row lacks one of them."""
    if len(stacked) != 3:
        return float("nan"), float("nan")
    return float(stacked.iloc[1]), float(stacked.iloc[2])


GIVEN: dict[str, Callable[..., object]] = {"estimator": _value, "errorbar": _interval}


def draw_lines(
    table: pd.DataFrame,
    ax: Axes,
    *,
    x: str,
    series: str,
    styles: Mapping[str, SeriesStyle] | None = None,
    legend: bool = False,
) -> Axes:
    """Draw one line per label in the column `series`, with bands from low to high.

    `styles` are those of the whole figure, where other panels have other labels or another order.
    """
    styles = styles or styles_of(list(dict.fromkeys(table[series])))
    by_label = {
        "palette": {label: style.color for label, style in styles.items()},
        "markers": {label: style.marker for label, style in styles.items()},
        "dashes": {label: _DASHES[style.linestyle] for label, style in styles.items()},
    }
    options = {"markeredgecolor": "auto", "err_kws": {"alpha": 0.15, "linewidth": 0}, "sort": False, "legend": legend}
    return sns.lineplot(
        stack_intervals(table), x=x, y="value", hue=series, style=series, **by_label, **GIVEN, **options, ax=ax
    )


def draw_points(
    table: pd.DataFrame, ax: Axes, *, x: str, y: str, styles: Mapping[str, SeriesStyle], dodge: float = 0
) -> Axes:
    """Draw points with bars from low to high, one style per label in the column `series`, `dodge` apart in all."""
    by_label = {
        "hue_order": list(styles),
        "palette": [style.color for style in styles.values()],
        "markers": [style.marker for style in styles.values()],
    }
    options = {"linestyle": "none", "linewidth": 1.5, "markersize": 5.5, "capsize": 0.15, "legend": False}
    return sns.pointplot(
        stack_intervals(table), x=x, y=y, hue="series", dodge=dodge or False, **by_label, **GIVEN, **options, ax=ax
    )
