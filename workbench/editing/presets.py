"""How a method's published hyperparameters are found by the name of a model."""

from typing import Any

_ALIASES = {"llama-2-7b-hf": "llama-2-7b", "llama-7b-hf": "llama-7b", "llama-1-7b": "llama-7b"}


def known(presets: dict[str, dict[str, Any]], name: str) -> dict[str, Any] | None:
    """The preset of a model known by `name` (or the last part of a path or hub id), else None.

    Parameters
    ----------
    presets : dict of str to dict
        A method's published and measured hyperparameters by model.
    name : str
        What the model was loaded as.

    Returns
    -------
    dict or None
        A copy.
    """
    short = name.rstrip("/").rsplit("/", 1)[-1].lower()
    preset = presets.get(_ALIASES.get(short, short))
    return None if preset is None else dict(preset)
