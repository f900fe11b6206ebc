"""Links, commands with their options, make targets and Python names in README and docs exist."""

import re
import shlex
from functools import reduce
from importlib import import_module
from pathlib import Path

import pytest
import typer

import workbench as wb
from tests.pages import FENCED, code_blocks
from tools import results_tables
from workbench import cli
from workbench.experiment.grids import read_specs

ROOT = Path(__file__).parent.parent
# the pages of the reference and the gallery are reached by the navigation of the site
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *(
        page
        for page in sorted((ROOT / "docs").rglob("*.md"))
        if page.parent.name != "reference" and page.stem != "gallery"
    ),
]
TEXTS = {page.relative_to(ROOT).as_posix(): page.read_text(encoding="utf-8") for page in PAGES}


def shell_lines(text):
    """Return every command line of a page, in its blocks and between backticks."""
    blocks = [code for language, code in FENCED.findall(text) if language in ("", "bash", "console")]
    lines = [line.removeprefix("$ ") for code in blocks for line in code.splitlines()]
    return lines + re.findall(r"`([^`\n]+)`", FENCED.sub("", text))


def names_something(line):
    """Return whether the subcommand exists; raise if an option does not. Values are not checked."""
    words = [word for word in shlex.split(line.rstrip("&"), comments=True) if word != "…"][1:]
    if not words or words[0] not in cli._COMMANDS:
        return False
    module, _ = cli._COMMANDS[words.pop(0)]
    command = typer.main.get_command(import_module(f"workbench.commands.{module}").app)
    while words and words[0] in getattr(command, "commands", ()):
        command = command.commands[words.pop(0)]
    command.make_parser(command.context_class(command)).parse_args(words)
    return True


def section_names(text):
    """Return the anchors of the headings of a page."""
    titles = re.findall(r"^#+ (.*)$", FENCED.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", TEXTS)
def test_every_link_leads_to_a_file_and_a_section_that_are_there(page):
    links = re.findall(r"\]\(([^)\s]+)\)|src=\"([^\"]+)\"", FENCED.sub("", TEXTS[page]))
    local = [link for link in map("".join, links) if not link.startswith("http")]
    for link in local:
        path, _, section = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), link
        assert not section or section in section_names(target.read_text(encoding="utf-8")), link


def test_every_page_of_the_docs_can_be_reached_from_the_readme():
    assert len(PAGES) >= 10
    seen, coming = set(), [ROOT / "README.md"]
    while coming:
        page = coming.pop()
        seen.add(page)
        linked = [(page.parent / link).resolve() for link in re.findall(r"\]\(([^)#\s]+\.md)", page.read_text("utf-8"))]
        coming += [other for other in linked if other not in seen]
    assert set(PAGES) - seen == set()


def test_every_command_line_is_one_that_the_command_takes():
    lines = [
        (page, line) for page, text in TEXTS.items() for line in shell_lines(text) if re.match(r"workbench ", line)
    ]
    assert len(lines) >= 50
    assert [said for said in lines if not names_something(said[1])] == []


def test_a_command_line_that_is_not_one_is_found():
    assert not names_something("workbench edits --subject x")
    with pytest.raises(Exception, match="No such option: --subjects"):
        names_something("workbench edit --subjects x")


def test_every_make_target_is_in_the_makefile():
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    said = [m for text in TEXTS.values() for line in shell_lines(text) for m in re.findall(r"^make ([a-z-]+)", line)]
    assert len(said) >= 5
    assert set(said) - set(targets) == set()


def test_every_name_of_the_package_resolves():
    names = {name for text in TEXTS.values() for name in re.findall(r"\bwb\.(\w+(?:\.\w+)*)", text)}
    assert len(names) >= 20
    for name in sorted(names):
        reduce(getattr, name.split("."), wb)


@pytest.mark.parametrize("page", TEXTS)
def test_every_python_block_imports_what_there_is(page):
    code = "\n".join(code_blocks(ROOT / page, "python"))
    exec("\n".join(re.findall(r"^(?:import|from) .*", code, re.MULTILINE)), {})


def test_the_specs_in_yaml_and_in_python_are_the_same(tmp_path):
    page, names = ROOT / "docs" / "experiments.md", {}
    [yaml], [python] = code_blocks(page, "yaml"), code_blocks(page, "python")
    (tmp_path / "sequential.yaml").write_text(yaml, encoding="utf-8")
    exec(python.split("table = ")[0], names)
    assert len(names["specs"]) == 4
    assert read_specs(tmp_path / "sequential.yaml") == names["specs"]


def test_the_tables_of_results_are_those_of_the_study():
    found = {name for page in results_tables.PAGES for _, name, _ in results_tables.BLOCK.findall(page.read_text())}
    assert found == set(results_tables.TABLES)
    assert results_tables.main(check=True) == 0
