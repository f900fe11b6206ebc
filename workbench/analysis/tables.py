"""Tables of the notebooks, from updates and scores."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch

from workbench.analysis.published import TABLE1
from workbench.errors import SpecError
from workbench.evaluation.statistics import bootstrap_interval
from workbench.experiment.measures import AFTER_EDIT
from workbench.lm import LanguageModel
from workbench.regularize import PCAK, RECT, RandomK, Regularizer, Unregularized, keep_most_changed, settings_of
from workbench.update import WeightUpdate
from workbench.weightstats import (
    TABLE1_QUANTILES,
    block_means,
    relative_change,
    relative_change_histogram,
    weight_change,
)

# Gu et al. 2024, figure 7
FIGURE7_REGULARIZERS: tuple[Regularizer, ...] = (
    Unregularized(),
    *(RECT(keep) for keep in (0.8, 0.6, 0.4, 0.2)),
    RandomK(0.4),
    PCAK(0.4),
)


def list_figure7_regularizers() -> list[dict[str, Any]]:
    """Return the regularizers of the paper's figure 7, as `ExperimentSpec` takes them."""
    return [settings_of(regularizer) for regularizer in FIGURE7_REGULARIZERS]


def compute_thresholds(updates: Sequence[WeightUpdate], lm: LanguageModel) -> pd.DataFrame:
    """Compute the 80 % and 90 % quantiles of δ, averaged over single edits: the thresholds of the paper's table 1.

    Parameters
    ----------
    updates : sequence of WeightUpdate
        Updates of single edits of one matrix.
    lm : LanguageModel
        The unedited model.

    Returns
    -------
    DataFrame
        Columns quantile, value, n (edits), low, high (95 % bootstrap interval over edits).
    """
    changes = pd.concat(weight_change(u, lm, quantile_shares=TABLE1_QUANTILES) for u in updates)
    found = changes[changes["metric"] == "relative_change"]
    rows = []
    for quantile, values in found.groupby("at")["value"]:
        rows.append((quantile, values.mean(), len(values), *bootstrap_interval(values.to_numpy())))
    return pd.DataFrame(rows, columns=["quantile", "value", "n", "low", "high"])


def tabulate_weight_change(
    updates: dict[int, WeightUpdate], lm: LanguageModel, thresholds: pd.DataFrame
) -> pd.DataFrame:
    """Return the paper's table 1: how far the weights moved after several numbers of sequential edits.

    Parameters
    ----------
    updates : dict of int to WeightUpdate
        Accumulated update of one matrix, by number of edits.
    lm : LanguageModel
        The unedited model.
    thresholds : DataFrame
        Table of `compute_thresholds`: the 80 % and the 90 % quantile.

    Returns
    -------
    DataFrame
        Columns n_edits, manhattan_distance, share_above_q80, share_above_q90 and, with the suffix ``_paper``, the
        published numbers, where they exist.
    """
    values = tuple(thresholds["value"])
    rows = []
    for n_edits, update in updates.items():
        change = weight_change(update, lm, thresholds=values, quantile_shares=())
        by_metric = change.groupby("metric", sort=False)["value"].apply(list)
        rows.append((n_edits, by_metric["manhattan_distance"][0], *by_metric["share_above"]))
    return pd.DataFrame(rows, columns=TABLE1.columns).merge(TABLE1, on="n_edits", how="left", suffixes=("", "_paper"))


def tabulate_heatmaps(updates: dict[int, WeightUpdate]) -> pd.DataFrame:
    """Return the block means of |ΔW| for each number of edits: columns n_edits, row, column, value."""
    return pd.concat([block_means(u, next(iter(u))).assign(n_edits=n) for n, u in updates.items()], ignore_index=True)


def tabulate_histograms(updates: dict[int, WeightUpdate], lm: LanguageModel) -> pd.DataFrame:
    """Return the histogram of δ for each number of edits: columns n_edits, low, high, share."""
    parts = [relative_change_histogram(u, next(iter(u)), lm).assign(n_edits=n) for n, u in updates.items()]
    return pd.concat(parts, ignore_index=True)


