"""Provenance: everything that the results of experiments depend on, as a table."""

import platform
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd
from pandas.io.formats.style import Styler

from workbench.experiment.resolved import resolve_all
from workbench.experiment.runner import open_store, read_record
from workbench.experiment.spec import ExperimentSpec
from workbench.experiment.store import Store


def collect_provenance(specs: Sequence[ExperimentSpec], store: str | Path | Store | None = None) -> "pd.Series[str]":
    """Collect model, methods with their hyperparameters, facts, data, trajectories and versions.

    Parameters
    ----------
    specs : sequence of ExperimentSpec
        Trajectories; those that are not finished are counted in a line of their own.
    store : str, Path or Store, optional
        Store of the results, as for `workbench.run`.

    Returns
    -------
    Series
        One line of text per item.
    """
    store, runs = open_store(store), resolve_all(specs)
    lines, missing = {"versions": ""}, 0
    for run in runs:
        if not store.finished(run.key):
            missing += 1
            continue
        spec, record = run.spec, read_record(run, store)
        lines[f"model {spec.model}"] = f"fingerprint {record['fingerprint']}, {spec.dtype}"
        lines[f"method {record['method']}"] = _settings_line(record["hyperparameters"])
        drawn = f"{spec.n_facts} drawn" + ", with words before the subject" * spec.facts.words_before_subject
        lines[f"facts of seed {spec.seed}"] = f"{spec.facts.source}, {drawn}"
        lines[f"trajectory {run.key}"] = str(spec)
        lines["versions"] = ", ".join(f"{name} {number}" for name, number in record["versions"].items())
    lines |= dict(_data_lines(store.results([run.key for run in runs])))
    if missing:
        lines["not run yet"] = f"{missing} of {len(runs)} trajectories"
    ends = {"versions": lines.pop("versions"), "python": platform.python_version(), "date": date.today().isoformat()}
    return pd.Series({**lines, **ends}, name="provenance")


def provenance_table(specs: Sequence[ExperimentSpec], store: str | Path | Store | None = None) -> Styler:
    """Return the lines of `collect_provenance` as a table that does not cut them off; the arguments are the same."""
    return collect_provenance(specs, store).to_frame().style.format(escape="html").format_index(escape="html")


def _data_lines(results: pd.DataFrame) -> Iterator[tuple[str, str]]:
    for row in results.dropna(subset=["source"]).drop_duplicates("task").itertuples():
        yield f"task {row.task}", f"{row.source}, split {row.split}, {row.n} examples, protocol {row.protocol}"


def _settings_line(settings: dict[str, Any]) -> str:
    shown = dict(settings)
    if contexts := shown.pop("contexts", None):
        shown["contexts"] = f"{len(contexts)} templates"
    return ", ".join(f"{key}={value}" for key, value in shown.items())
