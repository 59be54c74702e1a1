"""Read and write a store's files, on disk or behind a URL."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

from bottleneck.errors import RemoteError, StoreError
from bottleneck.schema import Cache, StoreSpec
from bottleneck.store.header import StoreHeader, check_identity, find_store, parse_header
from bottleneck.store.listing import files_in, store_folders
from bottleneck.store.locks import committing, housekeeping, reading
from bottleneck.store.record import read_file
from bottleneck.system import objects
from bottleneck.system.addresses import redact
from bottleneck.system.durable import publish

RECIPE, SHARDS = "recipe.json", "shards"


class StoreLocation(Protocol):
    """A store's folder. Files are named ``recipe.json``, ``canary.f32`` or ``shards/<name>``."""

    #: As a person knows it: a path, or a URL without secrets.
    name: str
    #: The path, or the URL as it was given.
    url: str
    #: Whether another process may look at a file while it is written, and whether reading it back costs little.
    local: bool

    def sizes(self) -> Mapping[str, int]:
        """Map names in ``shards/`` to bytes, -1 where unknown. Raises `StoreError`."""

    def read(self, name: str, size: int | None = None) -> bytes | None:
        """Read a file of `size` bytes; None if absent. Raises `StoreError`."""

    def write(self, name: str, data: bytes, *, replace: bool = False) -> bool:
        """Write a whole file; False if one stays. Raises `StoreError`."""

    def housekeeping(
        self, command: str, waiting: Callable[[str], None]
    ) -> contextlib.AbstractContextManager[None]:
        """Be the only housekeeper, where locks exist. Raises `StoreError`."""
        return contextlib.nullcontext()

    def committing(self) -> contextlib.AbstractContextManager[None]:
        """Keep removers away while files are written, where locks exist."""
        return contextlib.nullcontext()


class FolderLocation(StoreLocation):
    """A store's folder on a disk."""

    local = True

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = self.url = str(path)

    def sizes(self) -> Mapping[str, int]:
        """As `StoreLocation`."""
        with _as_store_error(self.name), reading(self.path):
            return dict(files_in(self.path / SHARDS))

    def read(self, name: str, size: int | None = None) -> bytes | None:
        """As `StoreLocation`."""
        folder, _, file = name.rpartition("/")
        with _as_store_error(self.name):
            try:
                return read_file(self.path / folder, file, size)
            except (FileNotFoundError, NotADirectoryError):
                return None

    def write(self, name: str, data: bytes, *, replace: bool = False) -> bool:
        """As `StoreLocation`."""
        with _as_store_error(self.name):
            (self.path / SHARDS).mkdir(parents=True, exist_ok=True)
            with committing(self.path):
                return publish(self.path / name, data, replace=replace)

    def housekeeping(
        self, command: str, waiting: Callable[[str], None]
    ) -> contextlib.AbstractContextManager[None]:
        """As `StoreLocation`."""
        return housekeeping(self.path, command, waiting)

    def committing(self) -> contextlib.AbstractContextManager[None]:
        """As `StoreLocation`."""
        return committing(self.path)


class UrlLocation(StoreLocation):
    """A store's folder behind a URL."""

    local = False

    def __init__(self, url: str) -> None:
        self.url, self.name = url, redact(url)

    def sizes(self) -> Mapping[str, int]:
        """As `StoreLocation`."""
        with _as_store_error(self.name):
            try:
                return {
                    f.name: f.size
                    for f in objects.list_objects(objects.join_url(self.url, SHARDS))
                    if not f.folder
                }
            except FileNotFoundError:
                return {}

    def read(self, name: str, size: int | None = None) -> bytes | None:
        """As `StoreLocation`."""
        with _as_store_error(self.name):
            url = objects.join_url(self.url, name)
            try:
                return objects.read_object(url) if size is None else objects.read_sized_object(url, size)
            except FileNotFoundError:
                return None

    def write(self, name: str, data: bytes, *, replace: bool = False) -> bool:
        """As `StoreLocation`; whoever writes last wins, so look first."""
        with _as_store_error(self.name):
            objects.write_object(objects.join_url(self.url, name), data)
            return True


def store_locations(cache: str | Path) -> list[StoreLocation]:
    """List a cache's stores, at a path or URL. Raises `StoreError`."""
    if not (isinstance(cache, str) and objects.is_url(cache)):
        return [FolderLocation(folder) for folder in store_folders(Cache(Path(cache)))]
    url = objects.join_url(cache, "stores")
    with _as_store_error(redact(url)):
        try:
            names = sorted(entry.name for entry in objects.list_objects(url) if entry.folder)
        except FileNotFoundError:
            return []
    return [UrlLocation(objects.join_url(url, name)) for name in names]


def locate_stores(url: str) -> list[StoreLocation]:
    """Find the store, or the cache's stores, at a URL. Raises `StoreError`."""
    store = UrlLocation(url.rstrip("/"))
    if store.read(RECIPE) is not None:
        return [store]
    stores = store_locations(store.url)
    if not stores:
        raise StoreError(f"{store.name}: neither a store (recipe.json) nor a cache (stores/) lies there")
    return stores


def locate_store(cache: str | Path, spec: StoreSpec) -> tuple[StoreLocation, StoreHeader | None]:
    """Locate `spec`'s store in a cache, with its header if there."""
    if not (isinstance(cache, str) and objects.is_url(cache)):
        folder, _ = find_store(Cache(Path(cache)), spec)
        location: StoreLocation = FolderLocation(folder)
        return location, location_header(location)
    for location in store_locations(cache):
        if location.name.endswith(spec.ending):
            header = location_header(location)
            if header is not None:
                check_identity(location.name, header, spec)
                return location, header
    return UrlLocation(objects.join_url(objects.join_url(cache, "stores"), spec.folder)), None


def location_header(location: StoreLocation) -> StoreHeader | None:
    """Read its `recipe.json`; None where it has none. Raises `StoreError`."""
    data = location.read(RECIPE)
    return None if data is None else parse_header(data, location.name)


@contextlib.contextmanager
def _as_store_error(name: str) -> Iterator[None]:
    try:
        yield
    except RemoteError as error:
        raise StoreError(str(error)) from error
    except OSError as error:
        raise StoreError(f"{name}: {error.strerror or error}") from error
