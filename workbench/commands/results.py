"""`workbench results`: what a store holds: listed, filtered, exported, merged."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from workbench.commands.files import check_file_option
from workbench.commands.folders import show_saved
from workbench.commands.printing import bare_table, show, shown
from workbench.commands.regenerate import setting_from
from workbench.errors import SpecError
from workbench.experiment.store_location import default_store

if TYPE_CHECKING:
    import pandas as pd


_WRITERS = {".csv": "to_csv", ".parquet": "to_parquet"}
_ROWS_SHOWN = 40


def results(
    store: Annotated[
        str | None,
        typer.Option(help="Folder or fsspec URL of the results; $WORKBENCH_STORE, or build/store, if not given."),
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option("--where", metavar="COLUMN=VALUE", help="Rows to take, such as method=ROME. Repeatable."),
    ] = None,
    operations: Annotated[bool, typer.Option("--operations", help="A row an edit instead of a score.")] = False,
    export: Annotated[Path | None, typer.Option(help="Write the rows here: .csv or .parquet.")] = None,
    merge: Annotated[str | None, typer.Option(help="First copy what this other store has and --store lacks.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what --export finds.")] = False,
) -> None:
    """List the trajectories of a store; with --where or --export, their rows.

    workbench results --where method=ROME --where task=perplexity

    workbench results --export results.csv
    """
    if export is not None:
        if export.suffix not in _WRITERS:
            raise SpecError(f"--export {export}: the name must end in {' or '.join(_WRITERS)}.")
        check_file_option("--export", export, force=force, error=SpecError)
    from workbench.experiment.store import Store

    found = Store(store or default_store())
    if merge is not None:
        show(f"{found.merge(Store(merge))} files copied from {merge}")
    units = found.units()
    if not units:
        raise SpecError(f"the store {found.url} holds no results; workbench run makes some.")
    if not where and export is None:
        _show_units(units)
        return
    rows = _chosen(found.operations() if operations else found.results(), where or [])
    if export is not None:
        _write(export, rows)
    else:
        _show_rows(rows)


def _chosen(rows: "pd.DataFrame", conditions: list[str]) -> "pd.DataFrame":
    for condition in conditions:
        name, value = setting_from(condition, "--where")
        if name not in rows:
            raise SpecError(f"--where {condition!r}: no column {name!r}; there are {', '.join(rows.columns)}.")
        rows = rows[rows[name].astype(str) == str(value)]
    if rows.empty:
        raise SpecError(f"no row has {' and '.join(conditions)}; workbench results lists what there is.")
    return rows


def _write(path: Path, rows: "pd.DataFrame") -> None:
    from workbench.storage.files import write_atomically

    write_atomically(path, lambda scratch: getattr(rows, _WRITERS[path.suffix])(scratch, index=False))
    show_saved(path)


def _show_units(units: dict[str, dict]) -> None:
    from workbench.experiment.spec import ExperimentSpec

    for unit, record in units.items():
        state = f"{record['seconds']:.0f} s" if record["finished"] else "not finished"
        show(f"{unit}  {shown(str(ExperimentSpec(**record['spec'])))}  ({state})")


def _show_rows(rows: "pd.DataFrame") -> None:
    columns = [name for name in rows.columns if rows[name].notna().any() and rows[name].nunique() > 1]
    table = bare_table(*(columns or ["value"]))
    for _, row in rows[columns or ["value"]].head(_ROWS_SHOWN).iterrows():
        table.add_row(*(shown(f"{v:.4g}" if isinstance(v, float) else str(v)) for v in row))
    show(table)
    if len(rows) > _ROWS_SHOWN:
        show(f"  … {len(rows) - _ROWS_SHOWN} more rows; --export writes all")
