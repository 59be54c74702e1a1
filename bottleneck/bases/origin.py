"""Where a piece of code comes from: Keras and TensorFlow, Python itself, an installed package, or its user."""

from __future__ import annotations

import functools
import sys
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from types import FunctionType
from typing import Any, Literal, NamedTuple

_INSTALLED = ("site-packages", "dist-packages")


class Origin(NamedTuple):
    """`name` is the package's, with its `version` where it is an installed one."""

    kind: Literal["stock", "python", "package", "own"]
    name: str = ""
    version: str = ""


def is_keras(kind: type) -> bool:
    """Whether `kind` is a class of Keras' own.

    Examples
    --------
    >>> is_keras(dict)
    False
    """
    return kind.__module__.split(".")[0] == "keras" and _is_there(kind)


def origin_of(value: Any) -> Origin:
    """Where a function or a class comes from.

    Examples
    --------
    >>> origin_of(dict).kind, origin_of(functools.partial).kind
    ('python', 'python')
    """
    if isinstance(value, FunctionType):
        # `functools.wraps` gives a function the module of another one.
        return of_module(str(value.__globals__.get("__name__", "")))
    found = of_module(str(getattr(value, "__module__", None) or "builtins"))
    if isinstance(value, type) and found.kind == "stock" and not _is_there(value):
        return Origin("own")
    return found


@functools.cache
def of_module(name: str) -> Origin:
    """Where a module comes from, by its name; it is imported already."""
    top = name.partition(".")[0]
    if top in ("keras", "tensorflow"):
        return Origin("stock", top)
    if top == "__main__":
        return Origin("own", top)  # whatever runs it: a notebook's kernel lies among the installed packages
    if top in sys.stdlib_module_names:
        return Origin("python", top)
    module = sys.modules.get(top)
    places = [getattr(module, "__file__", None) or "", *map(str, getattr(module, "__path__", ()))]
    # A package that is installed for its developer lies elsewhere, and changes under one version.
    if not any(part in place.replace("\\", "/").split("/") for place in places for part in _INSTALLED):
        return Origin("own", top)
    return Origin("package", top, _version(top) or str(getattr(module, "__version__", "")))


@functools.cache
def _version(top: str) -> str:
    """The version of the distribution that `top` is imported from; of all that share a namespace."""
    try:
        return version(top)
    except PackageNotFoundError:
        return ", ".join(sorted({version(name) for name in packages_distributions().get(top, ())}))


def _is_there(kind: type) -> bool:
    """Whether the module that `kind` names has it under that name: `__module__` can be set by anybody."""
    found: Any = sys.modules.get(kind.__module__)
    if "<locals>" in kind.__qualname__:
        return found is not None
    for part in kind.__qualname__.split("."):
        found = getattr(found, part, None)
    return found is kind
