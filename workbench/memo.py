"""Memo: results that are worth keeping, up to a number of them."""

from collections import OrderedDict
from collections.abc import Iterator, MutableMapping
from typing import Any, TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")

MEMO_ENTRIES = 4096  # per section; an entry is an answer, a context set or a digest, rarely a matrix


class BoundedCache(MutableMapping[Key, Value]):
    """A mapping that drops the entry used least recently once it holds more than `max_entries`.

    Parameters
    ----------
    max_entries : int
        Largest number of entries.
    """

    def __init__(self, max_entries: int = MEMO_ENTRIES) -> None:
        self._entries: OrderedDict[Key, Value] = OrderedDict()
        self._max_entries = max_entries

    def __getitem__(self, key: Key) -> Value:
        self._entries.move_to_end(key)
        return self._entries[key]

    def __setitem__(self, key: Key, value: Value) -> None:
        self._entries[key] = value
        self._entries.move_to_end(key)
        if len(self._entries) > self._max_entries:
            self._entries.popitem(last=False)

    def __delitem__(self, key: Key) -> None:
        del self._entries[key]

    def __iter__(self) -> Iterator[Key]:
        return iter(list(self._entries))

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: object) -> bool:
        return key in self._entries


class Memo:
    """Results of the unedited model that are worth keeping, in sections: answers, context templates, second moments."""

    def __init__(self) -> None:
        self._sections: dict[str, BoundedCache[Any, Any]] = {}

    def section(self, name: str, max_entries: int = MEMO_ENTRIES) -> BoundedCache[Any, Any]:
        """Return the results kept under `name`; on the first call, an empty section for at most `max_entries`."""
        return self._sections.setdefault(name, BoundedCache(max_entries))

    def clear(self) -> None:
        """Drop all results."""
        self._sections.clear()
