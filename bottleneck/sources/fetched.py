"""Tables and archives at a URL, fetched once for each version."""

from __future__ import annotations

import hashlib
import os
import posixpath
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bottleneck.errors import Rejected, RemoteError, SourceError
from bottleneck.schema import Entry
from bottleneck.sources import columns
from bottleneck.sources.archive import PACKED_TARS, TarSource, ZipSource
from bottleneck.sources.layout import Layout
from bottleneck.sources.remote import signatures_of, unusable
from bottleneck.sources.table import rows_of
from bottleneck.system import objects
from bottleneck.system.addresses import LOCAL, Address, has_no_secret, has_plain_query, origin, redact
from bottleneck.system.durable import shown

_BATCH = 1 << 10
#: Bytes of a table that is fetched.
_LARGEST_TABLE = 4 << 30


@dataclass(frozen=True)
class RemoteTable:
    """A CSV or Parquet table at a URL.

    Its paths are relative to the table's URL, or URLs of its own host.

    Whoever wrote the table chose its paths, and whoever opens it would read them: so it names no file of this machine,
    and nothing on another host (an address that only this machine can reach, say) unless the user named that host.

    Parameters
    ----------
    location : str
        The table's URL, as a person may see it.
    address : Address
        The same with its secrets.
    fetched : Path
        Folder for the fetched table.
    """

    location: str
    address: Address = field(repr=False, compare=False)
    fetched: Path = field(compare=False)
    _passed: Counter[str] = field(default_factory=Counter, init=False, repr=False, compare=False)

    @classmethod
    def claims(cls, location: str) -> bool:
        """Take URLs whose path ends in ``.csv`` or ``.parquet``, in any case."""
        return objects.is_url(location) and _path(location).endswith((".csv", ".parquet"))

    @classmethod
    def open(cls, address: Address, fetched: Path) -> RemoteTable:
        """Open the table at `address`. Raises `SourceError` for other columns."""
        source = cls(redact(address.url), address, fetched)
        source._with_url(columns.columns_of, source._local())
        return source

    def entries(self) -> Iterator[Entry]:
        """List the table's paths in order. Raises `SourceError` naming bad rows."""
        self._passed.clear()
        local = self._local()
        table, repeated = self._with_url(columns.read_columns, local)
        if repeated:
            self._passed["row listed twice"] = repeated
        try:
            for batch in table.select(["path"]).to_batches(max_chunksize=_BATCH):
                for path in batch.column("path").to_pylist():
                    self._check(path)  # all of them, before the first is asked for
        except SourceError:
            local.unlink(missing_ok=True)  # its paths may hold secrets
            raise
        for batch in table.to_batches(max_chunksize=_BATCH):
            rows = list(rows_of(batch))
            seen = dict(signatures_of([row[0] for row in rows], self._url, self.address.allowed))
            for path, label, group, split in rows:
                yield Entry(path, seen[path], label, group, split, named=True)

    def read(self, path: bytes) -> bytes:
        """Read one object. Raises OSError, or `Rejected` where there is none."""
        try:
            self._check(path)
            return objects.read_object(self._url(path), allowed=self.address.allowed)
        except FileNotFoundError:
            raise Rejected("read", "the table names this object, but there is none", retry=True) from None
        except (RemoteError, SourceError) as error:
            raise Rejected("read", str(error), retry=True) from error

    def passed_over(self) -> Mapping[str, int]:
        """Count what the last `entries()` left out, by reason."""
        return dict(self._passed)

    def _url(self, path: bytes) -> str:
        text = path.decode("utf-8", "surrogateescape")
        if objects.is_url(text):
            return text
        host, above = objects.split_url(self.address.url)
        start = "/" if text.startswith("/") else posixpath.dirname("/" + above)
        return objects.join_url(host, posixpath.normpath(posixpath.join(start, text)).lstrip("/"))

    def _check(self, path: bytes) -> None:
        """Raise `SourceError` for a path that a remote table may not name."""
        text = path.decode("utf-8", "surrogateescape")
        if not objects.is_url(text):
            return
        if self.address.permits(text):
            if has_no_secret(text) or has_plain_query(text):
                return
            raise SourceError(
                f"{shown(self.location)}: the path {shown(path)} has a password or a signature, which would stand in "
                "the index, the run and every result: name it without, and give what opens it by the environment"
            )
        protocol, host, _ = origin(text)
        if protocol in LOCAL:
            raise SourceError(
                f"{shown(self.location)}: the path {shown(path)} is a file of this machine, which a table from "
                "elsewhere may not name; fetch the table and give it as a file"
            )
        raise SourceError(
            f"{shown(self.location)}: the path {shown(path)} is not on the table's own host. When you want it read, "
            f"name its host: --allow-host {shown(host)} (in Python allow_host=[{shown(host)!r}])"
        )

    def _local(self) -> Path:
        return _fetch(self.address, self.fetched, _LARGEST_TABLE)

    def _with_url(self, ask: Callable[[str], Any], local: Path) -> Any:
        """Ask the fetched table, and let errors name its URL instead."""
        try:
            return ask(str(local))
        except SourceError as error:
            raise SourceError(str(error).replace(shown(str(local)), shown(self.location))) from error


