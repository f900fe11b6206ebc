"""Safetensors files, written atomically."""

from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from workbench.storage.files import write_atomically


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a safetensors file, atomically.

    Parameters
    ----------
    path : str or Path
        File to write; replaced if it exists.
    tensors : mapping of str to Tensor
        Contiguous tensors that share no memory.
    metadata : dict of str to str
        Texts that the file holds beside them.

    Raises
    ------
    OutputError, DiskError
        As in `write_atomically`.
    """
    write_atomically(path, lambda scratch: save_file(dict(tensors), scratch, metadata=metadata))
