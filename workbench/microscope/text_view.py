"""The view of a text compared token by token."""

import math
from typing import Any

import pandas as pd
from markupsafe import Markup

from workbench.html import render
from workbench.interactive import View
from workbench.microscope.text import TextComparison
from workbench.printable import printable

SMALLEST_SCALE = 0.1  # nats; smaller changes are never shown in the strongest color
N_LISTED = 25  # tokens in the table that stands in for the view

_FALLBACK = """
<table class="wb-table wb-numbers"><caption>{{ caption }}</caption>
<thead><tr>{% for head in heads %}<th scope="col">{{ head }}</th>{% endfor %}</tr></thead>
<tbody>{% for token, cells in rows %}
<tr><th scope="row">{{ token }}</th>{% for cell in cells %}<td>{{ cell }}</td>{% endfor %}</tr>{% endfor %}
</tbody></table>
"""


def text_view(comparison: TextComparison, *, is_edited: bool = True) -> View:
    """Return the view of a text: its tokens colored by the change of their log-probability, with both top lists.

    Parameters
    ----------
    comparison : TextComparison
        From `compare_text`.
    is_edited : bool
        Whether an edit is applied; without one, there is nothing to compare.

    Returns
    -------
    View
    """
    tokens = comparison.tokens
    tops = dict(iter(comparison.top.groupby(["position", "model"], sort=False)))
    largest = float(tokens["change"].abs().replace(math.inf, math.nan).max())
    data = {
        "edited": is_edited,
        "n": comparison.n_predicted,
        "scale": max(SMALLEST_SCALE, largest) if math.isfinite(largest) else SMALLEST_SCALE,
        "mean": [_number(comparison.mean_before), _number(comparison.mean_after)],
        "perplexity": [_number(comparison.perplexity_before), _number(comparison.perplexity_after)],
        "tokens": [
            {
                "text": row["token"],
                "before": _number(row["log_prob_before"]),
                "after": _number(row["log_prob_after"]),
                "top": [_top_of(tops.get((row["position"], model))) for model in ("before", "after")],
            }
            for row in tokens.to_dict("records")
        ],
    }
    return View("text", data, _fallback(comparison))


def _number(value: float, digits: int = 5) -> float | None:
    """Return a number that JSON can hold; None for one that is infinite or no number."""
    return float(f"{value:.{digits}g}") if math.isfinite(value) else None


def _top_of(rows: pd.DataFrame | None) -> list[list[Any]]:
    if rows is None:
        return []
    return [[token, _number(p)] for token, p in zip(rows["token"], rows["probability"], strict=True)]


def _fallback(comparison: TextComparison) -> Markup:
    tokens = comparison.tokens.dropna(subset="change")
    order = tokens["change"].abs().sort_values(ascending=False, kind="stable").index[:N_LISTED]
    rows = [
        (
            printable(row["token"]),
            [f"{row['log_prob_before']:.2f}", f"{row['log_prob_after']:.2f}", f"{row['change']:+.2f}"],
        )
        for row in tokens.loc[order].to_dict("records")
    ]
    caption = (
        f"Perplexity {comparison.perplexity_before:.4g} unedited, {comparison.perplexity_after:.4g} edited, over "
        f"{comparison.n_predicted} tokens; the {len(rows)} tokens whose log-probability changed most, in nats"
    )
    return render(_FALLBACK, caption=caption, heads=["Token", "Unedited", "Edited", "Change"], rows=rows)
