"""Numbers for file systems, so that another one is not mistaken.

A signature rests on the change time, which the kernel keeps and no program sets. A disk image brings its own: two
squashfs images may agree in path, size, times and inode of every file, and differ in their bytes. So a file on one is
known only as long as the image stays mounted. Elsewhere the device and the file system's own identity are enough.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import sys
from pathlib import Path

#: No file system: a file whose signature says so is read at every scan.
NOWHERE = 0

#: `statfs` types of file systems whose times come out of an image or from a program: squashfs, erofs, cramfs,
#: romfs, ISO 9660, UDF, FUSE.
_IMAGES = frozenset({0x73717368, 0xE0F5E1E2, 0x28CD3D45, 0x7275, 0x9660, 0x15013346, 0x65735546})
#: Layers over other file systems, an image among them perhaps.
_OVERLAY = 0x794C7630
#: Major number of loop devices: a file system in a file, which another file may replace.
_LOOP = 7

_AT_FDCWD = -100
#: Number of a mount that is never given again while the machine runs (Linux 6.8), and where `statx` puts it.
_STATX_MNT_ID_UNIQUE, _MNT_ID = 0x4000, slice(144, 152)


class Volumes:
    """The file systems of one listing, each looked at once.

    Made anew for each listing: a mount may change between two.
    """

    def __init__(self) -> None:
        self._known: dict[int, int] = {}

    def number_of(self, path: bytes | str, device: int) -> int:
        """Number the file system of `path`, or give `NOWHERE` where unsure.

        `device` is the path's `st_dev`.

        Examples
        --------
        >>> volumes = Volumes()
        >>> volumes.number_of("/", os.stat("/").st_dev) == Volumes().number_of("/", os.stat("/").st_dev)
        True
        """
        if device not in self._known:
            try:
                self._known[device] = volume_identity(path, device)
            except OSError:  # this one is gone, or its path too long to ask by: the next one may tell
                return NOWHERE
        return self._known[device]


def volume_identity(path: bytes | str, device: int) -> int:
    """Number the file system of `path`, from 1, or give `NOWHERE`.

    From the device, the file system's identity and, where times come from an image, the mount. A device number that
    the system gives anew (NFS after a restart) costs one reading of the files. Raises OSError.
    """
    facts = [str(device), str(_own_identity(path))]
    kind = _kind(path)
    image = kind in _IMAGES or _major(device) == _LOOP
    if image or kind == _OVERLAY:
        mount = _mount(path)
        if mount is None and image:
            return NOWHERE
        facts += [str(mount), _boot()]
    digest = hashlib.sha256("\n".join(facts).encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 1) | 1


def _own_identity(path: bytes | str) -> int:
    return int(getattr(os.statvfs(path), "f_fsid", 0)) if hasattr(os, "statvfs") else 0


def _kind(path: bytes | str) -> int | None:
    """Ask Linux' `statfs` for `f_type`, which Python does not show."""
    statfs = _call("statfs")
    if statfs is None:
        return None
    room = ctypes.create_string_buffer(256)
    if statfs(os.fsencode(path), room):
        raise OSError(ctypes.get_errno(), "statfs")
    return ctypes.c_long.from_buffer(room).value & 0xFFFFFFFF


def _mount(path: bytes | str) -> int | None:
    """Number the mount, where the system never reuses a number."""
    statx = _call("statx")
    room = ctypes.create_string_buffer(256)
    if statx is None or statx(_AT_FDCWD, os.fsencode(path), 0, _STATX_MNT_ID_UNIQUE, room):
        return None
    if not ctypes.c_uint32.from_buffer(room).value & _STATX_MNT_ID_UNIQUE:
        return None
    return int.from_bytes(room.raw[_MNT_ID], "little")


def _call(name: str) -> ctypes._NamedFuncPointer | None:
    return getattr(_library(), name, None)


@functools.cache
def _library() -> ctypes.CDLL | None:
    return ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def _boot() -> str:
    """Identify this run of the machine: mount numbers begin anew with each."""
    return Path("/proc/sys/kernel/random/boot_id").read_text()


def _major(device: int) -> int:
    return os.major(device) if hasattr(os, "major") else 0
