"""A report is whole, links only to itself, replaces only itself, and refuses bad input in one sentence."""

import base64
import hashlib
import json
import re
import tomllib
from fnmatch import fnmatch
from pathlib import Path
from urllib.parse import unquote

import nbformat
import pytest
from bs4 import BeautifulSoup
from markupsafe import Markup
from nbformat.v4 import new_code_cell

from tests.helpers import error_of
from tests.report.conftest import CLAIMS, CURVE, HOSTILE, LATER, claims_cells, curve_cells, result
from workbench.errors import DiskError, ReportError, SpecError
from workbench.html import content_policy
from workbench.interactive import View, page_script
from workbench.interactive.view import kinds
from workbench.report import write

ROOT = Path(__file__).parent.parent.parent
PAGES = ["01_curve-figure1.html", "02_claims-claims.html", "index.html"]
FILES = ["claims.csv", "curve.csv", "curve.png", "curve.svg", "curve_table.csv"]


def page(path):
    return BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")


def addresses(soup):
    """Return whatever a page points to: name of the attribute, address."""
    named = [(name, element[name]) for name in ("href", "src") for element in soup(attrs={name: True})]
    assert not soup(attrs={"srcset": True}) + soup(["object", "embed", "iframe", "video", "audio", "source", "base"])
    return named


def facts_of(soup):
    return {part.dt.get_text(): part.dd.get_text() for part in soup.find("dl", class_="facts")("div")}


@pytest.fixture
def written(project):
    """Give the folder of a report."""
    return project.report().path.parent


@pytest.fixture
def one(project):
    """Give the soup of a report in one file."""
    return page(project.report(single_file=True).path)


# content


def test_a_report_is_an_index_a_page_for_each_notebook_and_their_files(project):
    report = project.report()
    assert report.path == project.out / "index.html"
    assert (report.pages, report.missing) == (("figure1", "claims"), ("later",))
    names = sorted(path.relative_to(project.out).as_posix() for path in project.out.rglob("*") if path.is_file())
    assert names == sorted([*PAGES, *(f"files/{name}" for name in FILES), "thumbs/curve.png", "report.json"])
    for name in FILES:
        assert (project.out / "files" / name).read_bytes() == (project.figures / name).read_bytes()


def test_the_index_shows_of_each_figure_what_a_reader_wants_to_know(written):
    first, second = page(written / "index.html")("article")
    assert first.h2.get_text() == "Figure 1 Does it fall?"
    assert first.find(class_="question").get_text() == "Where do they go, and when?"
    assert first.find(class_="reading").get_text() == "One line per method: 0.5 e.g. is half."
    assert facts_of(first) == {
        "Model": HOSTILE,
        "Seed": "3, 4",
        "Profile": "smoke",
        "Run on": "2026-11-23",
        "Took": "64 s",
    }
    rows = [[part.get_text() for part in row(["th", "td"])] for row in first.find(class_="spec").tbody("tr")]
    assert rows == [
        ["model", HOSTILE, "language model to edit"],
        ["seeds", "3, 4", "each draws its own facts"],
        ["name", "curve", "name of the files"],
    ]
    assert [td.get_text() for td in first(class_="changed")] == [HOSTILE, "3, 4"]
    assert [a.get_text() for a in first.find(class_="files")("a")] == ["CSV", "PNG", "SVG", "CSV"]
    assert [img["alt"] for img in first("img")] == ["Figure 1 · Does it fall? One line per method: 0.5 e.g. is half."]
    assert second.h2.get_text() == "Claims"
    assert second.find(class_="preview").get_text("|").startswith(f"claim|effect|{HOSTILE}|1|more|2")


def test_a_table_of_verdicts_is_counted_on_its_card(project):
    table = project.figures / "claims.csv"
    table.write_text("claim,verdict\na,holds\nb,not enough data\nc,not enough data\n")
    project.record(CLAIMS, [table])
    card = page(project.report().path)("article")[1]
    assert [each.get_text() for each in card.find(class_="verdicts")("span")] == ["2 not enough data", "1 holds"]
    assert card.find(class_="preview") is None


def test_the_smallest_sizes_are_marked_as_no_results(project):
    written = project.report().path.parent
    for name in PAGES:
        assert "The numbers are no results." in page(written / name).find("header").get_text()


