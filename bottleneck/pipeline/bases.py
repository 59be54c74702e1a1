"""The bases of the catalog, listed or looked up by name."""

from __future__ import annotations

from bottleneck.errors import UnknownName
from bottleneck.schema import BaseSpec


def list_bases() -> list[BaseSpec]:
    """Every base of the catalog, with sizes, cuts and shapes; builds none of them."""
    from bottleneck.bases import specs

    return list(specs().values())


def base_named(name: str) -> BaseSpec:
    """One base of the catalog. Raises `UnknownName` with the nearest ones."""
    from bottleneck.bases import specs

    known = specs()
    if name.lower() not in known:
        raise UnknownName("base", name, known, "or give FILE.keras or module:function")
    return known[name.lower()]
