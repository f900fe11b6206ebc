"""The risk of edits, assessed before they are applied, against what they do to perplexity."""

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from workbench.plots.style import require_columns, styles_of

_LOWEST, _HIGHEST = 1e-6, 1e3  # KL, and factor of perplexity, beyond which points are drawn at the edge


def risk_against_damage(edits: pd.DataFrame, figure: Figure, *, limit: float, breaks: float) -> Figure:
    """Draw one panel per model with a point per edit: assessed KL to the right, factor of perplexity upwards.

    Filled points are edits whose subject is one token that opens the prompt. Lines are the limit of a high risk, and
    the factor above which an edit counts as one that broke the model.
    """
    require_columns(edits, "model", "method", "probe_kl", "factor", "first_token")
    models = list(dict.fromkeys(edits["model"]))
    axes = figure.subplots(1, max(1, len(models)), sharex=True, sharey=True, squeeze=False)[0]
    styles = styles_of(list(dict.fromkeys(edits["method"])))
    for ax, model in zip(axes, models, strict=False):
        for (method, first), part in edits[edits["model"] == model].groupby(["method", "first_token"]):
            style = styles[str(method)]
            ax.plot(
                part["probe_kl"].clip(lower=_LOWEST),
                part["factor"].fillna(_HIGHEST).clip(upper=_HIGHEST),
                linestyle="",
                marker=style.marker,
                color=style.color,
                markerfacecolor=style.color if first else "none",
                markersize=4,
            )
        ax.set(
            xscale="log",
            yscale="log",
            xlabel="KL on probe text, nats per token",
            title=f"{model} (n = {len(edits[edits['model'] == model])})",
        )
        ax.axvline(limit, color="0.5", linewidth=0.8, linestyle="--")
        ax.axhline(breaks, color="0.5", linewidth=0.8, linestyle=":")
    axes[0].set_ylabel(f"perplexity after / before the edit (at most {_HIGHEST:,.0f})")
    handles = [
        Line2D([], [], linestyle="", marker=style.marker, color=style.color, markerfacecolor="none", label=method)
        for method, style in styles.items()
    ]
    if edits["first_token"].any():
        handles.append(Line2D([], [], linestyle="", marker="o", color="0.4", label="one-token subject first"))
    handles += [
        Line2D([], [], color="0.5", linewidth=0.8, linestyle="--", label=f"limit of a high risk, {limit:g}"),
        Line2D([], [], color="0.5", linewidth=0.8, linestyle=":", label=f"factor {breaks:g}"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure
