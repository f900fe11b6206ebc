"""YAML without what can hang or confuse its reader: endless aliases, deep nesting, keys that are no texts."""

from typing import Any

import yaml

from workbench.inputs import shown

MAX_DEPTH = 64
MAX_VALUES = 200_000
MAX_CHARACTERS = 200_000  # a few seconds of reading


def load_yaml(text: str) -> Any:
    """Return the value of a YAML text.

    Parameters
    ----------
    text : str
        One YAML document.

    Returns
    -------
    Any
        Mappings with texts as keys, lists, texts, numbers, booleans, dates or None.

    Raises
    ------
    YAMLError
        If it is not YAML, has more than `MAX_CHARACTERS`, holds a key that is no text or stands twice, an alias of
        itself, more than `MAX_DEPTH` levels, or more than `MAX_VALUES` values: a few aliases can stand for billions.
    """
    if len(text) > MAX_CHARACTERS:
        raise yaml.YAMLError(f"there are more than {MAX_CHARACTERS:,} characters")
    try:
        return yaml.load(text, Loader=_PlainLoader)
    except (ValueError, TypeError, LookupError, ArithmeticError, RecursionError) as err:  # 2026-99-99, !!int ''
        raise yaml.YAMLError(f"a value cannot be read ({err})") from err


class _PlainLoader(yaml.SafeLoader):
    """`SafeLoader` with limits."""

    def __init__(self, stream: str) -> None:
        self._depth = 0
        self._sizes: dict[int, int] = {}  # values that a node stands for, by its identity
        super().__init__(stream)

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Return the next node."""
        is_alias = self.check_event(yaml.AliasEvent)
        mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]  # PyYAML's stubs lack it
        if self._depth >= MAX_DEPTH:
            raise _error(f"there are more than {MAX_DEPTH} levels", mark)
        self._depth += 1
        try:
            node: yaml.Node | None = super().compose_node(parent, index)
        finally:
            self._depth -= 1
        if is_alias and id(node) not in self._sizes:
            raise _error("an alias stands inside the value that it stands for", mark)
        if node is not None and not is_alias:
            self._sizes[id(node)] = size = 1 + sum(self._sizes[id(child)] for child in _children(node))
            if size > MAX_VALUES:
                raise _error(f"aliases stand for more than {MAX_VALUES:,} values", mark)
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Return the mapping of a node."""
        given = set()
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                raise _error("<< is not supported; write the fields out", key.start_mark)
            if key.tag != "tag:yaml.org,2002:str":
                raise _error("a key must be a text; put it in quotes", key.start_mark)
            if key.value in given:  # the last one would win
                raise _error(f"the key {shown(key.value)} stands twice", key.start_mark)
            given.add(key.value)
        mapping: dict[Any, Any] = super().construct_mapping(node, deep=deep)
        return mapping


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def _error(problem: str, mark: Any) -> yaml.composer.ComposerError:
    return yaml.composer.ComposerError(None, None, problem, mark)
