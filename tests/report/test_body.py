"""The cells of a notebook as HTML: text first, code folded, pictures from their files."""

from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from tests.report.conftest import curve_cells, result
from workbench.report.body import render_body, saved_figure_names

VALUES = {"name": "curve", "n": 3}


def picture_html(name, alt):
    return f'<figure><img src="{name}.png" alt="{alt}"></figure>'


def body(*cells, picture_html=picture_html):
    html = render_body(
        new_notebook(cells=list(cells)), title="Figure 1 · Does it fall?", values=VALUES, picture_html=picture_html
    )
    return BeautifulSoup(html, "html.parser")


def test_title_question_and_parameters_are_left_to_the_page():
    text = body(*curve_cells()).get_text()
    assert "After a paper." in text
    assert not any(part in text for part in ("Figures 1 to 9", "Where do they go", "seeds", 'name = "curve"'))


def test_all_code_is_folded():
    soup = body(*curve_cells())
    folds = soup("details", class_="code")
    assert len(folds) == len(soup(class_="highlight")) == 6
    assert not any("open" in fold.attrs for fold in folds)
    assert [fold.summary.get_text() for fold in folds][:2] == ["Code [2]", "Code [3]"]


def test_messages_are_folded_and_progress_bars_left_out():
    soup = body(*curve_cells())
    assert "a word of warning" in soup.find(class_="messages").get_text()
    assert "0%|" not in soup.get_text()


def test_a_figure_is_its_file_with_what_it_shows_in_words():
    soup = body(*curve_cells())
    assert [(img["src"], img["alt"]) for img in soup("img")] == [
        ("curve.png", "Figure 1 · Does it fall? One line per method: 0.5 e.g. is half."),
    ]
    assert "<Figure size" not in soup.get_text()


def test_a_heading_that_says_more_than_figure_names_the_picture_and_each_has_its_own_reading():
    figure = result({"text/plain": "<Figure size 9x9 with 1 Axes>"})
    cells = []
    for letter in "ab":
        cells += [new_markdown_cell(f"## Figure 5 {letter} · |ΔW|")]
        cells += [new_code_cell(f'save_figure(f, t, d, "{letter}")\nf', outputs=[figure])]
        cells += [new_markdown_cell(f"**How to read it.** Panel {letter}. More.")]
    assert [img["alt"] for img in body(*cells)("img")] == ["Figure 5 a · |ΔW|. Panel a.", "Figure 5 b · |ΔW|. Panel b."]


def test_a_picture_that_a_cell_saves_is_shown_even_if_the_cell_does_not_end_in_it():
    assert body(new_code_cell('save_figure(f, t, d, "a")')).img["src"] == "a.png"


def test_a_picture_in_the_notebook_is_shown_where_no_file_is_named():
    both = result({"image/png": "AA==", "text/plain": "<Figure size 9x9 with 1 Axes>"})
    soup = body(new_markdown_cell("## Here"), new_code_cell("f", outputs=[both]))
    assert (soup.img["src"], soup.img["alt"]) == ("data:image/png;base64,AA==", "Here.")


def test_a_figure_of_which_there_is_no_file_and_no_picture_leaves_nothing():
    named = result({"text/plain": "<Figure size 9x9 with 1 Axes>"})
    soup = body(new_code_cell('save_figure(f, t, d, "a")\nf', outputs=[named]), picture_html=lambda name, alt: "")
    assert soup.img is None
    assert "<Figure" not in soup.get_text()


def test_nothing_that_a_notebook_holds_runs():
    outputs = [
        result({"application/javascript": "alert(1)"}),
        result({"application/vnd.workbench.picture": "<script>alert(1)</script>", "text/plain": "a claimed picture"}),
        result({"text/latex": "<script>$</script>"}),
        result({"image/svg+xml": "<svg><script>alert(1)</script></svg>"}),
        result({"text/html": "<script>alert(1)</script>"}),
        new_output("stream", name="stdout", text="<script>alert(1)</script>"),
        new_output("error", ename="E", evalue="e", traceback=["<script>alert(1)</script>"]),
    ]
    cells = [new_markdown_cell("text <script>alert(1)</script>"), new_code_cell("'<script>'", outputs=outputs)]
    soup = body(*cells)
    assert soup("script") == soup("svg") == []
    assert soup.get_text().count("<script>") == 6
    assert soup.img["src"].startswith("data:image/svg+xml;base64,")  # where a script has no effect
    assert "a claimed picture" in soup.get_text()


def test_names_of_files_are_read_from_the_cell():
    assert saved_figure_names('files.save_figure(figure, table, figures_dir, "a")', {}) == ["a"]
    assert saved_figure_names("save_figure(figure, table, figures_dir, name=name)", VALUES) == ["curve"]
    assert saved_figure_names("save_figure(figure, table, figures_dir, other)", VALUES) == []
    assert saved_figure_names("save_figure(figure, table, figures_dir, n)", VALUES) == []
    assert saved_figure_names('save_table(table, figures_dir, "a")', {}) == []
    assert saved_figure_names("%matplotlib inline", {}) == []


def test_the_notebook_stays_as_it_is():
    notebook = new_notebook(cells=curve_cells())
    before = str(notebook)
    render_body(notebook, title="t", values=VALUES, picture_html=picture_html)
    assert str(notebook) == before
