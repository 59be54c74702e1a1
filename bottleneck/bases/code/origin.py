"""Tell whether code comes from Keras, Python, a package or the user."""

from __future__ import annotations

import functools
import sys
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from types import FunctionType
from typing import Any, Literal, NamedTuple

_INSTALLED = ("site-packages", "dist-packages")


class Origin(NamedTuple):
    """Where code comes from; "keras" stands for TensorFlow too."""

    kind: Literal["keras", "python", "package", "user"]
    #: Of the top package, with the version of an installed one.
    name: str = ""
    version: str = ""


def is_keras(kind: type) -> bool:
    """Whether Keras defines class `kind`.

    Examples
    --------
    >>> is_keras(dict)
    False
    """
    return kind.__module__.split(".")[0] == "keras" and _is_defined(kind)


def origin_of(value: Any) -> Origin:
    """Tell where a function or a class comes from.

    Examples
    --------
    >>> origin_of(dict).kind, origin_of(functools.partial).kind
    ('python', 'python')
    """
    if isinstance(value, FunctionType):
        # `functools.wraps` gives a function the module of another one.
        return of_module(str(value.__globals__.get("__name__", "")))
    origin = of_module(str(getattr(value, "__module__", None) or "builtins"))
    if isinstance(value, type) and origin.kind == "keras" and not _is_defined(value):
        return Origin("user")
    return origin


@functools.cache
def of_module(name: str) -> Origin:
    """Tell where an imported module comes from, by its name."""
    top = name.partition(".")[0]
    if top in ("keras", "tensorflow"):
        return Origin("keras", top)
    if top == "__main__":
        return Origin("user", top)  # whatever runs it: a notebook's kernel lies among the installed packages
    if top in sys.stdlib_module_names:
        return Origin("python", top)
    module = sys.modules.get(top)
    places = [getattr(module, "__file__", None) or "", *map(str, getattr(module, "__path__", ()))]
    # An editable install lies elsewhere, and changes under one version.
    if not any(part in place.replace("\\", "/").split("/") for place in places for part in _INSTALLED):
        return Origin("user", top)
    return Origin("package", top, _version(top) or str(getattr(module, "__version__", "")))


@functools.cache
def _version(top: str) -> str:
    # Several distributions may share a namespace.
    try:
        return version(top)
    except PackageNotFoundError:
        return ", ".join(sorted({version(name) for name in packages_distributions().get(top, ())}))


def _is_defined(kind: type) -> bool:
    """Whether the module that `kind` names has it.

    Anybody can set `__module__`.
    """
    value: Any = sys.modules.get(kind.__module__)
    if "<locals>" in kind.__qualname__:
        return value is not None
    for part in kind.__qualname__.split("."):
        value = getattr(value, part, None)
    return value is kind
