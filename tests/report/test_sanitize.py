"""HTML from data is shown, and never has an effect."""

import pandas as pd
import pytest
from bs4 import BeautifulSoup

from workbench.report.sanitize import sanitize_html


def parsed(html):
    return BeautifulSoup(sanitize_html(html), "html.parser")


@pytest.mark.parametrize(
    "html",
    [
        "<script>alert(1)</script>",
        "<iframe src='https://example.org'></iframe>",
        "<svg onload=alert(1)>",
        "<object data='x.swf'></object>",
        "<link rel=stylesheet href='https://example.org/x.css'>",
        "<form action='https://example.org'><button>go</button></form>",
    ],
)
def test_what_could_run_or_load_is_shown_as_the_text_that_it_is(html):
    soup = parsed(f"<p>{html}</p>")
    assert {element.name for element in soup()} == {"p"}
    assert html.partition(" ")[0].split(">")[0] in soup.get_text()


def test_handlers_styles_and_names_go_and_the_text_stays():
    soup = parsed('<table><tr><td id="a" class="b" style="top:0" onclick="f()" colspan="2">text</td></tr></table>')
    assert soup.td.attrs == {"colspan": "2"}
    assert soup.td.get_text() == "text"


def test_style_sheets_go_with_what_they_hold():
    assert parsed("<style>td {color: red}</style><p>text</p>").get_text() == "text"


@pytest.mark.parametrize(
    ("address", "kept"),
    [
        ("https://arxiv.org/abs/2401.04700", True),
        ("mailto:someone@example.org", True),
        ("javascript:alert(1)", False),
        ("jAvA\tscript:alert(1)", False),
        ("data:text/html,<script>alert(1)</script>", False),
        ("file:///etc/passwd", False),
    ],
)
def test_links_lead_to_pages_only(address, kept):
    assert ("href" in parsed(f'<a href="{address}">text</a>').a.attrs) == kept


def test_pictures_are_those_that_the_page_holds_and_others_are_words():
    assert sanitize_html('a <img src="https://example.org/x.png" alt="far <b>"> one') == "a far &lt;b&gt; one"
    assert sanitize_html('<img src="../x.png">') == '&lt;img src="../x.png"/&gt;'
    assert parsed('<img src="data:image/png;base64,AA==" alt="here" onerror="f()">').img.attrs == {
        "src": "data:image/png;base64,AA==",
        "alt": "here",
    }


def test_a_table_gets_a_box_to_scroll_in_that_the_keyboard_reaches():
    box = parsed("<p>text</p><table><tr><td>1</td></tr></table>").table.parent
    assert (box["class"], box["tabindex"], box["role"]) == (["scroll"], "0", "region")


def test_a_tag_in_an_attribute_stays_in_it():
    soup = parsed('<img src="data:image/" alt="<table onclick=alert(1) x="><p>text</p>')
    assert {element.name for element in soup()} == {"img", "p"}
    assert soup.img.attrs == {"src": "data:image/", "alt": "<table onclick=alert(1) x="}


def test_columns_of_numbers_are_set_as_numbers_and_others_are_not():
    table = pd.DataFrame({"name": ["a", "1"], "n": [1, 20000], "share": ["12.5 %", ""], "effect": [-0.5, float("nan")]})
    for html in (table.to_html(), table.style.to_html()):
        soup = parsed(html)
        assert [th.get("class") == ["num"] for th in soup.thead("th")] == [False, False, True, True, True]
        assert [td.get("class") == ["num"] for td in soup.tbody("td")] == [False, True, True, True] * 2


def test_columns_are_counted_from_the_right_where_index_cells_span_rows():
    table = pd.DataFrame({"task": ["a", "a"], "metric": ["x", "y"], "n": [1, 2]}).set_index(["task", "metric"])
    soup = parsed(table.to_html())
    assert soup.tbody.th["rowspan"] == "2"
    assert [td["class"] for td in soup.tbody("td")] == [["num"], ["num"]]
    assert not any("class" in th.attrs for th in soup.tbody("th"))


def test_long_names_of_columns_may_break_and_stay_the_same_words():
    soup = parsed(pd.DataFrame({"share_above_<b>": [1], "n": [2]}).to_html())
    first, second = soup.thead("th")[1:]
    assert first.decode_contents() == "share_<wbr/>above_<wbr/>&lt;b&gt;"
    assert (first.get_text(), second.get_text()) == ("share_above_<b>", "n")
