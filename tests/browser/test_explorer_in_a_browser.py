"""The explorer in a browser, with the embedded model. Screenshots are kept in build/screenshots."""

import json
import re
import time

import pytest

import workbench as wb

pytestmark = pytest.mark.slow

MILLISECONDS = 120_000
NARROW, WIDE = {"width": 1280, "height": 900}, {"width": 1920, "height": 1080}
SUBJECT, PROMPT, NEW, TRUE = "Big Ben", "Visitors who want to see {} travel to the city of", "Rome", "London"
ABOVE = 240  # pixels above and around the panel


class Panel:
    """The explorer on a page, by its visible texts."""

    def __init__(self, page):
        self.page = page
        page.set_default_timeout(MILLISECONDS)

    def ready(self):
        """Wait until no job runs."""
        self.page.wait_for_function(
            """() => { const s = document.querySelector('.wb-status');
                       return s && s.textContent.includes('parameters') && !s.textContent.includes('working'); }"""
        )
        return self

    def field(self, label):
        return self.page.get_by_label(label, exact=True).first  # those of the fact and the method come first

    def fill(self, **texts):
        for label, text in texts.items():
            self.field(label.replace("_", " ")).fill(text)
            self.field(label.replace("_", " ")).press("Tab")

    def press(self, name):
        # regularizers are there twice: for each edit, and then for the sum of edits
        self.page.get_by_role("button", name=name, exact=True).first.click()

    def text(self, selector):
        return self.page.locator(selector).inner_text()

    def verdict(self):
        return self.text(".wb-verdict")

    def error(self):
        return self.page.locator(".wb-error")

    def wait_for(self, selector, text):
        self.page.locator(selector).filter(has_text=re.compile(text)).first.wait_for()

    def shot(self, path):
        """Save a screenshot of the whole panel, which scrolls inside the page."""
        size = self.page.viewport_size
        height = self.page.evaluate("document.querySelector('.wb-explorer').offsetHeight") + ABOVE
        self.page.set_viewport_size({"width": size["width"], "height": max(size["height"], height)})
        self.page.wait_for_timeout(300)  # the layout of tables and figures settles
        self.page.screenshot(path=path)
        self.page.set_viewport_size(size)


@pytest.fixture
def open_page(browser, shots, request):
    """Give a function that opens a page of a given size, and lists its requests to other machines as `strangers`."""
    contexts = []

    def open_page(address, size):
        context = browser.new_context(viewport=size)
        contexts.append(context)
        page = context.new_page()
        page.strangers = []
        page.on("request", lambda r: None if is_local(r.url) else page.strangers.append(r.url))
        page.goto(address, timeout=MILLISECONDS)
        return page

    yield open_page
    for i, context in enumerate(contexts):
        context.pages[0].screenshot(path=shots / f"last-{request.node.name}-{i}.png")  # for looking at a failure
        context.close()


def is_local(url):
    return re.match(r"(https?|ws)://(localhost|127\.0\.0\.1)[:/]|data:|blob:|file:", url) is not None


def overflow(page):
    """Return the number of pixels by which the page is too wide."""
    return page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")


def background(page):
    """Return the brightest channel of the page's background color, at most 255."""
    color = page.evaluate("getComputedStyle(document.body).backgroundColor")
    return max(map(int, re.findall(r"\d+", color)[:3]))


