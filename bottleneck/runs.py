"""A run's folder: the frozen table, the head, the figures, the record."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bottleneck.bases.trust import require_trust
from bottleneck.errors import BaseError, UnknownName, UsageError
from bottleneck.evaluation.metrics import Metrics
from bottleneck.heads import persistence
from bottleneck.schema import FitFacts, Frozen, Inventory, Run, StoreSpec
from bottleneck.schema.strict_json import MalformedDocument, parse_as
from bottleneck.sources.open import open_source
from bottleneck.store.join import Features
from bottleneck.store.writers import is_own_table
from bottleneck.system.addresses import redact
from bottleneck.system.disk_errors import refusal
from bottleneck.system.durable import publish, sha256_of, shown
from bottleneck.system.file_set import naming_lock, settle, take_names
from bottleneck.system.objects import local_path
from bottleneck.system.staging import room_beside

if TYPE_CHECKING:
    import pyarrow as pa

    from bottleneck.contracts import Source


class Figures(Frozen):
    """What a training run measured, and how its head was fitted."""

    by_split: Mapping[str, Metrics]
    folds: tuple[Metrics, ...] = ()
    seconds: float
    fit: FitFacts | None = None


@dataclass(frozen=True, eq=False)
class RunFolder:
    """A run read back."""

    path: Path
    run: Run
    figures: Figures
    #: Hosts that the run's source may name besides its own: said by the user of today, never by the run.
    allow_host: tuple[str, ...] = ()

    @property
    def merging(self) -> str:
        """The command that merges it, to be copied."""
        base = self.run.request.base
        code = ":" in base and not base.lower().endswith(".keras")
        return f"bottleneck merge {self.path} --out model.keras{' --trust' if code else ''}"

    def head(self) -> Any:
        """Load the fitted head, checked against the run's recipe and classes."""
        spec, document = self.run.spec, f"head/{persistence.DOCUMENT}"
        self._check(document)
        head, _ = persistence.load_head(
            self.path / "head",
            recipe=spec.recipe.fingerprint,
            feature_shape=spec.shape,
            classes=self.run.classes,
        )
        self._check(document)  # as it was read: another process may replace the run
        return head

    def source(self, fetched: Path) -> Source:
        """Open the run's source; what is fetched is kept in `fetched`."""
        return open_source(self.run.source, fetched=fetched, allow_host=self.allow_host)

    def table(self) -> pa.Table:
        """``path``, ``content``, ``label``, ``group``, ``split`` as they were when the run began."""
        import pyarrow as pa
        import pyarrow.parquet as parquet

        path = self.path / "table.parquet"
        try:
            data = _read(path, self.run.files.get(path.name))
            table = parquet.read_table(pa.BufferReader(data), use_threads=False)
            table.validate(full=True)
            return table.select(_COLUMNS)
        except (OSError, pa.ArrowException, MemoryError, ValueError, KeyError) as error:
            reason = (str(error).splitlines() or [""])[0] or type(error).__name__
            raise UsageError(f"{shown(str(path))} cannot be read ({reason}): train again") from error

    def inventory(self) -> Inventory:
        """The images of the run, as they were."""
        return Inventory(self.table(), self.run.source)

    def _check(self, name: str) -> None:
        """Refuse a file that `run.json` was not written beside."""
        path = self.path / name
        if path.is_file():
            _check(path, sha256_of(path), self.run.files.get(name))


#: The record that makes a folder a run: the leading file of its set.
RECORD = "run.json"

_COLUMNS = ["path", "content", "label", "group", "split"]
#: What a run's folder holds of its own, besides hidden files.
_OURS = ("table.parquet", RECORD, "metrics.json", "head")

#: How the file of a base ends that was fine-tuned for the run whose folder it lies in.
TUNED = "_tuned.keras"


def prepare(folder: Path) -> None:
    """Make a run's folder, or take an older run's.

    Raises
    ------
    UsageError
        Other things are in it, or it cannot be made or written.
    """
    local_path(folder, "--run")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        settle(folder)
        others = sorted(
            p.name
            for p in folder.iterdir()
            if p.name not in _OURS and p.name[0] != "." and not p.name.endswith(TUNED)
        )
        table = folder / "table.parquet"
        if os.path.lexists(table) and not is_own_table(table):
            others.append(table.name)
        writable = os.access(folder, os.W_OK | os.X_OK)
    except OSError as error:
        raise UsageError(f"--run {shown(str(folder))}: {refusal(error)}") from error
    if not writable:
        raise UsageError(f"--run {shown(str(folder))}: this folder cannot be written to")
    if others and not (folder / RECORD).exists():
        raise UsageError(
            f"--run {shown(str(folder))} holds other things ({', '.join(map(shown, others[:3]))}): give a new folder"
        )


@contextlib.contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """Make room for new files, which replace the old as one.

    Until then the older run there stays whole: a training that is interrupted, killed or finds the disk full does not
    cost it.

    Yields
    ------
    Path
        Empty; what is put there besides what `write` writes becomes part of the run.
    """
    with room_beside(folder / RECORD) as room:
        yield room
        with naming_lock(folder):
            tuned = {path.name for path in folder.glob(f"*{TUNED}")}
            take_names(room, folder, RECORD, gone=tuned - set(os.listdir(room)))


