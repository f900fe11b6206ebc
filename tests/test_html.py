"""HTML from templates: values are escaped once, and a missing value is an error."""

import pytest
from jinja2 import UndefinedError

from workbench.html import render, template_environment

HOSTILE = '<script>alert("x")</script>'


def test_a_value_is_escaped_in_text_and_in_attributes():
    assert render('<b title="{{ text }}">{{ text }}</b>', text=HOSTILE) == (
        '<b title="&lt;script&gt;alert(&#34;x&#34;)&lt;/script&gt;">&lt;script&gt;alert(&#34;x&#34;)&lt;/script&gt;</b>'
    )


def test_html_that_a_template_made_is_not_escaped_again():
    cell = render("<td>{{ text }}</td>", text="a < b")
    assert render("<tr>{{ cell }}</tr>", cell=cell) == "<tr><td>a &lt; b</td></tr>"


def test_a_missing_value_is_an_error():
    with pytest.raises(UndefinedError, match="'name' is undefined"):
        render("{{ name }}")


def test_templates_in_files_escape_too(tmp_path):
    (tmp_path / "row.html").write_text("<td>{{ text }}</td>")
    row = template_environment(tmp_path).get_template("row.html").render(text="<b>")
    assert row == "<td>&lt;b&gt;</td>"
