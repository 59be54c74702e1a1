"""Objects below a URL prefix, laid out like a folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from bottleneck.errors import Rejected, RemoteError, SourceError
from bottleneck.schema import Entry, Signature
from bottleneck.sources import layout
from bottleneck.sources.layout import LAYOUTS, Layout
from bottleneck.sources.reading import UNSEEN, reason_of
from bottleneck.system import objects
from bottleneck.system.addresses import WEB, Address, redact, redact_text
from bottleneck.system.connections import protocol_of
from bottleneck.system.durable import shown
from bottleneck.system.object_info import ObjectInfo

#: Questions to a service at a time, where one answer does not tell about many objects.
_ASKED_AT_ONCE = 32
_BATCH = 1 << 10
#: A page may link to itself for ever; no collection of images is this deep.
_DEEPEST = 64


@dataclass(frozen=True)
class RemoteFolder:
    """All objects below a prefix; over HTTP, files that pages link.

    Parameters
    ----------
    location : str
        The URL, without a slash at its end, as a person may see it.
    address : Address
        The same with its secrets.
    """

    location: str
    address: Address = field(repr=False, compare=False)
    _passed: Counter[str] = field(default_factory=Counter, init=False, repr=False, compare=False)

    @classmethod
    def claims(cls, location: str) -> bool:
        """Take every URL."""
        return objects.is_url(location)

    @classmethod
    def open(cls, address: Address, fetched: Path) -> RemoteFolder:
        """Open the prefix at `address`. Raises `SourceError` when nothing is listed."""
        url = _without_slash(address.url)
        location = redact(url)
        source = cls(location, replace(address, url=url))
        try:
            there = objects.stat_object(url, address.allowed)
        except FileNotFoundError:
            # A page need not answer to be a prefix of others, and some services know no empty folder.
            there = ObjectInfo("", True)
        except (OSError, RemoteError) as error:
            raise unusable(location, error) from error
        if not there.folder and protocol_of(url) not in WEB:
            raise SourceError(
                f"{shown(location)}: this is one object, and by its name neither a table nor an archive; "
                f"expected {LAYOUTS}"
            )
        source.layout()
        return source

    def layout(self) -> Layout:
        """Say how the folders below are read. Raises `SourceError`."""
        try:
            listed = list(objects.list_objects(self.address.url, self.address.allowed))
        except (OSError, RemoteError) as error:
            raise unusable(self.location, error) from error
        if not listed:
            raise SourceError(f"{shown(self.location)}: nothing is listed there; expected {LAYOUTS}")
        tops = [_raw(found) for found in listed if found.folder]
        return layout.decide(
            {
                name: layout.split_of(name) is not None and self._holds_folders(name)
                for name in tops
                if layout.skipped_folder(name) is None
            }
        )

    def entries(self) -> Iterator[Entry]:
        """List every object, one folder at a time. Raises `SourceError`."""
        placing = self.layout()
        passed = self._passed
        passed.clear()
        folders = [b""]
        while folders:
            folder = folders.pop()
            label, split = placing.place(folder)
            files: list[ObjectInfo] = []
            start = folder + b"/" if folder else b""
            try:
                for found in objects.list_objects(self._url(folder), self.address.allowed):
                    name = _raw(found)
                    reason = layout.skipped_folder(name) if found.folder else layout.skipped_file(name)
                    if found.folder and folder.count(b"/") >= _DEEPEST:
                        reason = f"folder below {_DEEPEST} others"
                    if reason:
                        passed[reason] += 1
                    elif found.folder:
                        folders.append(start + name)
                    else:
                        files.append(found)
            except FileNotFoundError:
                passed["folder that vanished"] += 1
            except (OSError, RemoteError):
                passed["unreadable folder"] += 1
                # `read` of it fails with the same error, so that it ends among the rejections, by name.
                yield Entry(folder or b".", UNSEEN, label, None, split, named=True)
            known = [found for found in files if found.versioned]
            for found in known:
                yield Entry(start + _raw(found), found.signature, label, None, split)
            bare = [start + _raw(found) for found in files if not found.versioned]
            for path, seen in signatures_of(bare, self._url, self.address.allowed):
                yield Entry(path, seen, label, None, split)

    def read(self, path: bytes) -> bytes:
        """Read one object. Raises OSError or `Rejected`."""
        try:
            return objects.read_object(self._url(path), allowed=self.address.allowed)
        except RemoteError as error:  # it leads to another host
            raise Rejected("read", str(error), retry=True) from error

    def passed_over(self) -> Mapping[str, int]:
        """Count what the last `entries()` left out, by reason."""
        return dict(self._passed)

    def _url(self, path: bytes) -> str:
        url = self.address.url
        return objects.join_url(url, path.decode("utf-8", "surrogateescape")) if path else url

    def _holds_folders(self, name: bytes) -> bool:
        try:
            listed = objects.list_objects(self._url(name), self.address.allowed)
            below = [_raw(found) for found in listed if found.folder]
        except (OSError, RemoteError):  # the walk says what is wrong with it
            return False
        return any(layout.skipped_folder(folder) is None for folder in below)


def signatures_of(
    paths: list[bytes], url_of: Callable[[bytes], str], allowed: Sequence[str]
) -> Iterator[tuple[bytes, Signature]]:
    """Pair each path with its object's signature, asking for several at once."""

    def ask(path: bytes) -> Signature:
        try:
            return objects.stat_object(url_of(path), allowed).signature
        except (OSError, RemoteError):
            return UNSEEN  # reading it says why

    if not paths:
        return
    with ThreadPoolExecutor(_ASKED_AT_ONCE, thread_name_prefix="look") as pool:
        for start in range(0, len(paths), _BATCH):
            some = paths[start : start + _BATCH]
            yield from zip(some, pool.map(ask, some), strict=True)


def unusable(url: str, error: Exception) -> SourceError:
    """Make the error for a `url` that cannot be listed or read."""
    if isinstance(error, FileNotFoundError):
        return SourceError(f"{shown(url)}: nothing is there; expected {LAYOUTS}")
    reason = redact_text(reason_of(error) if isinstance(error, OSError) else str(error), url)
    return SourceError(
        reason if reason.startswith(shown(url)) else f"{shown(url)}: it cannot be read: {reason}"
    )


def _without_slash(url: str) -> str:
    stripped = url.rstrip("/")
    return url if stripped.endswith(":") else stripped


def _raw(info: ObjectInfo) -> bytes:
    return info.name.encode("utf-8", "surrogateescape")
