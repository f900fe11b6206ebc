"""What predicts the loss: regressions of damage on how the weights moved, with the edit sequence as the unit."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from workbench.analysis.contrasts import FEWEST_SEQUENCES
from workbench.analysis.spectra import read_spectra
from workbench.analysis.units import measure_units, not_enough
from workbench.errors import SpecError
from workbench.evaluation.statistics import CONFIDENCE
from workbench.experiment.store import Store

Array = npt.NDArray[np.float64]

# measured on the accumulated update
PREDICTORS = {
    "relative_norm": "‖ΔW‖/‖W‖",
    "spectral_ratio": "σ₁(ΔW)/σ₁(W)",
    "condition_growth": "condition growth",
    "kl": "KL on probe text",
    "n_edits": "number of edits",
}
RESPONSES = {"text": "log perplexity ratio", "likelihood": "loss of the reference answers, nats per token"}
ALL, TOGETHER = "all methods", "together"
_RESAMPLES = 1000


def collect_damage(store: Store, models: Sequence[str]) -> pd.DataFrame:
    """Collect what stored edits did to the models, and how they moved the weights.

    Parameters
    ----------
    store : Store
        The store to read. Spectra that it does not hold are computed from the updates, and kept.
    models : sequence of str
        Names of the models.

    Returns
    -------
    DataFrame
        One row per unit, regularizer and number of edits with perplexity or tasks: the columns of `measure_units`
        (text and likelihood with the sign of a loss), those of `tabulate_spectra`, and sequence (name of the facts that
        were edited in their order, which the regularizers and checkpoints of one draw share).
    """
    records = store.trajectories()
    keys = [key for key, each in records.items() if each["finished"] and each["spec"]["model"] in models]
    units = measure_units(store.results(keys), store.scores(keys), store.operations(keys)).drop(columns="kl")
    units = units.dropna(subset=list(RESPONSES), how="all")
    rows = units.merge(
        read_spectra(store, list(units["trajectory"].unique())), on=["trajectory", "operation"], validate="one_to_one"
    )
    run = ["model", "method", "hyperparameters", "regularizer", "setting", "batch_size", "facts", "seed", "unit"]
    # several stored runs of one sequence differ in what they measured: the one with the most counts
    rows = rows.assign(measured=rows[list(RESPONSES)].notna().sum(axis=1)).sort_values(["measured", "trajectory"])
    rows = rows.drop_duplicates([*run, "n_edits"], keep="last").drop(columns="measured")
    losses = {name: -rows[name] for name in RESPONSES}
    return rows.assign(**losses, sequence=rows["model"] + rows["facts"] + rows["unit"]).reset_index(drop=True)


def longest_sequence(damage: pd.DataFrame) -> "pd.Series[Any]":
    """Return the row with the largest number of edits; raise `SpecError` if there is none."""
    if damage.empty:
        raise SpecError(
            "the store holds no edit sequence whose updates or spectra were kept; run other figures first, such as "
            "figure8."
        )
    return damage.iloc[int(damage["n_edits"].argmax())]


def rank_predictors(damage: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """Regress the damage on each predictor alone, and on all together.

    Sequences are the units: they are resampled as a whole, with all their checkpoints and regularizers, and left out as
    a whole. All values enter by their ranks: a few edits ruin a model, most change next to nothing, and numbers would
    tell of the few alone. Coefficients are standardized; alone, they are Spearman's correlations.

    Parameters
    ----------
    damage : DataFrame
        Table of `collect_damage`.
    seed : int
        Seed of the bootstrap.

    Returns
    -------
    DataFrame
        One row per group (all methods, and each method of at least two sequences), response and predictor: columns
        group, response, predictor, alone and together (standardized coefficients), each with the ends of its 95 %
        bootstrap interval (_low, _high; NaN for fewer than five sequences), left_out (R² of the prediction of
        sequences that were left out, by this predictor alone; a row `together` has that of all), best (share of
        resamples in which its correlation is the largest), sequences, rows.
    """
    rows: list[dict[str, object]] = []
    for group, part in _groups(damage):
        for response in RESPONSES:
            known = part.dropna(subset=[response, *PREDICTORS])
            if known["sequence"].nunique() > 1:
                rows += [{"group": group, "response": response, **row} for row in _rank(known, response, seed)]
    return pd.DataFrame(rows, columns=_COLUMNS)


def describe_predictors(ranked: pd.DataFrame) -> str:
    """Say for each group and response which predictor tells most about sequences that it has not seen.

    Parameters
    ----------
    ranked : DataFrame
        Table of `rank_predictors`.

    Returns
    -------
    str
        One line each; empty without a group.
    """
    lines = []
    for (group, response), part in ranked.groupby(["group", "response"], sort=False):
        single = part[part["predictor"] != TOGETHER]
        best, whole = (
            single.iloc[int(single["left_out"].to_numpy(float).argmax())],
            part[part["predictor"] == TOGETHER].iloc[0],
        )
        name, of = PREDICTORS[str(best["predictor"])], RESPONSES[str(response)]
        over = f"{best['sequences']} edit sequences"
        if best["sequences"] < FEWEST_SEQUENCES:
            lines.append(f"{group}, {of}: {not_enough(int(best['sequences']))}.")
            continue
        interval = f"ρ = {best['alone']:.2f}, 95 % interval {best['alone_low']:.2f} to {best['alone_high']:.2f}"
        lines.append(
            f"{group}, {of}: best predicted by {name} ({interval} over {over}; R² {best['left_out']:.2f} in sequences "
            f"left out, {whole['left_out']:.2f} by all predictors together)."
        )
    return "\n".join(lines)


_INTERVALS = [f"{name}{end}" for name in ("alone", "together") for end in ("", "_low", "_high")]
_COLUMNS = ["group", "response", "predictor", *_INTERVALS, "left_out", "best", "sequences", "rows"]


def _groups(damage: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield all rows, if they are of several methods, and those of each method."""
    if damage["method"].nunique() > 1:
        yield ALL, damage
    for method, part in damage.groupby("method", sort=False):
        yield str(method), part


