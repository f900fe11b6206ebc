"""What a call with odd input may end in: a value, or one sentence."""

from collections.abc import Callable

from workbench.errors import WorkbenchError


def outcome_of(function: Callable[..., object], *args: object, **fields: object) -> tuple[object, str | None]:
    """Return what a call returns, and None; or None, and the sentence with which it is refused."""
    try:
        return function(*args, **fields), None
    except WorkbenchError as err:
        return None, str(err)


def check_sentence(sentence: str) -> None:
    """Assert that a refusal is one sentence that can be read."""
    assert sentence.strip()
    assert "\n" not in sentence
    assert len(sentence) < 700
