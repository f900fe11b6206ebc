"""The two forms of a report, a folder or a single file, and the addresses of pages and files in each."""

import base64
import io
import mimetypes
from pathlib import Path
from urllib.parse import quote

from PIL import Image

_THUMBNAIL_SIZE = (760, 500)  # pixels: twice what the index shows, for screens of high resolution


class FolderOutput:
    """A report whose files lie beside its pages.

    Attributes
    ----------
    content : dict of str to bytes
        Content of the figure files and thumbnails, by path in the folder.
    """

    index = "index.html"
    embeds_files = False  # whether addresses hold the files; browsers save such files but do not open them

    def __init__(self) -> None:
        self.content: dict[str, bytes] = {}

    def page_address(self, name: str) -> str:
        """Return the address of a notebook's page."""
        return quote(f"{name}.html")

    def file_address(self, path: Path) -> str:
        """Add a figure file to the report and return its address."""
        return self._add("files", path.name, path.read_bytes())

    def thumbnail_address(self, path: Path) -> str:
        """Add a small copy of a picture to the report and return its address."""
        return self._add("thumbs", path.name, make_thumbnail(path))

    def _add(self, folder: str, name: str, content: bytes) -> str:
        self.content[f"{folder}/{name}"] = content
        return quote(f"{folder}/{name}")


class SingleFileOutput:
    """A report of one HTML file, in which addresses hold the figure files."""

    index = "#top"
    embeds_files = True

    def page_address(self, name: str) -> str:
        """Return the address of a notebook's section."""
        return "#" + quote(name)

    def file_address(self, path: Path) -> str:
        """Return a figure file as an address."""
        return _data_address(path.name, path.read_bytes())

    def thumbnail_address(self, path: Path) -> str:
        """Return a small copy of a picture as an address."""
        return _data_address(path.name, make_thumbnail(path))


Output = FolderOutput | SingleFileOutput


def make_thumbnail(path: Path) -> bytes:
    """Return a PNG of a picture, small enough for the index."""
    with Image.open(path) as image:
        small = image.convert("RGB")
    small.thumbnail(_THUMBNAIL_SIZE, Image.Resampling.LANCZOS)
    content = io.BytesIO()
    small.quantize(64, dither=Image.Dither.NONE).save(content, "PNG", optimize=True)
    return content.getvalue()


def picture_size(path: Path) -> tuple[int, int]:
    """Return the width and height of a picture in pixels."""
    with Image.open(path) as image:
        return image.size


def _data_address(name: str, content: bytes) -> str:
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
