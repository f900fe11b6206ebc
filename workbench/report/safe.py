"""HTML that a notebook's output or Markdown brought along, reduced to what can only be read.

Tables of data may hold anything: pandas' plain tables are escaped, its styled ones are not. Whatever is not on the list
below is shown as the text that it is; attributes go, and with them styles, handlers and addresses that ask the network.
"""

import re

import bleach
from bs4 import BeautifulSoup, NavigableString, Tag

_TAGS = frozenset(
    ["a", "abbr", "b", "blockquote", "br", "caption", "code", "dd", "del", "details", "div", "dl", "dt", "em"]
    + ["h1", "h2", "h3", "h4", "h5", "h6", "hr", "i", "img", "kbd", "li", "ol", "p", "pre", "s", "small", "span"]
    + ["strong", "sub", "summary", "sup", "table", "tbody", "td", "tfoot", "th", "thead", "tr", "u", "ul"]
)
_NUMBER = re.compile(r"[-+−]?\d[\d,]*(\.\d+)?(e[-+]?\d+)?\s?%?|nan|inf|−?∞", re.IGNORECASE)
_PICTURE = "data:image/"
_NUMERIC = "num"  # the class of cells to be set as numbers
_BOX = {"class": "scroll", "role": "region", "aria-label": "Table", "tabindex": "0"}


def safe_html(html: str) -> str:
    """HTML that runs nothing, loads nothing and changes no style; wide tables get a box of their own to scroll in.

    Parameters
    ----------
    html : str
        From a notebook.

    Returns
    -------
    str
    """
    soup = BeautifulSoup(html, "html.parser")
    for style in soup("style"):  # pandas has one before each table; as text it would be noise
        style.decompose()
    for image in soup("img"):
        if not image.get("src", "").startswith(_PICTURE):
            image.replace_with(image.get("alt") or str(image))
    for table in soup("table"):
        _mark_numbers(table)
    clean = bleach.clean(str(soup), tags=_TAGS, attributes=_allowed, protocols=["http", "https", "mailto", "data"])
    soup = BeautifulSoup(clean, "html.parser")
    for table in soup("table"):
        table.wrap(soup.new_tag("div", attrs=_BOX))
    for name in soup.find_all(string=lambda text: text and "_" in text):
        if name.find_parent("th"):
            _let_break(name, soup)
    return str(soup)


def _allowed(tag: str, name: str, value: str) -> bool:
    if tag == "a":
        return name == "href" and value.startswith(("https://", "http://", "mailto:"))
    if tag == "img":
        return name == "alt" or (name == "src" and value.startswith(_PICTURE))
    if tag in ("td", "th"):
        return name in ("colspan", "rowspan") or (name == "class" and value == _NUMERIC)
    return False


def _let_break(name: NavigableString, soup: BeautifulSoup) -> None:
    """Let a line end behind an underscore: the name of a column is often the longest thing in it."""
    first, *others = name.split("_")
    name.replace_with(first, *(part for other in others for part in ("_", soup.new_tag("wbr"), other)))


def _mark_numbers(table: Tag) -> None:
    """Give the class of numbers to the columns that hold nothing else, heads included."""
    rows = [row.find_all(["td", "th"], recursive=False) for row in table.find_all("tr")]
    for cell in (cell for row in rows for cell in row):
        cell.attrs.pop("class", None)
    for place in range(1, max(map(len, rows), default=0) + 1):  # from the right: spanning cells stand at the left
        column = [row[-place] for row in rows if len(row) >= place]
        texts = [cell.get_text().strip() for cell in column if cell.name == "td"]
        if any(texts) and all(not text or _NUMBER.fullmatch(text) for text in texts):
            for cell in column:
                cell["class"] = _NUMERIC
