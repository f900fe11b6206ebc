"""Names of the tasks, separate from the tasks so that checking a name is fast: it imports no model code."""

from collections.abc import Sequence

from workbench.errors import SpecError

# the order of Gu et al. 2024
TASK_NAMES = (
    "reasoning",
    "nli",
    "open_qa",
    "closed_qa",
    "dialogue",
    "summarization",
    "ner",
    "sentiment",
)


def check_tasks(names: str | Sequence[str]) -> tuple[str, ...]:
    """Return task names after checking them.

    Parameters
    ----------
    names : str or sequence of str
        ``"all"``, one name, or several.

    Returns
    -------
    tuple of str
        The names, in their order.

    Raises
    ------
    SpecError
        If a task is unknown or named twice, or no task is named.
    """
    if names == "all":
        return TASK_NAMES
    chosen = (names,) if isinstance(names, str) else tuple(names)
    if not chosen:
        raise SpecError(f"no task is named; known: {', '.join(TASK_NAMES)}, or all.")
    for name in chosen:
        if name not in TASK_NAMES:
            raise SpecError(f"no task {name!r}; known: {', '.join(TASK_NAMES)}, or all.")
        if chosen.count(name) > 1:
            raise SpecError(f"task {name!r} is named {chosen.count(name)} times; name it once.")
    return chosen