@dataclass(frozen=True)
class RemoteArchive:
    """A zip or tar at a URL, read as a local one.

    Parameters
    ----------
    location : str
        The archive's URL, as a person may see it.
    inner : ZipSource or TarSource
        The archive as it was fetched.
    """

    location: str
    inner: ZipSource | TarSource

    @classmethod
    def claims(cls, location: str) -> bool:
        """Take URLs of zips and tars; refuse compressed tars when opened."""
        return objects.is_url(location) and _path(location).endswith((".zip", ".tar", *PACKED_TARS))

    @classmethod
    def open(cls, address: Address, fetched: Path) -> RemoteArchive:
        """Open the archive at `address`. Raises `SourceError`: unreachable, damaged, encrypted or compressed."""
        location = redact(address.url)
        if _path(location).endswith(PACKED_TARS):
            raise SourceError(
                f"{shown(location)}: a compressed tar cannot be read at random places; "
                "decompress it first and give the plain .tar"
            )
        local = str(_fetch(address, fetched))
        kind: type[ZipSource | TarSource] = ZipSource if local.endswith(".zip") else TarSource
        try:
            return cls(location, kind.open(local))
        except SourceError as error:
            raise SourceError(str(error).replace(shown(local), shown(location))) from error

    def layout(self) -> Layout:
        """Say how the folders inside are read."""
        return self.inner.layout()

    def entries(self) -> Iterator[Entry]:
        """List every file in the archive. Raises `SourceError`."""
        return self.inner.entries()

    def read(self, path: bytes) -> bytes:
        """Read one member. Raises OSError or `Rejected`."""
        return self.inner.read(path)

    def passed_over(self) -> Mapping[str, int]:
        """Count what the last `entries()` left out, by reason."""
        return self.inner.passed_over()


def _fetch(address: Address, folder: Path, most: int | None = None) -> Path:
    """Fetch the object unless this version is on disk. Raises `SourceError`."""
    url, allowed = address.url, address.allowed
    try:
        before = objects.stat_object(url, allowed)
        if before.folder:
            raise SourceError(f"{shown(url)}: this is a folder, though it is called like a file")
        version = "\n".join((before.tag, str(before.modified_ns), str(before.size))).encode(
            "utf-8", "replace"
        )
        # Of the public form: a signature is made anew each time, and a password is not to be guessed from a name.
        stem = "-".join(hashlib.sha256(part).hexdigest()[:16] for part in (os.fsencode(redact(url)), version))
        file = folder / (stem + posixpath.splitext(_path(url))[1])
        if file.is_file() and before.versioned:
            return file
        folder.mkdir(parents=True, exist_ok=True)
        if not before.versioned:
            file.unlink(missing_ok=True)

        def whole(aside: Path) -> None:
            size = aside.stat().st_size
            if before.size not in (-1, size) or objects.stat_object(url, allowed)[:4] != before[:4]:
                raise SourceError(
                    f"{shown(url)}: it changed, or broke off, while it was fetched; run this again"
                )

        objects.fetch_object(url, file, whole, allowed=allowed, most=most)
        return file
    except (OSError, RemoteError) as error:
        raise unusable(url, error) from (error if has_no_secret(url) else None)


def _path(url: str) -> str:
    return url.partition("://")[2].partition("?")[0].lower()