def compute_kept_norms(
    updates: Sequence[WeightUpdate], lm: LanguageModel, *, keeps: Sequence[float] = tuple(np.linspace(0.05, 1, 20))
) -> pd.DataFrame:
    """Compute the share of ‖ΔW‖² that RECT and RandomK keep, averaged over single edits, for each share of entries.

    Parameters
    ----------
    updates : sequence of WeightUpdate
        Updates of single edits.
    lm : LanguageModel
        The unedited model.
    keeps : sequence of float
        Shares of entries kept, each in (0, 1].

    Returns
    -------
    DataFrame
        Columns regularizer, keep, value, n.
    """
    rows = []
    for label, regularizer in (("RECT", RECT), ("Random", RandomK)):
        for keep in keeps:
            shares = [_squared_norm(regularizer(keep)(u, lm)) / _squared_norm(u) for u in updates]
            rows.append((label, keep, float(np.mean(shares)), len(shares)))
    return pd.DataFrame(rows, columns=["regularizer", "keep", "value", "n"])


def _squared_norm(update: WeightUpdate) -> float:
    return sum(float((update.delta(name).double() ** 2).sum()) for name in update)


def compute_retention(scores: pd.DataFrame) -> pd.DataFrame:
    """Compute the mean score of each regularizer as a share of the unregularized one; the paper: ≥ 94 % for RECT 40 %.

    Parameters
    ----------
    scores : DataFrame
        Columns regularizer, metric, protocol, value; one row per regularizer, metric and protocol.

    Returns
    -------
    DataFrame
        One row per regularizer, one column per (protocol, metric); 1 where nothing is lost.
    """
    wide = scores.pivot_table(index="regularizer", columns=["protocol", "metric"], values="value", sort=False)
    return wide / wide.loc["Unregularized"]


def compute_protocol_gap(scores: pd.DataFrame) -> pd.DataFrame:
    """Compute how much teacher forcing overstates edits: its score less that of the model's own answers.

    Yang et al. 2025 (arXiv 2502.11177) find 96.8 % in earlier reports, which use teacher forcing, and 38.5 % where the
    model answers by itself.

    Parameters
    ----------
    scores : DataFrame
        Columns metric, protocol, value, n and any of model, method, batch_size, regularizer, with the protocols
        `teacher_forced` and `natural` among others. Rows that agree in all of them are averaged over their facts.

    Returns
    -------
    DataFrame
        One row per metric and the other columns that `scores` has; columns teacher_forced, natural, gap
        (teacher_forced − natural) and n (facts).

    Raises
    ------
    SpecError
        If one of the two protocols is missing.
    """
    keys = [column for column in ("model", "method", "batch_size", "regularizer", "metric") if column in scores]
    means = []
    for protocol in ("teacher_forced", "natural"):
        rows = scores[scores["protocol"] == protocol]
        if rows.empty:
            known = ", ".join(dict.fromkeys(scores["protocol"]))
            raise SpecError(f"the table has no scores under {protocol}, only under {known}; add it to edit_protocols.")
        totals = rows.assign(total=rows["value"] * rows["n"]).groupby(keys, sort=False)[["total", "n"]].sum()
        means.append(totals.assign(**{protocol: totals["total"] / totals["n"]}).drop(columns="total").reset_index())
    table = means[0].merge(means[1], on=[*keys, "n"], validate="one_to_one")
    table["gap"] = table["teacher_forced"] - table["natural"]
    return table[[*keys, "teacher_forced", "natural", "gap", "n"]]


def select_edit_metrics(results: pd.DataFrame) -> pd.DataFrame:
    """Select the scores of facts right after their own edits, at the end of each trajectory.

    Parameters
    ----------
    results : DataFrame
        Table of `workbench.run`.

    Returns
    -------
    DataFrame
        Rows of reliability, generalization, locality and portability, with the same columns.
    """
    last = results["operation"] == results.groupby("trajectory")["operation"].transform("max")
    return results[last & (results["moment"] == AFTER_EDIT)].reset_index(drop=True)


