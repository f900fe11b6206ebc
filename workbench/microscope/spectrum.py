"""The spectrum of an accumulated update, and what a regularizer of the sum does to it and to the facts."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor

from workbench.analysis.spectra import main_matrix
from workbench.arguments import checked
from workbench.errors import EditError
from workbench.evaluation.edits import score_edits
from workbench.lm import LanguageModel
from workbench.microscope.held_out import measure_held_out
from workbench.request import EditRequest
from workbench.update import WeightUpdate
from workbench.weightstats import change_singular_values, singular_values, unedited_singular_values

BEFORE, EDITED, CHANGE = "W₀", "W_t", "ΔW"
PLAIN = "as computed"
_ROUNDING = 1e-6  # of the largest value; smaller ones are not drawn


class Spectra(NamedTuple):
    """Singular values, and what they are of.

    Attributes
    ----------
    parameter : str
        Name of the matrix.
    table : DataFrame
        Columns matrix ("W₀", "W_t", "ΔW"), version (its label; empty for W₀), index (from 1) and value.
    """

    parameter: str
    table: pd.DataFrame


@checked
@torch.no_grad()
def compare_spectra(versions: Mapping[str, WeightUpdate], lm: LanguageModel, *, name: str | None = None) -> Spectra:
    """Return the singular values of W₀, W_t and ΔW of one matrix, for several versions of an accumulated update.

    Those of W₀ are computed once and kept in the memo of `lm`. Values below 1e-6 times the largest are left out.

    Parameters
    ----------
    versions : mapping of str to WeightUpdate
        W_t − W₀ by label, such as ``{PLAIN: update, "RECT 40 %": RECT()(update, lm)}``.
    lm : LanguageModel
        The unedited model.
    name : str, optional
        Name of a parameter of the updates; by default that in which σ₁(ΔW)/σ₁(W₀) of the first is largest.

    Returns
    -------
    Spectra

    Raises
    ------
    EditError
        If the first update is empty or does not change that parameter, or an update is applied to `lm`.
    """
    first = next(iter(versions.values()))
    _check(first, lm)
    name = main_matrix(first, lm) if name is None else name
    if name not in first:
        raise EditError(f"the edits do not change {name!r}; they change {', '.join(first)}.")
    parts = [_rows(BEFORE, "", unedited_singular_values(lm, name))]
    W = lm.unedited_weight(name).double()
    for label, version in versions.items():
        parts.append(_rows(EDITED, label, singular_values(W + version.delta(name).to(W))))
        parts.append(_rows(CHANGE, label, change_singular_values(version[name])))
    return Spectra(name, pd.concat(parts, ignore_index=True))


@checked
@torch.no_grad()
def score_sum(update: WeightUpdate, lm: LanguageModel, requests: Sequence[EditRequest]) -> pd.DataFrame:
    """Return what an accumulated update, possibly regularized, leaves of facts and model.

    Parameters
    ----------
    update : WeightUpdate
        Accumulated update W_t − W₀.
    lm : LanguageModel
        The unedited model.
    requests : sequence of EditRequest
        The facts to score.

    Returns
    -------
    DataFrame
        Columns metric (reliability, generalization and locality, teacher forced, where the facts have such prompts;
        perplexity as a factor of the unedited model's; kl in nats per token; norm), value and n (facts; 0 for the
        model's own numbers).

    Raises
    ------
    EditError
        If the update is empty, or applied to `lm`.
    """
    _check(update, lm)
    asked = [replace(request, portability=()) for request in requests]
    with update.applied(lm):
        scores = score_edits(lm, asked, protocols=["teacher_forced"])
        held_out = measure_held_out(lm)
    grouped = scores.groupby("metric", sort=False)["value"]
    of_facts = [{"metric": name, "value": values.mean(), "n": len(values)} for name, values in grouped]
    of_model = {"perplexity": held_out.factor, "kl": held_out.kl, "norm": update.norm()}
    return pd.DataFrame([*of_facts, *({"metric": name, "value": value, "n": 0} for name, value in of_model.items())])


def _rows(matrix: str, label: str, values: Tensor) -> pd.DataFrame:
    kept = values[values > values.max() * _ROUNDING] if len(values) else values
    index = range(1, len(kept) + 1)
    return pd.DataFrame({"matrix": matrix, "version": label, "index": index, "value": kept.tolist()})


def _check(update: WeightUpdate, lm: LanguageModel) -> None:
    if not len(update):
        raise EditError("there is no edit yet; make one first.")
    if lm.applied_updates:
        raise EditError(f"an update is applied to {lm.name}; undo it before looking at its spectrum.")
