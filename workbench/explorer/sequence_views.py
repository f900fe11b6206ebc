"""The views of a sequence of edits: its timeline, its health, its spectrum."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from markupsafe import Markup

from workbench.html import render
from workbench.interactive import View
from workbench.microscope.find_drop import NOTE, Drop
from workbench.microscope.spectrum import BEFORE, Spectra
from workbench.microscope.timeline import Measured, Timeline
from workbench.request import EditRequest

_TABLE = """
<div class="wb-scroll"><table class="wb-table wb-numbers"><caption>{{ caption }}</caption>
<thead><tr>{% for head in heads %}<th scope="col">{{ head }}</th>{% endfor %}</tr></thead>
<tbody>
{% for cells in rows %}
<tr>{% for cell in cells %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}
</tbody></table></div>
"""
_DROP = """
<div class="wb-note" role="status">{% if drop is none %}It has not fallen after the last edit.{% else %}
<b>Edit {{ drop.edit }}</b> ({{ name }}): before it this had not fallen, after it it had
{%- if not drop.lasts %}, but one edit later it had recovered{% endif %}.
Measured after {{ drop.looked_at|join(", ") }} edits. {{ note }}{% endif %}</div>
"""


def timeline_view(timeline: Timeline, current: int, *, drop: Drop | None = None) -> View:
    """Return the timeline with all states that have been measured.

    Parameters
    ----------
    timeline : Timeline
        The timeline.
    current : int
        Number of edits that is shown first.
    drop : Drop, optional
        Edit that is marked.

    Returns
    -------
    View
    """
    edits = [_describe(requests) for requests in timeline.requests]
    states = {str(t): _state(each, timeline.abilities.get(t)) for t, each in sorted(timeline.measured.items())}
    marks = [] if drop is None else [[drop.edit, f"the edit after which this fell: {edits[drop.edit - 1]['subject']}"]]
    rows = [(t, *(format_number(state[name]) for name in ("factor", "kl", "norm"))) for t, state in states.items()]
    fallback = render_table("States", ("edits", "perplexity / unedited", "KL", "‖W − W₀‖"), rows)
    return View("timeline", {"edits": edits, "states": states, "current": current, "marks": marks}, fallback)


def health_view(
    health: pd.DataFrame, jumps: pd.DataFrame, retention: pd.DataFrame, facts: Sequence[EditRequest]
) -> View:
    """Return the health strip and the retention matrix.

    Parameters
    ----------
    health, jumps, retention : DataFrame
        Tables of `follow_health`, `find_jumps` and `retention_matrix`.
    facts : sequence of EditRequest
        The facts in the rows of the matrix.

    Returns
    -------
    View
    """
    columns = ["edits", "factor", "locality", "reliability", "kl"]
    series = [
        {
            "name": str(name),
            "rows": [dict(zip(columns, map(finite, row), strict=True)) for row in part[columns].to_numpy()],
        }
        for name, part in health.groupby("series", sort=False)
    ]
    found = jumps[jumps["jumps"]]
    marks = [
        [edit, f"{edit} {subject} (‖ΔW‖ {format_number(times)} times the median)"]
        for edit, subject, times in zip(
            *(found[name].tolist() for name in ("edit", "subject", "times_median")), strict=True
        )
    ]
    values = [[finite(value) for value in row] for row in retention.to_numpy()]
    matrix = {"facts": [fact.name for fact in facts], "edits": list(map(int, retention.columns)), "values": values}
    heads = ("edits", "sum", "perplexity / unedited", "locality", "reliability")
    numbers = health[["factor", "locality", "reliability"]].to_numpy(dtype=float)
    places = zip(health["edits"], health["series"], numbers, strict=True)
    rows = [(edits, name, *map(format_number, each)) for edits, name, each in places]
    data = {"series": series, "jumps": marks, "retention": matrix}
    return View("health", data, render_table("Health after each edit", heads, rows))


def spectrum_view(spectra: Spectra) -> View:
    """Return the singular values of W₀, W_t and ΔW on two log axes."""
    named = {
        str(matrix) if matrix == BEFORE else f"{matrix}, {label}": part
        for (matrix, label), part in spectra.table.groupby(["matrix", "version"], sort=False)
    }
    series = [
        {
            "name": name,
            "points": [list(pair) for pair in zip(part["index"].tolist(), part["value"].tolist(), strict=True)],
        }
        for name, part in named.items()
    ]
    rows = [(name, *map(format_number, part["value"].tolist()[:4])) for name, part in named.items()]
    fallback = render_table(f"Singular values of {spectra.parameter}", ("matrix", "σ₁", "σ₂", "σ₃", "σ₄"), rows)
    axes = {"x": {"label": "index", "log": True}, "y": {"label": "singular value", "log": True}}
    data = {"label": f"Singular values of {spectra.parameter}", "key": "spectrum", "series": series, **axes}
    return View("curves", data, fallback)


def render_drop(drop: Drop | None, timeline: Timeline) -> Markup:
    """Return what the search for a drop found, with what bisection cannot say."""
    name = "" if drop is None else ", ".join(request.name for request in timeline.requests[drop.edit - 1])
    return render(_DROP, drop=drop, name=name, note=NOTE)


def render_scores(before: pd.DataFrame, after: pd.DataFrame | None, label: str) -> Markup:
    """Return the scores of the sum as computed, and of the regularized one beside it, as a table.

    Parameters
    ----------
    before, after : DataFrame
        Tables of `score_sum`; `after` is None without a regularizer.
    label : str
        Name of the regularizer.

    Returns
    -------
    Markup
    """
    columns = [
        dict(zip(table["metric"], table["value"], strict=True)) for table in (before, after) if table is not None
    ]
    rows = [(_SCORES[name], *(format_number(column[name]) for column in columns)) for name in columns[0]]
    heads = ("Score", "as computed", label)[: 1 + len(columns)]
    return render_table("The facts, and the model on other text", heads, rows)


_SCORES = {
    "reliability": "reliability",
    "generalization": "rephrasings",
    "locality": "locality",
    "perplexity": "perplexity / unedited",
    "kl": "KL, nats per token",
    "norm": "‖W − W₀‖",
}


def render_table(caption: str, heads: Sequence[str], rows: Sequence[Sequence[object]]) -> Markup:
    """Return numbers as a table."""
    return render(_TABLE, caption=caption, heads=heads, rows=rows)


def format_number(value: float | None) -> str:
    """Return a number with three digits; a dash for none."""
    return "–" if value is None or math.isnan(value) else f"{value:.3g}"


def finite(value: float) -> float | None:
    """Return a number that JSON can hold: None in place of NaN and infinity."""
    return float(value) if math.isfinite(value) else None


def _describe(requests: Sequence[EditRequest]) -> Mapping[str, str]:
    first = requests[0]
    more = f" and {len(requests) - 1} more" if len(requests) > 1 else ""
    return {"subject": first.name + more, "prompt": first.filled_prompt, "answer": first.target_new}


def _state(measured: Measured, abilities: float | None) -> dict[str, Any]:
    return {
        "factor": finite(measured.held_out.factor),
        "kl": finite(measured.held_out.kl),
        "norm": finite(measured.norm),
        "ratio": finite(measured.spectral_ratio),
        "facts": [list(pair) for pair in zip(measured.reliability, measured.answers, strict=True)],
        "abilities": None if abilities is None else finite(abilities),
    }
