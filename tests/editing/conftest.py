"""Fixtures of the tests of methods."""

import pytest


@pytest.fixture(scope="module")
def cache_of_this_module(tmp_path_factory):
    """Keep second moments of tiny models out of the user's cache, computed once for all tests of a module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORKBENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
