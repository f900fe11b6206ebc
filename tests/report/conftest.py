"""A small project whose notebooks look as if they had been run, with every kind of output and a hostile fact."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pandas as pd
import pytest
import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

from workbench.figures.records import record_run
from workbench.report.write import Report, write_report

HOSTILE = '<script>alert("x")</script><img src="https://example.org/x.png" onerror="alert(1)">'
PARAMETERS = """\
model: str = "tiny"  # language model to edit
seeds: list = [0]  # each draws its own facts
name: str = "curve"  # name of the files
figures_dir: str = "../figures"  # folder of the files"""
CURVE = {
    "figure": "figure1",
    "title": "Figure 1 · Does it fall?",
    "notebook": "01_curve.ipynb",
    "makes": ["curve", "curve_table"],
    "profiles": {"smoke": {}, "default": {}},
}
CLAIMS = {**CURVE, "figure": "claims", "title": "Claims", "notebook": "02_claims.ipynb", "makes": ["claims"]}
LATER = {**CURVE, "figure": "later", "title": "Later · What next?", "notebook": "03_later.ipynb", "makes": ["later"]}


def result(data: dict) -> nbformat.NotebookNode:
    return new_output("execute_result", data=data, execution_count=1)


def curve_cells() -> list[nbformat.NotebookNode]:
    """Return the cells of a notebook with a figure, in the form of the project's notebooks."""
    widget = {"application/vnd.jupyter.widget-view+json": {"model_id": "1"}, "text/plain": "  0%|   | 0/9"}
    facts = pd.DataFrame({"fact": [HOSTILE, "plain"], "n": [1, 2]})
    lines = pd.Series({"model tiny": "fingerprint 1f", "versions": "torch 2.0", "python": "3.11.7"}, name="provenance")
    return [
        new_markdown_cell("# Figures 1 to 9 · Do they *fall*?\n\n*Where do they go, and `when`?*\n\nAfter a paper."),
        new_code_cell(PARAMETERS, execution_count=1, metadata={"tags": ["parameters"]}),
        new_code_cell('name = "curve"', metadata={"tags": ["injected-parameters"]}),
        new_markdown_cell("## Run"),
        new_code_cell(
            "results = run()",
            execution_count=2,
            outputs=[
                new_output("display_data", data=widget),
                new_output("stream", name="stderr", text="a word of warning\n"),
                new_output("stream", name="stdout", text=f"done: {HOSTILE}\n"),
            ],
        ),
        new_markdown_cell("## Figure"),
        new_code_cell(
            "files.save_figure(figure, table, figures_dir, name)\nfigure",
            execution_count=3,
            outputs=[result({"text/plain": "<Figure size 990x506 with 2 Axes>"})],
        ),
        new_markdown_cell("**How to read it.** One line per *method*: 0.5 e.g. is half. The dotted line is chance."),
        new_markdown_cell("## Tables"),
        new_code_cell("facts", outputs=[result({"text/html": facts.to_html(), "text/plain": "facts"})]),
        new_code_cell("facts.style", outputs=[result({"text/html": facts.style.to_html(), "text/plain": "styler"})]),
        new_code_cell("readme", outputs=[result({"text/markdown": f"| a | b |\n| --- | --- |\n| {HOSTILE} | 1 |\n"})]),
        new_markdown_cell("## Provenance"),
        new_code_cell("provenance", outputs=[result({"text/html": lines.to_frame().to_html()})]),
    ]


def claims_cells() -> list[nbformat.NotebookNode]:
    """Return the cells of a notebook without a picture, a question and a provenance."""
    return [new_markdown_cell("# Claims"), new_code_cell("table", outputs=[result({"text/plain": HOSTILE})])]


@dataclass
class Project:
    """A folder with a list of figures, executed notebooks and figure files."""

    root: Path

    @property
    def executed(self) -> Path:
        return self.root / "build" / "smoke" / "notebooks"

    @property
    def figures(self) -> Path:
        return self.root / "build" / "smoke" / "figures"

    @property
    def out(self) -> Path:
        return self.root / "build" / "report"

    def write_notebook(self, entry: dict, cells: list, given: dict | None = None) -> Path:
        papermill = {
            "parameters": {"figures_dir": str(self.figures), **(given or {})},
            "end_time": "2026-11-23T11:49:27.565888+00:00",
            "duration": 63.6,
        }
        language = {"name": "python", "version": "3.12.1", "pygments_lexer": "ipython3"}
        notebook = new_notebook(cells=cells, metadata={"papermill": papermill, "language_info": language})
        path = self.executed / f"{Path(entry['notebook']).stem}-{entry['figure']}.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook, path)
        return path

    def write_files(self, entry: dict, *names: str) -> list[Path]:
        self.figures.mkdir(parents=True, exist_ok=True)
        for name in names:
            path = self.figures / name
            if path.suffix == ".png":
                Image.effect_mandelbrot((1800, 900), (-3, -2.5, 2, 2.5), 20).save(path)
            elif path.suffix == ".svg":
                path.write_text('<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>')
            else:
                path.write_text(f"claim,effect\n{HOSTILE},1\n" + "more,2\n" * 20)
        return [self.figures / name for name in names]

    def record(self, entry: dict, paths: list[Path]) -> None:
        record_run(self.root / "build" / "smoke" / "records" / f"{entry['figure']}.json", "cause", paths, 1)

    def report(self, **given) -> Report:
        places = {"notebooks": self.root / "notebooks", "build": self.root / "build", "profile": "smoke"}
        return write_report(**{**places, **given})


@pytest.fixture
def bare(tmp_path) -> Project:
    """Give a project in which nothing has been run."""
    notebooks = tmp_path / "notebooks"
    notebooks.mkdir()
    (notebooks / "figures.yaml").write_text(yaml.safe_dump({"figures": [CURVE, CLAIMS, LATER]}))
    return Project(tmp_path)


@pytest.fixture
def project(bare) -> Project:
    """Give a project in which two of three notebooks have been run, one of them with a record."""
    bare.write_notebook(CURVE, curve_cells(), {"seeds": [3, 4], "model": HOSTILE})
    bare.record(CURVE, bare.write_files(CURVE, "curve.csv", "curve.png", "curve.svg", "curve_table.csv"))
    bare.write_notebook(CLAIMS, claims_cells())
    bare.write_files(CLAIMS, "claims.csv")
    return bare


@pytest.fixture
def refused() -> Callable[..., str]:
    """Give a function that calls another, which must raise, and returns the error's message."""

    def run(kind: type[Exception], function: Callable, **given) -> str:
        with pytest.raises(kind) as caught:
            function(**given)
        return str(caught.value)

    return run
