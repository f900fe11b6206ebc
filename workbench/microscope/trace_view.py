"""Causal traces as a view: a heat map over tokens and layers for each kind of state."""

from collections.abc import Sequence

from workbench.errors import SpecError
from workbench.html import render
from workbench.interactive import View
from workbench.microscope.trace import Trace

_FALLBACK = """
<table class="wb-table"><caption>Largest indirect effect on P({{ answer }}) of each token, and its layer</caption>
<thead><tr><th scope="col">Token</th>{% for kind in kinds %}<th scope="col">{{ kind }}</th>{% endfor %}</tr></thead>
<tbody>
{% for token, best in rows %}
<tr><th scope="row">{{ token }}</th>{% for effect, layer in best %}<td>{{ "%+.1f"|format(100 * effect) }} % \
(layer {{ layer }})</td>{% endfor %}</tr>
{% endfor %}
</tbody></table>
"""


def trace_view(traces: Sequence[Trace], *, layer: int | None = None) -> View:
    """Return a view of the traces of one fact; a click on a cell sends its layer and position.

    Effects are rounded to 0.1 %.

    Parameters
    ----------
    traces : sequence of Trace
        Traces of the same prompt and answer, one per kind of state, with all tokens.
    layer : int, optional
        Layer that is marked, such as the one that the method edits.

    Returns
    -------
    View
        The view of the kind ``trace``.

    Raises
    ------
    SpecError
        If there is no trace, or the traces are of different prompts or answers.
    """
    if not traces:
        raise SpecError("there is no trace to show; give at least one.")
    first = traces[0]
    if any((trace.prompt, trace.answer) != (first.prompt, first.answer) for trace in traces):
        raise SpecError("the traces are of different prompts or answers; show those of one fact together.")
    kinds = [
        {
            "name": trace.settings.kind,
            "window": 1 if trace.settings.kind == "state" else trace.settings.window,
            "effects": [[round(1000 * effect) for effect in row] for row in trace.effects.tolist()],
            "clean": round(trace.clean, 4),
            "corrupted": round(trace.corrupted, 4),
        }
        for trace in traces
    ]
    data = {
        "tokens": list(first.tokens),
        "subject": [first.subject[0], first.subject[-1]],
        "answer": first.answer,
        "samples": first.settings.n_samples,
        "noise": first.settings.noise,
        "layer": layer,
        "kinds": kinds,
    }
    best = [trace.effects.max(dim=1) for trace in traces]
    rows = [
        (token, [(float(each.values[i]), int(each.indices[i])) for each in best])
        for i, token in enumerate(first.tokens)
    ]
    names = [trace.settings.kind for trace in traces]
    return View("trace", data, render(_FALLBACK, answer=first.answer.strip(), kinds=names, rows=rows))
