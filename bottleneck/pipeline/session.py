"""The options of every verb, and the values they are parsed into."""

from __future__ import annotations

import importlib.metadata
import inspect
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self, TypedDict

from bottleneck import catalog
from bottleneck.bases import base_named
from bottleneck.bases.custom import is_file, is_function
from bottleneck.errors import UnknownName, UsageError
from bottleneck.extraction.resources import gpus_here
from bottleneck.inventory import scan as scanning
from bottleneck.schema import (
    DEFAULT_VIEWS,
    AskedPrecision,
    BaseRequest,
    Cache,
    Inventory,
    Limits,
    Preprocessing,
    ViewPolicy,
    Views,
    WorkerConfig,
    parse,
)
from bottleneck.sources.open import open_source
from bottleneck.system.durable import shown
from bottleneck.system.objects import is_url, local_path
from bottleneck.system.progress import Progress, Silent

if TYPE_CHECKING:
    from bottleneck.contracts import Source

PathLike = str | os.PathLike[str]


class BaseOptions(TypedDict, total=False):
    """How a base is built and cut; None is its default."""

    weights: str | None
    cut: str | None
    pooling: Literal["none", "avg", "max"] | None
    size: int | None
    resize: Literal["stretch", "crop", "pad"]
    preprocessing: str | Preprocessing | None
    precision: AskedPrecision
    dtype: Literal["float32", "float16"]
    batch: int | None


class SessionOptions(TypedDict, total=False):
    """Where things lie, how a run behaves, and whom it may trust."""

    cache: PathLike | None
    remote: str | None
    progress: Progress
    rehash: bool
    max_bad: float
    deadline: float
    memory_limit: int | str | None
    retry_rejected: bool
    engine: str
    workers: int | None
    threads: int | None
    address: str | None
    trust: bool
    allow_host: Sequence[str]


class ViewOptions(TypedDict, total=False):
    """How many views an image has, and how they are made."""

    views: int
    augment: str | ViewPolicy | None


class Options(BaseOptions, ViewOptions, SessionOptions, total=False):
    """All keyword options of an extraction."""


def refuse_unknown(verb: Callable[..., Any], options: Mapping[str, Any], kind: Any) -> None:
    """Raise `UnknownName` for an option that `verb` does not have."""
    for name in options:
        if name not in kind.__annotations__:
            parameters = inspect.signature(verb).parameters.values()
            own = [one.name for one in parameters if one.kind is not one.VAR_KEYWORD]
            raise UnknownName(f"option of {verb.__name__}", name, [*own, *kind.__annotations__])


def cache_at(given: PathLike | None, remote: str | None = None) -> Cache:
    """Name the cache at `given` or at its default place."""
    local_path(given or os.environ.get("BOTTLENECK_CACHE") or "", "--cache")
    return Cache.at(given, remote)


@dataclass(frozen=True)
class Session:
    """The options of a session, parsed.

    Attributes
    ----------
    cache : Cache
        With the one behind it.
    progress : Progress
    limits : Limits
        What one image may cost.
    workers : WorkerConfig
        As they were asked for.
    rehash : bool
        Read every file, whatever the index of scans says.
    max_bad : float
        Share of images that may be rejected.
    trust : bool
        Code that a run or a store names may run.
    allow_host : tuple of str
        Hosts that a table behind a URL may name.
    """

    cache: Cache
    progress: Progress
    limits: Limits
    workers: WorkerConfig
    rehash: bool
    max_bad: float
    trust: bool
    allow_host: tuple[str, ...]

    @classmethod
    def parse(cls, options: Mapping[str, Any], **default: Any) -> Self:
        """Parse the `SessionOptions` among `options`; a missing one is as in `default`.

        Raises
        ------
        UsageError
            One that cannot be, or two that cannot go together.
        """
        remote = options.get("remote") or os.environ.get("BOTTLENECK_REMOTE") or None
        if remote is not None and not is_url(remote):
            raise UsageError(
                f"--remote {shown(remote)}: expected the URL of a cache, such as s3://bucket/cache or file:///folder"
            )
        limits = {
            "deadline": options.get("deadline", 60.0),
            "memory": options.get("memory_limit"),
            "retry": options.get("retry_rejected", False),
        }
        return cls(
            cache_at(options.get("cache") or default.get("cache"), remote),
            options.get("progress") or Silent(),
            parse(Limits, limits, "--deadline, --memory-limit, --retry-rejected"),
            _workers(options),
            options.get("rehash", False),
            options.get("max_bad", default.get("max_bad", 0.01)),
            options.get("trust", False),
            tuple(options.get("allow_host") or ()),
        )

    @property
    def engine_workers(self) -> WorkerConfig | None:
        """The workers of an engine; None: one worker here is enough."""
        return None if self.workers.is_alone and len(gpus_here()) < 2 else self.workers

    def open(self, source: PathLike) -> Source:
        """The source at `source`. Raises `SourceError`."""
        return open_source(source, fetched=self.cache.fetched, allow_host=self.allow_host)

    def scan(self, source: Source, *, keep: bool = True) -> Inventory:
        """Which images `source` holds; with `keep`, the index remembers them."""
        # Threads here read the files, unless the workers are elsewhere, where the files may be nearer.
        readers = None
        if self.workers.address:
            readers = catalog.load("engine", catalog.READERS, self.workers.engine)(self.workers)
        return scanning.scan_source(
            source,
            self.cache.scans,
            rehash=self.rehash,
            keep=keep,
            readers=readers,
            progress=self.progress,
        )


