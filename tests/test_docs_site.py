"""The documentation site is built without a warning and without the network, and describes every public name."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from bs4 import BeautifulSoup

import workbench as wb

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Give the folder of the built site; whatever would reach the network fails."""
    folder = tmp_path_factory.mktemp("site")
    nowhere = "http://127.0.0.1:9"
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "http_proxy": nowhere, "https_proxy": nowhere, "NO_MKDOCS_2_WARNING": "1"},
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site):
    """Give every page of the site, parsed, by its path."""
    found = {
        path.relative_to(site).as_posix(): BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")
        for path in site.rglob("*.html")
    }
    assert len(found) > 15
    return found


def test_every_public_name_is_in_the_reference(pages):
    described = {
        tag["id"] for path, page in pages.items() if path.startswith("reference/") for tag in page("h2", id=True)
    }
    raised = {name for name in wb.__all__ if name.endswith("Error")}
    assert {f"workbench.{name}" for name in set(wb.__all__) - raised} - described == set()
    assert all(f"workbench.errors.{name}" in str(pages["reference/errors.html"]) for name in raised)


def test_the_parameters_of_a_public_function_are_in_a_table(pages):
    text = pages["reference/experiments.html"].get_text(" ")
    assert re.search(r"Parameters:.*\bspecs\b", text, re.DOTALL)


def test_every_command_is_in_the_reference(pages):
    titles = {tag["id"] for tag in pages["reference/commands.html"]("h2", id=True)}
    assert {"edit", "evaluate", "run", "regenerate", "report", "facts-check"} <= titles


def test_the_gallery_shows_the_pictures_of_the_study_where_there_are_any(site, pages):
    shown = {tag["src"] for tag in pages["gallery.html"].find_all("img", src=re.compile("^pictures/"))}
    assert len(shown) >= 10
    assert all((site / name).stat().st_size > 5000 for name in shown)
    of_study = {path.name: path for path in (ROOT / "figures" / "study").glob("*.png")}
    assert {f"pictures/{name}" for name in of_study} <= shown
    assert all((site / "pictures" / name).read_bytes() == path.read_bytes() for name, path in of_study.items())
    assert all(tag["alt"] for tag in pages["gallery.html"].find_all("img", src=re.compile("^pictures/")))


def test_no_page_loads_anything_from_the_network(pages):
    for path, page in pages.items():
        loaded = [tag.get("src") for tag in page(["script", "img", "iframe"])]
        loaded += [tag.get("href") for tag in page("link") if tag.get("rel") != ["canonical"]]
        assert [name for name in loaded if name and re.match(r"(https?:)?//", name)] == [], path
