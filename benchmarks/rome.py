"""Time of a ROME edit, against the plain implementation in the same run.

    python -m benchmarks.rome [--model smollm2-135m] [--edits 10] [--one-by-one 1]

All compute the same ΔW from the same contexts and take turns, edit by edit, so that a drift of the machine's speed
affects all. Both baselines run a full forward pass of every prompt at every step: the prompts of a step in one
padded batch, as in the published code, and, for the first few edits, one prompt after another.
"""

import argparse
import statistics

import workbench as wb
from benchmarks.timing import describe_setup, timed
from tests.references.plain_rome import plain_rome


def main() -> None:
    """Time all edits and print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--edits", type=int, default=10)
    parser.add_argument("--one-by-one", type=int, default=1, help="number of edits that the slowest baseline computes")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    lm = wb.load(args.model)
    rome = wb.ROME.for_model(lm).prepared(lm)
    warm_up, *requests = wb.load_facts().sample(args.edits + 1, seed=args.seed)
    rome.compute_update(lm, [warm_up])
    print(f"{lm.name}, layer {rome.layer}, {len(rome.contexts)} contexts, {describe_setup()}")
    rows = [time_edit(lm, rome, request, slowest=i < args.one_by_one) for i, request in enumerate(requests)]
    print(f"\n{'median':>18} {'edits':>5} {'seconds':>8} {'ratio':>6} {'from':>6} {'to':>6}")
    for name in ("workbench", "plain, one batch", "plain, one by one"):
        seconds = [row[name] for row in rows if name in row]
        if not seconds:
            continue
        ratios = [row[name] / row["workbench"] for row in rows if name in row]
        medians = f"{len(seconds):5d} {statistics.median(seconds):8.2f} {statistics.median(ratios):6.2f}"
        print(f"{name:>18} {medians} {min(ratios):6.2f} {max(ratios):6.2f}")


def time_edit(lm: wb.LanguageModel, rome: wb.ROME, request: wb.EditRequest, *, slowest: bool) -> dict[str, float]:
    """Return the seconds of each implementation for one edit; print them and the difference of ΔW."""
    seconds = {}
    seconds["workbench"], update = timed(rome.compute_update, lm, [request])
    seconds["plain, one batch"], reference = timed(plain_rome, lm, rome, request)
    if slowest:
        seconds["plain, one by one"], _ = timed(plain_rome, lm, rome, request, prompts_per_pass=1)
    dW = update.delta(lm.arch.mlp_out_weight(rome.layer)).double()
    dW = dW.T if lm.arch.conv1d else dW
    error = float((dW - reference).norm() / reference.norm())
    steps = update.records[0].steps[0]
    times = ", ".join(f"{name} {value:.2f} s" for name, value in seconds.items())
    print(f"{steps:3d} steps: {times}; ΔW differs by {error:.0e}; {request.filled_prompt}", flush=True)
    return seconds


if __name__ == "__main__":
    main()
