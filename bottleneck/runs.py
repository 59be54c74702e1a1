"""A run's folder: the table as it was at the start, the head, the figures, and what all of it was made of."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bottleneck.errors import UnknownName, UsageError
from bottleneck.files import publish
from bottleneck.heads import archive
from bottleneck.heads.metrics import Metrics
from bottleneck.schema import Frozen, Inventory, Run
from bottleneck.store.join import Features
from bottleneck.strict import MalformedDocument, parse_as

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa


class Figures(Frozen):
    """What a training run measured, by split; `folds` when it cross-validated."""

    by_split: Mapping[str, Metrics]
    folds: tuple[Metrics, ...] = ()
    seconds: float


@dataclass(frozen=True, eq=False)
class RunFolder:
    """A run read back."""

    path: Path
    run: Run
    figures: Figures

    def head(self) -> Any:
        """The fitted head, checked against the run's recipe, shape and classes."""
        spec = self.run.spec
        head, _ = archive.load(
            self.path / "head",
            recipe=spec.recipe.fingerprint,
            feature_shape=spec.shape,
            classes=self.run.classes,
        )
        return head

    def table(self) -> pa.Table:
        """``path``, ``content``, ``label``, ``group``, ``split`` as they were when the run began."""
        import pyarrow.parquet as parquet

        return parquet.read_table(self.path / "table.parquet")

    def inventory(self) -> Inventory:
        """The images of the run, as they were."""
        return Inventory(self.table(), self.run.source)


def write_table(folder: Path, features: Features, splits: np.ndarray) -> None:
    """Freeze which image was in which split; the first file of a run, written before anything is trained."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    table = pa.table(
        {
            "path": pa.array(features.paths, pa.binary()),
            "content": pa.array([key.tobytes() for key in features.keys], pa.binary(32)),
            "label": pa.array(features.y, pa.string()),
            "group": pa.array(features.groups, pa.string()),
            "split": pa.array(list(splits), pa.string()),
        }
    )
    sink = pa.BufferOutputStream()
    parquet.write_table(table, sink)
    publish(folder / "table.parquet", sink.getvalue().to_pybytes(), replace=True)


def write(folder: Path, run: Run, figures: Figures) -> None:
    """Write figures, then the record of the run, which makes it one."""
    publish(folder / "metrics.json", _json(figures), replace=True)
    publish(folder / "run.json", _json(run), replace=True)


def read(folder: str | os.PathLike[str]) -> RunFolder:
    """The run in `folder`.

    Raises
    ------
    UsageError
        No run is there; the nearest ones beside it are named.
    """
    path = Path(folder)
    try:
        run = parse_as(Run, (path / "run.json").read_bytes())
        figures = parse_as(Figures, (path / "metrics.json").read_bytes())
    except (FileNotFoundError, NotADirectoryError) as error:
        beside = sorted(p.parent.name for p in path.parent.glob("*/run.json")) if path.parent.is_dir() else []
        if path.is_dir() or not beside:
            raise UsageError(
                f"{path} holds no finished run (no run.json): make one with `bottleneck train`"
            ) from error
        raise UnknownName(f"run in {path.parent}", path.name, beside) from error
    except MalformedDocument as error:
        raise UsageError(f"{path}/run.json is no run that this version reads: {error}") from error
    return RunFolder(path, run, figures)


def _json(value: Frozen) -> bytes:
    return value.model_dump_json(indent=1).encode("utf-8") + b"\n"
