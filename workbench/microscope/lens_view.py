"""The logit lens as a view: a grid of layers and tokens, and the answers' probabilities through the layers."""

import math
from typing import Any

from workbench.html import render
from workbench.interactive import View
from workbench.microscope.lens import LensReading, check_comparable

TOP = 30  # tokens of each state to read for a view, so that a pinned token is found in other cells
_ALWAYS = 5  # tokens listed in each cell; others from this probability on
_LISTED = 0.01
_FALLBACK = """
<table class="wb-table"><caption>What the state of the last token predicts after each layer</caption>
<thead><tr><th scope="col">Layer</th>{% for side in sides %}<th scope="col">{{ side }}</th>{% endfor %}</tr></thead>
<tbody>
{% for layer, tops in rows %}
<tr><th scope="row">{{ layer }}</th>{% for word, p in tops %}<td>{{ word }} ({{ "%.1f"|format(100 * p) }} %)</td>\
{% endfor %}</tr>
{% endfor %}
</tbody></table>
"""


def lens_view(before: LensReading, after: LensReading | None = None) -> View:
    """Return a view of one reading, or of two with their difference.

    Each cell lists its five most probable tokens and all from 1 % on among those that were read. Probabilities are
    rounded to 0.1 %, those of the watched tokens to 0.01 powers of ten.

    Parameters
    ----------
    before : LensReading
        The unedited model's, read with `TOP` tokens.
    after : LensReading, optional
        The edited model's; None without edits.

    Returns
    -------
    View
        The view of the kind ``lens``.

    Raises
    ------
    RequestError
        If the readings are not of the same text with the same watched tokens.
    """
    readings = {"before": before}
    if after is not None and after is not before:
        check_comparable(before, after)
        readings["after"] = after
    words: dict[str, int] = {}
    labels = _labels(before)
    sides = [
        {"name": name, "cells": _list_cells(reading, words), "watched": _list_watched(reading, list(labels))}
        for name, reading in readings.items()
    ]
    watched = [
        {"label": label, "word": words.setdefault(before.words[before.watched[first]], len(words))}
        for first, label in labels.items()
    ]
    data: dict[str, Any] = {
        "tokens": list(before.tokens),
        "layers": list(before.layers),
        "watched": watched,
        "sides": sides,
    }
    return View("lens", {**data, "words": list(words)}, _fallback(readings))


def _list_cells(reading: LensReading, words: dict[str, int]) -> list[list[int]]:
    """Per state, layer by layer, its tokens in descending order: index into `words`, and tenths of a percent."""
    cells = []
    ids, probabilities = reading.top_ids.flatten(0, 1).tolist(), reading.top_probabilities.flatten(0, 1).tolist()
    for of_ids, of_probabilities in zip(ids, probabilities, strict=True):
        cell: dict[int, float] = {}  # several tokens may be written in the same way
        for rank, (token, probability) in enumerate(zip(of_ids, of_probabilities, strict=True)):
            if rank < _ALWAYS or probability >= _LISTED:
                word = words.setdefault(reading.words[token], len(words))
                cell[word] = cell.get(word, 0.0) + probability
        cells.append([number for word, p in cell.items() for number in (word, round(1000 * p))])
    return cells


def _labels(reading: LensReading) -> dict[str, str]:
    """One label for each watched token, by the first of its labels: the true answer may be the model's own."""
    of_token: dict[int, list[str]] = {}
    for label, token in reading.watched.items():
        of_token.setdefault(token, []).append(label)
    return {labels[0]: ", ".join(labels) for labels in of_token.values()}


def _list_watched(reading: LensReading, labels: list[str]) -> list[list[float]]:
    """Per label, the decimal logarithm of its token's probability at each state, layer by layer."""
    columns = [list(reading.watched).index(label) for label in labels]
    logs = reading.log_probs[..., columns].flatten(0, 1).double() / math.log(10)
    return [[round(value, 2) for value in column] for column in logs.T.tolist()]


def _fallback(readings: dict[str, LensReading]) -> Any:
    [first, *_] = readings.values()
    rows = []
    for row, layer in reversed(list(enumerate(first.layers))):
        tops = [
            (reading.words[int(reading.top_ids[row, -1, 0])], float(reading.top_probabilities[row, -1, 0]))
            for reading in readings.values()
        ]
        rows.append(("embedding" if layer < 0 else layer, tops))
    return render(_FALLBACK, sides=list(readings), rows=rows)
