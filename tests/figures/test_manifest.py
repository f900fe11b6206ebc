"""The manifest lists what is made; a mistake in it, or in the name of a figure, is one sentence."""

import pytest

from tests.figures.notebooks import ENTRY, write_manifest
from tests.helpers import error_of
from workbench.errors import SpecError
from workbench.figures.manifest import read_manifest, select_entries, select_for_profile


def test_an_entry_on_request_is_run_only_if_it_is_named(notebooks):
    both = {"smoke": {}, "default": {}}
    slow = {**ENTRY, "figure": "slow", "makes": ["slow"], "profiles": both, "on_request": ["default"]}
    write_manifest(notebooks, {**ENTRY, "profiles": both}, slow)
    manifest = read_manifest(notebooks)
    assert [e.figure for e in select_for_profile(manifest, [], "default")] == ["fig"]
    assert [e.figure for e in select_for_profile(manifest, ["slow"], "default")] == ["slow"]
    assert [e.figure for e in select_for_profile(manifest, [], "smoke")] == ["fig", "slow"]


@pytest.fixture
def two(notebooks):
    """Give a manifest of two entries, one of which is not in the profile smoke."""
    write_manifest(notebooks, ENTRY, {**ENTRY, "figure": "big", "makes": ["big_a", "big_b"], "profiles": {"paper": {}}})
    return read_manifest(notebooks)


def test_figures_are_chosen_by_name_or_by_what_they_make_in_the_order_of_the_manifest(two):
    def chosen(names, profile):
        return [entry.figure for entry in select_for_profile(two, names, profile)]

    assert chosen([], "smoke") == ["fig"]
    assert chosen(["big"], "paper") == ["big"]
    assert chosen(["big_b", "big_a", "big"], "paper") == ["big"]
    assert chosen([], "default") == []
    assert [entry.figure for entry in select_entries(two, ["big_b", "fig"])] == ["fig", "big"]


def test_an_unknown_figure_is_named_with_the_known_ones(two):
    assert error_of(SpecError, select_for_profile, two, ["fig", "figure9"], "smoke") == (
        "figure 'figure9' is not known; known: fig, big."
    )


def test_an_unknown_profile_is_named_with_the_known_ones(two):
    assert error_of(SpecError, select_for_profile, two, [], "huge") == (
        "profile 'huge' is not known; known: smoke, default, study, paper."
    )


def test_a_figure_that_the_profile_leaves_out_is_named_with_its_profiles(two):
    assert error_of(SpecError, select_for_profile, two, ["big"], "smoke") == (
        "figure 'big' is not made in the profile 'smoke', only in paper."
    )


def test_every_entry_that_shows_a_figure_of_the_paper_is_chosen_by_its_number(notebooks):
    number = {"also": ["figure9"]}
    write_manifest(notebooks, {**ENTRY, **number}, {**ENTRY, **number, "figure": "b", "makes": ["b"]}, {**ENTRY, "figure": "c", "makes": ["c"]})
    manifest = read_manifest(notebooks)
    assert [entry.figure for entry in select_for_profile(manifest, ["figure9"], "smoke")] == ["fig", "b"]


def test_a_number_is_made_in_a_profile_if_one_of_its_entries_is(notebooks):
    number = {"also": ["figure9"]}
    write_manifest(notebooks, {**ENTRY, **number}, {**ENTRY, **number, "figure": "b", "makes": ["b"], "profiles": {"paper": {}}})
    manifest = read_manifest(notebooks)
    assert [entry.figure for entry in select_for_profile(manifest, ["figure9"], "smoke")] == ["fig"]


def test_a_missing_manifest_is_named(tmp_path):
    assert error_of(SpecError, read_manifest, tmp_path) == (
        f"{tmp_path / 'figures.yaml'} cannot be read (No such file or directory); "
        "run in the project's folder, or name it."
    )


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("figures: [", " is not YAML: "),
        ("", ", top: Input should be a valid dictionary or instance of Manifest; the README shows an entry."),
        ("figures: 7", ", figures: Input should be a valid tuple; the README shows an entry."),
        ("{}", ", figures: Field required; the README shows an entry."),
        (
            "figures: [{figure: a, title: A, notebook: a.ipynb, profiles: {}}]",
            ", figures.0.makes: Field required; the README shows an entry.",
        ),
        (
            "figures: [{figure: a, title: A, notebook: a.ipynb, makes: [a], profiles: {}, maks: []}]",
            ", figures.0.maks: Extra inputs are not permitted; the README shows an entry.",
        ),
        (
            "figures: [{figure: a, title: A, notebook: a.ipynb, makes: [a], profiles: {tiny: {}}}]",
            ", figures.0.profiles.tiny.[key]: Input should be 'smoke', 'default', 'study' or 'paper'; ",
        ),
        (
            "figures:\n- &a {figure: a, title: A, notebook: a.ipynb, makes: [a], profiles: {}}\n- *a",
            ": the figure 'a' is listed twice; give each entry its own name.",
        ),
        (
            "figures:\n- {figure: a, title: A, notebook: a.ipynb, makes: [f], profiles: {}}\n"
            "- {figure: b, title: B, notebook: b.ipynb, makes: [f], profiles: {}}",
            ": the file 'f' is made twice; give each its own name.",
        ),
    ],
)
def test_a_malformed_manifest_is_refused_with_the_place(tmp_path, text, sentence):
    (tmp_path / "figures.yaml").write_text(text)
    found = error_of(SpecError, read_manifest, tmp_path)
    assert found.startswith(f"{tmp_path / 'figures.yaml'}{sentence}")
    assert found.endswith(".")
    assert len(found.splitlines()) == 1


@pytest.mark.parametrize("field", ["figure", "notebook", "makes"])
def test_no_name_in_the_manifest_leads_out_of_its_folder(notebooks, field):
    evil = "../../evil"
    write_manifest(notebooks, {**ENTRY, field: [evil] if field == "makes" else evil})
    where = f"figures.0.{field}" + ".0" * (field == "makes")
    assert error_of(SpecError, read_manifest, notebooks) == (
        f"{notebooks / 'figures.yaml'}, {where}: {evil!r} cannot name a file; give letters, digits and _ - . without "
        "folders; the README shows an entry."
    )
