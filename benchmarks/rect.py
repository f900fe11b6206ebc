"""Time and memory of RECT on one large matrix, against a selection by numpy in the same run.

    python -m benchmarks.rect [--rows 11008] [--cols 4096] [--repeat 5]

Both select the share `keep` of entries with the largest abs(ΔW/W) of the same matrices and store their values and
positions; the two take turns, so that a drift of the machine's speed affects both. Memory is the peak of a new
process above its size before the call, in matrices of this size, for three ΔW: dense; dense but mostly zero, so that
nearly all δ are equal; rank one, as in ROME, where the dense ΔW counts too. Limits: 2 s and 3 matrices.
"""

import argparse
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

import workbench as wb
from benchmarks.timing import describe_setup, status_bytes, timed
from tests.tiny_models import ModelOutline
from workbench.changes import LowRank

KINDS = ("dense", "mostly zero", "rank one")
KEEP = 0.4
MAX_SECONDS, MAX_MATRICES = 2.0, 3.0


def one_matrix(rows: int, cols: int, kind: str = "dense") -> tuple[wb.WeightUpdate, ModelOutline]:
    """Return an update of one parameter W, and the outline of a model that has it."""
    generator = torch.Generator().manual_seed(0)
    W = torch.randn(rows, cols, generator=generator)
    lm = ModelOutline(weights={"W": W})
    if kind == "rank one":
        left, right = (torch.randn(n, 1, generator=generator) for n in (rows, cols))
        return wb.WeightUpdate({"W": LowRank(left, right)}), lm
    dW = torch.randn(rows, cols, generator=generator).mul_(0.1)
    if kind == "mostly zero":
        dW[: rows * 9 // 10] = 0
    return wb.WeightUpdate({"W": dW}), lm


def numpy_selection(dW: np.ndarray, W: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return flat positions and values of the kept entries, by argpartition; ties are broken arbitrarily."""
    with np.errstate(divide="ignore"):
        delta = np.abs(dW / W).reshape(-1)
    count = round(KEEP * delta.size)
    kept = np.sort(np.argpartition(delta, delta.size - count)[delta.size - count :])
    return kept, dW.reshape(-1)[kept]


def time_both(rows: int, cols: int, repeat: int) -> tuple[list[float], list[float]]:
    """Return the seconds of RECT and of numpy, which take turns; check that they agree."""
    update, lm = one_matrix(rows, cols)
    rect, dW, W = wb.RECT(keep=KEEP), update.delta("W"), lm.weight("W")
    ours, numpys = [], []
    for _ in range(repeat):
        taken, kept = timed(rect, update, lm)
        ours.append(taken)
        taken, (places, values) = timed(numpy_selection, dW.numpy(), W.numpy())
        numpys.append(taken)
        # without ties at the threshold both keep the same entries
        mask = np.zeros(dW.numel(), dtype=bool)
        mask[places] = True
        differing = int((mask != kept["W"].mask.reshape(-1).numpy()).sum())
        if differing > 2 or len(values) != len(kept["W"].values):
            raise SystemExit(f"the two selections differ in {differing} entries.")
    return ours, numpys


def peak_matrices(rows: int, cols: int, kind: str) -> float:
    """Return the peak memory of one call above the size before it, in matrices, measured in this process."""
    update, lm = one_matrix(rows, cols, kind)
    wb.RECT(keep=KEEP)(*one_matrix(64, 64, kind))  # one call for what libraries set up on first use
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before = status_bytes("VmRSS")
    kept = wb.RECT(keep=KEEP)(update, lm)
    peak = status_bytes("VmHWM")
    assert len(kept["W"].values) == round(KEEP * rows * cols)
    return (peak - before) / (4 * rows * cols)


def in_fresh_process(rows: int, cols: int, kind: str) -> float:
    """Return `peak_matrices` of a new process."""
    code = f"from benchmarks.rect import peak_matrices; print(peak_matrices({rows}, {cols}, {kind!r}))"
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout)


def main() -> int:
    """Print medians, ratio and memory; return 1 if a limit is exceeded."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=11008)
    parser.add_argument("--cols", type=int, default=4096)
    parser.add_argument("--repeat", type=int, default=5)
    args = parser.parse_args()

    print(f"RECT(keep={KEEP}) on {args.rows} × {args.cols} float32, {describe_setup()}, numpy {np.__version__}")
    memory = {kind: in_fresh_process(args.rows, args.cols, kind) for kind in KINDS}
    ours, numpys = time_both(args.rows, args.cols, args.repeat)
    for name, times in (("workbench", ours), ("numpy", numpys)):
        spread = f"{min(times):.2f} to {max(times):.2f}"
        print(f"{name:9s} median {statistics.median(times):.2f} s of {args.repeat} ({spread})")
    print(f"ratio     {statistics.median(b / a for a, b in zip(ours, numpys, strict=True)):.2f}")
    for kind, matrices in memory.items():
        print(f"peak memory, {kind} ΔW: {matrices:.2f} matrices")
    kept = statistics.median(ours) < MAX_SECONDS and max(memory.values()) < MAX_MATRICES
    print(f"limits ({MAX_SECONDS:g} s, {MAX_MATRICES:g} matrices): {'kept' if kept else 'EXCEEDED'}")
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
