"""The manifest ``figures.yaml``: which notebook, run with which parameters, makes which figure."""

import json
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_core import PydanticCustomError

from workbench.errors import OutputError, SpecError
from workbench.inputs import shown
from workbench.storage.files import check_file_name
from workbench.storage.plain_yaml import load_yaml

Profile = Literal["smoke", "default", "study", "paper"]
PROFILES: tuple[Profile, ...] = get_args(Profile)
MANIFEST = "figures.yaml"
COMMITTED: tuple[Profile, ...] = ("default", "study")  # profiles whose figures are kept in figures/
ARCHIVED: tuple[Profile, ...] = ("study",)  # profiles whose results are kept beside the figures, in one file
FIGURES_PARAMETER = "figures_dir"  # parameter of every notebook: the folder of its figure files
NAME_PARAMETER = "name"  # parameter of notebooks that serve several figures: the stem of the files' names


def _file_name(name: str) -> str:
    try:
        return check_file_name(name)
    except OutputError as err:
        raise PydanticCustomError("file_name", "{reason}", {"reason": str(err).removesuffix(".")}) from err


def check_notebook_value(value: object) -> object:
    """Return a value that papermill can write into a notebook; raise `ValueError` for any other."""
    try:
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except (TypeError, ValueError) as err:
        raise PydanticCustomError(
            "notebook_value",
            "{value} is no value for a notebook; give a text, a finite number, true, false, null, a list or a mapping",
            {"value": shown(value)},
        ) from err
    return value


def _plain_line(text: str) -> str:
    if not text.strip() or any(unicodedata.category(character) in ("Cc", "Cs") for character in text):
        raise PydanticCustomError("plain_line", "{text} must be one line of text", {"text": shown(text)})
    return text


FileName = Annotated[str, AfterValidator(_file_name)]  # entries write inside the folders of a profile only
Minutes = Annotated[float, Field(ge=0, le=10**6, allow_inf_nan=False, strict=True)]
Parameters = dict[str, Annotated[Any, AfterValidator(check_notebook_value)]]  # what papermill can write into a notebook


class Entry(BaseModel):
    """One run of one notebook.

    Attributes
    ----------
    figure : str
        Name of the figure on the command line.
    also : tuple of str
        Other names of it, such as those of the paper's figures that it shows in one.
    title : str
        One line for lists and reports.
    notebook : str
        Name of the notebook, a file beside the manifest.
    makes : tuple of str
        Names of the files written, without endings.
    parameters : dict
        Parameters of the notebook in every profile.
    profiles : dict
        Parameters that each profile adds; a profile that is absent leaves the entry out.
    minutes : dict of str to float
        Duration by profile, on two cores, after the entries before it.
    reads_store : bool
        Whether it reads results that the entries before it left in the store.
    after : tuple of str
        Figures whose experiments it shares: where several notebooks run at once, it waits for theirs.
    on_request : tuple of str
        Profiles in which it is run only if it is named.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    figure: FileName
    also: tuple[FileName, ...] = ()
    title: Annotated[str, AfterValidator(_plain_line)]
    notebook: FileName
    makes: tuple[FileName, ...] = Field(min_length=1)
    parameters: Parameters = Field(default_factory=dict)
    profiles: dict[Profile, Parameters]
    minutes: dict[Profile, Minutes] = Field(default_factory=dict)
    reads_store: bool = Field(default=False, strict=True)
    after: tuple[FileName, ...] = ()
    on_request: tuple[Profile, ...] = ()

    @field_validator("parameters", "profiles")
    @classmethod
    def _check_names(cls, given: dict[str, Any]) -> dict[str, Any]:
        for parameters in (given, *(each for each in given.values() if isinstance(each, dict))):
            if isinstance(parameters.get(NAME_PARAMETER), str):
                _file_name(parameters[NAME_PARAMETER])
        return given

    @property
    def names(self) -> set[str]:
        """All names by which the entry can be asked for."""
        return {self.figure, *self.also, *self.makes}


class Manifest(BaseModel):
    """The content of ``figures.yaml``.

    Attributes
    ----------
    figures : tuple of Entry
        The entries, in the order in which they are run.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    figures: tuple[Entry, ...] = Field(min_length=1)


