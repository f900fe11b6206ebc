"""A report in a real browser: no request, nothing runs, nothing sticks out, nothing is cut on paper."""

import pytest

from tests.report.conftest import Project

PICTURES_LOADED = "Promise.all([...document.images].map(img => img.decode().catch(() => null)))"
PHONE, DESK = {"width": 390, "height": 844}, {"width": 1280, "height": 900}

pytestmark = pytest.mark.slow


@pytest.fixture
def opened(browser, project: Project):
    """Give a function that opens a page of a report, and what it asked for and complained of."""
    index = project.report().path
    places = {path.stem: path for path in [*index.parent.glob("*.html"), project.report(single_file=True).path]}
    assert len(places) == 4
    contexts = []

    def run(name, **options):
        contexts.append(browser.new_context(viewport=options.pop("viewport", DESK), **options))
        page = contexts[-1].new_page()
        page.asked, page.said = [], []
        page.on("request", lambda request: page.asked.append(request.url))
        page.on("console", lambda message: page.said.append(message.text))
        page.on("dialog", lambda dialog: (page.said.append(dialog.message), dialog.dismiss()))
        page.goto(places[name].as_uri())
        page.evaluate("document.querySelectorAll('img').forEach(img => img.loading = 'eager')")
        page.evaluate(PICTURES_LOADED)
        return page

    yield run
    for context in contexts:
        context.close()


EVERY_PAGE = pytest.mark.parametrize("name", ["index", "01_curve-figure1", "02_claims-claims", "report"])


@EVERY_PAGE
def test_nothing_but_the_disk_is_asked(opened, name):
    page = opened(name)
    assert page.asked
    assert [url[:80] for url in page.asked if not url.startswith(("file:", "data:"))] == []
    assert page.said == []  # neither a dialog nor a complaint about the policy


@EVERY_PAGE
def test_every_picture_and_the_style_sheet_take_effect(opened, name):
    page = opened(name)
    assert page.evaluate("[...document.images].every(img => img.naturalWidth > 0)")
    assert page.evaluate("document.images.length") == {"index": 1, "01_curve-figure1": 1, "report": 2}.get(name, 0)
    assert page.evaluate("getComputedStyle(document.body).maxWidth") != "none"


@EVERY_PAGE
def test_a_script_has_no_effect_even_if_it_got_in(opened, name):
    page = opened(name)
    page.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=x:y onerror=\"window.ran = true\">')")
    page.evaluate(PICTURES_LOADED)
    assert page.evaluate("window.ran") is None
    assert page.said  # the policy said so


@EVERY_PAGE
@pytest.mark.parametrize("viewport", [PHONE, DESK], ids=["phone", "desk"])
def test_nothing_sticks_out_at_the_side(opened, name, viewport):
    page = opened(name, viewport=viewport)
    page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
    assert (
        page.evaluate("Math.max(...[...document.images].map(img => img.getBoundingClientRect().right), 0)")
        <= (viewport["width"])
    )


def test_code_is_folded_until_it_is_asked_for(opened):
    page = opened("01_curve-figure1")
    code = page.locator(".highlight").first
    assert not code.is_visible()
    page.locator("summary", has_text="Code").first.click()
    assert code.is_visible()


@EVERY_PAGE
def test_paper_shows_no_code_and_whole_pictures_on_white(opened, name):
    page = opened(name, color_scheme="dark", viewport={"width": 680, "height": 1000})  # A4 less its margins
    page.emulate_media(media="print")
    assert page.locator(".code:visible, .highlight:visible, nav:visible").count() == 0
    assert page.evaluate("getComputedStyle(document.documentElement).backgroundColor") == "rgb(255, 255, 255)"
    boxes = page.evaluate("[...document.images].map(img => img.getBoundingClientRect().toJSON())")
    assert all(box["right"] <= 680 and box["height"] <= 1000 for box in boxes)
    assert page.evaluate(
        "[...document.images].every(img => getComputedStyle(img.closest('figure, .card')).breakInside === 'avoid')"
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_on_its_ground(opened, scheme):
    page = opened("01_curve-figure1", color_scheme=scheme)
    contrast = """() => {
        const light = color => {
            const [r, g, b] = color.match(/[0-9.]+/g).map(Number)
                .map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
            return 0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05
        }
        const ground = light(getComputedStyle(document.documentElement).backgroundColor)
        return [...document.querySelectorAll('p, dt, dd, th, td, a, summary, h1, h2')].map(element => {
            const ink = light(getComputedStyle(element).color)
            return Math.max(ink, ground) / Math.min(ink, ground)
        })
    }"""
    found = page.evaluate(contrast)
    assert len(found) > 40
    assert min(found) >= 4.5  # WCAG AA
