"""Text from users, files and models in a form that is safe to print."""


def printable(text: str) -> str:
    """Return `text` with its control characters spelled out as in a Python string."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
