"""Archive: the results of finished trajectories in one parquet file, which can be committed and read into a store.

The column `table` says where a row belongs: to `Store.results`, `Store.scores` or `Store.operations`, or to ``records``
(the record of a trajectory, as JSON text in the column `content`) and ``derived`` (a table that was computed from its
updates, by `name`, as JSON). Numbers are rounded to 24 bits, about seven digits.
"""

import io
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from workbench.errors import SpecError, WorkbenchError, first_line
from workbench.experiment.resolved import ResolvedRun, make_resolver
from workbench.experiment.spec import ExperimentSpec
from workbench.experiment.store import Store
from workbench.experiment.stored_files import SCHEMAS, check_record
from workbench.inputs import shown
from workbench.storage.checksums import dump_table, parse_table
from workbench.storage.files import check_file_name, write_atomically

log = logging.getLogger(__name__)

_RECORDS, _DERIVED = "records", "derived"
_OWN = {name: pa.string() for name in ("table", "name", "content")}
_SCHEMA = pa.schema({**_OWN, **{field.name: field.type for schema in SCHEMAS.values() for field in schema}})
_MANTISSA_BITS = 24


def write_archive(store: Store, path: str | Path) -> int:
    """Write the results of all finished trajectories of a store to one file.

    Parameters
    ----------
    store : Store
        The store to read.
    path : str or Path
        The parquet file; an existing one is replaced once the new one is complete.

    Returns
    -------
    int
        Number of trajectories.
    """
    records = {key: record for key, record in store.trajectories().items() if record["finished"]}
    rows: list[tuple[str, str | None, str, str]] = [
        (_RECORDS, None, json.dumps(record, sort_keys=True), key) for key, record in records.items()
    ]
    for key in records:
        for name in store.names(f"{_DERIVED}/{key}"):
            table = store.read_table(name)
            if table is not None:
                rows.append((_DERIVED, Path(name).stem, table.to_json(orient="table", index=False), key))
    texts = pd.DataFrame(rows, columns=["table", "name", "content", "trajectory"])
    numbers = [
        read(list(records)).assign(table=name)
        for name, read in zip(SCHEMAS, (store.results, store.scores, store.operations), strict=True)
    ]
    parts = [pa.Table.from_pandas(_rounded(part), preserve_index=False) for part in (texts, *numbers)]
    whole = pa.concat_tables([_SCHEMA.empty_table(), *map(_fitted, parts)])
    content = dump_table(whole, compression="zstd", compression_level=15)
    write_atomically(Path(path), lambda scratch: Path(scratch).write_bytes(content))
    return len(records)


def read_archive(path: str | Path, store: Store) -> int:
    """Copy the trajectories of an archive into a store that does not hold them yet.

    The key of a trajectory depends on the versions of libraries, so it is computed again. Trajectories that were run on
    other weights, facts or examples than those that their spec names today are left out, and logged as a warning.

    Parameters
    ----------
    path : str or Path
        File of `write_archive`.
    store : Store
        The store to write to.

    Returns
    -------
    int
        Number of trajectories that the store did not hold.

    Raises
    ------
    SpecError
        If the file is missing or not an archive.
    """
    content = _read(path)
    parts = {(str(table), str(key)): part for (table, key), part in content.groupby(["table", "trajectory"])}
    if unknown := {table for table, _ in parts} - {_RECORDS, _DERIVED, *SCHEMAS}:
        raise SpecError(f"{path} is not an archive of results: it has rows of a table {shown(min(unknown))}.")
    copied, resolve = 0, make_resolver()
    for (table, key), part in parts.items():
        if table != _RECORDS:
            continue
        try:
            record = _read_record(part["content"].iloc[0])
            derived = _read_derived(parts.get((_DERIVED, key), content.iloc[:0]))
        except Exception as err:  # pandas raises errors of many classes for what is no table
            log.warning("a trajectory of the archive is damaged (%s) and is left out", first_line(err))
            continue
        run = _resolve_same(record, resolve)
        if run is None or store.finished(run.key):
            continue
        last = f"{run.spec.n_operations:06}.parquet"
        for name, schema in SCHEMAS.items():
            rows = parts.get((name, key), content.iloc[:0])
            store.write_table(f"{name}/{run.key}/{last}", rows.assign(trajectory=run.key), schema)
        for name, own in derived.items():
            store.write_table(f"{_DERIVED}/{run.key}/{name}.parquet", own)
        store.write_json(f"trajectories/{run.key}.json", record)
        copied += 1
    return copied


def _read_record(content: str) -> dict[str, Any]:
    """Return the record of a trajectory; raise `ValueError` if it is none, or says that it is not finished."""
    record = json.loads(content)
    if not isinstance(record, dict) or not check_record(record)["finished"]:
        raise ValueError("its record is not that of a finished trajectory")
    return record


def _read_derived(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return derived tables by their names; raise `ValueError` if one is no table, or its name no file's."""
    pairs = [(str(name), str(content)) for name, content in zip(rows["name"], rows["content"], strict=True)]
    return {check_file_name(name): pd.read_json(io.StringIO(content), orient="table") for name, content in pairs}


def _resolve_same(record: dict[str, Any], resolve: Callable[[ExperimentSpec], ResolvedRun]) -> ResolvedRun | None:
    """Resolve the spec of a record; None, with a warning, if what it names has changed or cannot be loaded."""
    try:
        run = resolve(ExperimentSpec(**record["spec"]))
    except WorkbenchError as err:
        log.warning("a trajectory of the archive cannot be read: %s", first_line(err))
        return None
    if run.content != record["content"]:
        log.warning("%s was run with other weights, facts or examples than today's and is left out", run.spec)
        return None
    return run


def _read(path: str | Path) -> pd.DataFrame:
    try:
        return parse_table(Path(path).read_bytes(), _SCHEMA).to_pandas()
    except FileNotFoundError as err:
        raise SpecError(f"{path} does not exist; workbench results --archive writes it.") from err
    except (OSError, ValueError, TypeError, pa.ArrowException) as err:  # TypeError: columns of lists
        raise SpecError(f"{path} is not an archive of results ({first_line(err)}).") from err


def _fitted(table: pa.Table) -> pa.Table:
    """Return the table with all columns of the archive; those that it lacks are empty."""
    columns = [
        table[field.name].cast(field.type) if field.name in table.column_names else pa.nulls(len(table), field.type)
        for field in _SCHEMA
    ]
    return pa.table(columns, schema=_SCHEMA)


def _rounded(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table with floating-point numbers rounded to `_MANTISSA_BITS` bits, which halves the file."""
    table = table.copy()
    for name in table.select_dtypes("float64"):
        mantissa, exponent = np.frexp(table[name].to_numpy())
        table[name] = np.ldexp(np.round(np.ldexp(mantissa, _MANTISSA_BITS)), exponent - _MANTISSA_BITS)
    return table
