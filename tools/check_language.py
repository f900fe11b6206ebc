"""Refuse phrases that no reference documentation would use, and British spellings, in code, notebooks and pages.

Usage: python tools/check_language.py [PATH ...]

Without a path, everything that readers see is checked. Each hit is one line: file, line, what was found, what to write
instead. The exit status is 1 if there was a hit.
"""

import json
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CHECKED = (
    "workbench",
    "tests",
    "benchmarks",
    "tools",
    "notebooks",
    "docs",
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "CITATION.cff",
    "Makefile",
    "mkdocs.yml",
    "pyproject.toml",
    "environment.yml",
    ".ci/run",
    ".pre-commit-config.yaml",
)
ENDINGS = {".py", ".ipynb", ".md", ".toml", ".yaml", ".yml", ".cff", ".html", ".j2", ".css", ".js", ""}
SKIPPED = re.compile(r"(^|/)(__pycache__|build|bundled|trained|\.ipynb_checkpoints)(/|$)")
# This list itself, and tests that quote what is refused.
NOT_CHECKED = {"tools/check_language.py", "tests/test_language.py", "tests/test_docstrings.py"}
# Words of others, spelled as they spell them: (file, word in lower case).
QUOTED = {("tests/evaluation/test_text.py", "theatre")}

_NOUN = (
    r"(?:batch|bar|block|book|call|card|case|cell|chart|check|class|column|cell|condition|core|curve|dataset|dot|edit|"
    r"element|entry|entity|example|fact|field|figure|file|folder|gradient|head|job|key|kind|layer|letter|line|list|"
    r"matrix|method|metric|model|module|name|neuron|notebook|number|object|operation|option|page|pair|panel|paper|"
    r"parameter|part|pass|picture|point|position|process|profile|prompt|protocol|question|record|regularizer|request|"
    r"result|row|run|score|seed|sentence|set|setting|shard|side|span|spec|split|state|step|string|subject|table|target|"
    r"task|tensor|test|text|token|trajectory|trial|tuple|type|unit|update|value|vector|weight|word|worker)"
)
# Verbs and prepositions that may follow "one" where "a" does not mean "per".
_NO_NOUN = (
    r"(?:is|was|has|had|of|in|at|as|with|for|to|by|than|from|on|and|or|like|into|per|not|but|that|needs|gives|makes|"
    r"takes|reads|such|holds|if|where|when|after|before|over|without)"
)

# Pattern with single spaces, which also match line breaks; what to write instead.
PHRASES = (
    (rf"one (?!{_NO_NOUN}\b)\w+ an? {_NOUN}", "one … per …"),
    (rf"(?:an?|two|three|four|five|ten|\d+) {_NOUN}s? an? {_NOUN}", "… per …"),
    (rf"(?:seconds|minutes|bytes|megabytes|milliseconds|times|one) an? {_NOUN}", "… per …"),
    (r"(?:hang|hangs|hanging|hung) (?:up)?on", "depend on"),
    (r"anew", "again, or a verb with re-: rebuilt, recomputed"),
    (r"so many", "that many, or the parameter's name"),
    (r"behind (?:that|those|the others|the entries|the rest|the first|the last|the other)", "after …, then"),
    (r"(?:go|goes|going|gone|went) on with", "continue"),
    (r"(?:is|are|was|were|be|been|being) told(?! apart)", "is reported, is logged"),
    (r"(?:is|are|can be|to be|be) had\b", "can be computed, is available"),
    (r"in force", "applied, current"),
    (r"as (?:it|they) (?:is|are) now", "currently"),
    (r"takes? the temperature|thermometer", "measures, an early sign of"),
    (r"in one breath", "a plain statement of the quantity and its change"),
    (r"let an? \w+ be (?:done|run|made)", "an imperative: queue, run"),
    (r"of one's own|one's own", "its own, a separate"),
    (r"what (?:has )?(?:became|become|becomes) of", "the state of, the result of"),
    (
        r"whence|thence|hence(?:forth|forward)|thither|hither(?:to)?|thereof|therewith|thereby|wherewith|wherein|whereof|"
        r"herein|hereby|wherefore|nought|naught|ere|withal|albeit|forthwith",
        "a modern word",
    ),
    (r"for ever", "forever, permanently"),
    (r"amongst", "among"),
    (r"whilst", "while"),
)
# A whole description that is a question word or a fragment.
FRAGMENTS = (
    (r"^[ \t]+(?:Which|How|Where|Whose|Who|What|When|Whether|Any|So many|As many)\.[ \t]*$", "what the thing is"),
    (r'(?:"""|^[ \t]{4,})Of (?:the|an?|its|each|every|all|what) [^\n.]*\.', "a noun phrase: The … of …"),
    (r'"(?:Which|How|Where|Whose|Who|What|When|Whether|Any|So many)\."', "what the thing is"),
    (r"#[ \t]*(?:which|how|where|whose|who|any|so many)\.?[ \t]*$", "what the thing is"),
)
# British fragment of a word → American.
_IZE = (
    r"(capital|canonical|categor|central|character|critic|custom|discret|emphas|equal|factor|final|formal|general|"
    r"harmon|initial|ideal|item|linear|local|material|maxim|memor|minim|mobil|modern|neutral|normal|optim|organ|"
    r"parameter|penal|polar|priorit|quant|random|real|recogn|regular|sanit|serial|special|stabil|standard|summar|"
    r"symbol|symmetr|synchron|token|util|vector|visual)is(?=(?:e|ed|es|er|ers|ing|ation|ations|able)(?:\b|_))"
)
SPELLINGS = (
    (_IZE, r"\1iz"),
    (r"analys(?=(?:e|ed|ing)\b)", "analyz"),
    (r"(col|behavi|fav|neighb|hon|flav|lab|rum|harb)our", r"\1or"),
    (r"(label|model|travel|signal|level|total|channel|tunnel|marshal)l(?=(?:ed|ing)\b)", r"\1"),
    (r"\bcentre", "center"),
    (r"centring", "centering"),
    (r"\bgrey", "gray"),
    (r"artefact", "artifact"),
    (r"judgement", "judgment"),
    (r"licence", "license"),
    (r"(def|off)ence", r"\1ense"),
    (r"\b(learn|burn|dream)t\b", r"\1ed"),
    (r"\bspelt\b", "spelled"),
    (r"\bfulfil(?!l)", "fulfill"),
    (r"programme(?!d|r)", "program"),
    (r"catalogue", "catalog"),
    (r"\b(fib|met|theat)re", r"\1er"),
    (r"\bageing\b", "aging"),
    (r"\bper cent\b", "percent"),
)

