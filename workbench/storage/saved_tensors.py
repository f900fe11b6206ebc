"""Safetensors files of tensors that may share memory, with a format and a checksum: saved updates and sequences."""

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from workbench.errors import UpdateError
from workbench.inputs import require_path
from workbench.storage.checksums import CHECKSUM, check_tensors, checksum_of_tensors
from workbench.storage.tensors import write_tensors


def save_tensors(path: str | Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    """Write tensors, which may share memory, and metadata as a safetensors file, atomically."""
    require_path(path, "the file to write", UpdateError)
    separate: dict[str, Tensor] = {}
    storages = set()
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        storage = tensor.untyped_storage().data_ptr()
        # safetensors refuses tensors that share memory
        separate[name] = tensor.clone() if storage in storages else tensor
        storages.add(storage)
    write_tensors(path, separate, {**metadata, CHECKSUM: checksum_of_tensors(separate, metadata)})


def read_tensors(path: str | Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Return metadata, without the checksum, and tensors of a safetensors file.

    Raises `OSError` or `SafetensorError` if it cannot be read, `ValueError` if its checksum is not that of its content.
    """
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  not a dict
    return check_tensors(tensors, metadata), tensors


def load_tensors(path: str | Path, file_format: str, what: str) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Return metadata and tensors of a safetensors file; raise `UpdateError` unless it has that format."""
    try:
        metadata, tensors = read_tensors(path)
    except (OSError, SafetensorError) as err:
        raise UpdateError(f"{path} cannot be read as a saved {what} ({err}); give a file that save() wrote.") from err
    except ValueError as err:
        raise UpdateError(f"{path} is a damaged {what} ({err}); save it again.") from err
    if metadata.get("format") != file_format:
        raise UpdateError(f"{path} is a safetensors file, but not a saved {what}; give a file that save() wrote.")
    return metadata, tensors


def with_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors whose names begin with `prefix`, by the rest of their names."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
