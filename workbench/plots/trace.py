"""Causal traces: the indirect effects of states over tokens and layers, and by layer beside the scores of edits."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure

from workbench.plots.editing import scores_by_layer
from workbench.plots.lens import CHANGE
from workbench.plots.style import require_columns
from workbench.rows import BLACK

_TITLES = {"state": "hidden state", "mlp": "MLPs", "attention": "attentions"}


def trace_heatmap(effects: pd.DataFrame, ax: Axes, *, limit: float) -> Axes:
    """Draw the indirect effect of each token (downwards) and layer (to the right).

    Parameters
    ----------
    effects : DataFrame
        Table with the columns position, token, in_subject, layer and effect; tokens of the subject get an asterisk.
    ax : Axes
        The Axes to draw on.
    limit : float
        Effect of the strongest color, which is 0 at white; panels that are compared share it.

    Returns
    -------
    Axes
    """
    require_columns(effects, "position", "token", "in_subject", "layer", "effect")
    grid = effects.pivot(index="position", columns="layer", values="effect")
    ax.pcolormesh(grid.to_numpy(), norm=TwoSlopeNorm(0, -limit, limit), cmap=CHANGE, rasterized=True)
    tokens = effects.drop_duplicates("position").sort_values("position")
    names = [
        f"{token.strip() or repr(token)}{'*' * bool(of_subject)}".replace("$", r"\$")
        for token, of_subject in zip(tokens["token"], tokens["in_subject"], strict=True)
    ]
    ax.set_yticks([i + 0.5 for i in range(len(names))], names)
    shown = range(0, grid.shape[1], 5)
    ax.set_xticks([layer + 0.5 for layer in shown], list(map(str, shown)))
    ax.tick_params(length=0)
    ax.invert_yaxis()
    return ax


def trace_heatmaps(effects: pd.DataFrame, figure: Figure) -> Figure:
    """Draw one heatmap per kind of state, side by side, with shared limits and one color bar."""
    require_columns(effects, "kind", "effect")
    kinds = list(dict.fromkeys(effects["kind"]))
    axes = figure.subplots(1, len(kinds), sharey=True, squeeze=False)[0]
    limit = max(float(effects["effect"].abs().max()), 1e-6)
    for ax, kind in zip(axes, kinds, strict=True):
        trace_heatmap(effects[effects["kind"] == kind], ax, limit=limit)
        ax.set(title=_TITLES.get(kind, kind), xlabel="layer restored")
    for ax in axes[1:]:
        ax.invert_yaxis()  # shared axes are turned once
    axes[0].set_ylabel("token restored (* subject)")
    figure.colorbar(axes[0].collections[0], ax=axes, fraction=0.03, pad=0.01).set_label("indirect effect on P(answer)")
    return figure


def effects_and_scores(effects: pd.DataFrame, sweep: pd.DataFrame, figure: Figure) -> Figure:
    """Draw the effect of each layer above what edits at that layer did.

    Parameters
    ----------
    effects : DataFrame
        Table with the columns fact, layer and effect; thin lines are facts, the thick one is their mean.
    sweep : DataFrame
        Table with the columns of `scores_by_layer`; without rows, only the effects are drawn.
    figure : Figure
        The figure to draw on.

    Returns
    -------
    Figure
    """
    require_columns(effects, "fact", "layer", "effect")
    axes = figure.subplots(2 if len(sweep) else 1, 1, sharex=True, squeeze=False)[:, 0]
    top = axes[0]
    for _, part in effects.groupby("fact", sort=False):
        top.plot(part["layer"], part["effect"], color="0.75", linewidth=0.8)
    means = effects.groupby("layer", as_index=False)["effect"].mean()
    best = int(means.loc[means["effect"].idxmax(), "layer"])
    top.plot(means["layer"], means["effect"], color=BLACK, linewidth=2)
    top.axhline(0, color="0.5", linewidth=0.8, linestyle=":")
    top.axvline(best, color=BLACK, linewidth=0.8, linestyle="--")
    top.set_ylabel("indirect effect of MLPs\nat the subject's last token")
    top.set_title(f"largest mean effect at layer {best} ({effects['fact'].nunique()} facts)")
    if len(sweep):
        scores_by_layer(sweep, axes[1])
        axes[1].set_ylabel("score of ROME edits")
    n_layers = int(effects["layer"].max()) + 1
    axes[-1].set(xlabel="layer", xlim=(-0.5, n_layers - 0.5), xticks=range(0, n_layers, 5))
    return figure
