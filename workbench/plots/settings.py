"""Figure 2: the four settings of editing as diagrams."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from workbench.plots.style import require_columns
from workbench.rows import BLACK, BLUE, ORANGE, SKY

_MODEL = {"boxstyle": "circle,pad=0.35", "facecolor": "white", "edgecolor": BLACK}
_EDITED = {**_MODEL, "facecolor": SKY}
_FACTS = {"boxstyle": "round,pad=0.3", "facecolor": "white", "edgecolor": ORANGE}


def editing_settings(table: pd.DataFrame, figure: Figure) -> Figure:
    """Draw one panel per setting: circles are states of the model, boxes the facts that an operation writes."""
    require_columns(table, "setting", "operation", "first_fact", "last_fact", "edits", "gives")
    settings = list(dict.fromkeys(table["setting"]))
    axes = figure.subplots(2, 2, height_ratios=[1.9, 1]).ravel()
    for ax, setting in zip(axes, settings, strict=True):
        draw_setting(table[table["setting"] == setting], ax)
        ax.set_title(setting)
    return figure


def draw_setting(operations: pd.DataFrame, ax: Axes) -> Axes:
    """Draw operations in a row if each edits the result of the one before, or in a column if all edit one model."""
    sequential = operations["edits"].max() > 0
    positions = {0: (0.0, 0.0 if sequential else -(len(operations) - 1) / 2)}
    rows = operations.to_dict("records")
    for i, row in enumerate(rows):
        positions[row["gives"]] = (i + 1.0, 0.0) if sequential else (1.6, -float(i))
    for row in rows:
        (x0, y0), (x1, y1) = positions[row["edits"]], positions[row["gives"]]
        arrow = {"arrowstyle": "-|>", "color": BLUE, "shrinkA": 13, "shrinkB": 13}
        ax.annotate("", (x1, y1), (x0, y0), arrowprops=arrow)
        share = 0.5 if sequential else 0.62
        where = x0 + share * (x1 - x0), y0 + share * (y1 - y0) + (0.28 if sequential else 0)
        ax.text(
            *where, _facts(row["first_fact"], row["last_fact"]), ha="center", va="center", bbox=_FACTS, fontsize="small"
        )
    for state, (x, y) in positions.items():
        box = _EDITED if state else _MODEL
        ax.text(x, y, f"$\\theta_{{{state}}}$", ha="center", va="center", bbox=box)
    width, height = (len(operations), 0) if sequential else (1.6, len(operations) - 1)
    ax.set(xlim=(-0.35, width + 0.35), ylim=(-0.3, 0.5) if sequential else (-height - 0.5, 0.5))
    ax.set_axis_off()
    return ax


def _facts(first: int, last: int) -> str:
    return f"$e_{{{first}}}$" if first == last else f"$e_{{{first}}}$ … $e_{{{last}}}$"
