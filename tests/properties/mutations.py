"""Strategies: values that no field means, and files that somebody or something has damaged."""

import datetime
import json
from typing import Any

from hypothesis import strategies as st

ODD_NUMBERS = [float("nan"), float("inf"), -float("inf"), -1, 0, 2**64, -(2**64), 1e308, 2**1100, 0.5]
ODD_TEXTS = [
    "",
    " ",
    "nan",
    "-1",
    "²",
    "../../evil",
    "/etc/passwd",
    "~nobody/x",
    "a\nb",
    "é",
    "x" * 5000,
    "{}",
    "[",
    "'",
]
ODD_OTHERS = [None, True, False, [], {}, [None], {"a": 1}, b"x", datetime.date(2020, 1, 1)]

numbers = st.one_of(st.sampled_from(ODD_NUMBERS), st.integers(), st.floats())
texts = st.one_of(st.sampled_from(ODD_TEXTS), st.text(max_size=20))
anything = st.one_of(numbers, texts, st.sampled_from(ODD_OTHERS))
in_json = st.one_of(
    st.sampled_from(ODD_NUMBERS[:-2]), texts, st.sampled_from([None, True, [], {}, [None], {"a": 1}, [[1]]])
)


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """Return a file with a part cut off, removed, repeated, overwritten or flipped, or another file."""
    start = draw(st.integers(0, max(0, len(content) - 1)))
    end = draw(st.integers(start, min(len(content), start + 200)))
    kind = draw(st.sampled_from(["cut", "remove", "repeat", "overwrite", "flip", "other"]))
    if kind == "cut":
        return content[:start]
    if kind == "remove":
        return content[:start] + content[end:]
    if kind == "repeat":
        return content[:end] + content[start:]
    if kind == "overwrite":
        return content[:start] + draw(st.binary(min_size=1, max_size=20)) + content[end:]
    if kind == "flip":
        return content[:start] + bytes([content[start] ^ (1 << draw(st.integers(0, 7)))]) + content[start + 1 :]
    return draw(st.sampled_from([b"", b"\0" * 50, bytes(range(256)), b"[]", b"null", b"[" * 10_000, b"\xff\xfe{"]))


@st.composite
def changed_value(draw: st.DrawFn, value: Any) -> Any:
    """Return a JSON value in which one part, at any depth, is missing or has become something else."""
    value = json.loads(json.dumps(value))
    holder, key, inner = None, None, value
    while isinstance(inner, dict | list) and inner and (holder is None or draw(st.integers(0, 3))):
        keys = list(inner) if isinstance(inner, dict) else list(range(len(inner)))
        holder, key = inner, draw(st.sampled_from(keys))
        inner = holder[key]
    if holder is None:
        return draw(in_json)
    if draw(st.booleans()):
        holder[key] = draw(in_json)
    else:
        del holder[key]
    return value
