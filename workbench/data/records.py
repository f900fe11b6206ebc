"""From the bytes of a file to its JSON records, for files of facts and of tasks alike."""

import json
import re
from dataclasses import dataclass

from workbench.errors import DataError, RequestError


@dataclass(frozen=True)
class FileKind:
    """What a kind of file is called when it cannot be read."""

    what: str  # "facts"
    shapes: str  # what would be right
    error: type[RequestError] | type[DataError]

    def decoded(self, source: str, content: bytes) -> str:
        """Decode UTF-8, with or without a byte order mark.

        Parameters
        ----------
        source : str
            The file, for messages.
        content : bytes
            All of it.

        Returns
        -------
        str

        Raises
        ------
        RequestError or DataError
            If it is not UTF-8, or blank.
        """
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError as err:
            raise self.error(
                f"{source} is not UTF-8 text: byte {err.start} is 0x{content[err.start]:02x}; save it as UTF-8."
            ) from err
        if not text.strip():
            raise self.error(f"{source} is empty; {self.shapes}.")
        return text

    def json_records(self, source: str, text: str) -> list:
        """Read a JSON array, one JSON value, or an object a line.

        Parameters
        ----------
        source : str
            The file, for messages.
        text : str
            All of it; blank lines are passed over.

        Returns
        -------
        list
            What JSON gives for each record.

        Raises
        ------
        RequestError or DataError
            If it is none of these, with the place.
        """
        try:
            return _array_or_lines(text)
        except json.JSONDecodeError as err:
            place = f"line {err.lineno}, column {err.colno}: {err.msg}"
            raise self.error(f"{source} is not JSON: {place}; {self.shapes}.") from err
        except RecursionError as err:
            raise self.error(f"{source} is nested too deeply for a file of {self.what}; {self.shapes}.") from err
        except ValueError as err:  # Python reads no number of more than 4300 digits
            raise self.error(f"{source} holds a number too long to read; write it as text.") from err


def _array_or_lines(text: str) -> list:
    try:
        whole = json.loads(text)
        return whole if isinstance(whole, list) else [whole]
    except json.JSONDecodeError as err:
        # JSON lines are no JSON as a whole: a second object is "extra data" at the start of a later line. Any other
        # slip belongs to the one value that the file holds.
        if not text.lstrip().startswith("{") or err.msg != "Extra data":
            raise
    return [_json_line(text, start, line) for start, line in _lines(text) if line.strip()]


def _lines(text: str) -> list[tuple[int, str]]:
    """Return each line with the place it starts at; only a line feed ends one (JSON text may hold U+2028)."""
    return [(found.start(), found.group()) for found in re.finditer(r"[^\n]+", text)]


def _json_line(text: str, start: int, line: str) -> object:
    try:
        return json.loads(line)
    except json.JSONDecodeError as err:
        raise json.JSONDecodeError(err.msg, text, start + err.pos) from err
