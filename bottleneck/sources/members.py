"""Members of an archive, read from any thread without unpacking."""

from __future__ import annotations

import bz2
import hashlib
import os
import struct
import tarfile
import weakref
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from bottleneck.errors import Rejected, SourceError
from bottleneck.schema import Signature
from bottleneck.sources import layout
from bottleneck.sources.layout import Layout
from bottleneck.sources.reading import LARGEST, signature, too_large
from bottleneck.sources.volumes import NOWHERE, Volumes
from bottleneck.system.durable import shown

_LOCAL_HEADER = struct.Struct("<4s22xHH")
_STORED, _DEFLATED, _BZIP2 = 0, 8, 12


class OpenFile:
    """A descriptor that closes itself; `pread` keeps threads apart."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        weakref.finalize(self, os.close, descriptor)

    def read_at(self, offset: int, size: int) -> bytes:
        """Read exactly `size` bytes at `offset`. Raises OSError or `Rejected`."""
        parts: list[bytes] = []
        while size > 0:
            block = os.pread(self.descriptor, min(size, 1 << 30), offset)
            if not block:
                raise Rejected("read", "the archive ends within this member", retry=True)
            parts.append(block)
            offset, size = offset + len(block), size - len(block)
        return parts[0] if len(parts) == 1 else b"".join(parts)


class Member(NamedTuple):
    """Where one member lies.

    `offset` is that of its header in a zip, of its data in a tar.
    """

    signature: Signature
    offset: int
    stored: int
    size: int
    method: int = _STORED
    crc: int = 0


@dataclass(frozen=True)
class Members:
    """The files of one archive by path, and counts of the others."""

    file: OpenFile
    status: Signature
    by_path: dict[bytes, Member]
    passed: Counter[str]

    def find(self, path: bytes) -> Member:
        """Find the member of that path. Raises FileNotFoundError."""
        try:
            return self.by_path[path]
        except KeyError:
            raise FileNotFoundError(2, "no such member", path) from None

    def add(self, name: bytes, member: Member) -> None:
        """Add a member; the last one of a path wins."""
        path = _plain_path(name)
        if path is None:
            self.passed["member that leads out of the archive"] += 1
            return
        if path in self.by_path:
            self.passed["older member of the same name"] += 1
        self.by_path[path] = member


def status_of(location: str, descriptor: int | None = None) -> Signature:
    """Give the signature of the archive file itself. Raises OSError."""
    status = os.stat(location) if descriptor is None else os.fstat(descriptor)
    return signature(status, Volumes().number_of(location, status.st_dev))


def _volume(status: Signature) -> int:
    """Number an archive as the volume of its members, below 0.

    `NOWHERE` where nothing vouches for the archive.
    """
    if status.volume == NOWHERE:
        return NOWHERE
    digest = hashlib.sha256(b"%d %d %d" % (status.size, status.inode, status.volume)).digest()
    return -1 - (int.from_bytes(digest[:8], "big") >> 2)


def list_zip(file: OpenFile, location: str) -> Members:
    """List the members of a zip. Raises `SourceError` for encrypted ones.

    A CRC of 32 bits is made to order for other bytes, so a signature holds the archive's own besides: when the archive
    is touched, all of it is hashed again.
    """
    status = status_of(location, file.descriptor)
    found, volume = Members(file, status, {}, Counter()), _volume(status)
    with os.fdopen(os.dup(file.descriptor), "rb") as stream, zipfile.ZipFile(stream) as archive:
        infos = archive.infolist()
        locked = [info for info in infos if info.flag_bits & 0x1]
        if locked:
            raise SourceError(
                f"{shown(location)}: {len(locked)} of {len(infos)} members are encrypted, "
                f"{shown(locked[0].filename)} among them; unpack it with its password and give the folder"
            )
        for info in infos:
            if info.is_dir():
                continue
            if (info.external_attr >> 16) & 0o170000 == 0o120000:
                found.passed["link in an archive"] += 1
                continue
            # Without the UTF-8 flag zipfile reads names as cp437, which gives back every byte: names stay
            # bytes.
            coding = "utf-8" if info.flag_bits & 0x800 else "cp437"
            name = info.orig_filename.encode(coding).partition(b"\0")[0]
            if info.create_system == 0 and b"/" not in name:
                name = name.replace(b"\\", b"/")
            seen = Signature(
                info.file_size,
                status.mtime_ns,
                status.ctime_ns,
                info.header_offset,
                volume and volume ^ info.CRC,
            )
            place = Member(
                seen, info.header_offset, info.compress_size, info.file_size, info.compress_type, info.CRC
            )
            found.add(name, place)
    return found


def list_tar(file: OpenFile, location: str) -> Members:
    """List the members of a plain tar, from header to header.

    A tar has no checksum of a member's data, so a signature holds that of the archive itself: when the archive is
    touched, all of it is hashed again.
    """
    status = status_of(location, file.descriptor)
    found, volume = Members(file, status, {}, Counter()), _volume(status)
    with (
        os.fdopen(os.dup(file.descriptor), "rb") as stream,
        tarfile.open(fileobj=stream, mode="r:", encoding="utf-8", errors="surrogateescape") as archive,
    ):
        while (member := archive.next()) is not None:
            # tarfile keeps every header it has read, at a kilobyte each.
            archive.members.clear()  # type: ignore[attr-defined]
            if member.isdir():
                continue
            if not member.isreg() or member.issparse():
                kind = "link" if member.issym() or member.islnk() else "FIFO, device or sparse file"
                found.passed[f"{kind} in an archive"] += 1
                continue
            seen = Signature(member.size, status.mtime_ns, status.ctime_ns, member.offset, volume)
            place = Member(seen, member.offset_data, member.size, member.size)
            found.add(member.name.encode("utf-8", "surrogateescape"), place)
        end = archive.offset
    if end > status.size:
        raise SourceError(
            f"{shown(location)}: the tar is cut off: its last member should end at byte {end:,}, "
            f"the file has {status.size:,}; fetch it again"
        )
    return found


def read_zip_member(file: OpenFile, path: bytes, member: Member) -> bytes:
    """Read a member and check its CRC. Raises OSError or `Rejected`."""
    if member.size > LARGEST or member.stored > LARGEST:
        raise too_large(max(member.size, member.stored))
    mark, name_size, extra_size = _LOCAL_HEADER.unpack(file.read_at(member.offset, _LOCAL_HEADER.size))
    if mark != b"PK\x03\x04":
        raise Rejected("read", "the zip has no member where its directory says one is", retry=True)
    data = file.read_at(member.offset + _LOCAL_HEADER.size + name_size + extra_size, member.stored)
    try:
        if member.method == _DEFLATED:
            # One byte more than declared is enough to see a bomb; the rest is never unpacked.
            data = zlib.decompressobj(-15).decompress(data, member.size + 1)
        elif member.method == _BZIP2:
            data = bz2.BZ2Decompressor().decompress(data, member.size + 1)
        elif member.method != _STORED:
            reason = f"zip compression method {member.method} is not read here; pack with deflate"
            raise Rejected("read", reason, retry=True)
    except (zlib.error, OSError, EOFError) as error:
        raise Rejected("read", f"damaged in the zip: {error}", retry=True) from error
    if len(data) != member.size or zlib.crc32(data) != member.crc:
        raise Rejected("read", "damaged in the zip: size or CRC is not what its directory says", retry=True)
    return data


def read_tar_member(file: OpenFile, member: Member) -> bytes:
    """Read a member. Raises OSError or `Rejected`."""
    if member.size > LARGEST:
        raise too_large(member.size)
    return file.read_at(member.offset, member.size)


def layout_of(paths: Iterable[bytes]) -> Layout:
    """Decide how the folders of an archive are read.

    ``photos/cats/1.jpg, photos/dogs/1.jpg`` is a zip of the folder ``photos``, not of one class of that name;
    but a folder at the top that holds no more folders, or one that is called like a split, is what it says.

    Examples
    --------
    >>> layout_of([b"photos/cats/1.jpg", b"photos/dogs/1.jpg", b"photos/README"]).prefix
    b'photos/'
    """
    folders = {path.rpartition(b"/")[0] for path in paths if layout.skipped(path) is None}
    prefix = b""
    while True:
        inside = [f[len(prefix) :] for f in folders if f.startswith(prefix) and len(f) > len(prefix)]
        tops: dict[bytes, bool] = {}
        for folder in inside:
            name, slash, _ = folder.partition(b"/")
            tops[name] = tops.get(name, False) or bool(slash)
        if len(tops) != 1:
            return layout.decide(tops, prefix=prefix)
        (top,) = tops
        below = {f.split(b"/", 2)[1] for f in inside if b"/" in f}
        # A class of its own may hold images and one deeper folder; a wrapper holds several, or nothing else.
        wraps = len(below) > 1 or (len(below) == 1 and prefix + top not in folders)
        if not wraps or layout.split_of(top) is not None:
            return layout.decide(tops, prefix=prefix)
        prefix += top + b"/"


def _plain_path(name: bytes) -> bytes | None:
    """Write ``./a//b`` as ``a/b``; give None for paths that lead out."""
    parts = [part for part in name.split(b"/") if part not in (b"", b".")]
    return None if not parts or b".." in parts else b"/".join(parts)
