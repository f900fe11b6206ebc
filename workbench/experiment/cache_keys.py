"""Keys: hashes of all that a result hangs on, so that what has not changed is not computed again.

A unit's key is had without loading its model. A state is a model after some edits: its key is a chain of what was done,
so that two runs that begin alike share their beginnings.
"""

import hashlib
import json
from dataclasses import asdict, is_dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from workbench import embedded
from workbench.data.tasks.load import TaskData, load_task
from workbench.editing.editor import Editor
from workbench.errors import ModelError, first_line
from workbench.experiment.spec import ExperimentSpec
from workbench.lm import LanguageModel
from workbench.model_digest import digest_of_model
from workbench.regularize import Regularizer, settings_of
from workbench.request import EditRequest
from workbench.versions import library_versions

LENGTH = 20  # hex digits
LIBRARIES = ("workbench", "torch", "transformers", "numpy")
_MODEL_FILES = ("*.json", "*.safetensors", "*.model", "*.jinja")


def key_of(*parts: Any) -> str:
    """Hash of JSON values, dataclasses and bytes, in this order."""
    return hashlib.sha256(json.dumps(parts, default=_plain, sort_keys=True).encode()).hexdigest()[:LENGTH]


def versions() -> dict[str, str]:
    """Of the libraries that numbers hang on."""
    return library_versions(*LIBRARIES)


def unit_key(spec: ExperimentSpec) -> str:
    """Hash of a spec, of the content of all that it names, and of the libraries' versions.

    Parameters
    ----------
    spec : ExperimentSpec
        What is to be run.

    Returns
    -------
    str

    Raises
    ------
    ModelError
        If the model is not in its place.
    RequestError, DataError
        If its facts or task examples cannot be had.
    """
    chosen = spec.tasks
    data = [data_key(load_task(task, chosen.data)) for task in chosen.tasks] if chosen else []
    facts = spec.draw_requests()
    return key_of(spec.model_dump(), model_identity(spec.model), facts, data, _files(spec.hyperparameters), versions())


def unedited_state(lm: LanguageModel) -> str:
    """The key of a model as it was loaded, with the libraries' versions."""
    return key_of(digest_of_model(lm), versions(), perplexity_text())


def edit_key(state: str, editor: Editor, requests: tuple[EditRequest, ...]) -> str:
    """The key of the update that a method computes for some facts on the model in a state."""
    settings = asdict(editor)
    return key_of(state, type(editor).__name__, settings, _files(settings), requests)


def state_after(state: str, edit: str, regularizer: Regularizer) -> str:
    """The key of the model when a regularised update has been applied to it."""
    return key_of(state, edit, settings_of(regularizer))


@cache
def model_identity(name: str) -> str:
    """What tells a model's files from others: a checksum, or the commit on the hub.

    Parameters
    ----------
    name : str
        As `workbench.load` takes it.

    Returns
    -------
    str

    Raises
    ------
    ModelError
        If it is no folder, and the hub does not have it or cannot be reached.
    """
    if name == embedded.NAME:
        return embedded.GGUF_SHA256
    folder = Path(name)
    if folder.is_dir():
        files = sorted(path for pattern in _MODEL_FILES for path in folder.glob(pattern))
        return key_of([(path.name, _sha256(path)) for path in files])
    try:
        return Path(hf_hub_download(name, "config.json")).parent.name  # snapshots/<commit>/config.json
    except (OSError, HfHubHTTPError, HFValidationError) as err:
        raise ModelError(
            f"no model {name!r}: it is neither {embedded.NAME!r}, nor a folder, nor a hub id that can be reached "
            f"({first_line(err)})."
        ) from err


def data_key(data: TaskData) -> str:
    """Hash of a task's examples."""
    return key_of(data.task, data.examples)


@cache
def perplexity_text() -> str:
    """Hash of the bundled paragraphs."""
    return key_of(resources.files("workbench.data").joinpath("bundled", "paragraphs.txt").read_bytes())


def _files(settings: dict[str, Any]) -> dict[str, str]:
    """Checksums of the files that settings name: a network, a text."""
    named = {name: Path(value) for name, value in settings.items() if isinstance(value, str) and value}
    return {name: _sha256(path) for name, path in named.items() if path.is_file()}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return asdict(value)
    if isinstance(value, bytes):
        return value.hex()
    raise TypeError(f"{type(value).__name__} has no place in a key")
