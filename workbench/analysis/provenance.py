"""What the results of experiments hang on, in lines for people."""

import platform
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd
from pandas.io.formats.style import Styler

from workbench.experiment.cache_keys import unit_key
from workbench.experiment.runner import opened
from workbench.experiment.spec import ExperimentSpec
from workbench.experiment.store import Store


def provenance(specs: Sequence[ExperimentSpec], store: str | Path | Store | None = None) -> pd.Series:
    """Model, methods with their hyperparameters, facts, data, trajectories, versions.

    Parameters
    ----------
    specs : sequence of ExperimentSpec
        What has been run.
    store : str, Path or Store, optional
        Where; as for `workbench.run`.

    Returns
    -------
    Series
        One line each, as text.
    """
    store, units = opened(store), {unit_key(spec): spec for spec in specs}
    lines: dict[str, str] = {}
    for unit, spec in units.items():
        record = store.read_json(f"units/{unit}.json")
        lines[f"model {spec.model}"] = f"fingerprint {record['fingerprint']}, {spec.dtype}"
        lines[f"method {record['method']}"] = _settings_line(record["hyperparameters"])
        drawn = f"{spec.n_facts} drawn" + ", with words before the subject" * spec.facts.words_before_subject
        lines[f"facts of seed {spec.seed}"] = f"{spec.facts.source}, {drawn}"
        lines[f"trajectory {unit}"] = str(spec)
        lines["versions"] = ", ".join(f"{name} {number}" for name, number in record["versions"].items())
    lines |= dict(_data_lines(store.results(list(units))))
    ends = {"versions": lines.pop("versions"), "python": platform.python_version(), "date": date.today().isoformat()}
    return pd.Series({**lines, **ends}, name="provenance")


def provenance_table(specs: Sequence[ExperimentSpec], store: str | Path | Store | None = None) -> Styler:
    """The lines of `provenance` as a table that shows each to its last word; the arguments are the same."""
    return provenance(specs, store).to_frame().style.format(escape="html").format_index(escape="html")


def _data_lines(results: pd.DataFrame) -> Iterator[tuple[str, str]]:
    for row in results.dropna(subset=["source"]).drop_duplicates("task").itertuples():
        yield f"task {row.task}", f"{row.source}, split {row.split}, {row.n} examples, protocol {row.protocol}"


def _settings_line(settings: dict[str, Any]) -> str:
    shown = dict(settings)
    if contexts := shown.pop("contexts", None):
        shown["contexts"] = f"{len(contexts)} templates"
    return ", ".join(f"{key}={value}" for key, value in shown.items())