def read_manifest(notebooks: Path) -> Manifest:
    """Read and check ``figures.yaml``.

    Parameters
    ----------
    notebooks : Path
        Folder of the notebooks and the manifest.

    Returns
    -------
    Manifest

    Raises
    ------
    SpecError
        If the manifest is missing or malformed, the name of a figure or of a file occurs twice, or a figure comes
        after one that is not listed before it.
    """
    path = notebooks / MANIFEST
    try:
        manifest = Manifest.model_validate(load_yaml(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError) as err:
        reason = getattr(err, "strerror", None) or err
        raise SpecError(f"{path} cannot be read ({reason}); run in the project's folder, or name it.") from err
    except yaml.YAMLError as err:
        raise SpecError(f"{path} is not YAML: {' '.join(str(err).split())}.") from err
    except ValidationError as err:
        first = err.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise SpecError(f"{path}, {where or 'top'}: {first['msg']}; the README shows an entry.") from err
    names = [entry.figure for entry in manifest.figures]
    if repeated := [name for name in names if names.count(name) > 1]:
        raise SpecError(f"{path}: the figure {repeated[0]!r} is listed twice; give each entry its own name.")
    for i, entry in enumerate(manifest.figures):
        if unknown := [name for name in entry.after if name not in names[:i]]:
            raise SpecError(
                f"{path}: the figure {entry.figure!r} comes after {unknown[0]!r}, which is not listed before it; give "
                "the names of earlier entries."
            )
    files = [name for entry in manifest.figures for name in entry.makes]
    if repeated := [name for name in files if files.count(name) > 1]:
        raise SpecError(f"{path}: the file {repeated[0]!r} is made twice; give each its own name.")
    return manifest


def select_entries(manifest: Manifest, names: Sequence[str]) -> list[Entry]:
    """Return the entries with the given names, or all.

    Parameters
    ----------
    manifest : Manifest
        The entries to choose from.
    names : sequence of str
        Names of figures, or of files that they make; empty for all.

    Returns
    -------
    list of Entry
        In the order of the manifest.

    Raises
    ------
    SpecError
        If a name is not known.
    """
    for name in names:
        if not any(name in e.names for e in manifest.figures):
            known = ", ".join(dict.fromkeys(name for e in manifest.figures for name in (e.figure, *e.also)))
            raise SpecError(f"figure {name!r} is not known; known: {known}.")
    return [e for e in manifest.figures if not names or {*names} & e.names]


def select_for_profile(manifest: Manifest, names: Sequence[str], profile: str) -> list[Entry]:
    """Return the entries to run in a profile: those named, or all that are not run on request only.

    Parameters
    ----------
    manifest : Manifest
        The entries to choose from.
    names : sequence of str
        Names of figures, or of files that they make; empty for all of the profile.
    profile : str
        Name of the profile, one of `PROFILES`.

    Returns
    -------
    list of Entry
        In the order of the manifest.

    Raises
    ------
    SpecError
        If a name or the profile is not known, or the profile leaves a named figure out.
    """
    if profile not in PROFILES:
        raise SpecError(f"profile {profile!r} is not known; known: {', '.join(PROFILES)}.")
    entries = select_entries(manifest, names)
    for name in names:
        named = [entry for entry in entries if name in entry.names]
        if not any(profile in entry.profiles for entry in named):
            others = dict.fromkeys(other for entry in named for other in entry.profiles)
            raise SpecError(f"figure {name!r} is not made in the profile {profile!r}, only in {', '.join(others)}.")
    return [e for e in entries if profile in e.profiles and (names or profile not in e.on_request)]