def _rank(rows: pd.DataFrame, response: str, seed: int) -> Iterator[dict[str, object]]:
    X: Array = rows[list(PREDICTORS)].rank().to_numpy(float)
    y: Array = rows[response].rank().to_numpy(float).astype(np.float64)
    of = rows["sequence"].factorize()[0]
    members, n = [np.flatnonzero(of == i) for i in range(of.max() + 1)], int(of.max()) + 1
    draws = np.random.default_rng(seed).integers(n, size=(_RESAMPLES, n))
    chosen = [np.concatenate([members[i] for i in draw]) for draw in draws]
    alone, together = (np.array([fit(X[each], y[each]) for each in chosen]) for fit in (_correlations, _coefficients))
    best = np.mean(np.abs(np.nan_to_num(alone)).argmax(axis=1)[:, None] == np.arange(X.shape[1]), axis=0)
    values = {"alone": (_correlations(X, y), _ends(alone, n)), "together": (_coefficients(X, y), _ends(together, n))}
    counts = {"sequences": n, "rows": len(y)}
    for j, name in enumerate(PREDICTORS):
        row: dict[str, object] = {"predictor": name, "best": float(best[j]), **counts}
        row |= {kind: float(value[j]) for kind, (value, _) in values.items()}
        row |= {
            f"{kind}_{end}": float(ends[i, j])
            for kind, (_, ends) in values.items()
            for i, end in enumerate(("low", "high"))
        }
        yield {**row, "left_out": _left_out(X[:, [j]], y, of)}
    yield {"predictor": TOGETHER, "left_out": _left_out(X, y, of), **counts}


def _standardized(values: Array) -> Array:
    """Return the columns less their means, over their standard deviations; a constant column becomes 0."""
    centered = values - values.mean(axis=0)
    spread = centered.std(axis=0)
    return np.divide(centered, spread, out=np.zeros_like(centered), where=spread > 1e-12)


def _correlations(X: Array, y: Array) -> Array:
    return _standardized(X).T @ _standardized(y) / len(y)


def _coefficients(X: Array, y: Array) -> Array:
    """Return the least-squares coefficients of standardized columns; the shortest ones where several fit."""
    fitted: Array = np.linalg.lstsq(_standardized(X), _standardized(y), rcond=1e-8)[0].astype(np.float64)
    return fitted


def _left_out(X: Array, y: Array, of: npt.NDArray[np.int64]) -> float:
    """Return 1 − Σ(y − ŷ)² / Σ(y − ȳ)², where ŷ and ȳ of each sequence come from the others."""
    errors, spread = 0.0, 0.0
    for sequence in np.unique(of):
        out = of == sequence
        design = np.column_stack([np.ones(len(y)), X])
        fitted = np.linalg.lstsq(design[~out], y[~out], rcond=1e-8)[0]
        errors += float(((y[out] - design[out] @ fitted) ** 2).sum())
        spread += float(((y[out] - y[~out].mean()) ** 2).sum())
    return 1 - errors / spread if spread else float("nan")


def _ends(resampled: Array, n: int) -> Array:
    """Return expanded percentiles as in `bootstrap_interval` (2, columns); NaN for fewer than five sequences."""
    if n < FEWEST_SEQUENCES:
        return np.full((2, resampled.shape[1]), np.nan)
    tail = stats.norm.cdf(stats.t.ppf((1 - CONFIDENCE) / 2, n - 1) * np.sqrt(n / (n - 1)))
    return np.asarray(np.nanquantile(resampled, [tail, 1 - tail], axis=0), dtype=np.float64)
