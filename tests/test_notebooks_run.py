"""Every listed notebook runs from a clean kernel and writes what the list says, readable and with numbers in it."""

from pathlib import Path

import nbformat
import pandas as pd
import pytest
from PIL import Image

from workbench.figures.manifest import read_manifest, select_for_profile
from workbench.figures.plan import plan
from workbench.figures.regenerate import regenerate
from workbench.report.summary import summarize

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"


@pytest.fixture(scope="module")
def smoke(tmp_path_factory, smollm2) -> tuple[Path, list[Path]]:
    """Figures and executed notebooks of the smoke profile."""
    folder = tmp_path_factory.mktemp("smoke")
    places = {"notebooks": NOTEBOOKS, "figures": folder / "figures", "build": folder / "build"}
    executed = regenerate(plan(profile="smoke", **places))
    return folder / "figures", [run.notebook for run in executed]


@pytest.mark.slow
def test_every_figure_of_the_list_is_written_and_holds_numbers(smoke):
    figures, executed = smoke
    entries = select_for_profile(read_manifest(NOTEBOOKS), (), "smoke")
    assert len(executed) == len(entries) >= 4
    for name in (name for entry in entries for name in entry.makes):
        table = pd.read_csv(figures / f"{name}.csv")
        assert len(table) > 0
        assert table.select_dtypes("number").notna().any(axis=None)


@pytest.mark.slow
def test_every_picture_is_large_enough_to_print_and_its_svg_small_enough_to_commit(smoke):
    figures, _ = smoke
    pictures = sorted(figures.glob("*.png"))
    assert len(pictures) >= 6
    for picture in pictures:
        with Image.open(picture) as image:
            assert min(image.size) >= 400
        assert picture.with_suffix(".svg").stat().st_size < 1_000_000


@pytest.mark.slow
def test_no_executed_notebook_holds_an_error_or_a_warning(smoke):
    _, executed = smoke
    for path in executed:
        outputs = [o for cell in nbformat.read(path, as_version=4).cells for o in cell.get("outputs", [])]
        assert outputs
        assert [o for o in outputs if o.output_type == "error"] == []
        assert [o.text for o in outputs if o.output_type == "stream" and "Warning" in o.text] == []


@pytest.mark.slow
def test_provenance_is_written_out_to_its_last_word(smoke):
    _, executed = smoke
    said = {path: summarize(nbformat.read(path, as_version=4)).provenance for path in executed}
    whole = [lines for lines in said.values() if lines]
    assert len(whole) >= 8
    assert [line for lines in whole for line in lines.values() if line.endswith("...")] == []
    assert all("workbench 0" in lines["versions"] for lines in whole)
