"""What all benchmarks use: the time of a call, the memory of the process, and a description of the machine's setup."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

import torch

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def timed(
    function: Callable[Parameters, Result], *args: Parameters.args, **kwargs: Parameters.kwargs
) -> tuple[float, Result]:
    """Return the wall time of one call in seconds, and its result."""
    start = time.perf_counter()
    result = function(*args, **kwargs)
    return time.perf_counter() - start, result


def status_bytes(field: str) -> int:
    """Return a size that Linux reports of this process, such as VmRSS (now) or VmHWM (the peak), in bytes."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{field}:")]
    return int(line.split()[1]) * 1024


def describe_setup() -> str:
    """Return the number of threads and the version of torch."""
    return f"{torch.get_num_threads()} threads, torch {torch.__version__}"
