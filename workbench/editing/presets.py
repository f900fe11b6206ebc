"""Published and measured hyperparameters, by the name of the model."""

from collections.abc import Mapping
from typing import Any

_ALIASES = {
    "llama-2-7b-hf": "llama-2-7b",
    "llama-7b-hf": "llama-7b",
    "llama-1-7b": "llama-7b",
    "meta-llama-3-8b": "llama-3-8b",
    "meta-llama-3-8b-instruct": "llama-3-8b",
    "gemma-3-270m": "gemma3-270m",
}


def preset_for(
    presets: Mapping[str, Mapping[str, Any]], model_name: str, *, n_layers: int | None = None
) -> dict[str, Any] | None:
    """Return the preset of a model.

    Parameters
    ----------
    presets : mapping of str to mapping
        Hyperparameters of one method by model.
    model_name : str
        Name that the model was loaded by; of a path or hub id only the last part counts.
    n_layers : int, optional
        Number of layers of the model. A preset with a layer that the model does not have is not returned.

    Returns
    -------
    dict or None
        A copy of the hyperparameters, None if the model is not known.
    """
    short = model_name.rstrip("/").rsplit("/", 1)[-1].lower()
    preset = presets.get(_ALIASES.get(short, short))
    if preset is None:
        return None
    last_layer = max(preset.get("layers", (preset.get("layer", 0),)))
    return None if n_layers is not None and last_layer >= n_layers else dict(preset)
