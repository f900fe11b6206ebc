"""EasyEdit's hparams files: one YAML file per method and model."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from workbench.editing.editor import Editor
from workbench.errors import EditError
from workbench.inputs import require_path
from workbench.parameters import Interval, Parameter, parameters_of
from workbench.storage.plain_yaml import load_yaml

# Keys that say where modules are and what runs where, which the architecture row and `load` say here.
_IGNORED = {
    *("alg_name", "model_name", "device", "model_parallel", "fp16", "stats_dir"),
    *("rewrite_module_tmp", "layer_module_tmp", "mlp_module_tmp", "attn_module_tmp", "ln_f_module", "lm_head_module"),
}
LAYERS = Parameter("layers", tuple, item=Parameter("layers", int, interval=Interval(0)))


def read_hparams(
    path: str | Path,
    method: type[Editor],
    fields: Sequence[str],
    *,
    others: Mapping[str, Parameter] | None = None,
    renamed: Mapping[str, str] | None = None,
    ignored: frozenset[str] = frozenset(),
) -> dict[str, Any]:
    """Return the hyperparameters in one of EasyEdit's hparams files.

    Parameters
    ----------
    path : str or Path
        A YAML file.
    method : type
        The editor class, whose name must be the file's `alg_name`.
    fields : sequence of str
        Keys that are read as the fields of the same names.
    others : mapping of str to Parameter, optional
        Further keys that are read, which are not fields, with what is allowed in them.
    renamed : mapping of str to str, optional
        Further keys that are read, as the fields of other names.
    ignored : frozenset of str
        Further keys of the published files that are accepted and not read.

    Returns
    -------
    dict of str to object
        Values of those of `fields`, `others` and, by the names of their fields, `renamed` that the file holds.

    Raises
    ------
    EditError
        If the file cannot be read, is for another method, has an unknown key or a value that is not allowed, or lacks
        a field without default.
    """
    require_path(path, "the hparams file", EditError)
    path, name, renamed = Path(path), method.__name__, renamed or {}
    given = _read_yaml(path)
    if not isinstance(given, dict) or str(given.get("alg_name")).lower() != name.lower():  # EasyEdit has ULTRAEDIT
        raise EditError(f"{path} is not an EasyEdit hparams file for {name}; its alg_name must be {name}.")
    declared = parameters_of(method)
    known = {key: declared[key] for key in fields} | dict(others or {})
    known |= {key: dataclasses.replace(declared[field], name=key) for key, field in renamed.items()}
    if unknown := sorted(set(map(str, given)) - set(known) - _IGNORED - ignored):
        raise EditError(f"{path}: field {unknown[0]!r} is not known for {name}; known: {', '.join(sorted(known))}.")
    if given.get("fact_token", "subject_last") != "subject_last":
        raise EditError(f"{path}: fact_token is {given['fact_token']!r}; only 'subject_last' is supported.")
    for field in dataclasses.fields(method):
        if field.name in fields and field.name not in given and field.default is dataclasses.MISSING:
            raise EditError(f"{path}: {field.name} is missing; {name} has no default for it.")
    values = {key: _convert(parameter, given[key]) for key, parameter in known.items() if key in given}
    for key, value in values.items():
        try:
            known[key].check(value)
        except EditError as err:
            raise EditError(f"{path}: {key} must {known[key].phrase}; got {given[key]!r}.") from err
    return {renamed.get(key, key): value for key, value in values.items()}


def _read_yaml(path: Path) -> Any:
    if not path.exists():
        raise EditError(f"{path} does not exist; give an EasyEdit hparams file.")
    try:
        return load_yaml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as err:
        reason = getattr(err, "strerror", None) or f"{type(err).__name__}: {' '.join(str(err).split())}"
        raise EditError(f"{path} cannot be read as YAML ({reason}); give an EasyEdit hparams file.") from err


def _convert(parameter: Parameter, value: Any) -> Any:
    """Return a value of the file as its field holds it, where that is possible, else as it is."""
    if parameter.item is not None and isinstance(value, list):
        return tuple(_convert(parameter.item, entry) for entry in value)
    if parameter.optional and value is False:
        return None
    if parameter.kind in (int, float) and isinstance(value, (int, float, str)) and not isinstance(value, bool):
        try:
            number = parameter.kind(value)  # YAML 1.1 reads 5e-1 as a text
            return number if number == float(value) else value
        except (ValueError, OverflowError):
            return value
    return value
