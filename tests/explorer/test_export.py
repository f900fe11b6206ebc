"""An export holds all results of a session, with the user's text escaped."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

import workbench as wb
from tests.explorer.conftest import EDITOR, FACT
from tests.explorer.test_session import assert_same_update
from tests.helpers import error_of
from workbench.errors import DiskError, EditError
from workbench.explorer.export import ADAPTER, CODE, PAGE, UPDATE, export
from workbench.explorer.figures import abilities_picture, heatmap_picture, histogram_picture
from workbench.explorer.session import Session

SCRIPT = "<script>alert(1)</script>"


def pictures_of(session):
    view = session.weight_view()
    return [heatmap_picture(view), histogram_picture(view, session.edits[-1].regularizer.label)]


class Tags(HTMLParser):
    """A parser that collects the tags of a page with their attributes."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def test_an_export_is_complete_and_its_update_is_the_sessions(edited, tmp_path, small_tasks):
    pictures = [*pictures_of(edited), abilities_picture(edited.check_abilities(1))]
    folder, written = export(edited, tmp_path / "new" / "exports", pictures, edited.continue_prompts(["The river"], 3))
    assert {item.name for item in written} == {path.name for path in folder.iterdir()}
    assert all((folder / item.name).exists() and item.refused is None for item in written)
    assert_same_update(wb.WeightUpdate.load(folder / UPDATE), edited.update)
    for name in ("heatmap", "relative_change", "abilities"):
        with Image.open(folder / f"{name}.png") as image:
            assert min(image.size) > 300
        assert "<svg" in (folder / f"{name}.svg").read_text()
        assert len(pd.read_csv(folder / f"{name}.csv")) > 0
    assert len(pd.read_csv(folder / "weight_change.csv")) == 1
    answers = pd.read_csv(folder / "answers.csv")
    assert answers["answer"].nunique() == 3
    assert re.match(r"\d{8}-\d{6}-the-eiffel-tower$", folder.name)


def test_an_export_that_a_full_disk_does_not_take_leaves_no_folder(edited, small_disk):
    small_disk.fill(leave=60_000)  # the update fits, the figures do not
    sentence = error_of(DiskError, export, edited, small_disk.path, pictures_of(edited))
    assert sentence.endswith("(No space left on device); free some space, or give a folder on another disk.")
    assert [path.name for path in small_disk.path.iterdir()] == ["filler"]
    small_disk.free()
    folder, _ = export(edited, small_disk.path, [])
    assert (folder / UPDATE).is_file()


def test_an_adapter_is_written_for_a_low_rank_update_and_a_reason_is_given_for_others(edited, tmp_path):
    _, written = export(edited, tmp_path, pictures_of(edited))
    assert [item.refused for item in written if item.name == ADAPTER] == [None]
    edited.regularize(wb.RECT(0.4))
    folder, written = export(edited, tmp_path, pictures_of(edited))
    [refused] = [item.refused for item in written if item.name == ADAPTER]
    assert refused.startswith("the sparse update of ")
    assert not (folder / ADAPTER).exists()


def test_exports_of_the_same_second_have_folders_of_their_own(edited, tmp_path):
    folders = {export(edited, tmp_path, [])[0] for _ in range(3)}
    assert len(folders) == 3


def test_text_of_the_user_is_escaped_in_page_and_code(tiny_lm, tmp_path):
    session = Session(tiny_lm)
    request = replace(FACT, subject=f"The {SCRIPT} Tower", target_new=f"Rome {SCRIPT}", target_true="<b>Paris</b>")
    session.edit(request, EDITOR)
    folder, _ = export(session, tmp_path, pictures_of(session), session.continue_prompts([SCRIPT], 2))
    page = (folder / PAGE).read_text()
    tags = Tags(page).found
    assert len(tags) > 50
    assert "script" not in {tag for tag, _ in tags}
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "<b>Paris" not in page
    compile((folder / CODE).read_text(), CODE, "exec")


def test_a_page_requests_nothing_and_its_figures_have_alt_texts(edited, tmp_path):
    folder, _ = export(edited, tmp_path, pictures_of(edited))
    tags = Tags((folder / PAGE).read_text()).found
    links = [attrs[name] for _, attrs in tags for name in ("src", "href") if name in attrs]
    assert len(links) == 2
    assert all(link.startswith("data:") for link in links)
    images = [attrs for tag, attrs in tags if tag == "img"]
    assert all(len(attrs["alt"]) > 30 for attrs in images)


def test_without_an_edit_there_is_nothing_to_export(session, tmp_path):
    with pytest.raises(EditError) as caught:
        export(session, tmp_path, [])
    assert str(caught.value) == "there is no edit to export; make one first."
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_created_is_named(edited, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(EditError, match=r"^no folder can be made in .*file \(.*\); choose another\.$"):
        export(edited, tmp_path / "file", [])


def test_where_the_environment_names_a_folder_nothing_is_exported_elsewhere(edited, tmp_path, monkeypatch):
    root, outside = tmp_path / "exports", tmp_path / "elsewhere"
    root.mkdir()
    outside.mkdir()
    (root / "link").symlink_to(outside)
    monkeypatch.setenv("WORKBENCH_EXPORTS", str(root))
    for into in (outside, root / ".." / "elsewhere", root / "link", root / "link" / "deeper", f"{root}-2", "~"):
        with pytest.raises(EditError) as caught:
            export(edited, into, [])
        place = Path(into).expanduser().resolve()
        assert str(caught.value) == f"exports are written inside {root} only; {place} is elsewhere."
    assert list(outside.iterdir()) == []
    assert not Path(f"{root}-2").exists()
    folder, _ = export(edited, root / "deeper", [])
    assert folder.parent == root / "deeper"
    monkeypatch.delenv("WORKBENCH_EXPORTS")
    assert export(edited, outside, [])[0].parent == outside


def test_what_can_be_no_folder_is_refused(edited):
    with pytest.raises(EditError, match=r"^'a\\x00b' is no folder to export into \(.*\); choose another\.$"):
        export(edited, "a\0b", [])
