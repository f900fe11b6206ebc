"""The code in Markdown pages."""

import re
from pathlib import Path

FENCED = re.compile(r"```(\w*)\n(.*?)```", re.DOTALL)


def code_blocks(page: Path, language: str) -> list[str]:
    """The blocks of a page in a language, in order."""
    return [code for found, code in FENCED.findall(page.read_text(encoding="utf-8")) if found == language]
