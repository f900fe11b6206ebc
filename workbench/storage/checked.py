"""One tensor in a safetensors file with a record of what it is and a checksum that is verified whenever it is read."""

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from workbench.storage.files import write_atomically

log = logging.getLogger(__name__)

_TENSOR, _RECORD, _CHECKSUM = "tensor", "record", "sha256"


def write_checked(path: Path, tensor: Tensor, record: dict[str, Any]) -> None:
    """Write a tensor atomically, with a record and the SHA-256 of both; the same content gives the same bytes.

    Parameters
    ----------
    path : Path
        A safetensors file; replaced if it exists.
    tensor : Tensor
        On the CPU, of a type that NumPy knows.
    record : dict
        What the tensor is, in JSON values; `read_record` gives it without reading the tensor.
    """
    # one entry: safetensors writes several in any order
    metadata = {_RECORD: json.dumps(record | {_CHECKSUM: _sha256(tensor, record)})}
    write_atomically(path, lambda scratch: save_file({_TENSOR: tensor.contiguous()}, scratch, metadata=metadata))


def read_checked(path: Path) -> tuple[Tensor, dict[str, Any]] | None:
    """The tensor and the record that `write_checked` wrote.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    (Tensor, dict) or None
        None if there is no file, or it is damaged, which is logged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            record, tensor = _parsed(file.metadata()), file.get_tensor(_TENSOR)
        if record.pop(_CHECKSUM, None) != _sha256(tensor, record):
            raise ValueError("its checksum is not that of its content")
        return tensor, record
    except FileNotFoundError:
        return None
    except (OSError, SafetensorError, ValueError, TypeError) as err:
        log.warning("the cached file %s is damaged (%s); it is made again.", path, err)
        return None


def read_record(path: Path) -> dict[str, Any] | None:
    """The record of a file that `write_checked` wrote, without reading its tensor; None if there is no such file."""
    try:
        with safe_open(path, framework="pt") as file:
            return {key: value for key, value in _parsed(file.metadata()).items() if key != _CHECKSUM}
    except (OSError, SafetensorError, ValueError):
        return None


def _parsed(metadata: dict[str, str] | None) -> dict[str, Any]:
    record = json.loads((metadata or {}).get(_RECORD, ""))
    if not isinstance(record, dict):
        raise ValueError("its record is not an object")
    return record


def _sha256(tensor: Tensor, record: dict[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(record).encode())
    digest.update(tensor.contiguous().numpy())
    return digest.hexdigest()
