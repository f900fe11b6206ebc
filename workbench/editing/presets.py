"""Published, measured and tuned hyperparameters, by the name of the model."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import platformdirs
import yaml

from workbench.errors import EditError, SpecError, first_line
from workbench.parameters import from_plain
from workbench.storage.files import write_atomically
from workbench.storage.plain_yaml import load_yaml

TUNABLE = ("rome", "memit")  # methods whose presets `workbench tune` finds

_ALIASES = {
    "llama-2-7b-hf": "llama-2-7b",
    "llama-7b-hf": "llama-7b",
    "llama-1-7b": "llama-7b",
    "meta-llama-3-8b": "llama-3-8b",
    "meta-llama-3-8b-instruct": "llama-3-8b",
    "gemma-3-270m": "gemma3-270m",
}


def preset_for(
    presets: Mapping[str, Mapping[str, Any]],
    model_name: str,
    *,
    n_layers: int | None = None,
    tuned: str | None = None,
) -> dict[str, Any] | None:
    """Return the preset of a model: one of the package or, where it has none, one that `workbench tune` has written.

    Parameters
    ----------
    presets : mapping of str to mapping
        Hyperparameters of one method by model.
    model_name : str
        Name that the model was loaded by; of a path or hub id only the last part counts.
    n_layers : int, optional
        Number of layers of the model. A preset with a layer that the model does not have is not returned.
    tuned : str, optional
        Method of `TUNABLE` whose tuned preset is looked up; by default none is.

    Returns
    -------
    dict or None
        A copy of the hyperparameters, None if the model is not known.

    Raises
    ------
    EditError
        If a tuned preset cannot be read.
    """
    short = _short_name(model_name)
    preset = presets.get(_ALIASES.get(short, short))
    if preset is None and tuned is not None and (path := tuned_file(tuned, model_name)).is_file():
        preset = read_tuned(path, method=tuned)
    if preset is None:
        return None
    last_layer = max(preset.get("layers", (preset.get("layer", 0),)))
    return None if n_layers is not None and last_layer >= n_layers else dict(preset)


def check_tunable(method: str) -> None:
    """Raise `SpecError` unless a method is one of `TUNABLE`."""
    if method not in TUNABLE:
        raise SpecError(f"{method} cannot be tuned; known: {', '.join(TUNABLE)}.")


def tuned_file(method: str, model_name: str) -> Path:
    """Return the file of a tuned preset, whether it exists or not.

    It lies in ``$WORKBENCH_PRESETS``, else in the user's data folder; of a path or hub id only the last part counts.
    """
    folder = os.environ.get("WORKBENCH_PRESETS") or Path(platformdirs.user_data_dir("workbench"), "presets")
    return Path(folder, f"{_short_name(model_name)}-{method}.yaml")


def write_tuned(path: Path, *, method: str, hyperparameters: Mapping[str, Any], about: Mapping[str, Any]) -> None:
    """Write a tuned preset, with what tells where it comes from; see `read_tuned`."""
    content = {"method": method, "hyperparameters": dict(hyperparameters), "about": dict(about)}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda name: Path(name).write_text(yaml.safe_dump(content, sort_keys=False)))


def read_tuned(path: Path, *, method: str) -> dict[str, Any]:
    """Return the hyperparameters of a tuned preset.

    Parameters
    ----------
    path : Path
        A file that `workbench tune` has written.
    method : str
        The method that it must be for.

    Returns
    -------
    dict

    Raises
    ------
    EditError
        If the file cannot be read, or is for another method.
    """
    wanted = f"a preset of {method} as `workbench tune` writes it"
    try:
        content = load_yaml(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as err:
        raise EditError(f"{path} is not {wanted}: {first_line(err)}.") from err
    if not isinstance(content, dict) or content.get("method") != method:
        raise EditError(f"{path} is not {wanted}: its method is not {method!r}.")
    if not isinstance(fields := content.get("hyperparameters"), dict):
        raise EditError(f"{path} is not {wanted}: it has no hyperparameters.")
    return {name: from_plain(value) for name, value in fields.items()}


def _short_name(model_name: str) -> str:
    return model_name.rstrip("/").rsplit("/", 1)[-1].lower()
