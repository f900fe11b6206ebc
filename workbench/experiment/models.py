"""The model of the experiments in this process: loaded once, for the runner and for everyone who reads its results."""

from functools import lru_cache

from workbench.lm import LanguageModel, load


def load_model(
    name: str, dtype: str = "float32", *, device: str | None = None, device_map: str | None = None
) -> LanguageModel:
    """Return a model; the last one stays in memory, and the next call with the same arguments returns it again.

    Parameters
    ----------
    name, dtype : str
        Name of the model and dtype of its weights, as for `workbench.load`.
    device, device_map : str, optional
        Where to put the model, as for `workbench.load`.

    Returns
    -------
    LanguageModel
        The unedited model; the runner uses the same object, so undo whatever you apply to it.

    Raises
    ------
    ModelError
        As `workbench.load`.
    """
    return _load(name, dtype, device, device_map)


def forget_model() -> None:
    """Let the next call of `load_model` load the model from its files."""
    _load.cache_clear()


@lru_cache(maxsize=1)
def _load(name: str, dtype: str, device: str | None, device_map: str | None) -> LanguageModel:
    return load(name, dtype=dtype, device=device, device_map=device_map)
