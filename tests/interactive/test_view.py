"""Views: data that cannot become markup, scripts that stay among themselves, and the sentence for a wrong kind."""

import json
import re
from pathlib import Path

import pytest
from bs4 import BeautifulSoup
from markupsafe import Markup

import workbench.interactive as interactive
from tests.helpers import error_of
from workbench.errors import ReportError
from workbench.html import content_policy
from workbench.interactive import MIME, View, load_view, module, page_script, style
from workbench.interactive.view import kinds

HOSTILE = '</script><script>alert("x")</script><!-- \u2028'
FOLDER = Path(interactive.__file__).parent
SCRIPTS = sorted((FOLDER / "js").glob("*.js"))


def test_an_element_holds_its_data_whatever_the_texts():
    data = {"tokens": [HOSTILE, "plain"], HOSTILE: None}
    soup = BeautifulSoup(View(kinds()[0], data, Markup("<p>table</p>")).to_html(), "html.parser")
    [script] = soup("script")
    assert script["type"] == "application/json"
    assert json.loads(script.string) == {"kind": kinds()[0], "data": data}
    assert soup.find(class_="wb-view-fallback").p.string == "table"


def test_a_kind_without_a_script_is_refused_with_those_that_there_are():
    error = error_of(ReportError, View, "pie", {})
    assert error == f"there is no view of the kind 'pie'; known: {', '.join(kinds())}."


@pytest.mark.parametrize("content", [None, [], {"kind": "lens"}, {"kind": "lens", "data": []}])
def test_an_output_without_data_is_refused(content):
    assert error_of(ReportError, load_view, content) == f"an output of the type {MIME} has no data."


def test_what_a_notebook_keeps_of_a_view_is_the_view():
    view = View(kinds()[0], {"a": [1, 2]}, Markup("<b>x</b>"))
    bundle = json.loads(json.dumps(view._repr_mimebundle_()))
    assert load_view(bundle[MIME]) == view
    assert bundle["text/html"] == "<b>x</b>"


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_makes_text_of_data_and_asks_for_nothing(path):
    text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
    forbidden = (
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function|fetch\(|XMLHttp|import\(|https?:"
    )
    assert re.findall(forbidden, text) == []
    if path.stem != "base":
        code = "\n".join(line for line in text.splitlines() if not line.startswith("//"))
        assert re.match(rf"\s*views\.{path.stem} = \(root, data, send, state\) => \{{", code)
        assert code.rstrip().endswith("};")


def test_page_and_widget_run_the_same_functions():
    assert len(SCRIPTS) > 5
    for name in kinds():
        assert f"views.{name} = " in page_script()
        assert f"views.{name} = " in module()
    assert module().rstrip().endswith("export default { render: renderWidget };")
    assert "url(" not in style()


def test_the_policy_of_a_page_allows_one_script_and_one_style_sheet():
    rules = dict(rule.split(" ", 1) for rule in content_policy("a{}", "f()").split("; "))
    assert rules["script-src"].startswith("'sha256-")
    assert rules["style-src"].startswith("'sha256-")
    assert "script-src" not in content_policy("a{}")
    assert content_policy("a{}", "f()") != content_policy("a{}", "g()")
