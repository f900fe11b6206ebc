"""The command line: what it prints, and one sentence and exit code 2 for whatever cannot be done."""

import os
import subprocess
import sys

import pytest

from tests.helpers import FACT, error_of
from tests.servers import CLI
from workbench import embedded
from workbench.commands.settings import parse_setting
from workbench.errors import SpecError, WorkbenchError


def test_without_a_home_an_error_of_a_library_asks_for_one(cli, monkeypatch):
    pwd = pytest.importorskip("pwd")

    def nobody(uid):
        raise KeyError(uid)

    def needs_a_home():
        raise RuntimeError("no home directory")

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    monkeypatch.setattr("workbench.cli.app", lambda prog_name: needs_a_home())
    result = cli("models")
    assert (result.code, result.err) == (
        2,
        "workbench: the command needs a home folder, and none is known (RuntimeError: no home directory); set HOME to "
        "a folder.\n",
    )


@pytest.mark.parametrize("args", [("edit", *FACT, "--when", "never"), ("nothing",), ("facts", "check")])
def test_a_usage_error_exits_with_2_and_without_traceback(cli, args):
    result = cli(*args)
    assert result.code == 2
    assert "Usage: workbench" in result.err
    assert "Traceback" not in result.err


def test_an_interrupt_is_quiet(cli, monkeypatch):
    monkeypatch.setattr("workbench.commands.facts.load_facts", lambda file: (_ for _ in ()).throw(KeyboardInterrupt))
    assert cli("facts", "check", "bundled") == (130, "", "")


def test_an_error_in_a_process_of_its_own_is_one_sentence(folder):
    done = subprocess.run([*CLI, "facts", "check", "none.json"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert (
        done.stderr
        == "workbench: none.json does not exist; give a file of facts, 'bundled', 'bundled-hard' or 'bundled-all'.\n"
    )


# help, lists, facts


def test_help_needs_neither_torch_nor_transformers():
    code = (
        "import sys; from workbench.cli import main\n"
        "try: main()\n"
        "except SystemExit: print({'torch', 'transformers', 'pandas', 'papermill'} & set(sys.modules))"
    )
    light = ["facts", "--help"], "check"
    for args, wanted in ((["--help"], "regenerate"), light, (["--version"], "workbench 0."), (["edits"], "")):
        done = subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, check=True)
        assert wanted in done.stdout
        assert done.stdout.splitlines()[-1] == "set()"


def test_a_terminal_that_cannot_show_all_signs_gets_question_marks():
    env = os.environ | {"PYTHONIOENCODING": "latin-1"}
    command = [*CLI, "facts", "show"]
    done = subprocess.run(command, capture_output=True, encoding="latin-1", check=False, env=env)
    assert (done.returncode, done.stderr) == (0, "")
    assert "The Eiffel Tower is located in the city of ? Rome (true: Paris)" in done.stdout


@pytest.mark.parametrize(
    ("text", "setting"),
    [
        ("n=3", ("n", 3)),
        (" n = 3 ", ("n", 3)),
        ("n=1e-3", ("n", 0.001)),
        ("n=-2.5E2", ("n", -250.0)),
        ("layers=[1, 5]", ("layers", [1, 5])),
        ("on=true", ("on", True)),
        ("n=", ("n", None)),
        ("model=gpt2-xl", ("model", "gpt2-xl")),
        ("name=a=b", ("name", "a=b")),
    ],
)
def test_a_setting_is_read_as_yaml(text, setting):
    assert parse_setting(text) == setting


@pytest.mark.parametrize("text", ["layer=" + "[" * 5000, "layer=a: " + "{b: " * 3000, "x" * 5000])
def test_a_long_setting_is_quoted_by_its_beginning(text):
    sentence = error_of(SpecError, parse_setting, text)
    assert sentence.startswith(f"--set '{text[:60]}")
    assert len(sentence) < 200


def test_an_unexpected_error_is_one_sentence_and_exit_code_1(cli, monkeypatch):
    monkeypatch.setattr(embedded, "model_dir", lambda name: 1 / 0)
    code, out, err = cli("models")
    assert (code, out) == (1, "")
    assert err == (
        "workbench: an unexpected error stopped the command (ZeroDivisionError: division by zero); please report it "
        "with what the same command prints after `workbench --traceback`.\n"
    )
    code, out, err = cli("--traceback", "models")
    assert (code, out) == (1, "")
    assert err.startswith("Traceback (most recent call last):\n")
    assert err.splitlines()[-2:] == [
        "ZeroDivisionError: division by zero",
        "workbench: an unexpected error stopped the command (ZeroDivisionError: division by zero); please report it "
        "with what the same command prints after `workbench --traceback`.",
    ]


@pytest.mark.slow
def test_a_limit_on_the_size_of_files_is_named_by_second_moment(tmp_path, tiny):
    text = tmp_path / "text.txt"
    text.write_text("The Eiffel Tower is in Paris, and the Louvre is in Paris too. " * 400)
    command = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (4096, -1)); " + CLI[-1]
    options = ("--model", tiny, "--layers", "1", "--tokens", "2048", "--source", text)
    environment = {**os.environ, "WORKBENCH_CACHE": str(tmp_path / "cache"), "PYTHONDONTWRITEBYTECODE": "1"}
    result = subprocess.run(
        [*CLI[:-1], command, "second-moment", *map(str, options)],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert (result.returncode, result.stdout) == (2, "")
    last = result.stderr.splitlines()[-1]
    assert last.startswith(f"workbench: {tmp_path / 'cache' / 'second-moments'}/")
    assert last.endswith(" cannot be written (File too large); raise the limit on the size of files (ulimit -f).")
    assert "Traceback" not in result.stderr


def test_of_a_very_long_word_the_middle_is_left_out():
    assert str(WorkbenchError(f"no file {'x' * 5000}y; give another.")) == (
        f"no file {'x' * 60}…{'x' * 18}y; give another."
    )
    assert str(WorkbenchError(f"no file {'/folder' * 40}.")) == f"no file {'/folder' * 40}."  # a path that people have
