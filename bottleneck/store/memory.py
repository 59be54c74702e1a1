"""How much memory is free: the machine's, this container's, this process's, whichever is least."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

from bottleneck.errors import UsageError

#: Stored rows up to this size are loaded for a fit: see `rows_budget`.
ROWS = 2 << 30

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def budget(memory: int | str | None = None) -> int:
    """Bytes that rows may take when they are loaded: as given, else half of what is free.

    Parameters
    ----------
    memory : int or str, optional
        Bytes, or a number with a unit: ``"4G"``.

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
    text = memory.strip().upper().removesuffix("IB").removesuffix("B")
    unit = text[-1:] if text[-1:] in "KMGT" else ""
    try:
        return int(float(text.removesuffix(unit)) * _UNITS[unit])
    except (ValueError, OverflowError) as error:
        raise UsageError(f"memory {memory!r}: expected bytes, or a number with K, M, G or T (4G)") from error


def rows_budget() -> int:
    """Bytes of stored rows up to which a head loads them: `ROWS`, or a quarter of the memory there is, if that is less.

    The size of the machine (or container, or the process's limit) decides, never what is free at the moment: the same
    rows are then treated alike at every run. ``BOTTLENECK_ROWS`` in the environment says another size (``4G``).

    Raises
    ------
    UsageError
    """
    given = os.environ.get("BOTTLENECK_ROWS")
    return budget(given) if given else min(ROWS, total() // 4)


def total(proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes that this process could have if nothing else ran. Where the system tells nothing, 8 GiB."""
    most = [8 << 30]
    with contextlib.suppress(OSError, ValueError, IndexError):
        lines = (proc / "meminfo").read_text("ascii").splitlines()
        most = [int(line.split()[1]) << 10 for line in lines if line.startswith("MemTotal:")] or most
    with contextlib.suppress(OSError):
        for line in (proc / "self" / "cgroup").read_text("utf-8", errors="replace").splitlines():
            _, controllers, group = line.split(":", 2)
            if not controllers:
                most += _limits(cgroups, group, "memory.max")
            elif "memory" in controllers.split(","):
                most += _limits(cgroups / "memory", group, "memory.limit_in_bytes")
    with contextlib.suppress(ImportError):
        import resource

        soft = [resource.getrlimit(limit)[0] for limit in (resource.RLIMIT_AS, resource.RLIMIT_DATA)]
        most += [limit for limit in soft if limit != resource.RLIM_INFINITY]
    return min(most)


def _limits(root: Path, group: str, name: str) -> list[int]:
    """The limit of each group from `group` up to the root that has one."""
    found = []
    for place in _places(root, group):
        with contextlib.suppress(OSError, ValueError):
            limit = int((place / name).read_text("ascii"))
            found += [limit] if limit <= sys.maxsize >> 1 else []
    return found


def _places(root: Path, group: str) -> set[Path]:
    folder = root / group.strip("/")
    # A container may see its own group mounted as the root: then the path it is told leads nowhere.
    return {*(p for p in (folder, *folder.parents) if p.is_relative_to(root)), root}


def free(proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes that this process may still take; 0 or more. Where the system tells nothing, 2 GiB."""
    left = [2 << 30]
    with contextlib.suppress(OSError, ValueError, IndexError):
        lines = (proc / "meminfo").read_text("ascii").splitlines()
        left = [int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:")] or left
    with contextlib.suppress(OSError):
        for line in (proc / "self" / "cgroup").read_text("utf-8", errors="replace").splitlines():
            _, controllers, group = line.split(":", 2)
            if not controllers:
                left += _in_groups(cgroups, group, "memory.max", "memory.current", "inactive_file")
            elif "memory" in controllers.split(","):
                names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
                left += _in_groups(cgroups / "memory", group, *names)
    left += _within_limits(proc)
    return max(0, min(left))


def _in_groups(root: Path, group: str, limit: str, usage: str, reclaimable: str) -> list[int]:
    """What each group from `group` up to the root leaves; file pages that nobody uses count as free."""
    left = []
    for place in _places(root, group):
        with contextlib.suppress(OSError, ValueError):
            most = (place / limit).read_text("ascii").strip()
            if most == "max" or int(most) > sys.maxsize >> 1:
                continue
            used = int((place / usage).read_text("ascii"))
            facts = dict(line.split() for line in (place / "memory.stat").read_text("ascii").splitlines())
            left.append(int(most) - used + int(facts.get(reclaimable, 0)))
    return left


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
