"""How OpenMP's threads wait for one another, which is read from the environment when torch is imported."""

import os

PASSIVE = {"OMP_WAIT_POLICY": "PASSIVE"}
_OWN_POLICY = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")  # a user who sets one has chosen


def wait_policy() -> dict[str, str]:
    """Return the variables to set so that waiting threads sleep; none if the environment has a policy already.

    By default they spin for a while. Beside other work on the same cores, a thread then spins while the thread that it
    waits for has no core, and everything is many times slower.
    """
    return {} if any(name in os.environ for name in _OWN_POLICY) else PASSIVE


def set_wait_policy() -> None:
    """Set the policy for this process, which must not have imported torch yet, and for those that it starts."""
    os.environ.update(wait_policy())


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
