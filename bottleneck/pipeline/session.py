"""What may be said of a base and of a session, in Python and on the command line, and what is meant where it is not."""

from __future__ import annotations

import importlib.metadata
import os
import sys
from collections.abc import Sequence
from typing import Any, Literal, TypedDict

from bottleneck.bases.trust import require_trust
from bottleneck.catalog import ENGINES
from bottleneck.errors import UnknownName, UsageError
from bottleneck.extraction.resources import gpus_here
from bottleneck.schema import (
    DEFAULT_VIEWS,
    AskedPrecision,
    BaseRequest,
    Cache,
    Limits,
    Preprocessing,
    Run,
    Team,
    ViewPolicy,
    Views,
    parse,
)
from bottleneck.system.durable import shown
from bottleneck.system.objects import is_url, local_path
from bottleneck.system.progress import Progress, Silent

PathLike = str | os.PathLike[str]


class BaseOptions(TypedDict, total=False):
    """What may be said of a base besides its name; what is absent (None, where it may be) is the base's own default."""

    weights: str | None
    cut: str | None
    pooling: Literal["none", "avg", "max"] | None
    size: int | None
    resize: Literal["stretch", "crop", "pad"]
    preprocessing: str | Preprocessing | None
    precision: AskedPrecision
    dtype: Literal["float32", "float16"]
    batch: int | None


class Session(TypedDict, total=False):
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
    """How many views of each image there are, itself included, and how the others are made."""

    views: int
    augment: str | ViewPolicy | None


class Options(BaseOptions, ViewOptions, Session, total=False):
    """All keyword options of an extraction."""


def cache_at(given: PathLike | None, remote: str | None = None) -> Cache:
    """The cache: as given, else ``$BOTTLENECK_CACHE``, else the user's cache folder; and what stands behind it."""
    local_path(given or os.environ.get("BOTTLENECK_CACHE") or "", "--cache")
    return Cache.at(given, remote)


def cache_of(session: Session) -> Cache:
    """The cache that a session names, and the one behind it: as given, else ``$BOTTLENECK_REMOTE``.

    Raises `UsageError` where that is no URL.
    """
    remote = session.get("remote") or os.environ.get("BOTTLENECK_REMOTE") or None
    if remote is not None and not is_url(remote):
        raise UsageError(
            f"--remote {shown(remote)}: expected the URL of a cache, such as s3://bucket/cache or file:///folder"
        )
    return cache_at(session.get("cache"), remote)


def progress_of(session: Session) -> Progress:
    """The session's progress; silent where none was given."""
    return session.get("progress") or Silent()


def limits_of(session: Session) -> Limits:
    """What one image may cost. Raises `UsageError`."""
    given = {
        "deadline": session.get("deadline", 60.0),
        "memory": session.get("memory_limit"),
        "retry": session.get("retry_rejected", False),
    }
    return parse(Limits, given, "--deadline, --memory-limit, --retry-rejected")


def team_of(session: Session) -> Team | None:
    """Who computes; None: one worker on this machine, which has it all. Raises `UsageError`."""
    names = ("engine", "workers", "threads", "address")
    given = {name: session[name] for name in names if name in session}  # type: ignore[literal-required]
    team = parse(Team, given, "--engine, --workers, --threads, --address")
    if team.engine not in ENGINES:
        raise UnknownName("engine", team.engine, ENGINES)
    if team.address and team.engine == "local":
        raise UsageError(
            f"--address {team.address}: the local engine has none; give --engine dask or ray too"
        )
    return None if team.is_alone and len(gpus_here()) < 2 else team


def request_of(base: Any, options: BaseOptions) -> BaseRequest:
    """What is asked of `base`, a name, a request or a model object, with `options` parsed. Raises `UsageError`."""
    if isinstance(base, BaseRequest):
        return base
    if "," in (options.get("cut") or ""):
        raise UsageError(
            f"--cut {options['cut']}: here one cut is meant; `bottleneck extract` takes several, and fills a store "
            "for each"
        )
    given: dict[str, Any] = {name: options[name] for name in BaseOptions.__annotations__ if name in options}  # type: ignore[literal-required]
    if isinstance(given.get("preprocessing"), str):
        given["preprocessing"] = Preprocessing.parse(given["preprocessing"])
    name = base if isinstance(base, str) else f"object:{getattr(base, 'name', 'model')}"
    if name.lower().endswith(".keras"):
        name = os.path.abspath(name)
    # A run remembers its request: files must be found again from another folder.
    weights = given.get("weights")
    if weights and weights.endswith((".h5", ".keras")):
        given["weights"] = os.path.abspath(weights)
    return parse(BaseRequest, {"base": name, **given}, "the base's options")


def requests_of(base: Any, cuts: Sequence[str], options: BaseOptions) -> list[BaseRequest]:
    """The same of `base` at each of `cuts`. Raises `UsageError` where one is named twice."""
    if len(set(cuts)) < len(cuts) or not cuts:
        raise UsageError(f"--cut {','.join(cuts)!r}: expected names with commas between them, each once")
    asked = request_of(base, {**options, "cut": None})
    return [asked.model_copy(update={"cut": cut}) for cut in cuts]


def views_of(options: ViewOptions) -> Views | None:
    """What is asked of views; None where each image is taken as it is. Raises `UsageError`."""
    count, augment = options.get("views"), options.get("augment")
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


def options_of_run(record: Run, session: Session) -> Options:
    """A session that lies where the run lay, unless it says otherwise.

    Every command that acts on a run comes through here. Raises `Untrusted` where the run needs code.
    """
    require_trust(record.request.base, session.get("trust", False), f"run {record.name}")
    options: Options = {"cache": record.cache}
    options.update(session)  # type: ignore[typeddict-item]
    if not options.get("cache"):
        options["cache"] = record.cache
    return options


def versions() -> dict[str, str]:
    """Versions of what decides numbers and files."""
    from bottleneck import __version__

    found = {"bottleneck-features": __version__, "python": sys.version.split()[0]}
    for name in ("tensorflow", "keras", "numpy", "scikit-learn", "h5py"):
        found[name] = importlib.metadata.version(name)
    return found
