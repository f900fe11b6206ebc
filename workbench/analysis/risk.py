"""How well the risk of an edit, assessed before it is applied, tells what it does to perplexity."""

import numpy as np
import pandas as pd
from scipy.stats import mannwhitneyu

from workbench.analysis.tables import report_edits
from workbench.assessment import LIMIT
from workbench.evaluation.statistics import proportion_interval
from workbench.regularize import Unregularized

BREAKS = 1.5  # factor of perplexity above which an edit counts as one that broke the model


def assessed_edits(operations: pd.DataFrame) -> pd.DataFrame:
    """Return the edits whose risk was assessed and whose perplexity was measured, one row per edit.

    Parameters
    ----------
    operations : DataFrame
        Table of `Store.operations`. Only edits without a regularizer count: the risk is that of the update as computed.

    Returns
    -------
    DataFrame
        Columns model, method, facts, the columns of `report_edits`, and broke (whether the factor is above 1.5, or
        perplexity is not a number any more).
    """
    plain = operations[(operations["regularizer"] == Unregularized().label) & operations["perplexity_unedited"].notna()]
    plain = plain.dropna(subset=["probe_kl"])
    parts = [
        report_edits(part).assign(model=str(model), method=str(method), facts=str(facts))
        for (model, method, facts), part in plain.groupby(["model", "method", "facts"])
    ]
    columns = [
        "model",
        "method",
        "facts",
        "subject",
        "operation",
        "probe_kl",
        "spectral_ratio",
        "first_token",
        "factor",
    ]
    edits = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()
    edits = edits.reindex(columns=[*columns, *(column for column in edits if column not in columns)])
    return edits.assign(broke=~(edits["factor"] <= BREAKS))


def judge_assessment(edits: pd.DataFrame, *, limit: float = LIMIT) -> pd.DataFrame:
    """Say how well the assessed risk tells the edits that break a model from the others.

    Parameters
    ----------
    edits : DataFrame
        Table of `assessed_edits`.
    limit : float
        Value of probe_kl above which the risk is high.

    Returns
    -------
    DataFrame
        One row per model: columns model, edits, broke (their number), auc (probability that an edit that broke the
        model has the higher risk: Mann and Whitney 1947; NaN where none broke it), caught and caught_low, caught_high
        (share of the edits that broke it whose risk was high, with its exact 95 % interval), false_alarms and
        false_alarms_low, false_alarms_high (share of the others).
    """
    rows = []
    for model, part in edits.groupby("model", sort=False):
        broke, is_high = part["broke"].to_numpy(bool), ~(part["probe_kl"] <= limit).to_numpy(bool)
        risk = part["probe_kl"].fillna(np.inf).to_numpy(float)
        row: dict[str, object] = {"model": model, "edits": len(part), "broke": int(broke.sum())}
        row["auc"] = _auc(risk, broke)
        for name, of in (("caught", broke), ("false_alarms", ~broke)):
            row |= _share(name, is_high[of])
        rows.append(row)
    return pd.DataFrame(rows, columns=_COLUMNS)


_SHARES = [f"{name}{end}" for name in ("caught", "false_alarms") for end in ("", "_low", "_high")]
_COLUMNS = ["model", "edits", "broke", "auc", *_SHARES]


def _auc(scores: np.ndarray, positive: np.ndarray) -> float:
    if positive.all() or not positive.any():
        return float("nan")
    wins = mannwhitneyu(scores[positive], scores[~positive], method="asymptotic").statistic
    return float(wins) / (int(positive.sum()) * int((~positive).sum()))


def _share(name: str, values: np.ndarray) -> dict[str, float]:
    if not len(values):
        return dict.fromkeys((name, f"{name}_low", f"{name}_high"), float("nan"))
    low, high = proportion_interval(values.astype(float))
    return {name: float(values.mean()), f"{name}_low": low, f"{name}_high": high}
