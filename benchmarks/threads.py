"""Seconds of an edit by the number of threads and how they wait, alone and beside other work, and edits per minute.

    python -m benchmarks.threads [--edits 5] [--busy 2]

Processes with 1 thread or with one per core, which wait as the library does by default, as the workbench sets it, or
not at all (OMP_WAIT_POLICY=PASSIVE), edit the same facts by ROME. They take turns, so that a drift of the machine's
speed affects all: each fact is edited by one after another, alone and beside processes that keep cores busy. Ratios are
to the default with a thread per core, of the same fact, in the same place. What the workbench sets should cost nothing
alone, and be close to the fastest beside other work. Last come edits per minute of one process with all cores against
one process per core with one thread each, as `workbench run --jobs auto` starts them, also by turns.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager

from workbench.threads import SHORT_WAIT, usable_cores

BUSY = "while True: pass"
WORK = """
import sys
import workbench as wb
from benchmarks.timing import timed
lm = wb.load("smollm2-135m")
rome = wb.ROME.for_model(lm).prepared(lm)
requests = wb.load_facts().requests
for line in sys.stdin:
    seconds, _ = timed(rome.compute_update, lm, [requests[int(line)]])
    print(seconds, flush=True)
"""


class Worker:
    """A process that edits facts on request, with a number of threads and a policy of its own."""

    def __init__(self, threads: int, policy: dict[str, str]) -> None:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
        env = {**inherited, "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1", **policy}
        command, pipes = [sys.executable, "-c", WORK], {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.process = subprocess.Popen(command, env=env, text=True, **pipes)

    def begin(self, fact: int) -> None:
        """Let it edit a fact."""
        print(fact, file=self.process.stdin, flush=True)

    def end(self) -> float:
        """Wait for the edit; return its seconds."""
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"a process that edits ended with exit code {self.process.wait()}.")
        return float(line)

    def edit(self, fact: int) -> float:
        """Return the seconds of an edit."""
        self.begin(fact)
        return self.end()


@contextmanager
def busy_processes(number: int):
    """Keep cores busy inside the ``with`` block."""
    with ExitStack() as stack:
        for _ in range(number):
            process = stack.enter_context(subprocess.Popen([sys.executable, "-c", BUSY]))
            stack.callback(process.kill)
        yield


def spread(values: list[float], digits: int) -> str:
    """Return median, smallest and largest."""
    return "{:.{d}f} ({:.{d}f} to {:.{d}f})".format(statistics.median(values), min(values), max(values), d=digits)


def main() -> int:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--edits", type=int, default=5)
    parser.add_argument("--busy", type=int, default=2)
    args = parser.parse_args()

    cores = usable_cores()
    print(f"{cores} cores, load {os.getloadavg()[0]:.1f} at the start, {time.strftime('%Y-%m-%d')}", flush=True)
    baseline, ours, single = f"{cores} threads, default", f"{cores} threads, short wait", "1 thread"
    workers = {
        baseline: Worker(cores, {}),
        ours: Worker(cores, SHORT_WAIT),
        f"{cores} threads, passive": Worker(cores, {"OMP_WAIT_POLICY": "PASSIVE"}),
        single: Worker(1, SHORT_WAIT),
    }
    others = [Worker(1, SHORT_WAIT) for _ in range(cores - 1)]
    for worker in (*workers.values(), *others):
        worker.edit(0)  # warms up
    seconds: dict[tuple[str, int], list[float]] = {}
    together, by_one = [], []
    for fact in range(1, args.edits + 1):
        for busy in (0, args.busy):
            for name, worker in workers.items():
                with busy_processes(busy):
                    seconds.setdefault((name, busy), []).append(worker.edit(fact))
        for worker in (workers[single], *others):
            worker.begin(fact)
        together.append(60 * cores / max(worker.end() for worker in (workers[single], *others)))
        by_one.append(60 / workers[ours].edit(fact))
    print("s per ROME edit, and ratio to the default: median (smallest to largest)")
    for (name, busy), taken in seconds.items():
        ratios = [mine / theirs for mine, theirs in zip(taken, seconds[baseline, busy], strict=True)]
        print(f"{name:22s} beside {busy} busy: {spread(taken, 1):24s} ratio {spread(ratios, 2)}")
    print("edits per minute")
    print(f" 1 process of {cores} threads: {spread(by_one, 1)}")
    gains = [many / one for many, one in zip(together, by_one, strict=True)]
    print(f" {cores} processes of 1 thread: {spread(together, 1)}, ratio {spread(gains, 2)}")
    for worker in (*workers.values(), *others):
        worker.process.kill()
    return 0


if __name__ == "__main__":
    sys.exit(main())
