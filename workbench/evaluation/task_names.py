"""Names of the tasks, checked without importing what runs them."""

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
    """Task names as they were asked for.

    Parameters
    ----------
    names : str or sequence of str
        ``"all"``, one name, or several.

    Returns
    -------
    tuple of str
        In the order asked for.

    Raises
    ------
    SpecError
        If there is no such task, or one is named twice, or none is.
    """
    if names == "all":
        return TASK_NAMES
    asked = (names,) if isinstance(names, str) else tuple(names)
    if not asked:
        raise SpecError(f"no task is named; known: {', '.join(TASK_NAMES)}, or all.")
    for name in asked:
        if name not in TASK_NAMES:
            raise SpecError(f"no task {name!r}; known: {', '.join(TASK_NAMES)}, or all.")
        if asked.count(name) > 1:
            raise SpecError(f"task {name!r} is named {asked.count(name)} times; name it once.")
    return asked
