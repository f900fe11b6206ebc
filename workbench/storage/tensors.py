"""Safetensors files written atomically, with the errors of the disk as `OSError`."""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError
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
    OSError
        If the disk is full, or the file cannot be written for another reason.
    """
    with disk_errors(path):
        write_atomically(path, lambda scratch: save_file(dict(tensors), scratch, metadata=metadata))


@contextmanager
def disk_errors(path: str | Path) -> Iterator[None]:
    """Raise what safetensors reports of the disk while it writes `path`, such as that it is full, as `OSError`."""
    try:
        yield
    except SafetensorError as err:
        if (found := re.search(r"os error (\d+)", str(err))) is None:
            raise
        number = int(found[1])
        raise OSError(number, os.strerror(number), str(path)) from err
