"""Cache keys: hashes of everything that a result depends on, so that only what has changed is computed again.

The key of a trajectory can be computed without loading the model. A state is a model after some edits;
its key is a chain of the operations, so trajectories that begin alike share the results of their beginnings.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from workbench import embedded
from workbench.data.records import BUNDLED
from workbench.data.tasks.load import TaskData
from workbench.editing.editor import Editor, hyperparameters_of
from workbench.editing.presets import TUNABLE, tuned_file
from workbench.errors import ModelError, first_line
from workbench.evaluation.perplexity import read_bundled_text
from workbench.experiment.spec import ExperimentSpec
from workbench.lm import LanguageModel
from workbench.model_digest import digest_of_model
from workbench.regularize import Regularizer, settings_of
from workbench.request import EditRequest
from workbench.storage.digests import json_text, sha256_of_file, sha256_of_json, sha256_of_text
from workbench.update import FORMAT
from workbench.versions import library_versions

LENGTH = 20  # hexadecimal digits
LIBRARIES = ("workbench", "torch", "transformers", "numpy")  # numbers depend on their versions
# weights, configuration and tokenizer; weights in other formats are not loaded
_MODEL_FILES = ("*.json", "*.safetensors", "*.model", "*.jinja", "vocab.txt", "merges.txt")
_INDEXES = "*.safetensors.index.json"


def key_of(*parts: object) -> str:
    """Return a hash of JSON values, dataclasses and bytes, in this order."""
    return sha256_of_json(parts, default=_to_json)[:LENGTH]


def key_of_written(values: Sequence[str]) -> str:
    """Return what `key_of` returns for a sequence, of values that `json_of` has written."""
    return sha256_of_text(f"[[{', '.join(values)}]]")[:LENGTH]


def json_of(value: object) -> str:
    """Return JSON values, dataclasses and bytes as JSON with sorted keys."""
    return json_text(value, default=_to_json)


def content_key(spec: ExperimentSpec, batches: Sequence[Sequence[EditRequest]], tasks: Sequence[TaskData]) -> str:
    """Return a hash of the content of everything that a spec names: weights, facts, examples, files.

    Parameters
    ----------
    spec : ExperimentSpec
        The spec of a trajectory.
    batches : sequence of sequence of EditRequest
        The facts of each operation.
    tasks : sequence of TaskData
        The examples of each task of the spec.

    Returns
    -------
    str

    Raises
    ------
    ModelError
        If the model cannot be found.
    """
    data, files = [data_key(each) for each in tasks], _file_digests(spec.hyperparameters) | _tuned_digests(spec.model)
    texts = [perplexity_text_key(spec.perplexity.text)] if spec.perplexity else []
    return key_of(model_identity(spec.model), batches, data, *texts, files)


def trajectory_key(spec: ExperimentSpec, content: str) -> str:
    """Return the key of a trajectory: a hash of its spec, the content of everything in it, and library versions.

    Parameters
    ----------
    spec : ExperimentSpec
        The spec of the trajectory.
    content : str
        Hash from `content_key`.

    Returns
    -------
    str
    """
    # as before there were these fields, so that results of those times are found
    fields = spec.model_dump(exclude={name for name in ("guard", "assessed") if getattr(spec, name) is None})
    return key_of(fields, content, library_versions(*LIBRARIES), FORMAT)


def unedited_state(lm: LanguageModel) -> str:
    """Return the key of a model as it was loaded, with the versions of the libraries.

    Raises
    ------
    WeightsChangedError
        If the weights have changed since; their results would be kept as those of the unedited model.
    """
    lm.check_unedited_weights()
    return key_of(digest_of_model(lm), library_versions(*LIBRARIES), perplexity_text_key(BUNDLED), FORMAT)


def edit_key(state: str, editor: Editor, requests: Sequence[EditRequest]) -> str:
    """Return the key of the update that a method computes for some facts on the model in a state."""
    settings = hyperparameters_of(editor)
    return key_of(state, type(editor).__name__, settings, _file_digests(settings), requests)


def state_after(state: str, edit: str, regularizer: Regularizer) -> str:
    """Return the key of the model after a regularized update has been applied to it."""
    return key_of(state, edit, settings_of(regularizer))


def state_of_sum(state: str, accumulated: Regularizer | None) -> str:
    """Return the key of a model in a state after the regularizer of the accumulated update, if there is one."""
    return state if accumulated is None else key_of(state, "accumulated", settings_of(accumulated))


@cache
def model_identity(name: str) -> str:
    """Return what identifies the files of a model: a checksum, or the commit on the hub.

    Parameters
    ----------
    name : str
        Name of the model, as for `workbench.load`.

    Returns
    -------
    str

    Raises
    ------
    ModelError
        If it is not a folder, and the hub does not have it or cannot be reached.
    """
    if name in embedded.MODELS:
        return embedded.MODELS[name].sha256
    folder = Path(name)
    if folder.is_dir():
        files = {path for pattern in _MODEL_FILES for path in folder.glob(pattern)} | _shards(folder)
        return key_of([(str(path.relative_to(folder)), sha256_of_file(path)) for path in sorted(files)])
    try:
        return Path(hf_hub_download(name, "config.json")).parent.name  # snapshots/<commit>/config.json
    except (OSError, HfHubHTTPError, HFValidationError) as err:
        raise ModelError(embedded.no_such_model(name, err)) from err


def _shards(folder: Path) -> set[Path]:
    """Return the files that the indexes of a folder name, which may be in folders of it."""
    try:
        named = [set(json.loads(path.read_text())["weight_map"].values()) for path in folder.glob(_INDEXES)]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as err:
        raise ModelError(f"the model folder {folder} has a damaged {_INDEXES} ({first_line(err)}).") from err
    return {path for names in named for name in names if (path := folder / name).is_file()}


def data_key(data: TaskData) -> str:
    """Return a hash of the examples of a task."""
    return key_of(data.task, data.examples)


@cache
def perplexity_text_key(text: str) -> str:
    """Return a hash of the content of a text of the package."""
    return key_of(read_bundled_text(text))


def _file_digests(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return the checksum of each file that a setting names, such as MEND's network."""
    named = {name: Path(value) for name, value in settings.items() if isinstance(value, str) and value}
    return {name: sha256_of_file(path) for name, path in named.items() if path.is_file()}


def _tuned_digests(model: str) -> dict[str, str]:
    """Return the checksum of each preset that has been tuned for a model, which its presets may then come from."""
    files = {f"tuned {method}": tuned_file(method, model) for method in TUNABLE}
    return {name: sha256_of_file(path) for name, path in files.items() if path.is_file()}


def _to_json(value: Any) -> object:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, bytes):
        return value.hex()
    raise TypeError(f"{type(value).__name__} cannot be part of a key")
