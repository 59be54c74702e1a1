"""Bound a child process that parses HDF5 files of others.

The HDF5 library dies, hangs or asks for all memory on some malformed files, and an exception handler is no help then.
So nothing that somebody else may have written is parsed in the process of a command or a worker.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path


def child_environment() -> dict[str, str]:
    """Return the child's environment: nobody's HDF5 settings, the same modules.

    Returns
    -------
    dict of str to str

    Examples
    --------
    >>> child_environment()["HDF5_PLUGIN_PRELOAD"]
    '::'
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HDF5_")}
    kept["HDF5_PLUGIN_PRELOAD"] = "::"  # the library's own word for "no plugins"
    kept["PYTHONPATH"] = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    return kept


def forget_plugins() -> None:
    """Remove every folder that HDF5 would load libraries from.

    Examples
    --------
    >>> forget_plugins()  # doctest: +SKIP
    """
    import h5py

    # Those that the library was built with, and those that somebody's environment added.
    with contextlib.suppress(RuntimeError, AttributeError):
        while h5py.h5pl.size():
            h5py.h5pl.remove(0)


def limit_resources(memory: int, seconds: int | None = None) -> None:
    """Bound what this process may use; for the child alone.

    Parameters
    ----------
    memory : int
        Bytes of address space beyond what is mapped now.
    seconds : int or None
        Seconds of processor time in all, after which SIGXCPU ends the process. Other load does not shorten them.

    Examples
    --------
    >>> limit_resources(1 << 30, seconds=60)  # doctest: +SKIP
    """
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if seconds is not None:
            _lower(resource.RLIMIT_CPU, seconds, seconds + 1)
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        _lower(resource.RLIMIT_AS, pages * os.sysconf("SC_PAGE_SIZE") + memory)


def _lower(kind: int, soft: int, hard: int | None = None) -> None:
    import resource

    now, most = (sys.maxsize if v == resource.RLIM_INFINITY else v for v in resource.getrlimit(kind))
    hard = min(most, soft if hard is None else hard)
    resource.setrlimit(kind, (min(soft, hard, now), hard))
