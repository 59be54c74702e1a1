"""Refuse code that a run or store names without trust.

A person who writes `--base module:function` in a command chose that code. What a file names was chosen by whoever
wrote the file: importing it runs that code with the rights of a person who only wanted to look.
"""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

from bottleneck.bases.custom import is_function
from bottleneck.errors import Untrusted
from bottleneck.system.durable import shown


def require_trust(base: str, trusted: bool, whose: str) -> None:
    """Refuse a base that is code unless the user trusts it.

    Parameters
    ----------
    base : str
        As the file of a run or a store names it.
    trusted : bool
    whose : str
        What names it, for the message.

    Raises
    ------
    Untrusted
        With the module, the file that it would be imported from, and the option. Nothing was imported.

    Examples
    --------
    >>> require_trust("vgg16", False, "run flowers")
    >>> require_trust("nets_of_mine:build", False, "run flowers")
    Traceback (most recent call last):
    bottleneck.errors.Untrusted: run flowers: its base is code, 'nets_of_mine:build', and no module nets_of_mine ...
    """
    if trusted or not is_function(base):
        return
    module = base.partition(":")[0]
    file = file_of(module)
    where = (
        f"no module {module} is found here" if file is None else f"it would be imported from {shown(file)}"
    )
    raise Untrusted(
        f"{shown(whose)}: its base is code, {shown(base)!r}, and {where}. Code runs with all your rights: look at it, "
        "and when you trust it say so with --trust (in Python trust=True)"
    )


def file_of(module: str) -> str | None:
    """Find the file of `module` without importing it; None for none.

    Examples
    --------
    >>> file_of("bottleneck.errors").endswith("errors.py"), file_of("no_such_module.at_all")
    (True, None)
    """
    places: list[str] | None = None
    spec: ModuleSpec | None = None
    names = module.split(".")
    for depth in range(1, len(names) + 1):
        spec = _spec(".".join(names[:depth]), places)
        if spec is None:
            return None
        places = list(spec.submodule_search_locations or [])
    return None if spec is None else spec.origin or next(iter(places or []), None)


def _spec(name: str, places: list[str] | None) -> ModuleSpec | None:
    # As the import system finds it, parents not imported; last in the working folder, as `custom.call` does.
    loaded = getattr(sys.modules.get(name), "__spec__", None)
    if isinstance(loaded, ModuleSpec):
        return loaded
    for finder in sys.meta_path:
        find = getattr(finder, "find_spec", None)
        spec: ModuleSpec | None = find(name, places) if find is not None else None
        if spec is not None:
            return spec
    return PathFinder.find_spec(name, [str(Path.cwd())]) if places is None else None