def report_edits(operations: pd.DataFrame) -> pd.DataFrame:
    """Report the size of each operation and the perplexity after it, the largest first.

    It is single edits that bring a model down: this table shows which.

    Parameters
    ----------
    operations : DataFrame
        Table of `Store.operations`. Operations that several trajectories share count once.

    Returns
    -------
    DataFrame
        Columns subject (of the first fact), operation, relative_norm (‖ΔW‖/‖W‖ over all edited matrices, before the
        regularizer), spectral_ratio (of `workbench.weightstats.spectral_ratio`), first_token (whether a subject is
        one token that opens its prompt), denominator (ROME's uᵀk), probe_kl (of `workbench.assess`), perplexity, and
        factor (perplexity, divided by that before the operation: of the previous operation in a sequence, of the
        unedited model otherwise). Columns without a value are left out.
    """
    rows = operations.sort_values(["trajectory", "operation"])
    before = rows.groupby("trajectory")["perplexity"].shift()
    before = before.where(rows["setting"].str.startswith("sequential")).fillna(rows["perplexity_unedited"])
    rows = rows.assign(factor=rows["perplexity"] / before).dropna(subset=["norm"])
    columns = ["subject", "operation", "relative_norm", "spectral_ratio", "first_token", "denominator"]
    columns += ["probe_kl", "perplexity", "factor"]
    found = rows[["method", *columns]].drop_duplicates(["method", "subject", "operation", "relative_norm"])
    return (
        found[columns]
        .dropna(axis="columns", how="all")
        .sort_values("relative_norm", ascending=False, ignore_index=True)
    )


def tabulate_settings(*, n_operations: int, batch_size: int) -> pd.DataFrame:
    """Return the four settings of Gu et al. 2024, figure 2: the facts and the model of each operation.

    Parameters
    ----------
    n_operations : int
        Number of operations in each setting.
    batch_size : int
        Number of facts per operation in the settings with batches.

    Returns
    -------
    DataFrame
        Columns setting, operation, first_fact, last_fact, edits (the state that is edited; 0 is the unedited model)
        and gives (the state after the operation).
    """
    rows = []
    for setting in ("single", "sequential"):
        for kind, size in (("instance", 1), ("batch", batch_size)):
            for t in range(1, n_operations + 1):
                edits = t - 1 if setting == "sequential" else 0
                rows.append((f"{setting}-{kind}", t, (t - 1) * size + 1, t * size, edits, t))
    return pd.DataFrame(rows, columns=["setting", "operation", "first_fact", "last_fact", "edits", "gives"])


def make_rect_example(*, keep: float) -> pd.DataFrame:
    """Return the worked example of Gu et al. 2024, figure 6: W, ΔW, δ and RECT's ΔW̄ of a 4 × 4 matrix.

    Parameters
    ----------
    keep : float
        Share of entries kept, in (0, 1]; the paper shows 0.25.

    Returns
    -------
    DataFrame
        Columns matrix, row, column, value, kept; `kept` is false for the entries of ΔW̄ that RECT sets to zero.
    """
    W = torch.tensor([[2, 6, 5, 8], [3, 4, 1, 9], [8, 5, 6, 1], [6, 4, 3, 2.0]])
    dW = torch.tensor(
        [[0.02, 0.6, 0.05, 0.08], [0.03, 0.04, 0.1, 0.09], [0.8, 0.05, 0.06, 0.01], [0.06, 0.04, 0.03, 0.2]]
    )
    kept = keep_most_changed(dW, W, RECT(keep).keep)
    whole = torch.ones_like(kept.mask)
    panels = {
        "W": (W, whole),
        "ΔW": (dW, whole),
        "δ = |ΔW / W|": (relative_change(dW, W), whole),
        f"RECT, {100 * keep:g} % kept": (kept.dense(), kept.mask),
    }
    rows = [
        (name, i, j, float(f"{values[i, j]:.4g}"), bool(mask[i, j]))
        for name, (values, mask) in panels.items()
        for i in range(4)
        for j in range(4)
    ]
    return pd.DataFrame(rows, columns=["matrix", "row", "column", "value", "kept"])