_GAP = r"(?:[ \t]+|[ \t]*\n[ \t]*(?:#+:?[ \t]*|>[ \t]*|\*[ \t]*)?)"  # spaces, or one line break in text or comment


_PHRASES = [(re.compile(rf"\b(?:{p.replace(' ', _GAP)})\b", re.IGNORECASE), instead) for p, instead in PHRASES]
_FRAGMENTS = [(re.compile(p, re.MULTILINE), instead) for p, instead in FRAGMENTS]
_SPELLINGS = [(re.compile(p, re.IGNORECASE), american) for p, american in SPELLINGS]
_WORD = re.compile(r"[A-Za-z][\w]*(?: cent\b)?")


def check_text(text: str) -> Iterator[tuple[int, str, str]]:
    """Yield line number, found phrase and what to write instead, for each hit in a text."""
    for pattern, instead in _PHRASES + _FRAGMENTS:
        for match in pattern.finditer(text):
            start = match.end() - len(match.group().lstrip())
            yield _line_of(text, start), " ".join(match.group().replace("#", " ").split()), instead
    for match in _WORD.finditer(text):
        for pattern, american in _SPELLINGS:
            if pattern.search(match.group()):
                yield _line_of(text, match.start()), match.group(), pattern.sub(american, match.group())


def _line_of(text: str, position: int) -> int:
    return text.count("\n", 0, position) + 1


def texts_of(path: Path) -> Iterator[tuple[str, str]]:
    """Yield place and text of a file, or of each cell of a notebook."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        for number, cell in enumerate(json.loads(text)["cells"], start=1):
            yield f"cell {number}, line ", "".join(cell["source"])
    else:
        yield "", text


def name_of(file: Path) -> str:
    """Return the path of a file from the root of the repository, or as given if it lies elsewhere."""
    full = file.resolve()
    return full.relative_to(ROOT).as_posix() if full.is_relative_to(ROOT) else str(file)


def files_in(paths: Sequence[Path]) -> Iterator[Path]:
    """Yield every checked file under the paths, sorted."""
    for path in paths:
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            name = name_of(file)
            if file.is_file() and file.suffix in ENDINGS and not SKIPPED.search(name) and name not in NOT_CHECKED:
                yield file


def main(arguments: Sequence[str]) -> int:
    """Print one line per hit; return the exit status."""
    paths = [Path(argument) for argument in arguments] or [ROOT / name for name in CHECKED if (ROOT / name).exists()]
    missing = [str(path) for path in paths if not path.exists()]
    if missing:
        print(f"{missing[0]}: no such file or folder.", file=sys.stderr)
        return 2
    hits = 0
    for file in files_in(paths):
        for place, text in texts_of(file):
            for line, found, instead in sorted(check_text(text)):
                if (name_of(file), found.lower()) in QUOTED:
                    continue
                print(f"{name_of(file)}:{place}{line}: {found!r}; write instead: {instead}")
                hits += 1
    if hits:
        print(f"{hits} phrases to rewrite.", file=sys.stderr)
    return int(hits > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
