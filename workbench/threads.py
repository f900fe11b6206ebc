"""How OpenMP's threads wait for one another, which is read from the environment when torch is imported."""

import os

# GNU's library, in PyTorch's wheels for Linux, counts turns of a loop, 10,000 in a few tenths of a millisecond; LLVM's
# and Intel's libraries count milliseconds
SHORT_WAIT = {"GOMP_SPINCOUNT": "10000", "KMP_BLOCKTIME": "1"}
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_OWN_POLICY = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")  # a user who sets one has chosen


def wait_policy() -> dict[str, str]:
    """Return the variables that let waiting threads soon sleep; none if the environment has a policy already.

    By default they spin for long. Beside other work on the same cores, a thread then spins while the thread that it
    waits for has no core, and everything is several times slower. Threads that sleep at once (OMP_WAIT_POLICY=PASSIVE)
    are slower where nothing else runs, since small matrices wait often and waking takes longer than the wait.
    """
    return {} if any(name in os.environ for name in _OWN_POLICY) else SHORT_WAIT


def set_wait_policy() -> None:
    """Set the policy for this process, which must not have imported torch yet, and for those that it starts."""
    os.environ.update(wait_policy())


def share_of_cores(processes: int) -> dict[str, str]:
    """Return the variables that give each of several processes threads for its share of the cores, at least one."""
    return dict.fromkeys(_THREADS, str(max(1, usable_cores() // processes)))


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
