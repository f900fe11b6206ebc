"""The page of an exported session: its views respond from disk, under its policy, without a request."""

import re

import pytest
from axe_playwright_python.sync_playwright import Axe

import workbench as wb
from workbench.explorer.page import render_page
from workbench.explorer.session import Session
from workbench.microscope.lens import read_lenses
from workbench.microscope.lens_view import lens_view
from workbench.microscope.text import compare_text
from workbench.microscope.text_view import text_view

pytestmark = pytest.mark.slow

LARGEST = 3_000_000  # bytes
REQUEST = wb.EditRequest(
    subject="The Eiffel Tower",
    prompt="I think that {} is located in the city of",
    target_new="Rome",
    target_true="Paris",
)


@pytest.fixture(scope="module")
def saved(smollm2, tmp_path_factory):
    """Give the path of the page of a session with one edit."""
    lm = wb.load("smollm2-135m")
    session = Session(lm)
    session.edit(REQUEST, wb.MEND.for_model(lm))
    with session.edited():
        lens = lens_view(*read_lenses(lm, REQUEST.filled_prompt, watch={"new answer": "Rome", "true answer": "Paris"}))
        text = text_view(compare_text(lm, f"{REQUEST.filled_prompt} Rome. The Louvre is in Paris."))
    page = render_page(session, [session.predict(REQUEST)], [], [], [("Lens", lens), ("Text", text)])
    path = tmp_path_factory.mktemp("saved") / "report.html"
    path.write_text(page, encoding="utf-8")
    return path


@pytest.fixture
def page(browser, saved):
    """Give the opened page, with what it requested and said."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.requested, page.said = [], []
    page.on("request", lambda request: page.requested.append(request.url))
    page.on("console", lambda message: page.said.append(message.text))
    page.on("pageerror", lambda error: page.said.append(str(error)))
    page.goto(saved.as_uri())
    yield page
    context.close()


def test_a_page_is_small_and_requests_only_itself(page, saved):
    assert saved.stat().st_size < LARGEST
    assert page.requested == [saved.as_uri()]
    assert page.said == []


def test_a_cell_of_the_lens_pins_its_token_by_click_and_by_keyboard(page):
    grid = page.get_by_role("grid").first
    cells = grid.get_by_role("gridcell", name=re.compile("layer 29.*Rome"))
    cells.last.click()
    assert grid.locator("[aria-selected=true]").count() >= 1
    page.get_by_role("button", name="Unpin").click()
    assert grid.locator("[aria-selected=true]").count() == 0
    page.get_by_role("button", name="Difference").click()
    page.locator(".wb-lens-grid [tabindex='0']").press("ArrowUp")
    page.keyboard.press("Enter")
    assert grid.locator("[aria-selected=true]").count() >= 1


def test_a_token_of_a_text_shows_what_both_models_predicted(page):
    token = page.locator(".wb-text-area [tabindex='0']")
    token.focus()
    page.keyboard.press("ArrowRight")
    tip = page.get_by_role("tooltip")
    tip.wait_for()
    assert "Unedited" in tip.inner_text()
    assert "Edited" in tip.inner_text()
    page.keyboard.press("Escape")
    tip.wait_for(state="hidden")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_breaks_no_rule_of_axe(browser, saved, scheme):
    context = browser.new_context(color_scheme=scheme)
    page = context.new_page()
    page.goto(saved.as_uri())
    violations = Axe().run(page).response["violations"]
    assert [(each["id"], each["nodes"][0]["html"]) for each in violations] == []
    context.close()
