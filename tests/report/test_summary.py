"""A summary holds what the notebook has, and is empty where it has nothing."""

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from tests.report.conftest import CURVE, curve_cells
from workbench.report.summary import Parameter, first_sentence, plain_text, summarize


def test_the_summary_of_a_notebook_in_the_project_form_is_complete(bare):
    path = bare.write_notebook(CURVE, curve_cells(), {"seeds": [3, 4]})
    summary = summarize(nbformat.read(path, 4))
    assert summary.title == "Figures 1 to 9 · Do they fall?"
    assert summary.question == "Where do they go, and when?"
    assert summary.reading == "One line per method: 0.5 e.g. is half."
    assert summary.provenance == {"model tiny": "fingerprint 1f", "versions": "torch 2.0", "python": "3.11.7"}
    assert (summary.ended[:10], summary.seconds, summary.failure) == ("2026-11-23", 63.6, "")


def test_parameters_have_the_values_of_the_run_and_the_notes_of_the_notebook(bare):
    path = bare.write_notebook(CURVE, curve_cells(), {"seeds": [3, 4]})
    assert summarize(nbformat.read(path, 4)).parameters == (
        Parameter("model", "tiny", "language model to edit", changed=False),
        Parameter("seeds", [3, 4], "each draws its own facts", changed=True),
        Parameter("name", "curve", "name of the files", changed=False),
    )


def test_a_notebook_without_any_of_it_has_an_empty_summary():
    summary = summarize(new_notebook(cells=[new_code_cell("1 +", outputs=[])]))
    assert (summary.title, summary.question, summary.reading, summary.parameters) == ("", "", "", ())
    assert (summary.provenance, summary.ended, summary.seconds, summary.failure) == ({}, "", None, "")


def test_a_failed_notebook_keeps_its_title_and_the_place_of_the_failure():
    error = new_output("error", ename="ZeroDivisionError", evalue="division by zero", traceback=[])
    note = new_markdown_cell("<span>An Exception</span>", metadata={"tags": ["papermill-error-cell-tag"]})
    cells = [note, *curve_cells(), new_code_cell("1 / 0", execution_count=7, outputs=[error])]
    summary = summarize(new_notebook(cells=cells))
    assert summary.title == "Figures 1 to 9 · Do they fall?"
    assert summary.failure == "The run stopped at In [7]: ZeroDivisionError: division by zero"


def test_a_notebook_that_was_killed_or_still_runs_is_marked():
    run = {"start_time": "2026-11-23T11:48:23+00:00", "end_time": None, "duration": None}
    summary = summarize(new_notebook(cells=curve_cells(), metadata={"papermill": run}))
    assert (summary.failure, summary.ended, summary.seconds) == ("The run did not reach its end.", "", None)


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


def test_plain_text_has_no_markup():
    assert plain_text("**How** the `n`\nof *all* [pages](https://x.org) < 5") == "How the n of all pages < 5"
