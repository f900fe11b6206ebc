"""Text from users, files and models in a form that is safe to print, and shares in the form of all sentences."""


def printable(text: str) -> str:
    """Return `text` with its control characters spelled out as in a Python string."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def percent(share: float, form: str = ".0f") -> str:
    """Return a share as percent, such as "40 %" for 0.4; `form` is the format of the number."""
    return f"{100 * share:{form}} %"
