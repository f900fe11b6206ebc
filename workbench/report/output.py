"""Where the parts of a report lie for one another: beside each other in a folder, or all inside one file."""

import base64
import io
import mimetypes
from pathlib import Path
from urllib.parse import quote

from PIL import Image

_THUMBNAIL = (760, 500)  # pixels: twice what the index shows, for sharp screens


class InFolder:
    """Addresses of files beside the pages; what they hold is kept in `content`, by path in the folder."""

    index = "index.html"
    downloads = False  # whether a link to a file must say that it is to be saved

    def __init__(self) -> None:
        self.content: dict[str, bytes] = {}

    def page(self, name: str) -> str:
        """Address of the page of a notebook."""
        return quote(f"{name}.html")

    def file(self, path: Path) -> str:
        """Address of a figure file, which is taken along."""
        return self._take("files", path.name, path.read_bytes())

    def thumbnail(self, path: Path) -> str:
        """Address of a small copy of a picture."""
        return self._take("thumbs", path.name, small(path))

    def _take(self, folder: str, name: str, content: bytes) -> str:
        self.content[f"{folder}/{name}"] = content
        return quote(f"{folder}/{name}")


class InOneFile:
    """Addresses that hold the files themselves."""

    index = "#top"
    downloads = True  # browsers refuse to open such an address, but save it

    def page(self, name: str) -> str:
        """Address of the section of a notebook."""
        return "#" + quote(name)

    def file(self, path: Path) -> str:
        """A figure file as an address."""
        return _data_address(path.name, path.read_bytes())

    def thumbnail(self, path: Path) -> str:
        """A small copy of a picture as an address."""
        return _data_address(path.name, small(path))


Place = InFolder | InOneFile


def small(path: Path) -> bytes:
    """A PNG of a picture that fits the index."""
    with Image.open(path) as image:
        image = image.convert("RGB")
        image.thumbnail(_THUMBNAIL, Image.Resampling.LANCZOS)
        content = io.BytesIO()
        image.quantize(64, dither=Image.Dither.NONE).save(content, "PNG", optimize=True)
    return content.getvalue()


def size_of(path: Path) -> tuple[int, int]:
    """Width and height of a picture in pixels."""
    with Image.open(path) as image:
        return image.size


def _data_address(name: str, content: bytes) -> str:
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
