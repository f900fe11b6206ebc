"""The view of schemes side by side."""

import math
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from workbench.html import render
from workbench.interactive import View
from workbench.microscope.schemes import METRICS, SchemeResult, scheme_table
from workbench.printable import printable

_TITLES = {"reliability": "Reliability", "generalization": "Rephrasings", "locality": "Locality"}
_FALLBACK = """
<table class="wb-table"><caption>{{ caption }}</caption>
<thead><tr>{% for head in heads %}<th scope="col">{{ head }}</th>{% endfor %}</tr></thead>
<tbody>{% for head, cells in rows %}
<tr><th scope="row">{{ head }}</th>{% for cell in cells %}<td>{{ cell }}</td>{% endfor %}</tr>{% endfor %}
</tbody></table>
"""


def scheme_view(results: Sequence[SchemeResult], *, is_stale: bool = False) -> View:
    """Return the view of schemes: a table that can be sorted, with a button per row that makes its edit.

    Parameters
    ----------
    results : sequence of SchemeResult
        From `compare_schemes`; at least one.
    is_stale : bool
        Whether the edits have changed since, so that no row can be used.

    Returns
    -------
    View
        Its gesture is ``{"row": index of the result}``.
    """
    request = results[0].request
    rows = [_row(values) for values in scheme_table(results).to_dict("records")]
    data = {"fact": request.filled_prompt, "target": request.target_new.strip(), "stale": is_stale, "rows": rows}
    return View("schemes", data, _fallback(data))


def _row(values: dict[Any, Any]) -> dict[str, Any]:
    texts = ("method", "settings", "regularizer", "accumulated", "answer", "risk", "error")
    numbers = [*METRICS, *(f"{metric}_forced" for metric in METRICS), "kl", "norm", "relative_norm", "seconds"]
    row = {name: values[name] for name in texts} | {"shared": bool(values["is_shared"])}
    for name in numbers:
        is_known = math.isfinite(values[name]) and not values["error"]
        row[name] = float(f"{values[name]:.4g}") if is_known else None
    return row


def _fallback(data: dict[str, Any]) -> Markup:
    heads = ["Scheme", "Answer", *_TITLES.values(), "KL", "‖ΔW‖/‖W‖", "Risk", "Seconds"]
    rows = []
    for row in data["rows"]:
        scheme = ", ".join(filter(None, [row["method"], row["settings"], row["regularizer"]]))
        if row["error"]:
            rows.append((scheme, [row["error"], *[""] * (len(heads) - 2)]))
            continue
        numbers = [_text(row[name]) for name in (*METRICS, "kl", "relative_norm")]
        rows.append((scheme, [printable(row["answer"]), *numbers, row["risk"], _text(row["seconds"])]))
    return render(_FALLBACK, caption=f"{data['fact']} … {data['target']}", heads=heads, rows=rows)


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"