def test_versions_are_those_of_the_run(project):
    index = page(project.report().path)
    first, second = (article.find(class_="spec").get_text() for article in index("article"))
    assert re.search(r"Run with workbench [\d.]+, torch 2\.\S+, .*, Python 3\.11\.7\.", first)
    assert "Run with Python 3.12.1." in second
    (project.root / "build" / "smoke" / "records" / "figure1.json").unlink()
    first = page(project.report().path).article.find(class_="spec").get_text()
    assert "Run with torch 2.0, Python 3.11.7." in first


def test_what_has_not_been_run_is_named(project):
    assert page(project.report().path).find(class_="missing").li.get_text() == LATER["title"]
    project.write_notebook(LATER, claims_cells())
    report = project.report()
    assert report.missing == ()
    assert page(report.path).find(class_="missing") is None


def test_pages_lead_to_their_neighbors_and_back(written):
    first, second, _ = (page(written / name) for name in PAGES)
    assert [a["href"] for a in first.nav("a")] == ["index.html", "02_claims-claims.html"]
    assert [a["href"] for a in second.nav("a")] == ["index.html", "01_curve-figure1.html"]


def test_a_picture_that_no_cell_names_is_shown_above_the_cells(project):
    cells = [cell for cell in curve_cells() if "save_figure" not in cell.source]
    project.write_notebook(CURVE, cells)
    soup = page(project.report().path.with_name(PAGES[0]))
    assert [img["src"] for img in soup("img")] == ["files/curve.png"]
    assert soup.find(class_="cells").find().name == "figure"


def test_the_same_runs_give_the_same_bytes(project):
    first = {path: path.read_bytes() for path in project.report().path.parent.rglob("*") if path.is_file()}
    assert len(first) == 10
    project.report()
    assert {path: path.read_bytes() for path in project.out.rglob("*") if path.is_file()} == first


# it opens anywhere, and nothing in it runs


def test_everything_that_a_page_points_to_is_in_the_folder(written):
    seen = 0
    for name in PAGES:
        for _, address in addresses(page(written / name)):
            if address not in ("data:,", "#top"):
                assert (written / unquote(address)).is_file(), address
                seen += 1
    assert seen >= 20


def test_one_file_holds_all_files_and_points_to_nothing_else(project, one):
    found = addresses(one)
    assert len(found) >= 12
    assert all(address.startswith(("#", "data:")) for _, address in found)
    ids = {element["id"] for element in one(id=True)}
    assert {address[1:] for _, address in found if address.startswith("#")} <= ids
    downloads = {a["download"]: base64.b64decode(a["href"].partition(",")[2]) for a in one("a", download=True)}
    assert downloads == {name: (project.figures / name).read_bytes() for name in FILES}
    assert len(one("article")) == len(one("section", class_="page")) == 2


def test_no_place_on_the_machine_is_given_away(project):
    paths = [*(path for path in project.report().path.parent.rglob("*") if path.is_file())]
    paths.append(project.report(single_file=True).path)
    assert len(paths) == 11
    assert [path for path in paths if str(project.root).encode() in path.read_bytes()] == []


def test_text_from_data_is_text_wherever_it_stands(project, one):
    for soup in [page(project.report().path.with_name(name)) for name in PAGES] + [one]:
        assert soup("script") == []
        assert [e for e in soup() if any(name.startswith("on") for name in e.attrs)] == []
        assert soup.find("img", src=re.compile("example")) is None
    text = page(project.out / PAGES[0]).find(class_="cells").get_text()
    assert text.count('<script>alert("x")</script>') == 4  # printed, escaped table, styled table, Markdown


def test_the_policy_allows_no_script_and_this_style_sheet_only(written):
    for name in PAGES:
        soup = page(written / name)
        [policy] = [meta["content"] for meta in soup("meta", attrs={"http-equiv": "Content-Security-Policy"})]
        rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
        style = base64.b64encode(hashlib.sha256(soup.style.string.encode()).digest()).decode()
        assert rules["default-src"] == "'none'"
        assert "script-src" not in rules
        assert rules["style-src"] == f"'sha256-{style}'"
        assert soup(attrs={"style": True}) == []
        assert not re.search(r"url\(|@import|@font-face", soup.style.string)


