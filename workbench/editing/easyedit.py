"""EasyEdit's hparams files: one YAML file a method and model."""

from pathlib import Path
from typing import Any

import yaml

from workbench.errors import EditError

# Keys that say where modules are and what runs where: here the architecture row and `load` say that.
_ELSEWHERE = {
    *("alg_name", "model_name", "device", "model_parallel", "fp16", "stats_dir"),
    *("rewrite_module_tmp", "layer_module_tmp", "mlp_module_tmp", "attn_module_tmp", "ln_f_module", "lm_head_module"),
}
_KINDS = {
    int: "a whole number",
    float: "a number",
    float | None: "a number or false",
    bool: "true or false",
    str: "a text",
    list[int]: "a list of whole numbers",
    list[str]: "a list of texts",
}


def read_hparams(
    path: str | Path, method: str, fields: dict[str, type], *, elsewhere: frozenset[str] = frozenset()
) -> dict[str, Any]:
    """The fields of one of EasyEdit's hparams files.

    Parameters
    ----------
    path : str or Path
        A YAML file.
    method : str
        What its `alg_name` must be.
    fields : dict of str to type
        The keys that are read, each int, float, bool, str, list[int], list[str], or float | None (false: none).
    elsewhere : frozenset of str
        Further keys of the published files that are accepted and left alone, since something else says that here.

    Returns
    -------
    dict
        The fields that the file holds, of those types.

    Raises
    ------
    EditError
        If the file cannot be read, is for another method, or has a key that is not known or a value of another type.
    """
    path = Path(path)
    try:
        given = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as err:
        raise EditError(
            f"{path} cannot be read as YAML ({type(err).__name__}); give an EasyEdit hparams file."
        ) from err
    if not isinstance(given, dict) or given.get("alg_name") != method:
        raise EditError(f"{path} is not an EasyEdit hparams file for {method}; its alg_name must be {method}.")
    unknown = sorted(set(map(str, given)) - set(fields) - _ELSEWHERE - elsewhere)
    if unknown:
        raise EditError(f"{path}: field {unknown[0]!r} is not known for {method}; known: {', '.join(sorted(fields))}.")
    if given.get("fact_token", "subject_last") != "subject_last":
        raise EditError(f"{path}: fact_token is {given['fact_token']!r}; only 'subject_last' is supported.")
    return {key: _as(kind, given[key], f"{path}: {key}") for key, kind in fields.items() if key in given}


def _as(kind: type, value: Any, where: str) -> Any:
    """`value` as that type; a number may stand in a string, since YAML 1.1 reads 5e-1 as one."""
    if kind == float | None and value is False:
        return None
    error = EditError(f"{where} must be {_KINDS[kind]}; got {value!r}.")
    if kind in (list[int], list[str]):
        if not isinstance(value, list):
            raise error
        return [_as(int if kind == list[int] else str, item, where) for item in value]
    if kind is str:
        if not isinstance(value, str):
            raise error
        return value
    plain = float if kind == float | None else kind
    try:
        if isinstance(value, bool) == (plain is bool) and (converted := plain(value)) == float(value):
            return converted
    except (TypeError, ValueError):
        pass
    raise error
