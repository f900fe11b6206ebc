"""One tensor in a safetensors file, with a record of what it is and a checksum that is verified on every read."""

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from workbench.storage.tensors import write_tensors

log = logging.getLogger(__name__)

_TENSOR, _RECORD, _CHECKSUM = "tensor", "record", "sha256"


def write_checked(path: Path, tensor: Tensor, record: dict[str, Any]) -> None:
    """Write a tensor atomically, with a record and the SHA-256 of both; the same content gives the same bytes.

    Parameters
    ----------
    path : Path
        The safetensors file to write; replaced if it exists.
    tensor : Tensor
        The tensor to write: on the CPU, of a dtype that NumPy supports.
    record : dict
        Description of the tensor, in JSON values; `read_record` returns it without reading the tensor.
    """
    # a single entry, because safetensors writes several in an arbitrary order
    metadata = {_RECORD: json.dumps(record | {_CHECKSUM: _sha256(tensor, record)})}
    write_tensors(path, {_TENSOR: tensor.contiguous()}, metadata)


def read_checked(path: Path) -> tuple[Tensor, dict[str, Any]] | None:
    """Return the tensor and the record that `write_checked` wrote.

    Parameters
    ----------
    path : Path
        The file to read.

    Returns
    -------
    (Tensor, dict) or None
        None if the file does not exist, or is damaged, which is logged as a warning.
    """
    try:
        with safe_open(path, framework="pt") as file:
            record, tensor = _parse_record(file.metadata()), file.get_tensor(_TENSOR)
        if record.pop(_CHECKSUM, None) != _sha256(tensor, record):
            raise ValueError("its checksum is not that of its content")
        return tensor, record
    except FileNotFoundError:
        return None
    except (OSError, SafetensorError, ValueError, TypeError) as err:
        log.warning("the cached file %s is damaged (%s); it is rebuilt.", path, err)
        return None


def read_record(path: Path) -> dict[str, Any] | None:
    """Return the record of a file that `write_checked` wrote, without its tensor; None if there is no such file."""
    try:
        with safe_open(path, framework="pt") as file:
            return {key: value for key, value in _parse_record(file.metadata()).items() if key != _CHECKSUM}
    except (OSError, SafetensorError, ValueError):
        return None


def _parse_record(metadata: dict[str, str] | None) -> dict[str, Any]:
    record = json.loads((metadata or {}).get(_RECORD, ""))
    if not isinstance(record, dict):
        raise ValueError("its record is not an object")
    return record


def _sha256(tensor: Tensor, record: dict[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(record).encode())
    digest.update(tensor.contiguous().numpy().data)
    return digest.hexdigest()
