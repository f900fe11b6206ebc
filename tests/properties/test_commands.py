"""Every command with odd options: exit code 0 or 2, one sentence, and nothing written where it is 2."""

import contextlib
import io
import json
import os
import sys
from importlib import import_module
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from typer.main import get_command

from tests.experiment.test_store import finished
from tests.figures.notebooks import ENTRY, WRITE, write_manifest, write_notebook
from tests.properties.mutations import ODD_TEXTS, texts
from tests.properties.profiles import examples
from tests.properties.test_readers import FACTS, SPEC
from workbench.cli import _COMMANDS, main
from workbench.experiment.store import Store

ODD_ARGUMENTS = [*ODD_TEXTS, "-1", "0", "1e400", "18446744073709551616", "inf", "a\0b", "\ud800", "\udc80", "--", "-"]
ODD_ARGUMENTS += [
    "NAME=",
    "=",
    "layer=[",
    "layer=.nan",
    "keep=-1",
    "facts.json",
    "store",
    "local:²",
    "tcp://",
    "none",
    "all",
]
MISSING_MODEL = "no/such-model"  # whatever is right ends here, before anything is loaded
FACT = ["--subject", "Rome", "--prompt", "{} is in", "--target", "Spain"]
WHOLE = {  # a command that is right but for its model
    "edit": ["--model", MISSING_MODEL, *FACT],
    "evaluate": ["--model", MISSING_MODEL],
    "apply": ["--model", MISSING_MODEL, "--update", "facts.json", "--out", "new"],
    "regenerate": ["--profile", "smoke", "--plan"],
    "report": ["--profile", "smoke"],
    "run": ["spec.yaml", "--store", "store", "--plan"],
    "results": ["--store", "store"],
    "second-moment": ["--model", MISSING_MODEL, "--layers", "1"],
    "train-mend": ["--model", MISSING_MODEL, "--out", "new.safetensors"],
    "tune": [MISSING_MODEL, "--out", "tuned.yaml"],
    "facts": ["check", "facts.json"],
    "models": [],
}
WITHOUT = {"--help", "--again", "--list", "--lm-eval"}  # the last lists thousands of files first


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """Give a working folder with one file of each kind."""
    folder = tmp_path_factory.mktemp("work")
    (folder / "facts.json").write_text(json.dumps(FACTS))
    (folder / "spec.yaml").write_text(yaml.safe_dump({**SPEC, "model": MISSING_MODEL}))
    (folder / "notebooks").mkdir()
    write_notebook(folder / "notebooks" / "fig.ipynb", WRITE)
    write_manifest(folder / "notebooks", ENTRY)
    finished(Store(folder / "store"), "a")
    return folder


def options_of(name):
    """Return the options of a command, each with whether it takes a value."""
    command = get_command(import_module(f"workbench.commands.{_COMMANDS[name][0]}").app)
    commands = getattr(command, "commands", {"": command}).values()
    found = [option for each in commands for option in each.params if option.opts[0].startswith("-")]
    return [(option.opts[0], not option.is_flag) for option in found if option.opts[0] not in WITHOUT]


def content_of(folder):
    """Return the files and folders below a folder with their sizes."""
    return {str(path.relative_to(folder)): path.is_file() and path.stat().st_size for path in folder.rglob("*")}


def call(arguments):
    """Run the command line; return its exit code and what it printed on stderr."""
    out, err, before = io.StringIO(), io.StringIO(), sys.argv
    sys.argv = ["workbench", *arguments]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as caught:
            main()
    finally:
        sys.argv = before
    return caught.value.code, err.getvalue()


def test_every_command_but_the_server_is_tried():
    assert WHOLE.keys() == _COMMANDS.keys() - {"app"}
    assert sum(len(options_of(name)) for name in WHOLE if name != "models") > 80


@pytest.mark.parametrize("name", WHOLE)
@examples(few=25)
@given(data=st.data())
def test_odd_options_end_in_a_sentence_and_write_nothing(name, data, work, monkeypatch):
    monkeypatch.chdir(work)
    monkeypatch.setenv("WORKBENCH_CACHE", os.devnull)  # nothing is to be written there either
    arguments = list(WHOLE[name])
    odd = st.one_of(st.sampled_from(ODD_ARGUMENTS), texts)
    for _ in range(data.draw(st.integers(1, 2))):
        options = options_of(name)
        if options and data.draw(st.booleans()):
            option, takes_value = data.draw(st.sampled_from(options))
            arguments += [option, data.draw(odd)] if takes_value else [option]
        elif arguments:
            arguments[data.draw(st.integers(0, len(arguments) - 1))] = data.draw(odd)
        else:
            arguments.append(data.draw(odd))
    if {"--from-results", "--help"} & {*arguments}:
        return
    before = content_of(work)
    code, err = call([name, *arguments])
    assert code in (0, 2) or (name == "facts" and code == 1), err
    assert "unexpected error" not in err
    assert "Traceback" not in err
    after = content_of(work)
    if code == 0:
        for path in sorted(after.keys() - before.keys(), reverse=True):
            there = Path(work, path)
            there.rmdir() if there.is_dir() else there.unlink()
    else:
        assert after == before
        assert err.strip()
