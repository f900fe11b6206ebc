"""`make lint` refuses phrases and spellings that the documentation does not use."""

import json
from pathlib import Path

import pytest

from tools.check_language import PHRASES, check_text, files_in, main

ROOT = Path(__file__).parent.parent


def hits(text):
    return [(line, found) for line, found, _ in check_text(text)]


@pytest.mark.parametrize(
    "text",
    [
        "a row an operation",
        "one class a method",
        "1.2 seconds an edit",
        "what the numbers hang on",
        "rebuilt, then asked anew",
        "the first so many",
        "behind the entries before it",
        "ready to be gone on with",
        "a long example is told in a warning",
        "it can be had without loading",
        "the caches in force",
        "the model as it is now",
        "takes the temperature of the model",
        "further in one breath",
        "Let a job be done when those before it are.",
        "one a prompt",
        "fields of one's own",
        "what became of the edits",
    ],
)
def test_a_phrase_is_refused(text):
    assert hits(text)


def test_a_phrase_is_found_across_a_line_break():
    assert hits("# the numbers hang\n    # on the seed") == [(1, "hang on")]


def test_a_phrase_does_not_cross_a_paragraph():
    assert hits("# What follows a method\n\nA method is a class.") == []


@pytest.mark.parametrize(
    ("british", "american"),
    [
        ("regulariser", "regularizer"),
        ("normalisation", "normalization"),
        ("tokenises", "tokenizes"),
        ("Colours", "Colors"),
        ("behaviour", "behavior"),
        ("labelled", "labeled"),
        ("test_optimising_twice", "test_optimizing_twice"),
        ("factorisation", "factorization"),
        ("centre", "center"),
        ("analysed", "analyzed"),
    ],
)
def test_a_british_spelling_is_refused_with_the_american_one(british, american):
    assert list(check_text(f"The {british} here.")) == [(1, british, american)]


@pytest.mark.parametrize("text", ["    task : Task\n        Which.\n", 'help="Where."', "seed: int  # whose"])
def test_a_question_word_is_no_description(text):
    assert hits(text)


def test_a_fragment_is_no_description():
    assert hits("    seed : int\n        Of the draw.\n") == [(2, "Of the draw.")]


@pytest.mark.parametrize(
    "text",
    [
        "One row per operation; seconds per edit.",
        "the analyses of three realistic policies and their optimism",
        "one is a float, and one of a kind",
        "told apart by color; a promise, an exercise, precise labels",
        "    seed : int\n        Seed of the draw.\n",
    ],
)
def test_plain_english_passes(text):
    assert hits(text) == []


def test_every_phrase_says_what_to_write_instead():
    assert len(PHRASES) > 15
    assert all(instead for _, instead in PHRASES)


def test_a_hit_is_reported_with_its_place(tmp_path, capsys):
    page = tmp_path / "page.md"
    page.write_text("Fine.\nWhat it hangs on.\n")
    assert main([str(page)]) == 1
    assert capsys.readouterr().out == f"{page}:2: 'hangs on'; write instead: depend on\n"


def test_a_hit_in_a_notebook_names_the_cell(tmp_path, capsys):
    notebook = tmp_path / "book.ipynb"
    cells = [{"cell_type": "markdown", "source": ["Fine.\n", "In colour."]}, {"cell_type": "code", "source": []}]
    notebook.write_text(json.dumps({"cells": cells}))
    assert main([str(notebook)]) == 1
    assert capsys.readouterr().out == f"{notebook}:cell 1, line 2: 'colour'; write instead: color\n"


def test_a_clean_file_passes_in_silence(tmp_path, capsys):
    (tmp_path / "clean.py").write_text('"""Return the color."""\n')
    assert [file.name for file in files_in([tmp_path])] == ["clean.py"]
    assert main([str(tmp_path)]) == 0
    assert capsys.readouterr() == ("", "")


def test_no_module_has_more_than_400_lines():
    sizes = {path: len(path.read_text().splitlines()) for path in sorted((ROOT / "workbench").rglob("*.py"))}
    assert {str(path): size for path, size in sizes.items() if size > 400} == {}