def test_a_view_responds_on_its_own_page_and_nowhere_else(project):
    view = View(kinds()[0], {"text": HOSTILE}, Markup(f"<table><tr><td onclick='x()'>1</td></tr></table>{HOSTILE}"))
    project.write_notebook(CURVE, [*curve_cells(), new_code_cell("view", outputs=[result(view._repr_mimebundle_())])])
    written = project.report().path.parent
    soup = page(written / PAGES[0])
    data, script = soup("script")
    assert json.loads(data.string) == {"kind": view.kind, "data": view.data}
    assert script.string == page_script()
    [policy] = [meta["content"] for meta in soup("meta", attrs={"http-equiv": "Content-Security-Policy"})]
    assert policy == content_policy(soup.style.string, script.string)
    fallback = soup.find(class_="wb-view-fallback")
    assert fallback.td.attrs == {"class": ["num"]}
    assert fallback("script") == []
    for name in PAGES[1:]:
        assert page(written / name)("script") == []
    assert len(page(project.report(single_file=True).path)("script")) == 2


def test_a_page_has_what_a_phone_and_a_screen_reader_need(written):
    for name in PAGES:
        soup = page(written / name)
        assert soup.html["lang"] == "en"
        assert soup.find("meta", attrs={"name": "viewport"})["content"] == "width=device-width, initial-scale=1"
        assert all(len(img["alt"]) > 20 for img in soup("img"))
        assert all(table.parent["class"] == ["scroll"] for table in soup("table"))
        assert len(soup("h1")) == len(soup("main")) == 1


def test_the_package_takes_its_templates_along():
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["workbench"]
    folder = ROOT / "workbench" / "report"
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")]
    assert len(files) >= 8
    for path in files:
        name = path.relative_to(ROOT / "workbench").as_posix()
        assert any(fnmatch(name, each) and name.count("/") == each.count("/") for each in patterns), name


# errors


def test_a_notebook_that_failed_is_shown_as_far_as_it_ran(project):
    error = nbformat.v4.new_output("error", ename="ValueError", evalue="bad <b>", traceback=["ValueError: bad <b>"])
    failing = nbformat.v4.new_code_cell("fail()", execution_count=9, outputs=[error])
    project.write_notebook(CURVE, [*curve_cells()[:5], failing])
    index = page(project.report().path)
    assert index.find(class_="notice").get_text() == "The run stopped at In [9]: ValueError: bad <b>"
    assert "ValueError: bad <b>" in page(project.out / PAGES[0]).find(class_="error").get_text()


def test_files_that_are_missing_or_not_those_of_the_run_are_named(project):
    (project.figures / "curve.svg").write_text("<svg/>")
    (project.figures / "curve_table.csv").unlink()
    (project.figures / "claims.csv").unlink()
    notices = [part.get_text() for part in page(project.report().path)(class_="notice")]
    assert notices == [
        "The files of curve_table are not in the folder of figures.",
        "curve.svg is not the file that this run wrote; it has been changed or rewritten since.",
        "The files of claims are not in the folder of figures.",
    ]


def test_nothing_run_says_what_to_run(bare, refused):
    executed, figures = bare.executed, bare.root / "notebooks" / "figures.yaml"
    assert refused(ReportError, bare.report) == (
        f"{executed} holds no executed notebook that {figures} lists; "
        "run `workbench regenerate --profile smoke` first, or name another folder with --build."
    )
    assert not bare.out.exists()


def test_an_unknown_profile_is_named(project, refused):
    sentence = refused(SpecError, project.report, profile="large")
    assert sentence == "profile 'large' is not known; known: smoke, default, study, paper."


def test_a_file_that_is_no_notebook_is_named_with_its_cure(project, refused):
    path = project.executed / "02_claims-claims.ipynb"
    minor = '{"nbformat": 4, "nbformat_minor": NaN, "cells": []}'
    for content in ("not JSON", "[]", '{"nbformat": 4}', minor):
        path.write_text(content)
        sentence = refused(ReportError, project.report)
        assert sentence.startswith(f"{path} is not a notebook (")
        assert sentence.endswith("); `workbench regenerate claims --again` makes it again.")
    assert not project.out.exists()


def test_a_file_that_is_no_picture_is_named(project, refused):
    (project.figures / "curve.png").write_text("no picture")
    assert refused(ReportError, project.report) == (
        f"{project.figures / 'curve.png'} is not a picture; `workbench regenerate curve --again` makes it again."
    )


def test_a_folder_without_the_figures_is_named(project, refused):
    assert refused(ReportError, project.report, figures=project.root / "elsewhere") == (
        f"{project.root / 'elsewhere'} holds none of the figures' files; name the folder that does with --figures."
    )


def test_a_notebook_that_is_not_in_the_list_is_left_out_and_named(project, caplog):
    other = project.write_notebook({**CLAIMS, "figure": "old"}, claims_cells())
    assert project.report().pages == ("figure1", "claims")
    assert caplog.messages == [f"{other} is left out: figures.yaml has no entry for it."]


