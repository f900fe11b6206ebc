"""Runs of a plan at the same time, each in a process of its own, in an order that leaves every figure as it would be."""

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from workbench.errors import RunError
from workbench.extras import require_extra
from workbench.figures.plan import PlannedRun

T = TypeVar("T")


def count_at_once() -> int:
    """Return how many notebooks run well at the same time here.

    One with a GPU, which they would share; without, one per core and 4 GiB of memory.

    Raises
    ------
    MissingExtraError
        If dask.distributed is not installed, which knows the memory of this machine.
    """
    require_extra("distributed", "cluster")
    import torch  # slow to import, like distributed, which is optional

    from workbench.experiment.cluster_names import AUTO
    from workbench.experiment.clusters import count_workers

    return 1 if torch.cuda.is_available() else count_workers(AUTO)


def run_at_once(
    runs: Sequence[PlannedRun], number: int, work: Callable[[PlannedRun], T], tell: Callable[[list[str]], None]
) -> Iterator[T]:
    """Yield what `work` returns for each run, as they end.

    A run whose notebook reads what is in the store waits for all before it, and all after it wait for it; so it finds
    what it would find if they ran one after another. A run also waits for those of the figures in `Entry.after`.

    Parameters
    ----------
    runs : sequence of PlannedRun
        The runs, in the order of the plan.
    number : int
        Largest number of processes.
    work : callable
        A function of a module, which the processes import.
    tell : callable
        Called with the figures that run, whenever these are others.

    Raises
    ------
    RunError
        If a process dies. This, or an error of `work`, lets the other runs that have begun come to their end.
    """
    waiting, going = list(runs), dict[Future[T], PlannedRun]()
    with ProcessPoolExecutor(number, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            while waiting or going:
                for run in _ready(waiting, list(going.values()))[: number - len(going)]:
                    waiting.remove(run)
                    going[pool.submit(work, run)] = run
                tell([run.entry.figure for run in going.values()])
                for future in wait(going, return_when=FIRST_COMPLETED).done:
                    del going[future]
                    yield future.result()
        except BrokenProcessPool as err:
            raise RunError("a process that runs notebooks died, often for lack of memory; run fewer at once.") from err
        except KeyboardInterrupt:
            for process in multiprocessing.active_children():
                process.terminate()
            raise


def _ready(waiting: Sequence[PlannedRun], going: Sequence[PlannedRun]) -> list[PlannedRun]:
    """Return the runs that wait for no other one."""
    ready = []
    for i, run in enumerate(waiting):
        earlier = [*going, *waiting[:i]]
        if run.entry.reads_store:
            is_ready = not earlier
        else:
            shared = {*run.entry.after}
            is_ready = not any(other.entry.reads_store or other.entry.figure in shared for other in earlier)
        if is_ready:
            ready.append(run)
    return ready
