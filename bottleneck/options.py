"""What may be said of a base and of a session, in Python and on the command line, and what is meant where it is not."""

from __future__ import annotations

import importlib.metadata
import os
import sys
from pathlib import Path
from typing import Any, Literal, TypedDict

from bottleneck.progress import Progress, Silent
from bottleneck.schema import BaseRequest, Cache, Preprocessing, Run, parse

PathLike = str | os.PathLike[str]


class BaseOptions(TypedDict, total=False):
    """What may be said of a base besides its name; what is absent (None, where it may be) is the base's own default."""

    weights: str | None
    cut: str | None
    pooling: Literal["none", "avg", "max"] | None
    size: int | None
    resize: Literal["stretch", "crop", "pad"]
    preprocessing: str | Preprocessing | None
    precision: Literal["float32"]
    dtype: Literal["float32", "float16"]
    batch: int | None


class Session(TypedDict, total=False):
    """Where things lie and how a run behaves."""

    cache: PathLike | None
    progress: Progress
    rehash: bool
    max_bad: float


class Options(BaseOptions, Session, total=False):
    """All keyword options of an extraction."""


def cache_at(given: PathLike | None) -> Cache:
    """The cache: as given, else ``$BOTTLENECK_CACHE``, else the user's cache folder."""
    chosen = given or os.environ.get("BOTTLENECK_CACHE")
    if not chosen:
        import platformdirs

        chosen = platformdirs.user_cache_dir("bottleneck-features", appauthor=False)
    return Cache(Path(chosen).expanduser().absolute())


def progress_of(session: Session) -> Progress:
    """The session's progress; silent where none was given."""
    return session.get("progress") or Silent()


def request_of(base: Any, options: BaseOptions) -> BaseRequest:
    """What is asked of `base`, a name, a request or a model object, with `options` parsed. Raises `UsageError`."""
    if isinstance(base, BaseRequest):
        return base
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


def options_of_run(record: Run, session: Session) -> Options:
    """A session that lies where the run lay, unless it says otherwise."""
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