def _workers(options: Mapping[str, Any]) -> WorkerConfig:
    names = ("engine", "workers", "threads", "address")
    given = {name: options[name] for name in names if name in options}
    workers = parse(WorkerConfig, given, "--engine, --workers, --threads, --address")
    if workers.engine not in catalog.ENGINES:
        raise UnknownName("engine", workers.engine, catalog.ENGINES)
    if workers.address and workers.engine == "local":
        raise UsageError(
            f"--address {workers.address}: the local engine has none; give --engine dask or ray too"
        )
    return workers


@dataclass(frozen=True, eq=False)
class Request:
    """What is asked of a base and of each image, parsed.

    Attributes
    ----------
    bases : tuple of BaseRequest
        One base, at one cut or at several.
    views : Views or None
        None: each image as it is.
    model : keras.Model or None
        The base where it is an object, which is in this process alone.
    """

    bases: tuple[BaseRequest, ...]
    views: Views | None = None
    model: Any = None

    @classmethod
    def parse(cls, base: Any, options: Options, cuts: Sequence[str] | None = None) -> Self:
        """Parse what is asked of `base`, at its cut or at `cuts`.

        `base` is a name, a request or a model object.

        Raises
        ------
        UsageError
            An option that cannot be, a name that is not known, or a cut that is named twice.
        """
        views = parse_views(options.get("views"), options.get("augment"))
        if cuts is None:
            if "," in (options.get("cut") or ""):
                raise UsageError(
                    f"--cut {options['cut']}: here one cut is meant; `bottleneck extract` takes several, and fills a "
                    "store for each"
                )
            bases: tuple[BaseRequest, ...] = (_base_request(base, options),)
        elif len(set(cuts)) < len(cuts) or not cuts:
            raise UsageError(f"--cut {','.join(cuts)!r}: expected names with commas between them, each once")
        else:
            request = _base_request(base, {**options, "cut": None})  # type: ignore[typeddict-unknown-key]
            bases = tuple(request.model_copy(update={"cut": cut}) for cut in cuts)
        return cls(bases, views, None if isinstance(base, (str, BaseRequest)) else base)


def _base_request(base: Any, options: BaseOptions) -> BaseRequest:
    if isinstance(base, BaseRequest):
        return base
    given: dict[str, Any] = {name: options[name] for name in BaseOptions.__annotations__ if name in options}  # type: ignore[literal-required]
    if isinstance(given.get("preprocessing"), str):
        given["preprocessing"] = Preprocessing.parse(given["preprocessing"])
    name = base if isinstance(base, str) else f"object:{getattr(base, 'name', 'model')}"
    if is_file(name):
        name = os.path.abspath(name)
    elif isinstance(base, str) and not is_function(name):
        base_named(name)
    # A run remembers its request: files must be found again from another folder.
    weights = given.get("weights")
    if weights and weights.endswith((".h5", ".keras")):
        given["weights"] = os.path.abspath(weights)
    return parse(BaseRequest, {"base": name, **given}, "the base's options")


def parse_views(count: int | None, augment: str | ViewPolicy | None) -> Views | None:
    """Parse ``views`` and ``augment``; None: images are taken as they are."""
    if count is None or count == 1:
        if augment:
            raise UsageError(
                "--augment says how views are made, but there are none: give --views K with K > 1"
            )
        return None
    policy = ViewPolicy.parse(augment) if isinstance(augment, str) else augment or DEFAULT_VIEWS
    if policy.is_identity:
        raise UsageError(
            f"--augment {str(policy)!r} changes nothing, so that all {count} views of an image would be one: "
            f"name what may vary, for instance --augment {DEFAULT_VIEWS}"
        )
    return parse(Views, {"count": count, "policy": policy}, f"--views {count}")


def versions() -> dict[str, str]:
    """Versions of what decides numbers and files."""
    from bottleneck import __version__

    found = {"bottleneck-features": __version__, "python": sys.version.split()[0]}
    for name in ("tensorflow", "keras", "numpy", "scikit-learn", "h5py"):
        found[name] = importlib.metadata.version(name)
    return found
