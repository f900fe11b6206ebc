"""Grids of experiment specs, from Python or YAML."""

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from workbench.arguments import checked
from workbench.errors import SpecError
from workbench.experiment.spec import ExperimentSpec
from workbench.storage.plain_yaml import load_yaml

GRID = "grid"  # key of a YAML file whose lists are expanded


@checked
def grid(base: ExperimentSpec | Mapping[str, Any], lists: Mapping[str, Sequence[Any]]) -> list[ExperimentSpec]:
    """Return a spec for every combination of the values of some fields; the other fields are those of `base`.

    Parameters
    ----------
    base : ExperimentSpec or mapping
        A spec, or its fields.
    lists : mapping of str to sequence
        Values of each field, by its name; the name of a field inside `facts`, `tasks` or `hyperparameters` has a dot,
        such as ``facts.seed``.

    Returns
    -------
    list of ExperimentSpec
        The last list varies fastest.

    Raises
    ------
    SpecError
        If a list is empty or not a list, or a combination is not a valid spec.
    """
    fields = base.model_dump() if isinstance(base, ExperimentSpec) else dict(base)
    for name, values in lists.items():
        if isinstance(values, str) or not isinstance(values, Sequence) or not values:
            raise SpecError(f"{GRID}: {name} must be a list of at least one value; got {values!r}.")
    chosen = (dict(zip(lists, values, strict=True)) for values in product(*lists.values()))
    return [ExperimentSpec(**_with_values(fields, values)) for values in chosen]


def read_specs(path: str | Path) -> list[ExperimentSpec]:
    """Read specs from a YAML file: the fields of one spec, and lists of values to expand under ``grid``.

    Parameters
    ----------
    path : str or Path
        The YAML file.

    Returns
    -------
    list of ExperimentSpec
        One per combination of the listed values, as from `grid`.

    Raises
    ------
    SpecError
        If the file cannot be read, is not YAML, or does not describe valid specs.
    """
    try:
        content = load_yaml(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as err:
        raise SpecError(f"{path} cannot be read ({getattr(err, 'strerror', None) or err}); give a YAML file.") from err
    except yaml.YAMLError as err:
        raise SpecError(f"{path} is not YAML: {' '.join(str(err).split())}.") from err
    if not isinstance(content, dict) or not isinstance(content.get(GRID, {}), dict):
        raise SpecError(f"{path} must hold the fields of a spec, and lists to expand under {GRID!r}.")
    lists = content.pop(GRID, {})
    try:
        return grid(content, lists)
    except SpecError as err:
        raise SpecError(f"{path}, {err}") from err


def _with_values(fields: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    changed = dict(fields)
    for name, value in values.items():
        part, _, inner = str(name).partition(".")
        changed[part] = {**(changed.get(part) or {}), inner: value} if inner else value
    return changed