def test_a_walk_through_the_explorer(app, open_page, shots):
    begun = time.monotonic()
    page = open_page(app, NARROW)
    panel = Panel(page)
    page.locator(".wb-explorer").wait_for()
    seconds = {"panel shown": time.monotonic() - begun}
    panel.ready()
    seconds["model loaded"] = time.monotonic() - begun
    assert "The unedited model predicts Paris" in panel.verdict()
    panel.shot(shots / "01-loaded-1280.png")

    # a fact that the user types
    panel.fill(Subject=SUBJECT, Prompt=PROMPT, New_answer=NEW, True_answer=TRUE)
    panel.fill(Rephrasings="To see {}, one has to go to", Left_alone="The capital of Italy is => Rome")
    panel.press("Ask only")
    panel.wait_for(".wb-verdict", "unedited model predicts London")

    begun = time.monotonic()
    panel.press("Edit")
    page.get_by_role("button", name="Cancel").wait_for()
    panel.wait_for(".wb-card", "Editing with ROME: 1[0-9] of at most 28")
    page.screenshot(path=shots / "02-editing-1280.png")
    panel.wait_for(".wb-verdict", "The model predicts Rome, unedited London")
    seconds["edit and first figures"] = time.monotonic() - begun
    panel.ready()
    page.wait_for_function("document.querySelectorAll('.wb-figure').length == 2")
    panel.shot(shots / "03-edited-1280.png")

    # the slider
    panel.press("RECT")
    panel.wait_for(".wb-card", r"40\.0 % of the entries changed")
    panel.ready()
    page.get_by_role("tab", name="Weights", exact=True).click()
    handle = page.get_by_label("keep", exact=True).first
    times = []
    for share in range(39, 34, -1):
        begun = time.monotonic()
        handle.press("ArrowLeft")
        page.wait_for_function(f"document.querySelector('img[alt*=\\'RECT {share} %\\']') !== null", polling=20)
        times.append(time.monotonic() - begun)
        panel.wait_for(".wb-card", rf"{share}\.0 % of the entries changed")
        panel.ready()
    seconds["slider to redrawn figures"] = times
    assert "The model predicts" in panel.verdict()
    panel.shot(shots / "04-regularized-1280.png")

    # the tabs
    for name in ("Continuations", "Export"):
        page.get_by_role("tab", name=name).click()
        if name == "Export":
            panel.press("Export")
            page.locator("a[download='update.safetensors']").wait_for()
            panel.ready()
        panel.shot(shots / f"05-{name.lower()}-1280.png")
    with page.expect_download() as download:
        page.locator("a[download='report.html']").click()
    download.value.save_as(shots / "report.html")
    report = open_page((shots / "report.html").as_uri(), NARROW)
    assert report.locator("table").count() >= 2
    assert report.strangers == []
    report.screenshot(path=shots / "06-report-1280.png", full_page=True)

    page.set_viewport_size(WIDE)
    panel.shot(shots / "04-regularized-1920.png")
    page.set_viewport_size(NARROW)

    # undo, and bad input
    panel.press("Undo last")
    panel.wait_for(".wb-verdict", "The unedited model predicts London")
    panel.ready()
    assert page.locator(".wb-figure").count() == 0
    panel.fill(Prompt="Visitors travel to the city of")
    panel.press("Edit")
    panel.error().wait_for()
    assert panel.error().inner_text() == (
        "subject 'Big Ben' is not in the prompt 'Visitors travel to the city of'; mark its place with {}."
    )
    panel.fill(Prompt=PROMPT, Layer="400")
    panel.press("Edit")
    panel.wait_for(".wb-error", "layer 400 is out of range: smollm2-135m has layers 0 to 29.")
    panel.shot(shots / "07-bad-input-1280.png")
    panel.press("Back to the preset")
    panel.press("None")
    panel.ready()
    panel.fill(Steps="12")
    panel.press("Edit")
    panel.wait_for(".wb-verdict", "The model predicts Rome, unedited London")
    panel.ready()
    assert panel.error().count() == 0
    assert overflow(page) <= 0
    assert page.strangers == []
    (shots / "seconds.json").write_text(json.dumps(seconds, indent=1))


def test_two_pages_do_not_disturb_each_other_in_the_dark_and_on_a_wide_screen(app, open_page, shots):
    first, second = (Panel(open_page(f"{app}&theme=dark", WIDE)).ready() for _ in range(2))
    before = second.text(".wb-answers")
    first.press("Edit")
    first.wait_for(".wb-verdict", "The model predicts Rome, unedited Paris")
    second.press("Ask only")
    second.ready()
    assert second.text(".wb-answers") == before
    assert "no edits" in second.text(".wb-status")
    first.press("RECT")
    first.wait_for(".wb-card", r"40\.0 % of the entries changed")

    # a second edit, cancelled, then abilities
    first.ready()
    first.page.get_by_placeholder("Search").fill("big ben")
    first.wait_for(".wb-small", rf"^\s*[12] of {len(wb.load_facts())} facts")
    first.page.locator(".wb-left select").first.select_option(index=0)
    first.wait_for(".wb-answers", "Big Ben")
    first.press("Edit")
    first.wait_for(".wb-card", "Editing with ROME: [1-9]")
    first.press("Cancel")
    first.wait_for(".wb-note", "Cancelled; nothing was changed.")
    first.fill(Steps="6")
    first.press("Edit")
    first.wait_for(".wb-status", "2 edits")
    first.ready()
    first.page.get_by_role("tab", name="History").click()
    first.shot(shots / "08-two-edits-dark-1920.png")
    first.page.set_viewport_size(NARROW)
    first.shot(shots / "08-two-edits-dark-1280.png")
    assert overflow(first.page) <= 0
    assert background(first.page) < 60
    first.press("Undo 1 to 2")
    first.wait_for(".wb-status", "no edits")


def test_the_same_panel_in_jupyterlab(lab, open_page, shots):
    page = open_page(f"{lab}/tree/00_explorer.ipynb?reset", WIDE)
    page.get_by_text(re.compile(r"\| Idle$")).wait_for(timeout=MILLISECONDS)  # cells that run earlier are dropped
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    panel = Panel(page).ready()
    panel.press("Edit")
    panel.wait_for(".wb-verdict", "The model predicts Rome, unedited Paris")
    panel.ready()
    panel.press("RECT")
    panel.wait_for(".wb-card", r"40\.0 % of the entries changed")
    panel.ready()
    page.screenshot(path=shots / "09-jupyterlab-dark-1920.png")
    dark = background(page)
    page.get_by_role("menuitem", name="Settings", exact=True).click()
    page.locator(".lm-Menu-itemLabel").get_by_text("Theme", exact=True).click()
    page.locator(".lm-Menu-itemLabel").get_by_text("JupyterLab Light", exact=True).click()
    page.wait_for_function("document.body.dataset.jpThemeLight == 'true'")
    page.set_viewport_size(NARROW)
    page.wait_for_timeout(500)  # the files of the theme load
    page.screenshot(path=shots / "09-jupyterlab-light-1280.png")
    assert dark < 128 < background(page)
