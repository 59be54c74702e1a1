"""Mounts that nobody else sees and that are gone with the test: each in a mount namespace of its own."""

from __future__ import annotations

import ctypes
import functools
import os
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

_CLONE_NEWNS = 0x00020000


def private_mounts(test: Callable[..., None]) -> Callable[..., None]:
    """Run the test in a thread with its own mount namespace; processes that it starts are in it too.

    The kernel undoes the mounts, and frees their loop devices, when the thread and these processes have ended. Skips
    where the system does not allow it: it takes root.
    """

    @functools.wraps(test)
    def wrapped(*arguments: Any, **options: Any) -> None:
        raised: list[BaseException] = []

        def inside() -> None:
            try:
                if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNS):
                    pytest.skip(f"needs root and mount namespaces ({os.strerror(ctypes.get_errno())})")
                mount("--make-rprivate", "/")
                test(*arguments, **options)
            except BaseException as error:  # skips and failures too
                raised.append(error)

        thread = threading.Thread(target=inside, name=f"mounts of {test.__name__}")
        thread.start()
        thread.join()
        if raised:
            raise raised[0]

    return wrapped


def mount(*arguments: object) -> None:
    subprocess.run(["mount", *map(str, arguments)], check=True, capture_output=True)


def unmount(folder: Path) -> None:
    """Out of sight at once, and gone when nothing uses it any more: a store's maps live as long as the store."""
    subprocess.run(["umount", "-l", str(folder)], check=True, capture_output=True)


def memory(folder: Path, options: str) -> Path:
    """A file system in memory at `folder`, with these limits: ``size=64k``, ``nr_inodes=20``."""
    folder.mkdir(exist_ok=True)
    mount("-t", "tmpfs", "-o", options, "tmpfs", folder)
    return folder


def remount(folder: Path, options: str) -> bool:
    """Whether the system did it."""
    done = subprocess.run(
        ["mount", "-o", f"remount,{options}", str(folder)], capture_output=True, check=False
    )
    return not done.returncode


def cover_read_only(folder: Path, aside: Path) -> None:
    """From now on what is opened below `folder` is read-only; `unmount` uncovers it.

    A file system cannot be remounted so while anyone has a file of it open for writing, and builders always have one:
    their locks. A read-only view laid over it in one step needs no such moment.
    """
    aside.mkdir()
    mount("--bind", folder, aside)
    mount("-o", "remount,bind,ro", aside)
    mount("--bind", aside, folder)
    unmount(aside)


def loop(image: Path, folder: Path, mebibytes: int) -> Path:
    """An ext4 file system in a file, mounted; the device goes with the mount."""
    with image.open("wb") as file:
        file.truncate(mebibytes << 20)
    # No reserve for root: that would not be full.
    command = ["mkfs.ext4", "-q", "-m", "0", "-J", "size=1", str(image)]
    subprocess.run(command, check=True, capture_output=True)
    folder.mkdir(exist_ok=True)
    mount("-o", "loop", image, folder)
    return folder
