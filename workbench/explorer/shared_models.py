"""Models of this process, each loaded once for all sessions that use it at the same time.

Sessions may share a model, since each applies its edits under the model's lock and undoes them after each use.
"""

import threading
from pathlib import Path
from weakref import WeakValueDictionary

from workbench.errors import WeightsChangedError
from workbench.lm import LanguageModel, load

_Key = tuple[str, tuple[tuple[str, int, int], ...]]

_loading = threading.Lock()
_models: WeakValueDictionary[_Key, LanguageModel] = WeakValueDictionary()


def load_shared(name: str) -> LanguageModel:
    """Return a model that sessions share: the one in memory, or a new one if no session holds it any more.

    Parameters
    ----------
    name : str
        Name of the model, as for `workbench.load`.

    Returns
    -------
    LanguageModel
        The unedited model. It is loaded again if the files of its folder, or the weights in memory, have changed.

    Raises
    ------
    ModelError
        As `workbench.load`.
    """
    with _loading:  # of two panels that open at the same time, one loads
        key = _key_of(name)
        found = _models.get(key)
        if found is None or not _is_as_loaded(found):
            found = _models[key] = load(name)
        return found


def _key_of(name: str) -> _Key:
    folder = Path(name)
    if not folder.is_dir():
        return name, ()
    files = [(path.name, path.stat()) for path in sorted(folder.iterdir())]
    return f"{name} in {Path.cwd()}", tuple((file, stat.st_mtime_ns, stat.st_size) for file, stat in files)


def _is_as_loaded(lm: LanguageModel) -> bool:
    with lm.lock:
        try:
            lm.check_unedited_weights()
        except WeightsChangedError:
            return False
        return not lm.applied_updates
