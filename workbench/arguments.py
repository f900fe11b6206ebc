"""Arguments of public functions, checked against their annotations in one sentence before anything is done."""

import inspect
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, wraps
from numbers import Integral, Real
from typing import Annotated, Any, Literal, ParamSpec, TypeVar, Union, get_args, get_origin, get_type_hints

from workbench.errors import ArgumentError
from workbench.inputs import shown

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

_WORDS = {str: "a text", int: "a whole number", float: "a number", bool: "true or false", types.NoneType: "None"}


def checked(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Return a function that checks its arguments first.

    Parameters
    ----------
    function : callable
        A function or method whose parameters are annotated. Of a protocol the methods must be there; names that are
        imported for the type checker only are not checked.

    Returns
    -------
    callable
        Raises `ArgumentError` if an argument is not of the type of its annotation.
    """
    signature = inspect.signature(function)

    @wraps(function)
    def call(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        for name, value in signature.bind(*args, **kwargs).arguments.items():
            hint = _hint(function, name)
            if not _allows(hint, value):
                raise ArgumentError(f"{name} must be {_phrase(hint)}; got {shown(value)}.")
        return function(*args, **kwargs)

    return call


@cache
def _hint(function: Callable[..., Any], name: str) -> Any:
    only = types.SimpleNamespace(__annotations__={name: function.__annotations__.get(name, Any)})
    try:
        return get_type_hints(only, globalns=function.__globals__, include_extras=True)[name]
    except NameError:  # imported for the type checker only
        return Any


def _allows(hint: Any, value: object) -> bool:
    origin = get_origin(hint)
    if hint is Any:
        return True
    if origin is Annotated:
        return _allows(get_args(hint)[0], value)
    if origin in (Union, types.UnionType):
        return any(_allows(part, value) for part in get_args(hint))
    if origin is Literal:
        return isinstance(value, str)  # which names are known, the function says itself
    if hint in (int, float):
        number = Integral if hint is int else Real
        return isinstance(value, number) and not isinstance(value, bool)  # which is a number in Python
    if origin in (Sequence, Iterable, list):  # a tuple serves as a list
        expected = Iterable if origin is Iterable else Sequence
        if not isinstance(value, expected) or isinstance(value, str | bytes | Mapping):
            return False
        return not isinstance(value, Sequence) or all(_allows(get_args(hint)[0], item) for item in value)
    kind = origin or hint
    if getattr(kind, "_is_protocol", False):
        return all(hasattr(value, name) for name in _methods(kind))
    return not isinstance(kind, type) or isinstance(value, kind)


def _methods(protocol: type) -> list[str]:
    found = [name for name, part in vars(protocol).items() if inspect.isfunction(part)]
    return [name for name in found if name == "__call__" or not name.startswith("_")]


def _phrase(hint: Any) -> str:
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(_phrase(part) for part in get_args(hint))
    if origin is Literal:
        return _WORDS[str]
    if origin in (Sequence, Iterable, list):
        return f"a list of {_phrase(get_args(hint)[0]).removeprefix('a ')}"
    kind = origin or hint
    return _WORDS.get(kind, f"a {getattr(kind, '__name__', kind)}")
