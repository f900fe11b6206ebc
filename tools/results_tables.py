"""Fill the tables of the pages on results from figures/study: `python tools/results_tables.py [--check]`.

A table stands between `<!-- table NAME -->` and `<!-- end -->`; NAME is one of `TABLES`.
"""

import json
import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pandas as pd
from scipy import stats

from workbench.analysis import contrasts
from workbench.analysis.claims import FAILS, HOLDS, format_claims
from workbench.analysis.effects import Effect
from workbench.analysis.pairs import Runs
from workbench.evaluation.statistics import CONFIDENCE

ROOT = Path(__file__).parent.parent
STUDY = ROOT / "figures" / "study"
PAGES = (ROOT / "README.md", ROOT / "docs" / "results.md", ROOT / "docs" / "study.md")
BLOCK = re.compile(r"(<!-- table (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)
_METHOD = re.compile(r"KN \([^)]*\)|\w+")  # opens the text of what a claim measures
PILOT = "smollm2-135m"
SEQUENCES = "ROME", "sequential-instance"
COMPARED = {
    "after all edits − unedited; abilities": contrasts.fall(*SEQUENCES, "abilities"),
    "after all edits − unedited; likelihood, nats per token": contrasts.fall(*SEQUENCES, "smooth"),
    "RECT 40 % − unregularized, area under the curve; abilities": contrasts.preserved(*SEQUENCES, "abilities"),
    "RECT 40 % − unregularized, area under the curve; likelihood": contrasts.preserved(*SEQUENCES, "smooth"),
    "RECT 40 % − unregularized, area under the curve; log perplexity": contrasts.preserved_text(
        *SEQUENCES, "perplexity"
    ),
    "RECT 40 % − unregularized, area under the curve; log drift": contrasts.preserved_text(*SEQUENCES, "drift"),
}
_LEFT = {
    "natural": "natural",
    "first facts": "oldest",
    "generalization": "generalization",
    "locality": "locality",
    "abilities": "abilities",
    "perplexity": "perplexity",
    "σ_max": "sigma",
}
SIZES = ((3, 1), (5, 0.5), (5, 1), (5, 5), (10, 1), (20, 5))  # sequences, and times as many examples as were measured


def all_claims() -> str:
    """Return every claim that something measures, with its verdict, and a list of the others."""
    claims = _read("claims")
    lines = [format_claims(claims[claims["n"] > 0]), "", "Not measured yet:", ""]
    for (model, claim), rows in claims[claims["n"] == 0].groupby(["model", "claim"], sort=False):
        methods = dict.fromkeys(_METHOD.match(text)[0] for text in rows["measured"])  # type: ignore[index]
        lines.append(f"- {model}: {claim} ({', '.join(methods)})")
    return "\n".join(lines)


def decided_claims() -> str:
    """Return the claims that hold or do not hold, and how many are open."""
    claims = _read("claims")
    decided = claims[claims["verdict"].isin([HOLDS, FAILS])]
    return f"{format_claims(decided)}\n\n{len(decided)} of {len(claims)} are decided."


def edits_by_regularizer(name: str) -> str:
    """Return reliability, generalization, locality and portability of single edits under each regularizer."""
    scores = _read(name)
    metrics = list(dict.fromkeys(scores["metric"]))
    lines = _header("regularizer", "protocol", *metrics)
    chosen = scores[scores["protocol"].isin(["teacher_forced", "natural"])]
    for (regularizer, protocol), rows in chosen.groupby(["regularizer", "protocol"], sort=False):
        cells = [
            f"{row.value:.2f} ({row.low:.2f} to {row.high:.2f})"
            for row in rows.set_index("metric").loc[metrics].itertuples()
        ]
        lines.append(_row(regularizer, str(protocol).replace("_", " "), *cells))
    return "\n".join(lines)


def long_run() -> str:
    """Return how many facts each method lasts for, and what is left after the last operation."""
    lines = _header("method", "sequences", "lasts for", *_LEFT, "seconds per fact")
    for row in _read("long_run_leaderboard").to_dict("records"):
        lasts = " to ".join(f"{facts:.0f}" for facts in dict.fromkeys((row["lasts_low"], row["lasts_high"])))
        left = [f"{row[name]:.2g}" if abs(row[name]) < 1e4 else f"{row[name]:.0e}" for name in _LEFT.values()]
        lines.append(_row(row["contestant"], row["sequences"], lasts, *left, f"{row['seconds']:.2g}"))
    return "\n".join(lines)


def power() -> str:
    """Return the half-width of the 95 % interval of each comparison, for numbers of sequences and of examples."""
    table = pd.read_parquet(STUDY / "results.parquet")
    table = table[table["model"] == PILOT].assign(dtype="float32")
    runs = Runs.of(table[table["table"] == "scores"], table[table["table"] == "results"])
    sizes = [f"{J} × {round(20 * times)}" for J, times in SIZES]
    lines = _header("comparison", "measured", "sequences", *sizes)
    for name, measure in COMPARED.items():
        effect = measure(runs)
        if effect is not None and effect.trajectories > 1:
            widths = [f"{_half_width(effect, J, times):.2g}" for J, times in SIZES]
            lines.append(_row(name, f"{effect.value:+.2g}", str(effect.trajectories), *widths))
    return "\n".join(lines)


def cost() -> str:
    """Return the seconds of the trajectories that have been run, by what they edited and measured."""
    table = pd.read_parquet(STUDY / "results.parquet", columns=["table", "content"])
    rows = []
    for content in table.loc[table["table"] == "records", "content"]:
        record = json.loads(content)
        spec = record["spec"]
        facts = spec["n_operations"] * spec["batch_size"]
        measured = "abilities" if spec["tasks"] else "edits only"
        of = (spec["model"], record["method"], spec["setting"], spec["batch_size"], facts, measured)
        rows.append((*of, record["seconds"]))
    names = ["model", "method", "setting", "facts per operation", "facts", "measured"]
    seconds = pd.DataFrame(rows, columns=[*names, "seconds"]).groupby(names)["seconds"].agg(["size", "mean", "sum"])
    lines = _header(*names, "trajectories", "seconds each", "seconds")
    for row in seconds.reset_index().to_dict("records"):
        numbers = row["size"], f"{row['mean']:,.0f}", f"{row['sum']:,.0f}"
        lines.append(_row(*(row[name] for name in names), *numbers))
    total = seconds["sum"].sum()
    return "\n".join([*lines, "", f"In all {total:,.0f} seconds of one core."])


TABLES: dict[str, Callable[[], str]] = {
    "claims": all_claims,
    "decided-claims": decided_claims,
    **{
        name: partial(edits_by_regularizer, name)
        for name in ("figure7_rome", "figure7_memit", "figure7_rome_gemma", "figure7_memit_gemma")
    },
    "long_run": long_run,
    "power": power,
    "cost": cost,
}


def fill(text: str) -> str:
    """Return a page with its tables refilled."""
    return BLOCK.sub(lambda block: f"{block[1]}{TABLES[block[2]]()}\n{block[3]}", text)


def _half_width(effect: Effect, J: int, times: float) -> float:
    """Return the half-width with J sequences and `times` as many examples, at the variances that were measured."""
    between = effect.between * effect.trajectories / J
    total = between + effect.within / times
    freedom = (J - 1) * (total / between) ** 2
    return float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom) * total**0.5)


def _read(name: str) -> pd.DataFrame:
    return pd.read_csv(STUDY / f"{name}.csv")


def _header(*names: str) -> list[str]:
    return [_row(*names), "| --- " * len(names) + "|"]


def _row(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def main(*, check: bool) -> int:
    """Write the pages, or only say which ones differ; return the exit code."""
    written = {page: page.read_text(encoding="utf-8") for page in PAGES}
    filled = {page: fill(text) for page, text in written.items()}
    differ = [page for page in PAGES if filled[page] != written[page]]
    for page in differ:
        print(f"{page.relative_to(ROOT)}: tables are not those of figures/study" if check else page.relative_to(ROOT))
        if not check:
            page.write_text(filled[page], encoding="utf-8")
    return int(check and bool(differ))


if __name__ == "__main__":
    sys.exit(main(check="--check" in sys.argv[1:]))
