"""Time of MEMIT's target values, with all facts at once and one after another, in the same run.

    python -m benchmarks.memit [--model smollm2-135m] [--facts 100] [--chunks 5]

Both optimize the same z from the same contexts for the same number of steps; the baseline runs one fact after another,
with a full forward pass of all its prompts, in one padded batch, at every step. The two take turns on chunks of the
facts, so that a drift of the machine's speed affects both; the workbench then shares passes only within a chunk.
"""

import argparse
import statistics

import torch

import workbench as wb
from benchmarks.timing import describe_setup, timed
from tests.references.plain_memit import plain_target_hidden
from workbench.editing.memit import target_hidden


def main() -> None:
    """Time all chunks and print the seconds per fact and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--facts", type=int, default=100)
    parser.add_argument("--chunks", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    lm = wb.load(args.model)
    memit = wb.MEMIT.for_model(lm).prepared(lm)
    requests = wb.load_facts().sample(args.facts, seed=args.seed)
    chunks = [requests[i :: args.chunks] for i in range(args.chunks)]
    target_hidden(lm, memit, requests[:1])
    print(f"{lm.name}, layers {memit.layers}, {len(memit.contexts)} contexts, {args.facts} facts, {describe_setup()}")
    totals, ratios = [0.0, 0.0], []
    for chunk in chunks:
        taken, (ours, losses) = timed(target_hidden, lm, memit, chunk)
        taken_plainly, each = timed(lambda chunk=chunk: [plain_target_hidden(lm, memit, request) for request in chunk])
        plain, seconds = torch.stack(each), (taken, taken_plainly)
        totals = [a + b for a, b in zip(totals, seconds, strict=True)]
        ratios.append(seconds[1] / seconds[0])
        error = float(((ours - plain).norm(dim=1) / plain.norm(dim=1)).median())
        steps = statistics.mean(map(len, losses))
        times = f"workbench {seconds[0]:.1f} s, plain {seconds[1]:.1f} s, ratio {ratios[-1]:.2f}"
        print(f"{len(chunk)} facts, {steps:.1f} steps each: {times}; z differs by {error:.0e} (median)", flush=True)
    print(f"\nseconds per fact: workbench {totals[0] / args.facts:.2f}, plain {totals[1] / args.facts:.2f}")
    print(f"ratio {totals[1] / totals[0]:.2f} (chunks: {min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
