"""The cache folder, and values that are computed only where they are missing."""

from pathlib import Path

import platformdirs
import pytest

from workbench.memo import BoundedCache
from workbench.storage.cache import cache_dir, compute_missing


def test_the_cache_is_where_the_environment_says_else_where_the_user_keeps_caches(monkeypatch):
    monkeypatch.setenv("WORKBENCH_CACHE", "/somewhere")
    assert cache_dir() == Path("/somewhere")
    for unset in (lambda: monkeypatch.setenv("WORKBENCH_CACHE", ""), lambda: monkeypatch.delenv("WORKBENCH_CACHE")):
        unset()
        assert cache_dir() == Path(platformdirs.user_cache_dir("workbench"))


@pytest.fixture
def calls():
    """Give a list that records what `squares` was asked for."""
    return []


@pytest.fixture
def squares(calls):
    """Give a function that computes squares and records its calls."""

    def compute(missing):
        calls.append(missing)
        return [n * n for n in missing]

    return compute


def test_values_are_in_the_order_of_the_keys_and_each_missing_one_is_computed_once(squares, calls):
    known = {3: 9}
    assert compute_missing(known, [2, 3, 5, 2], squares) == [4, 9, 25, 4]
    assert calls == [[2, 5]]
    assert known == {3: 9, 2: 4, 5: 25}


def test_nothing_is_computed_where_nothing_is_missing(squares, calls):
    assert compute_missing({3: 9}, [3, 3], squares) == [9, 9]
    assert compute_missing({}, [], squares) == []
    assert not calls


def test_a_bounded_cache_may_drop_entries_meanwhile(squares):
    known = BoundedCache(2)
    known[1] = 1
    assert compute_missing(known, [1, 2, 3, 4], squares) == [1, 4, 9, 16]
    assert len(known) == 2


def test_another_number_of_values_than_of_keys_is_an_error():
    with pytest.raises(ValueError, match="zip"):
        compute_missing({}, [1, 2], lambda missing: [1])
