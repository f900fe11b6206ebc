"""The logit lens: what each hidden state predicts, and the answers' probabilities through the layers."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, Normalize, TwoSlopeNorm
from matplotlib.figure import Figure

from workbench.plots.style import require_columns
from workbench.rows import BLUE, GREEN, ORANGE, PURPLE

PROBABILITY = LinearSegmentedColormap.from_list("probability", ["#ffffff", "#2166ac"])
CHANGE = LinearSegmentedColormap.from_list("change", ["#2166ac", "#ffffff", "#d95f02"])
_WRITTEN = 0.1  # probability from which a cell names its token
_LONGEST = 7  # letters of a token in a cell
_COLORS = (ORANGE, BLUE, GREEN, PURPLE)
_LOWEST = 1e-8  # probability


def lens_grid(cells: pd.DataFrame, ax: Axes, *, value: str, norm: Normalize, cmap: LinearSegmentedColormap) -> Axes:
    """Draw one cell per layer (upwards) and token (to the right), colored by a column and named by its top token.

    Parameters
    ----------
    cells : DataFrame
        Table with the columns layer, position, token, top, probability and `value`.
    ax : Axes
        The Axes to draw on.
    value : str
        Column that the color shows. A cell whose top token has a probability of at least 0.1 shows that token.
    norm, cmap : Normalize, LinearSegmentedColormap
        Limits and colors.

    Returns
    -------
    Axes
    """
    require_columns(cells, "layer", "position", "token", "top", "probability", value)
    grid = cells.pivot(index="layer", columns="position", values=value)
    ax.pcolormesh(grid.to_numpy(), norm=norm, cmap=cmap, edgecolors="0.92", linewidth=0.3, rasterized=True)
    lowest = int(grid.index.min())
    for row in cells[cells["probability"] >= _WRITTEN].to_dict("records"):
        red, green, blue, _ = cmap(norm(row[value]))
        dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.55
        where = row["position"] + 0.5, row["layer"] - lowest + 0.5
        ax.text(*where, _short(row["top"]), ha="center", va="center", fontsize=4.5, color="white" if dark else "black")
    tokens = cells.drop_duplicates("position").sort_values("position")["token"]
    ax.set_xticks([i + 0.5 for i in range(len(tokens))], [_short(token) for token in tokens], rotation=60, fontsize=6)
    shown = [layer for layer in grid.index if layer % 5 == 0]
    ax.set_yticks([layer - lowest + 0.5 for layer in [-1, *shown]], ["embedding", *map(str, shown)], fontsize=6)
    ax.tick_params(length=0)
    ax.set(xlabel="token")
    return ax


def lens_figure(cells: pd.DataFrame, figure: Figure, *, answer: str) -> Figure:
    """Draw the unedited model, the edited one, and the change of an answer's probability, side by side.

    Parameters
    ----------
    cells : DataFrame
        Table with the columns of `lens_grid`, side (``"before"`` or ``"after"``) and change (of the answer).
    figure : Figure
        The figure to draw on.
    answer : str
        What the answer is called in the title.

    Returns
    -------
    Figure
    """
    require_columns(cells, "side", "change")
    before, after = (cells[cells["side"] == side] for side in ("before", "after"))
    axes = figure.subplots(1, 3, sharey=True)
    probability, farthest = Normalize(0, 1), max(float(after["change"].abs().max()), 1e-3)
    change = TwoSlopeNorm(0, -farthest, farthest)
    lens_grid(before, axes[0], value="probability", norm=probability, cmap=PROBABILITY)
    lens_grid(after, axes[1], value="probability", norm=probability, cmap=PROBABILITY)
    lens_grid(after, axes[2], value="change", norm=change, cmap=CHANGE)
    for ax, title in zip(axes, ("unedited", "edited", f"change of P({answer})"), strict=True):
        ax.set_title(title)
    axes[0].set_ylabel("output of layer")
    labels = "probability of the most probable token", "after − before"
    for of, label in zip((axes[:2], axes[2:]), labels, strict=True):
        bar = figure.colorbar(of[-1].collections[0], ax=of, location="bottom", shrink=0.6, aspect=30, pad=0.02)
        bar.set_label(label)
    return figure


def answers_through_layers(changes: pd.DataFrame, ax: Axes) -> Axes:
    """Draw the probability of each answer against the layer: dashed before the edit, solid after it.

    Parameters
    ----------
    changes : DataFrame
        Table with the columns layer, answer, probability_before and probability_after, of one position.
    ax : Axes
        The Axes to draw on.

    Returns
    -------
    Axes
    """
    require_columns(changes, "layer", "answer", "probability_before", "probability_after")
    for color, (answer, part) in zip(_COLORS, changes.groupby("answer", sort=False), strict=False):
        for side, dash in (("before", "--"), ("after", "-")):
            values = part[f"probability_{side}"].clip(lower=_LOWEST)
            ax.plot(part["layer"], values, color=color, linestyle=dash, label=f"{answer}, {side}")
    ax.set(xlabel="output of layer (−1: embedding)", ylabel=f"probability (at least {_LOWEST:.0e})", yscale="log")
    ax.set_ylim(_LOWEST / 2, 1.5)
    ax.grid(axis="y")
    ax.legend(fontsize="small")
    return ax


def _short(token: str) -> str:
    """Return a token as a cell can show it, with a visible mark for its leading space."""
    text = token.replace("\n", "↵").replace("$", r"\$")
    text = "·" + text[1:] if text.startswith(" ") else text
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
