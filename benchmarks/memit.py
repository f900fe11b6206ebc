"""Seconds that MEMIT's target values take, all facts at once against one after another, in the same run.

    python -m benchmarks.memit [--model smollm2-135m] [--facts 100] [--chunks 5]

Both optimise the same z from the same contexts, as many steps each; the baseline runs one fact after another, with a
full forward pass of all its prompts, in one padded batch, at every step. The facts are taken in chunks, by turns, so
that a drift of the machine's speed touches both: ours then shares passes only within a chunk.
"""

import argparse
import statistics
import time

import torch

import workbench as wb
from tests.references.plain_memit import plain_target_hidden
from workbench.editing.memit import target_hidden


def main() -> None:
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
    where = f"{torch.get_num_threads()} threads, torch {torch.__version__}"
    print(f"{lm.name}, layers {memit.layers}, {len(memit.contexts)} contexts, {args.facts} facts, {where}")
    totals, ratios = [0.0, 0.0], []
    for chunk in chunks:
        start = time.perf_counter()
        ours, losses = target_hidden(lm, memit, chunk)
        between = time.perf_counter()
        plain = torch.stack([plain_target_hidden(lm, memit, request) for request in chunk])
        seconds = between - start, time.perf_counter() - between
        totals = [a + b for a, b in zip(totals, seconds, strict=True)]
        ratios.append(seconds[1] / seconds[0])
        error = float(((ours - plain).norm(dim=1) / plain.norm(dim=1)).median())
        steps = statistics.mean(map(len, losses))
        times = f"workbench {seconds[0]:.1f} s, plain {seconds[1]:.1f} s, ratio {ratios[-1]:.2f}"
        print(f"{len(chunk)} facts, {steps:.1f} steps each: {times}; z differs by {error:.0e} (median)", flush=True)
    print(f"\nseconds a fact: workbench {totals[0] / args.facts:.2f}, plain {totals[1] / args.facts:.2f}")
    print(f"ratio {totals[1] / totals[0]:.2f} (chunks: {min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
