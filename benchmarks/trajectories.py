"""What resolving, scheduling and storing cost per trajectory, beside the edits and measurements themselves.

    python -m benchmarks.trajectories [--trajectories 10000] [--workers 2]

Each trajectory edits one fact of its own draw by one step of FT on a tiny random model; there are no tasks. The
baseline is the same edits, assessments and scores in a plain loop that keeps nothing, in the same run. What is above it
is overhead: `wb.run` in this process, again when all is stored, and on a Dask cluster, whose seconds count once for
each of its processes. Limit: 20 ms a trajectory.
"""

import argparse
import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path

import workbench as wb
from benchmarks.timing import describe_setup, timed
from tests.tiny_models import build_tiny_lm, save_tiny_lm
from workbench.experiment.grids import grid
from workbench.experiment.resolved import ResolvedRun, resolve_all
from workbench.experiment.runner import run

PLAIN = 200  # trajectories of the plain loop
MOST_MILLISECONDS = 20


def specs_of(model: str, number: int) -> list[wb.ExperimentSpec]:
    """Return trajectories that differ in their seed, which draws the fact."""
    settings = {"layers": [1], "num_steps": 1, "norm_constraint": None}
    base = wb.ExperimentSpec(
        model=model,
        method="ft",
        hyperparameters=settings,
        n_operations=1,
        tasks=None,
        perplexity=None,
        edit_protocols=("teacher_forced",),
    )
    return grid(base, {"seed": range(number)})


def edit_plainly(lm: wb.LanguageModel, runs: Sequence[ResolvedRun]) -> None:
    """Do what the trajectories do, and keep nothing."""
    for each in runs:
        editor = each.prepare_editor(lm)
        wb.score_edits(lm, each.requests, protocols=each.spec.edit_protocols)
        update = editor.compute_update(lm, each.requests)
        wb.assess(update, lm)
        with update.applied(lm):
            wb.score_edits(lm, each.requests, protocols=each.spec.edit_protocols)
        wb.weight_change(update, lm)


def main() -> None:
    """Print milliseconds per trajectory."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trajectories", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    logging.getLogger("distributed").setLevel(logging.ERROR)

    with tempfile.TemporaryDirectory() as folder:
        model = save_tiny_lm(build_tiny_lm("llama"), Path(folder, "tiny"))
        specs, n = specs_of(model, args.trajectories), args.trajectories
        print(f"{n} trajectories, {describe_setup()}; ms per trajectory")
        plain = 1000 * timed(edit_plainly, wb.load(model), resolve_all(specs[:PLAIN]))[0] / min(n, PLAIN)
        print(f"plain loop of {min(n, PLAIN)}: {plain:.1f}", flush=True)
        here, cluster = Path(folder, "here"), f"local:{args.workers}"
        for name, times, store, where in (
            ("run, in this process", 1, here, None),
            ("run again, from the store", 0, here, None),
            (f"run, on {args.workers} processes", args.workers, Path(folder, "cluster"), cluster),
        ):
            seconds, _ = timed(run, specs, store=store, cluster=where)
            above = 1000 * seconds * max(times, 1) / n - plain * bool(times)
            print(f"{name}: {seconds:.0f} s; overhead {above:.1f} (limit {MOST_MILLISECONDS})", flush=True)


if __name__ == "__main__":
    main()
