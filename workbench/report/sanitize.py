"""Sanitizing of the HTML in a notebook's outputs and Markdown, so that it loads nothing and runs nothing.

Tables may hold any text: pandas escapes its plain tables, but not its styled ones. Tags that are not on the list below
are shown as text. Attributes are removed, and with them styles, handlers and addresses on the network.
"""

import re

import bleach
from bs4 import BeautifulSoup, PageElement, Tag

_TAGS = frozenset(
    ["a", "abbr", "b", "blockquote", "br", "caption", "code", "dd", "del", "details", "div", "dl", "dt", "em"]
    + ["h1", "h2", "h3", "h4", "h5", "h6", "hr", "i", "img", "kbd", "li", "ol", "p", "pre", "s", "small", "span"]
    + ["strong", "sub", "summary", "sup", "table", "tbody", "td", "tfoot", "th", "thead", "tr", "u", "ul"]
)
_NUMBER = re.compile(r"[-+−]?\d[\d,]*(\.\d+)?(e[-+]?\d+)?\s?%?|nan|inf|−?∞", re.IGNORECASE)
_PICTURE = "data:image/"
_NUMERIC = "num"  # class of the cells of columns of numbers
_BOX = {"class": "scroll", "role": "region", "aria-label": "Table", "tabindex": "0"}


def sanitize_html(html: str) -> str:
    """Return HTML that runs nothing, loads nothing and changes no style, with each table in a box that scrolls.

    Parameters
    ----------
    html : str
        HTML from a notebook.

    Returns
    -------
    str
    """
    soup = BeautifulSoup(html, "html.parser")
    for style in soup("style"):  # pandas writes one before each table; as text it would only distract
        style.decompose()
    for image in soup("img"):
        if not str(image.get("src", "")).startswith(_PICTURE):
            image.replace_with(str(image.get("alt") or image))
    for table in soup("table"):
        _mark_numbers(table)
    clean = bleach.clean(str(soup), tags=_TAGS, attributes=_allowed, protocols=["http", "https", "mailto", "data"])
    soup = BeautifulSoup(clean, "html.parser")
    for table in soup("table"):
        table.wrap(soup.new_tag("div", attrs=_BOX))
    for text in soup.find_all(string=re.compile("_")):
        if text.find_parent("th"):
            _allow_breaks(text, soup)
    return str(soup)


def _allowed(tag: str, name: str, value: str) -> bool:
    if tag == "a":
        return name == "href" and value.startswith(("https://", "http://", "mailto:"))
    if tag == "img":
        return name == "alt" or (name == "src" and value.startswith(_PICTURE))
    if tag in ("td", "th"):
        return name in ("colspan", "rowspan") or (name == "class" and value == _NUMERIC)
    return False


def _allow_breaks(text: PageElement, soup: BeautifulSoup) -> None:
    """Allow a line break after each underscore: a column's name is often longer than its values."""
    first, *others = str(text).split("_")
    text.replace_with(first, *(part for other in others for part in ("_", soup.new_tag("wbr"), other)))


def _mark_numbers(table: Tag) -> None:
    """Set the class of the columns that hold only numbers, column heads included."""
    rows = [row.find_all(["td", "th"], recursive=False) for row in table.find_all("tr")]
    for cell in (cell for row in rows for cell in row):
        cell.attrs.pop("class", None)
    for i in range(1, max(map(len, rows), default=0) + 1):  # counted from the right: cells at the left may span rows
        column = [row[-i] for row in rows if len(row) >= i]
        texts = [cell.get_text().strip() for cell in column if cell.name == "td"]
        if any(texts) and all(not text or _NUMBER.fullmatch(text) for text in texts):
            for cell in column:
                cell["class"] = _NUMERIC
