"""Seconds of an edit by the number of threads and how they wait, alone and beside other work, and edits per minute.

    python -m benchmarks.threads [--edits 5] [--busy 2]

First table: ROME edits in a process of their own for each number of threads (1 and all cores) and each wait policy
(the library's default, OMP_WAIT_POLICY=PASSIVE, GOMP_SPINCOUNT=1000), alone and beside processes that keep cores busy.
The workbench sets PASSIVE: alone it should cost nothing, beside other work it should be the fastest or close to it.
Second table: edits per minute of one process with all cores against one process per core with one thread each, as
`workbench run --jobs auto` starts them. The baseline of both tables is in the same run. Run it on a quiet machine: it
makes its own noise.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager

from workbench.threads import PASSIVE, usable_cores

POLICIES: dict[str, dict[str, str]] = {"default": {}, "passive": PASSIVE, "spincount 1000": {"GOMP_SPINCOUNT": "1000"}}
BUSY = "while True: pass"

# prints the seconds of each edit after the first, which also compiles and warms up
WORK = """
import sys
import workbench as wb
from benchmarks.timing import timed
lm = wb.load("smollm2-135m")
rome = wb.ROME.for_model(lm).prepared(lm)
requests = wb.load_facts().requests
for i in range(int(sys.argv[1]) + 1):
    seconds, _ = timed(rome.compute_update, lm, [requests[i]])
    if i:
        print(seconds, flush=True)
"""


def start(edits: int, threads: int, policy: dict[str, str]) -> subprocess.Popen[str]:
    """Start a process that edits, with this number of threads and this policy alone."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    env = {**inherited, "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1", **policy}
    return subprocess.Popen([sys.executable, "-c", WORK, str(edits)], env=env, stdout=subprocess.PIPE, text=True)


def seconds_of(process: subprocess.Popen[str]) -> list[float]:
    """Return the seconds of each edit of a process, when it has ended."""
    output, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"an editing process failed with exit code {process.returncode}")
    return [float(line) for line in output.split()]


@contextmanager
def busy_processes(number: int):
    """Keep cores busy inside the ``with`` block."""
    with ExitStack() as stack:
        for _ in range(number):
            process = stack.enter_context(subprocess.Popen([sys.executable, "-c", BUSY]))
            stack.callback(process.kill)
        yield


def edits_per_minute(processes: int, threads: int, edits: int) -> float:
    """Return the throughput of some processes side by side, without the time in which they load."""
    running = [start(edits, threads, PASSIVE) for _ in range(processes)]
    slowest = max(sum(seconds_of(process)) for process in running)
    return 60 * processes * edits / slowest


def main() -> int:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--edits", type=int, default=5)
    parser.add_argument("--busy", type=int, default=2)
    args = parser.parse_args()

    cores = usable_cores()
    print(f"{cores} cores, load {os.getloadavg()[0]:.1f} at the start, {time.strftime('%Y-%m-%d')}; s per ROME edit")
    for threads in sorted({1, cores}):
        for name, policy in POLICIES.items():
            for busy in (0, args.busy):
                with busy_processes(busy):
                    seconds = seconds_of(start(args.edits, threads, policy))
                median, low, high = statistics.median(seconds), min(seconds), max(seconds)
                print(f"{threads:2d} threads, {name:15s} beside {busy} busy: {median:6.2f} ({low:.2f} to {high:.2f})")
    print("edits per minute")
    for processes, threads in ((1, cores), (cores, 1)):
        rate = edits_per_minute(processes, threads, args.edits)
        print(f"{processes:2d} processes of {threads} threads: {rate:6.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
