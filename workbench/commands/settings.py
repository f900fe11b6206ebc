"""Options of the form ``NAME=VALUE``."""

import re
from typing import Any

import yaml

from workbench.errors import SpecError
from workbench.inputs import shown
from workbench.storage.plain_yaml import load_yaml

_YAML11_MISSES = re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+")  # 1e-3, which YAML 1.1 reads as text


def parse_setting(text: str, option: str = "--set") -> tuple[str, Any]:
    """Return name and value of ``NAME=VALUE``, where the value is a number, text, list or mapping in YAML.

    Parameters
    ----------
    text : str
        Text after the option.
    option : str
        Name of the option.

    Returns
    -------
    name, value : str, object
        Name and parsed value.

    Raises
    ------
    SpecError
        If there is no name, or the value cannot be parsed.
    """
    name, equals, given = text.partition("=")
    if not equals or not name.strip():
        raise SpecError(f"{option} {shown(text)} must be NAME=VALUE, such as n_facts=5.")
    if _YAML11_MISSES.fullmatch(given.strip()):
        return name.strip(), float(given)
    try:
        value = load_yaml(given)
    except yaml.YAMLError as err:
        raise SpecError(f"{option} {shown(text)}: the value is not YAML; quote text that holds signs.") from err
    if not isinstance(value, str | int | float | list | dict | None):
        raise SpecError(
            f"{option} {shown(text)}: the value must be a number, text, true, false, null, a list or a mapping."
        )
    return name.strip(), value
