"""Tell how much memory a machine, container or process has left."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from bottleneck.errors import UsageError
from bottleneck.schema import parse_size

#: Stored rows up to this size are loaded for a fit: see `rows_budget`.
ROWS = 2 << 30


def budget(memory: int | str | None = None) -> int:
    """Give the bytes that loaded rows may take.

    Parameters
    ----------
    memory : int or str, optional
        Bytes, or a number with a unit: ``"4G"``. By default half of what is free.

    Raises
    ------
    UsageError

    Examples
    --------
    >>> budget("1.5G"), budget(10)
    (1610612736, 10)
    """
    if memory is None:
        return free() // 2
    if isinstance(memory, int):
        return memory
    try:
        return parse_size(memory)
    except ValueError as error:
        raise UsageError(f"memory {memory!r}: expected bytes, or a number with K, M, G or T (4G)") from error


def rows_budget() -> int:
    """Give the bytes of rows up to which a head loads them.

    That is `ROWS`, or a quarter of the memory there is, if that is less. The size of the machine (or container, or
    the process's limit) decides, never what is free at the moment: the same rows are then treated alike at every run.
    ``BOTTLENECK_ROWS`` in the environment says another size (``4G``).

    Raises
    ------
    UsageError
    """
    given = os.environ.get("BOTTLENECK_ROWS")
    return budget(given) if given else min(ROWS, total() // 4)


def total(proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> int:
    """Give the bytes of an idle machine; 8 GiB where unknown."""
    most = [_of_machine(proc, "MemTotal:", 8 << 30)]
    for group, names in _groups(proc, cgroups):
        with contextlib.suppress(OSError, ValueError):
            most += _limit(group / names.limit)
    with contextlib.suppress(ImportError):
        import resource

        soft = [resource.getrlimit(limit)[0] for limit in (resource.RLIMIT_AS, resource.RLIMIT_DATA)]
        most += [limit for limit in soft if limit != resource.RLIM_INFINITY]
    return min(most)


def free(proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> int:
    """Give the bytes this process may still take; 2 GiB where unknown."""
    left = [_of_machine(proc, "MemAvailable:", 2 << 30)]
    for group, names in _groups(proc, cgroups):
        with contextlib.suppress(OSError, ValueError):
            for limit in _limit(group / names.limit):
                used = int((group / names.usage).read_text("ascii"))
                facts = dict(line.split() for line in (group / "memory.stat").read_text("ascii").splitlines())
                # File pages that nobody uses count as free.
                left.append(limit - used + int(facts.get(names.reclaimable, 0)))
    left += _within_limits(proc)
    return max(0, min(left))


class _Names(NamedTuple):
    """What a control group calls its figures."""

    limit: str
    usage: str
    reclaimable: str


_VERSION_1 = _Names("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
_VERSION_2 = _Names("memory.max", "memory.current", "inactive_file")


def _of_machine(proc: Path, name: str, unknown: int) -> int:
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in (proc / "meminfo").read_text("ascii").splitlines():
            if line.startswith(name):
                return int(line.split()[1]) << 10
    return unknown


def _groups(proc: Path, cgroups: Path) -> Iterator[tuple[Path, _Names]]:
    """Find the control groups that bound this process, innermost first."""
    try:
        lines = (proc / "self" / "cgroup").read_text("utf-8", errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if not controllers:
            root, names = cgroups, _VERSION_2
        elif "memory" in controllers.split(","):
            root, names = cgroups / "memory", _VERSION_1
        else:
            continue
        folder = root / group.strip("/")
        # A container may see its own group mounted as the root: then the path that it reads leads nowhere.
        for place in {*(p for p in (folder, *folder.parents) if p.is_relative_to(root)), root}:
            yield place, names


def _limit(file: Path) -> list[int]:
    text = file.read_text("ascii").strip()
    return [] if text == "max" or int(text) > sys.maxsize >> 1 else [int(text)]


def _within_limits(proc: Path) -> list[int]:
    try:
        import resource

        pages = [int(number) for number in (proc / "self" / "statm").read_text("ascii").split()]
    except (ImportError, OSError, ValueError):
        return []
    page = os.sysconf("SC_PAGE_SIZE")
    used = {resource.RLIMIT_AS: pages[0] * page, resource.RLIMIT_DATA: pages[5] * page}
    soft = {limit: resource.getrlimit(limit)[0] for limit in used}
    return [soft[limit] - used[limit] for limit in used if soft[limit] != resource.RLIM_INFINITY]
