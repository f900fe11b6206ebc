"""One row is all it takes to add a method or a regularizer."""

from importlib.metadata import EntryPoint

import pytest

import workbench as wb
from workbench import registry
from workbench.errors import SpecError
from workbench.registry import make_editor, method_row, methods, regularizers
from workbench.rows import MethodRow, RegularizerRow, SeriesStyle

STYLE = SeriesStyle("#123456", "o", "-")


@pytest.mark.parametrize("name", methods())
def test_every_method_row_names_an_editor_whose_label_is_its_title(name, tiny_lm):
    row = method_row(name)
    fields = row.editor.__dataclass_fields__
    assert set(row.fields) | set(row.options.values()) <= set(fields)
    if name != "mend":  # its networks belong to one model
        assert make_editor(name, tiny_lm).label == row.title
    assert isinstance(row.supports_batch, bool)


@pytest.mark.parametrize("name", regularizers())
def test_every_regularizer_row_names_its_class_and_draws_its_labels(name):
    row = registry.regularizer_row(name)
    assert row.kind == row.regularizer.__name__
    assert row.regularizer().label in row.styles


def test_styles_are_told_apart_by_more_than_color():
    for rows in (methods().values(), [s for row in regularizers().values() for s in row.styles.items()]):
        styles = [row.style if isinstance(row, MethodRow) else row[1] for row in rows]
        assert len({(style.marker, style.linestyle) for style in styles}) == len(styles) > 5


def test_a_name_that_is_taken_is_refused():
    with pytest.raises(SpecError) as caught:
        registry.register_method(MethodRow("rome", "ROME", wb.ROME, STYLE))
    assert str(caught.value) == "the name 'rome' is taken; choose another."


def test_unknown_names_are_refused_with_the_known_ones():
    with pytest.raises(SpecError) as caught:
        method_row("grace")
    assert str(caught.value) == f"no method 'grace'; known: {', '.join(methods())}."
    with pytest.raises(SpecError) as caught:
        registry.regularizer_row("lasso")
    assert str(caught.value) == "no regularizer 'lasso'; known: none, rect, rect-energy, random, pca, prune, sphere."


def test_an_unknown_hyperparameter_is_refused_with_the_known_ones(tiny_lm):
    with pytest.raises(SpecError, match=r"^rome has no hyperparameter 'rate'; known: layer, v_num_grad_steps, "):
        make_editor("rome", tiny_lm, {"rate": 1})


OTHER_PACKAGE = {
    "workbench.methods": MethodRow("quick", "Quick", wb.ROME, STYLE),
    "workbench.regularizers": RegularizerRow("soft", "Soft", wb.RECT, "Keep softly"),
}


def test_rows_of_other_packages_are_found_by_their_entry_points(monkeypatch):
    def entry_points(group):
        return [EntryPoint("row", f"{__name__}:OTHER_PACKAGE", group)]

    monkeypatch.setattr(EntryPoint, "load", lambda entry: OTHER_PACKAGE[entry.group])
    monkeypatch.setattr(registry, "entry_points", entry_points)
    registry._from_entry_points.cache_clear()
    try:
        assert method_row("quick").title == "Quick"
        assert registry.regularizer_row("soft").kind == "RECT"
        assert registry.series_styles()["Quick"] == STYLE.as_dict()
    finally:
        registry._from_entry_points.cache_clear()
