"""The frozen part: load networks, cut them, and identify them.

`specs` and `spec` import nothing heavy; everything that needs Keras lies in modules that import it inside functions.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module

from bottleneck.catalog import BASES
from bottleneck.contracts import BaseFamily
from bottleneck.errors import UnknownName
from bottleneck.schema import BaseSpec


def families() -> Mapping[str, BaseFamily]:
    """Every family of the catalog by its name, imported (without Keras)."""
    return {name: import_module(module) for name, module in BASES.items()}


def specs() -> dict[str, BaseSpec]:
    """Every base of the catalog by name, in catalog order.

    Examples
    --------
    >>> specs()["vgg16"].feature
    (7, 7, 512)
    """
    return {name: spec for family in families().values() for name, spec in family.specs().items()}


def base_named(name: str) -> BaseSpec:
    """Look up a base of the catalog; `UnknownName` offers the nearest."""
    known = specs()
    if name.lower() not in known:
        raise UnknownName("base", name, known, "or give FILE.keras or module:function")
    return known[name.lower()]


def family_of(name: str) -> BaseFamily:
    """Return the family that builds base `name`; KeyError if none does."""
    for family in families().values():
        if name in family.specs():
            return family
    raise KeyError(name)