def write_table(folder: Path, features: Features, splits: np.ndarray) -> None:
    """Freeze which image was in which split when the training began."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    table = pa.table(
        {
            "path": features.table.column("path").cast(pa.binary()),
            "content": pa.FixedSizeBinaryArray.from_buffers(
                pa.binary(32), len(features), [None, pa.py_buffer(np.ascontiguousarray(features.keys))]
            ),
            "label": features.table.column("label").cast(pa.string()),
            "group": features.table.column("group").cast(pa.string()),
            "split": pa.array(splits, pa.string()),
        }
    )
    sink = pa.BufferOutputStream()
    parquet.write_table(table, sink)
    publish(folder / "table.parquet", sink.getvalue().to_pybytes())


def write_run(folder: Path, run: Run, figures: Figures, head: Any) -> None:
    """Write head, figures and record of a run beside its table.

    Of its source the run remembers no password and no signature.
    """
    run = run.model_copy(update={"source": redact(run.source)})
    (folder / "head").mkdir()
    persistence.save_head(
        head,
        run.head,
        folder / "head",
        recipe=run.spec.recipe.fingerprint,
        feature_shape=run.spec.shape,
        classes=run.classes,
    )
    publish(folder / "metrics.json", _json(figures))
    bound = ("table.parquet", "metrics.json", f"head/{persistence.DOCUMENT}")
    files = {name: sha256_of(folder / name) for name in bound}
    publish(folder / RECORD, _json(run.model_copy(update={"files": files})))


def read_run(folder: str | os.PathLike[str], allow_host: Sequence[str] = ()) -> RunFolder:
    """Read the run in `folder`; its source may name hosts of `allow_host`.

    Raises
    ------
    UsageError
        No run is there.
    """
    path, name = Path(folder), RECORD
    try:
        record = _record(path)
        run = parse_as(Run, record)
        name = "metrics.json"
        figures = parse_as(Figures, _read(path / name, run.files.get(name)))
    except (FileNotFoundError, NotADirectoryError) as error:
        beside = (
            sorted(p.parent.name for p in path.parent.glob(f"*/{RECORD}")) if path.parent.is_dir() else []
        )
        if path.is_dir() or not beside:
            raise UsageError(
                f"{shown(str(path))} holds no finished run (no {name}): make one with `bottleneck train`"
            ) from error
        raise UnknownName(f"run in {path.parent}", path.name, beside) from error
    except MalformedDocument as error:
        raise UsageError(f"{shown(str(path / name))} is not what this version writes: {error}") from error
    return RunFolder(path, _at_home(run, path), figures, tuple(allow_host))


def open_run(folder: str | os.PathLike[str], options: Mapping[str, Any]) -> RunFolder:
    """Read the run that a command with `options` acts on.

    Raises
    ------
    Untrusted
        The run's base is code, and ``trust`` is not among the options.
    """
    found = read_run(folder, options.get("allow_host") or ())
    require_trust(found.run.request.base, options.get("trust", False), f"run {found.run.name}")
    return found


def check_base(run: Run, spec: StoreSpec, *, any_precision: bool = False) -> None:
    """Refuse features of another base than that of the run's head.

    Parameters
    ----------
    run : Run
    spec : StoreSpec
        What the base makes now.
    any_precision : bool
        Features of another precision will do, where the run left it open (``auto``).

    Raises
    ------
    BaseError
    """
    recipe, known = spec.recipe, run.spec.recipe
    if any_precision and run.request.precision == "auto":
        recipe = recipe.model_copy(update={"precision": known.precision})
    if recipe != known:
        raise BaseError(
            f"the base {run.request.base} is not the one that run {run.name} was trained on: its recipe is "
            f"{recipe.fingerprint[:16]}, the run's {known.fingerprint[:16]}. Its weights or its code changed since (or "
            "an earlier version made the run, which told less of a base that is code): put the old ones back, or "
            "train again"
        )


def _record(folder: Path) -> bytes:
    try:
        return (folder / RECORD).read_bytes()
    except FileNotFoundError:
        # It may be on its way: another process is replacing the run, or was killed over it.
        if not settle(folder) and not (folder / RECORD).exists():
            raise
        return (folder / RECORD).read_bytes()


def _read(path: Path, sha256: str | None) -> bytes:
    """Read a file, and check the bytes that were read."""
    data = path.read_bytes()
    _check(path, hashlib.sha256(data).hexdigest(), sha256)
    return data


def _check(path: Path, actual: str, sha256: str | None) -> None:
    if sha256 in (None, actual):
        return
    raise UsageError(
        f"{shown(str(path))} is not the file that {RECORD} was written beside: the folder holds files of two runs, or "
        "the run was replaced while it was read. Read it again, or train again"
    )


def _at_home(run: Run, folder: Path) -> Run:
    """Give `run` the path of its own base in `folder`."""
    base = run.request.base
    if run.tuned is None or not base.endswith(TUNED) or os.path.isabs(base):
        return run
    return run.model_copy(
        update={"request": run.request.model_copy(update={"base": os.path.abspath(folder / base)})}
    )


def has_own_base(folder: RunFolder) -> bool:
    """Whether the run's base is a file in its own folder."""
    base = Path(folder.run.request.base)
    return folder.run.tuned is not None and base.parent == Path(os.path.abspath(folder.path))


def _json(value: Frozen) -> bytes:
    return value.model_dump_json(indent=1).encode("utf-8") + b"\n"
