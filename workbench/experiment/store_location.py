"""Where and how experiments run by default, from environment variables; imports nothing that takes long."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from workbench.threads import share_of_cores, wait_policy

STORE_VARIABLE = "WORKBENCH_STORE"
CLUSTER_VARIABLE = "WORKBENCH_CLUSTER"
STORED_ONLY_VARIABLE = "WORKBENCH_STORED_ONLY"
DEFAULT_STORE = "build/store"


def default_store() -> str:
    """Return the value of the environment variable WORKBENCH_STORE, or ``build/store`` in the working folder."""
    return own_store() or DEFAULT_STORE


def own_store() -> str | None:
    """Return the value of the environment variable WORKBENCH_STORE; None if it is not set."""
    return os.environ.get(STORE_VARIABLE) or None


def default_cluster() -> str | None:
    """Return the value of the environment variable WORKBENCH_CLUSTER; None for this process."""
    return os.environ.get(CLUSTER_VARIABLE) or None


def stored_only() -> bool:
    """Return whether experiments are only read, not run: the environment variable WORKBENCH_STORED_ONLY is set."""
    return bool(os.environ.get(STORED_ONLY_VARIABLE))


@contextmanager
def experiments_of_children(
    store: str, *, cluster: str | None = None, stored_only: bool = False, processes: int = 1
) -> Iterator[None]:
    """Set how processes started in the ``with`` block run experiments, and how their threads wait.

    Parameters
    ----------
    store : str
        Their default store.
    cluster : str, optional
        Cluster that they run on, as for `workbench.run`; by default that of this process.
    stored_only : bool
        Whether `workbench.run` only reads what the store holds.
    processes : int
        Number of them that run at the same time. If it is more than one, each has threads for its share of the cores,
        unless the environment says how many.
    """
    wanted = {STORE_VARIABLE: store, CLUSTER_VARIABLE: cluster, STORED_ONLY_VARIABLE: "1" if stored_only else None}
    given = {name: value for name, value in wanted.items() if value is not None} | wait_policy()
    if processes > 1:
        given |= {name: number for name, number in share_of_cores(processes).items() if name not in os.environ}
    before = {name: os.environ.get(name) for name in given}
    _set_environment(given)
    try:
        yield
    finally:
        _set_environment(before)


def _set_environment(values: Mapping[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
