"""`workbench results`: list, filter, export and merge the results in a store."""

from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer

from workbench.commands import command_app
from workbench.commands.files import check_file_option, write_table
from workbench.commands.options import StoreUrl
from workbench.commands.printing import bare_table, show
from workbench.commands.settings import parse_setting
from workbench.errors import SpecError, WorkbenchError, reason_of
from workbench.experiment.archive import read_archive, write_archive
from workbench.experiment.runner import open_store
from workbench.experiment.spec import ExperimentSpec
from workbench.experiment.store import Store
from workbench.printable import printable

_ENDINGS = (".csv", ".parquet")
_ROWS_SHOWN = 40


def results(
    store: StoreUrl = None,
    where: Annotated[
        list[str] | None,
        typer.Option("--where", metavar="COLUMN=VALUE", help="Select rows, such as method=ROME. Repeatable."),
    ] = None,
    operations: Annotated[bool, typer.Option("--operations", help="One row per edit instead of per score.")] = False,
    export: Annotated[Path | None, typer.Option(help="File of the rows: .csv or .parquet.")] = None,
    merge: Annotated[
        str | None, typer.Option(help="First copy what --store lacks from this other store, or file of --archive.")
    ] = None,
    archive: Annotated[
        Path | None, typer.Option(help="File for all finished trajectories, which --merge can read: .parquet.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file of --export.")] = False,
) -> None:
    """List the trajectories in a store; with --where or --export, their rows.

    workbench results --where method=ROME --where task=perplexity

    workbench results --export results.csv
    """
    if export is not None:
        if export.suffix not in _ENDINGS:
            raise SpecError(f"--export {export}: the name must end in {' or '.join(_ENDINGS)}.")
        check_file_option("--export", export, force=force, error=SpecError)
    found = open_store(store)
    if archive is not None:
        check_file_option("--archive", archive, force=force, error=SpecError)
    if merge is not None:
        show(_merge(found, merge))
    trajectories = found.trajectories()
    if not trajectories:
        raise SpecError(f"the store {found.url} holds no results; workbench run makes some.")
    if archive is not None:
        show(f"{write_archive(found, archive)} trajectories in {archive}")
        return
    if not where and export is None:
        _show_trajectories(trajectories)
        return
    rows = _chosen(found.operations() if operations else found.results(), where or [])
    if export is not None:
        write_table(export, rows)
    else:
        _show_rows(rows)


def _chosen(rows: pd.DataFrame, conditions: list[str]) -> pd.DataFrame:
    for condition in conditions:
        name, value = parse_setting(condition, "--where")
        if name not in rows:
            raise SpecError(f"--where {condition!r}: no column {name!r}; there are {', '.join(rows.columns)}.")
        rows = rows[rows[name].astype(str) == str(value)]
    if rows.empty:
        raise SpecError(f"no row has {' and '.join(conditions)}; workbench results lists what there is.")
    return rows


def _merge(store: Store, other: str) -> str:
    if Path(other).is_file():
        return f"{read_archive(other, store)} trajectories copied from {other}"
    return f"{store.merge(Store(other))} files copied from {other}"


def _show_trajectories(trajectories: dict[str, dict[str, Any]]) -> None:
    for trajectory, record in trajectories.items():
        state = f"{record.get('seconds', 0):.0f} s" if record["finished"] else "not finished"
        show(f"{trajectory}  {printable(_name_of(record))}  ({state})")


def _name_of(record: dict[str, Any]) -> str:
    try:
        return str(ExperimentSpec(**record["spec"]))
    except (WorkbenchError, ValueError, TypeError, KeyError) as err:
        return f"a spec that this version cannot read ({reason_of(err)})"


def _show_rows(rows: pd.DataFrame) -> None:
    filled = [name for name in rows.columns if rows[name].notna().any()]
    columns = [name for name in filled if rows[name].nunique() > 1] or filled
    table = bare_table(*columns)
    for _, row in rows[columns].head(_ROWS_SHOWN).iterrows():
        table.add_row(*(printable(f"{v:.4g}" if isinstance(v, float) else str(v)) for v in row))
    show(table)
    if len(rows) > _ROWS_SHOWN:
        show(f"  … {len(rows) - _ROWS_SHOWN} more rows; --export writes all")


app = command_app(results)