# what it replaces


def content(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_report_replaces_an_older_one_whole(project):
    project.report()
    (project.executed / "02_claims-claims.ipynb").unlink()
    project.report()
    assert not (project.out / "02_claims-claims.html").exists()
    assert not (project.out / "files" / "claims.csv").exists()


@pytest.mark.parametrize("single_file", [False, True])
def test_a_full_disk_keeps_the_older_report(project, small_disk, single_file):
    out = small_disk.path / "report"
    project.report(out=out, single_file=single_file)
    before = {path: path.read_bytes() for path in [out, *out.rglob("*")] if path.is_file()}
    small_disk.fill()
    assert error_of(DiskError, project.report, out=out, single_file=single_file) == (
        f"{out} cannot be written (No space left on device); free some space, or give a folder on another disk."
    )
    assert {path: path.read_bytes() for path in [out, *out.rglob("*")] if path.is_file()} == before
    assert sorted(path.name for path in small_disk.path.iterdir()) == ["filler", "report"]


def test_a_folder_that_holds_something_else_stays_as_it_is(project, refused):
    project.report()
    (project.out / "files" / "notes.txt").write_text("mine")
    before = content(project.out)
    assert refused(ReportError, project.report) == (
        f"{project.out} holds files/notes.txt, which is not part of a report; move it, or give another folder."
    )
    notebooks = project.root / "notebooks"
    assert refused(ReportError, project.report, out=notebooks) == (
        f"{notebooks} holds figures.yaml, which is not part of a report; move it, or give another folder."
    )
    assert content(project.out) == before


def test_a_page_that_somebody_changed_stays_as_it_is(project, refused):
    index = project.report().path
    index.write_text(index.read_text() + "<p>my remark</p>")
    assert refused(ReportError, project.report) == (
        f"{index} was changed since the report was written; move it, or give another folder."
    )
    assert index.read_text().endswith("<p>my remark</p>")


@pytest.mark.parametrize("manifest", ["", "[]", '{"files": [1]}', '{"files": {"index.html": 3}}'])
def test_a_damaged_list_of_what_was_written_protects_all(project, refused, manifest):
    project.report()
    (project.out / "report.json").write_text(manifest)
    before = content(project.out)
    refused(ReportError, project.report)
    assert content(project.out) == before


def test_one_file_replaces_an_older_report_and_nothing_else(project, refused):
    path = project.report(single_file=True).path
    assert path == project.root / "build" / "report.html"
    before = path.read_bytes()
    assert project.report(single_file=True).path.read_bytes() == before
    path.write_text("<html>mine</html>")
    assert refused(ReportError, project.report, single_file=True) == (
        f"{path} exists and is not a report; move it, or give another name."
    )
    assert path.read_text() == "<html>mine</html>"
    assert refused(ReportError, project.report, single_file=True, out=project.figures) == (
        f"{project.figures} is a folder; give the name of an HTML file."
    )
    assert refused(ReportError, project.report, out=path) == f"{path} is a file; give the name of a folder to make."


def test_a_run_that_fails_leaves_the_older_report_and_nothing_half(project, monkeypatch):
    project.report()
    before = content(project.root)

    def fail(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(write, "render_page", fail)
    with pytest.raises(KeyboardInterrupt):
        project.report()
    monkeypatch.undo()
    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(KeyboardInterrupt):
        project.report()
    monkeypatch.undo()
    assert content(project.root) == before


# the command


def test_the_command_says_where_the_report_is_and_what_is_left_out(project, cli, monkeypatch):
    monkeypatch.chdir(project.root)
    result = cli("report", "--profile", "smoke")
    assert (result.code, result.err) == (0, "")
    assert result.out.splitlines() == ["2 figures: build/report/index.html", "not run yet and left out: later"]
    result = cli("report", "--profile", "smoke", "--single-file", "--out", "mine.html")
    assert result.out.splitlines()[0] == "2 figures: mine.html"
    assert json.loads(Path("build/report/report.json").read_text())["profile"] == "smoke"


def test_the_command_refuses_in_one_sentence(bare, cli, monkeypatch):
    monkeypatch.chdir(bare.root)
    result = cli("report")
    assert (result.code, result.out) == (2, "")
    assert result.err == (
        "workbench: build/default/notebooks holds no executed notebook that notebooks/figures.yaml lists; "
        "run `workbench regenerate --profile default` first, or name another folder with --build.\n"
    )
