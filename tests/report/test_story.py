"""What a notebook says of itself is found, and what it does not say is empty."""

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from tests.report.conftest import CURVE, curve_cells
from workbench.report.story import Parameter, first_sentence, plain, story_of


def test_a_notebook_in_our_form_says_all_of_it(bare):
    path = bare.write_notebook(CURVE, curve_cells(), {"seeds": [3, 4]})
    story = story_of(nbformat.read(path, 4))
    assert story.title == "Figures 1 to 9 · Do they fall?"
    assert story.question == "Where do they go, and when?"
    assert story.reading == "One line a method: 0.5 e.g. is half."
    assert story.provenance == {"model tiny": "fingerprint 1f", "versions": "torch 2.0", "python": "3.11.7"}
    assert (story.ended[:10], story.seconds, story.failure) == ("2026-11-23", 63.6, "")


def test_parameters_have_the_values_of_the_run_and_the_notes_of_the_notebook(bare):
    path = bare.write_notebook(CURVE, curve_cells(), {"seeds": [3, 4]})
    assert story_of(nbformat.read(path, 4)).parameters == (
        Parameter("model", "tiny", "whose facts", changed=False),
        Parameter("seeds", [3, 4], "each draws its own facts", changed=True),
        Parameter("name", "curve", "stem of the file", changed=False),
    )


def test_a_notebook_that_says_nothing_has_an_empty_story():
    story = story_of(new_notebook(cells=[new_code_cell("1 +", outputs=[])]))
    assert (story.title, story.question, story.reading, story.parameters) == ("", "", "", ())
    assert (story.provenance, story.ended, story.seconds, story.failure) == ({}, "", None, "")


def test_a_notebook_that_failed_says_where_and_keeps_its_title():
    error = new_output("error", ename="ZeroDivisionError", evalue="division by zero", traceback=[])
    note = new_markdown_cell("<span>An Exception</span>", metadata={"tags": ["papermill-error-cell-tag"]})
    cells = [note, *curve_cells(), new_code_cell("1 / 0", execution_count=7, outputs=[error])]
    story = story_of(new_notebook(cells=cells))
    assert story.title == "Figures 1 to 9 · Do they fall?"
    assert story.failure == "It stopped at In [7]: ZeroDivisionError: division by zero"


def test_a_notebook_that_was_killed_or_still_runs_says_so():
    run = {"start_time": "2026-11-23T11:48:23+00:00", "end_time": None, "duration": None}
    story = story_of(new_notebook(cells=curve_cells(), metadata={"papermill": run}))
    assert (story.failure, story.ended, story.seconds) == ("It has not run to its end.", "", None)


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("One. Two.", "One."),
        ("No end", "No end"),
        ("Gu et al. 2024 say so. Others do not.", "Gu et al. 2024 say so."),
        ("Half is 0.5 here! And more.", "Half is 0.5 here!"),
        ("Is it? |ΔW| says so.", "Is it?"),
        ("A claim (bound, n. of pairs) holds. Else not.", "A claim (bound, n. of pairs) holds."),
        ("", ""),
    ],
)
def test_a_sentence_ends_where_the_next_begins(text, first):
    assert first_sentence(text) == first


def test_plain_text_has_no_signs_of_markdown():
    assert plain("**How** the `n`\nof *all* [pages](https://x.org) < 5") == "How the n of all pages < 5"
