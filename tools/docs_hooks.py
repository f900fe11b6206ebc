"""Hooks of the documentation site: gallery, tables of hyperparameters and commands are made when it is built."""

import dataclasses
import inspect
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from typer.main import get_command

import workbench as wb
from workbench.cli import _COMMANDS as COMMANDS
from workbench.parameters import parameters_of

ROOT = Path(__file__).resolve().parent.parent
FIGURES = ROOT / "figures"
SHOWN = ("study", "default")  # profiles: the first that has a picture shows it
PICTURES = "pictures"  # folder of the site
_FIELDS = re.compile(r"<!-- fields of (\w+) -->")
_OF_EVERY_COMMAND = ("help", "install_completion", "show_completion")


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the pictures of the gallery, which lie outside the pages' folder."""
    for name, path in pictures().items():
        files.append(File.generated(config, f"{PICTURES}/{name}.png", abs_src_path=str(path)))
    return files


def pictures() -> dict[str, Path]:
    """Return the pictures of the gallery, by name."""
    found = [path for profile in SHOWN for path in sorted((FIGURES / profile).glob("*.png"))]
    return {path.stem: path for path in reversed(found)}


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Fill the places that are left for the gallery, the commands and the fields of methods and regularizers."""
    match page.file.src_uri:
        case "gallery.md":
            return markdown.replace("<!-- figures -->", "\n".join(gallery()))
        case "reference/commands.md":
            return markdown.replace("<!-- commands -->", "\n".join(command_reference()))
    return _FIELDS.sub(lambda place: "\n".join(fields_table(getattr(wb, place[1]))), markdown)


def gallery() -> Iterator[str]:
    """Yield a section per entry of the list of figures that has pictures."""
    entries = yaml.safe_load((ROOT / "notebooks" / "figures.yaml").read_text(encoding="utf-8"))["figures"]
    known = pictures()
    for entry in entries:
        shown = [name for name in entry["makes"] if name in known]
        if shown:
            yield f"## {entry['title']}\n"
            yield from (f"![{entry['title']}]({PICTURES}/{name}.png)\n" for name in shown)
            profile = known[shown[0]].parent.name
            yield f"`make figures FIGURES={entry['figure']} PROFILE={profile}` · `notebooks/{entry['notebook']}`\n"


def fields_table(cls: type[Any]) -> Iterator[str]:
    """Yield a table of the fields of a method or a regularizer: what each is, what is allowed, and its default."""
    defaults = {field.name: field.default for field in dataclasses.fields(cls)}
    yield "| Field | Meaning | Allowed | Default |\n| --- | --- | --- | --- |"
    for name, parameter in parameters_of(cls).items():  # type: ignore[arg-type]  # every class is hashable
        default = "required" if defaults[name] is dataclasses.MISSING else f"`{defaults[name]!r}`"
        allowed = parameter.phrase.removeprefix("be ").removeprefix("lie ")
        yield f"| `{name}` | {_cell(parameter.description)} | {_cell(allowed)} | {default} |"


def command_reference() -> Iterator[str]:
    """Yield a section per command: its usage, description and a table of its parameters."""
    for name, module in sorted((name, module) for name, (module, _) in COMMANDS.items()):
        command = get_command(import_module(f"workbench.commands.{module}").app)
        for words, leaf in _leaves(name, command):
            yield from _command_lines(words, leaf)


def _leaves(words: str, command: Any) -> Iterator[tuple[str, Any]]:
    if getattr(command, "invoke_without_command", True):
        yield words, command
    if hasattr(command, "commands"):
        for name, child in command.commands.items():
            yield from _leaves(f"{words} {name}", child)


def _command_lines(words: str, command: Any) -> Iterator[str]:
    parameters = [one for one in command.params if not one.hidden and one.name not in _OF_EVERY_COMMAND]
    arguments = [one for one in parameters if one.param_type_name == "argument"]
    usage = " ".join(["workbench", words, *(_shown(one) for one in arguments), "[OPTIONS]"])
    yield f"## {words}\n\n```\n{usage}\n```\n"
    for paragraph in inspect.cleandoc(command.help or "").replace("\b", "").split("\n\n"):
        yield f"```\n{paragraph.strip()}\n```\n" if paragraph.strip().startswith("workbench ") else f"{paragraph}\n"
    if parameters:
        yield "| Parameter | Meaning |\n| --- | --- |"
        for one in parameters:
            names = [_shown(one)] if one in arguments else [*one.opts, *one.secondary_opts]
            yield f"| {', '.join(f'`{name}`' for name in names)} | {_meaning(one)} |"
        yield ""


def _meaning(parameter: Any) -> str:
    text = _cell(parameter.help or "")
    default = parameter.default
    if parameter.required:
        return f"{text} Required."
    if isinstance(default, (str, int, float)) and not isinstance(default, bool):
        return f"{text} Default: `{default}`."
    return text


def _cell(text: str) -> str:
    """Return a text as it may stand in a cell of a table."""
    return " ".join(text.split()).replace("|", r"\|")


def _shown(argument: Any) -> str:
    return str(argument.metavar or argument.name.upper())
