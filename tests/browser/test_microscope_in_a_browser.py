"""The tabs that look inside an edit, in a browser, with the embedded model."""

import re

import pytest
from axe_playwright_python.sync_playwright import Axe

from tests.browser.test_explorer_in_a_browser import NARROW, Panel, open_page, overflow

pytestmark = pytest.mark.slow

PHONE = {"width": 390, "height": 844}
__all__ = ["open_page"]  # a fixture


class Microscope(Panel):
    """The explorer and its tabs."""

    def open(self, name):
        self.page.get_by_role("tab", name=name, exact=True).click()
        self.page.wait_for_timeout(200)  # the tab asks for its work
        return self.ready()

    def press_in_tab(self, name):
        self.page.locator(f"button:visible:text-is('{name}')").last.click()

    def check(self, path):
        """Save a screenshot; no rule of axe is broken, but that the page around the panel has no landmarks."""
        self.shot(path)
        violations = Axe().run(self.page).response["violations"]
        found = [(each["id"], each["nodes"][0]["html"]) for each in violations if each["id"] != "region"]
        assert found == [], path.name


@pytest.fixture
def microscope(app, open_page):
    """Give the panel after an edit by MEND."""
    panel = Microscope(open_page(app, NARROW)).ready()
    panel.field("Method").select_option(label="MEND")
    panel.press("Edit")
    panel.wait_for(".wb-verdict", "The model predicts Rome, unedited Paris")
    return panel.ready()


def test_a_walk_through_the_microscope(microscope, shots):
    panel, page = microscope, microscope.page
    assert "Looks safe" in panel.text(".wb-level")

    panel.open("Lens")
    page.get_by_role("gridcell", name=re.compile(r"layer 29, after ·of: ·Rome")).click()
    page.get_by_role("button", name="Unpin").wait_for()
    page.get_by_role("button", name="Difference").click()
    panel.check(shots / "10-lens.png")

    panel.open("Text")
    panel.press_in_tab("Read")
    panel.ready()
    token = page.locator(".wb-text-area [tabindex='0']")
    token.focus()
    page.keyboard.press("ArrowRight")
    page.get_by_role("tooltip").wait_for()
    panel.check(shots / "11-text.png")

    panel.open("Spectrum")
    page.locator("button:visible:text-is('RECT')").last.click()
    panel.ready()
    assert page.locator(".wb-tab svg polyline:visible, .wb-tab svg path:visible").count() >= 3
    panel.check(shots / "12-spectrum.png")

    # the same fact under two schemes, of which one is used
    panel.open("Schemes")
    for _ in range(2):
        panel.press_in_tab("Add the settings on the left")
    panel.press_in_tab("Compare")
    page.locator("button:visible:text-is('Use')").nth(1).wait_for()
    panel.ready()
    panel.check(shots / "13-schemes.png")
    page.locator("button:visible:text-is('Use')").first.click()
    panel.wait_for(".wb-status", "2 edits")
    panel.ready()

    # two more facts in a row, and back along the timeline
    panel.open("Sequence")
    page.get_by_label("or draw", exact=True).fill("2")
    page.get_by_label("or draw", exact=True).press("Tab")
    panel.press_in_tab("Draw")
    panel.press_in_tab("Add to the sequence")
    page.locator(".wb-tab:visible").get_by_label("Method", exact=True).select_option(label="MEND")
    panel.press_in_tab("Run")
    panel.wait_for(".wb-status", "4 edits")
    panel.ready()
    panel.check(shots / "14-sequence.png")
    panel.open("Timeline")
    slider = page.locator(".wb-tab:visible input[type=range]")
    slider.focus()
    page.keyboard.press("Home")
    panel.wait_for(".wb-tab:visible", "Before the first edit")
    panel.ready()
    panel.press_in_tab("Find the edit after which this fell")
    panel.ready()
    panel.check(shots / "15-timeline.png")

    page.set_viewport_size(PHONE)
    for name in ("Lens", "Text", "Schemes", "Spectrum", "Timeline", "Sequence"):
        panel.open(name)
        panel.shot(shots / f"16-{name.lower()}-390.png")
        assert overflow(page) <= 0, name
    assert page.strangers == []
