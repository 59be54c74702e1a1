"""Lock a whole store: one housekeeper, and no removal during commits.

What makes removal safe, in one paragraph. Files of a store are removed in two ways only: records and parts of shards by
housekeeping (`prune`, `compact`, `repair`; `copy` counts as housekeeping of its target), and unfinished temporaries by
housekeeping and by builders. Housekeeping holds `housekeeping.lock` alone from before it lists the store until it has
ended, so nobody else takes away what it has listed, nor what it is about to name in a record of its own. Everybody who
commits, builder or housekeeper, holds `commits.lock` together with others from before a shard's first file is written
until its record has its name, and so does whoever writes one of a store's other files; whoever removes holds it alone,
and reads the records again while he does. So at that moment nothing is half committed: a part that no record names then
is a leftover, a temporary is a dead process's, and a commit that begins later finds the parts gone and writes them
anew. Locks are taken in one order, `housekeeping.lock`, then a task's lock (never waited for), then `commits.lock`,
under which nobody waits for a lock: there is no circle. Builders never take the first. The kernel frees what a dead
process held. Readers hold `commits.lock` shared with others while they list; where they cannot, they go without,
because rows are checked when they are served.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bottleneck.errors import StoreError
from bottleneck.system.durable import NO_LOCKS, shown

HOUSEKEEPING, COMMITS = "housekeeping.lock", "commits.lock"

#: Seconds that one housekeeper waits for another, which may be rewriting a large store.
_FOR_HOUSEKEEPING = 600.0

#: Seconds that a removal waits for commits under way: one writes a shard of at most some hundred megabytes.
_FOR_COMMITS = 300.0

#: Seconds that a commit waits for a removal, a few hundred files at a time; less than a worker may be silent.
_FOR_REMOVAL = 45.0

#: Seconds that a reader waits before it goes on without.
_FOR_READING = 10.0

_POLLS = (0.001, 0.1)
_SAID_AFTER = 0.5
_BUSY = (errno.EACCES, errno.EAGAIN, errno.EWOULDBLOCK)


@contextlib.contextmanager
def housekeeping(
    folder: Path, command: str, waiting: Callable[[str], None] = lambda _: None
) -> Iterator[None]:
    """Be the only housekeeper of a store.

    Parameters
    ----------
    folder : Path
        The store's.
    command : str
        What others read that they wait for.
    waiting : callable
        Hears in words what is waited for, and an empty text when that is over.

    Raises
    ------
    StoreError
        Another holds it for ten minutes, or there are no locks there. Nothing was touched.

    Examples
    --------
    >>> import tempfile
    >>> store = Path(tempfile.mkdtemp())
    >>> with housekeeping(store, "store compact"):
    ...     (store / "housekeeping.lock").read_text().split(",")[0]
    'store compact'
    """
    path = folder / HOUSEKEEPING
    was_late = False

    def say() -> None:
        nonlocal was_late
        was_late = True
        waiting(f"waiting for {_owner(path)}")

    with _typed(folder):
        lock = _acquire(path, exclusive=True, patience=_FOR_HOUSEKEEPING, late=say)
    if lock is None:
        raise StoreError(
            f"{folder.name} is being tidied by {_owner(path)}, for more than {_FOR_HOUSEKEEPING:g} s by now: wait "
            "until that has ended, then run this again. Nothing was touched"
        )
    try:
        if was_late:
            waiting("")
        _sign(lock, f"{command}, process {os.getpid()} on {socket.gethostname()}")
        yield
    finally:
        # A process that waits finds another file of that name, or none, and tries again.
        with contextlib.suppress(OSError):
            os.unlink(path)
        os.close(lock)


@contextlib.contextmanager
def committing(folder: Path) -> Iterator[None]:
    """Keep removers away while a shard gets its names; others may commit.

    Raises
    ------
    StoreError
        A removal stands still.
    OSError
        The store is gone or cannot be written.
    """
    try:
        lock = _acquire(folder / COMMITS, exclusive=False, patience=_FOR_REMOVAL)
    except _NoLocks:
        lock = -1  # without locks nobody removes anything
    if lock is None:
        raise StoreError(
            f"{folder.name}: a command that removes files there stands still (`store prune` or `store compact`, on "
            "this machine or another): let it go on or end it, then run this again"
        )
    try:
        yield
    finally:
        if lock >= 0:
            os.close(lock)


@contextlib.contextmanager
def removing(folder: Path) -> Iterator[None]:
    """Wait until nobody is half way through a commit; then builders wait.

    Raises
    ------
    StoreError
        Somebody commits for longer than can be, or there are no locks there.
    """
    with _typed(folder):
        lock = _acquire(folder / COMMITS, exclusive=True, patience=_FOR_COMMITS)
    if lock is None:
        raise StoreError(
            f"{folder.name}: some process has been writing or checking a shard there for more than {_FOR_COMMITS:g} s; "
            "look for one that stands still, then run this again. What is there is whole"
        )
    try:
        yield
    finally:
        os.close(lock)


def removing_if_free(folder: Path) -> contextlib.AbstractContextManager[bool]:
    """Lock as `removing` does, without waiting; tell whether it is locked."""
    return _if_free(folder, exclusive=True, patience=0)


def reading(folder: Path) -> contextlib.AbstractContextManager[bool]:
    """Keep removers away from a reader; False without locks. Writes nothing."""
    return _if_free(folder, exclusive=False, patience=_FOR_READING, make=False)


@contextlib.contextmanager
def _if_free(folder: Path, **how: Any) -> Iterator[bool]:
    """Lock `commits.lock` if possible, and tell whether it is locked."""
    try:
        lock = _acquire(folder / COMMITS, **how)
    except (OSError, StoreError):
        lock = None
    try:
        yield lock is not None
    finally:
        if lock is not None:
            os.close(lock)


@contextlib.contextmanager
def _typed(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"{folder} cannot be locked ({error.strerror or error}), so nothing is removed there: it must be writable"
        ) from error


class _NoLocks(StoreError):
    """The file system has none."""


def _sign(lock: int, text: str) -> None:
    with contextlib.suppress(OSError):
        os.ftruncate(lock, 0)
        os.pwrite(lock, text.encode("utf-8", "replace")[:200] + b"\n", 0)


def _acquire(
    path: Path,
    *,
    exclusive: bool,
    patience: float,
    make: bool = True,
    late: Callable[[], None] = lambda: None,
) -> int | None:
    """Lock a file and give its descriptor; None after `patience` seconds."""
    began, pause, was_late = time.monotonic(), _POLLS[0], False
    while (lock := _try_acquire(path, exclusive, make)) is None:
        waited = time.monotonic() - began
        if waited >= patience:
            return None
        if waited > _SAID_AFTER and not was_late:
            was_late = True
            late()
        time.sleep(pause)
        pause = min(2 * pause, _POLLS[1])
    return lock


def _try_acquire(path: Path, exclusive: bool, make: bool) -> int | None:
    flags = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        descriptor = os.open(path, flags | (os.O_RDWR | os.O_CREAT if make else os.O_RDONLY), 0o666)
    except PermissionError as error:
        # The file is another user's: on most file systems reading suffices to lock it.
        try:
            descriptor = os.open(path, flags | os.O_RDONLY)
        except FileNotFoundError:
            raise error from None
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        # Somebody may have removed the file meanwhile, and others then lock the new one.
        if os.path.samestat(os.fstat(descriptor), os.stat(path, follow_symlinks=False)):
            return descriptor
    except FileNotFoundError:
        pass
    except OSError as error:
        if error.errno in NO_LOCKS:
            os.close(descriptor)
            raise _NoLocks(
                f"{path.parent} lies on a file system without locks ({error.strerror}), so nobody can tell whether "
                "another process is at work there, and nothing is removed: `bottleneck store copy` the store to a disk "
                "with locks, and keep house in the copy"
            ) from error
        if error.errno not in _BUSY:
            os.close(descriptor)
            raise
    os.close(descriptor)
    return None


def _owner(path: Path) -> str:
    with contextlib.suppress(OSError):
        text = path.read_bytes()[:200].decode("utf-8", "replace").strip()
        if text:
            return f"another command ({shown(text)})"
    return "another command"
