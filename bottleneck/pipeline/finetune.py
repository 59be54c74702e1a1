"""A run's head and the top of its base train together."""

from __future__ import annotations

import contextlib
import datetime
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bottleneck import runs
from bottleneck.errors import UsageError
from bottleneck.pipeline.extract import extract_missing
from bottleneck.pipeline.finetune_data import TuningData
from bottleneck.pipeline.session import (
    PathLike,
    Request,
    Session,
    SessionOptions,
    parse_views,
    refuse_unknown,
    versions,
)
from bottleneck.schema import (
    BaseRequest,
    Tuned,
    TuneSettings,
    TuneStage,
    ViewPolicy,
    json_fields,
    parse,
    safe_name,
)
from bottleneck.system.disk_errors import about
from bottleneck.system.durable import publish, sha256_of, shown

if TYPE_CHECKING:
    from typing import Unpack

    from bottleneck.bases.load import LoadedBase
    from bottleneck.evaluation.metrics import Metrics
    from bottleneck.finetuning.run import TuningOutcome

#: Where a fine-tuning stands, in the new run's folder.
CHECKPOINT = ".finetune.npz"


class TuneOptions(SessionOptions, total=False):
    """The fields of `TuneSettings`, and the options of a session."""

    epochs: int
    patience: int | None
    batch_size: int
    optimizer: Literal["sgd", "adam", "adamw", "rmsprop"]
    rate: float
    momentum: float
    block_decay: float
    rates: Mapping[str, float]
    warmup: float
    schedule: Literal["constant", "cosine", "plateau"]
    plateau_factor: float
    plateau_patience: int
    class_weight: Literal["balanced"] | None
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"]
    views: int
    augment: str | ViewPolicy | None
    full: bool
    seed: int


@dataclass(frozen=True, eq=False)
class FineTuned:
    """What `finetune` gives: the new run, figures before and after, advice."""

    folder: runs.RunFolder
    before: Mapping[str, Metrics]
    advice: tuple[str, ...]

    @property
    def tuned(self) -> Tuned:
        """What trained, and how it went."""
        assert self.folder.run.tuned is not None
        return self.folder.run.tuned

    @property
    def metrics(self) -> Mapping[str, Metrics]:
        """Figures by split, of the new run."""
        return self.folder.figures.by_split

    def to_json(self) -> dict[str, Any]:
        """Describe the new run and its figures for a program."""
        return {
            "run": str(self.folder.path),
            **json_fields(self.tuned, "kept", "verdict"),
            "measured": self.tuned.verdict != "unmeasured",
            **json_fields(self, "tuned", "before", "metrics"),
            "seconds": round(self.folder.figures.seconds, 3),
            "advice": list(self.advice),
        }


def finetune(
    run: PathLike,
    unfreeze: str | Sequence[str],
    *,
    to: PathLike | None = None,
    on_message: Callable[[str], None] = lambda _: None,
    **options: Unpack[TuneOptions],
) -> FineTuned:
    """Train the top of a run's base together with its head.

    What lies below everything that trains is computed once and cached, where that is exact.

    Parameters
    ----------
    run : path
        A run's folder; it stays as it is.
    unfreeze : str or sequence of str
        One entry a stage: ``top:N`` blocks (layers with weights where the base has no blocks), a block's or layer's
        name, ``all``, or several of these with commas between. A stage trains what it names and what the stages
        before it trained. BatchNormalization stays frozen.
    to : path, optional
        Folder of the new run; by default that of `run` with ``-tuned`` behind its name. The same call goes on there
        after an interruption.
    on_message : callable
        Hears remarks before and during the training.
    **options
        Fields of `TuneSettings`, and `SessionOptions`.

    Returns
    -------
    FineTuned
        Where no epoch lowered the validation loss, the new run is the model as it was, and says so. Without validation
        images the last epoch is kept, and `Tuned.verdict` is ``unmeasured``.

    Raises
    ------
    UnknownName, UsageError
        A layer that is not there, an option that cannot be.
    TuningError
        The loss is no longer finite; something moved that is frozen; cached rows are not the base's.

    Examples
    --------
    >>> done = finetune("runs/flowers", "top:2", epochs=5)  # doctest: +SKIP
    >>> done.tuned.kept, done.metrics["validation"].accuracy  # doctest: +SKIP
    ('after', 0.94)
    """
    from bottleneck.bases.load import load_base
    from bottleneck.evaluation.metrics import fallen
    from bottleneck.finetuning import run as tuning
    from bottleneck.forward.keras_forward import prepare_process

    started = time.perf_counter()
    refuse_unknown(finetune, options, TuneOptions)
    settings, stages = _settings(options), _stages(unfreeze)
    Session.parse(options)  # a wrong option is named before a run that is not there
    folder = runs.open_run(run, options)
    session = Session.parse(options, cache=folder.run.cache)
    target = Path(to) if to is not None else folder.path.with_name(folder.path.name + "-tuned")
    if target.resolve() == folder.path.resolve():
        raise UsageError(
            f"--run {shown(str(target))} is the run that the fine-tuning begins from: give another"
        )
    head = folder.head()
    runs.prepare(target)
    prepare_process()
    base = load_base(folder.run.request, session.cache)
    runs.check_base(folder.run, base.spec)
    blocks = base.blocks or (folder.run.tuned.blocks if folder.run.tuned else "")
    planned = tuning.plan_stages(base, blocks, stages, settings)
    data = TuningData(folder, base, settings, session, on_message)
    advice = (*planned.remarks, *data.remarks)
    for remark in advice:
        on_message(remark)
    with _locked(target):
        outcome = tuning.run_stages(
            base,
            head,
            planned,
            settings,
            data.feed,
            data.weights,
            at=target / CHECKPOINT,
            identity=tuning.finetuning_identity(
                settings.model_dump(mode="json"),
                [str(stage) for stage in stages],
                *(sha256_of(folder.path / name) for name in (runs.RECORD, "table.parquet", "head/head.json")),
            ),
            progress=session.progress,
            on_message=on_message,
        )
        facts = Tuned(
            origin=os.path.abspath(folder.path),
            origin_recipe=folder.run.spec.recipe.fingerprint,
            base=folder.run.tuned.base if folder.run.tuned else base.name,
            blocks=blocks,
            settings=settings,
            stages=outcome.done,
            kept=outcome.kept,
        )
        _write(target, folder, base, facts, outcome, data, started)
    after = runs.read_run(target)
    worse = fallen(folder.figures.by_split, after.figures.by_split)
    for remark in worse:
        on_message(remark)
    return FineTuned(after, folder.figures.by_split, (*advice, *worse))


def check_tuning(unfreeze: str | Sequence[str], **options: Unpack[TuneOptions]) -> None:
    """Raise what `finetune` would raise before it reads its run."""
    refuse_unknown(finetune, options, TuneOptions)
    _stages(unfreeze)
    _settings(options)


def _stages(unfreeze: str | Sequence[str]) -> tuple[TuneStage, ...]:
    texts = (unfreeze,) if isinstance(unfreeze, str) else tuple(unfreeze)
    if not texts:
        raise UsageError("nothing to unfreeze: give --unfreeze top:2, a block's or a layer's name, or all")
    return tuple(TuneStage.parse(text) for text in texts)


def _settings(options: TuneOptions) -> TuneSettings:
    given: dict[str, Any] = {
        name: value for name, value in options.items() if name in TuneSettings.model_fields
    }
    if isinstance(given.get("augment"), str):
        given["augment"] = ViewPolicy.parse(given["augment"])
    settings = parse(TuneSettings, given, "fine-tuning")
    if settings.augment is not None and settings.augment.is_identity:
        raise UsageError(
            f"--augment {str(settings.augment)!r} changes nothing: name what may vary, or leave it out"
        )
    if settings.views > 1:
        views = parse_views(settings.views, settings.augment)
        # Written out, so that what was trained on does not depend on what is the default later.
        settings = settings.model_copy(update={"augment": views and views.policy})
    return settings


@contextlib.contextmanager
def _locked(target: Path) -> Iterator[None]:
    """Keep other processes from this folder: they would take each other's checkpoints."""
    from filelock import FileLock, Timeout

    try:
        with FileLock(target / ".finetune.lock", timeout=0):
            yield
    except Timeout as error:
        raise UsageError(
            f"--run {shown(str(target))}: another process fine-tunes into this folder; give another one"
        ) from error


def _write(
    target: Path,
    folder: runs.RunFolder,
    base: LoadedBase,
    facts: Tuned,
    outcome: TuningOutcome,
    data: TuningData,
    started: float,
) -> None:
    from bottleneck.evaluation.fit import measure_splits
    from bottleneck.pipeline.evaluate import rows_to_measure

    run, name = folder.run, f"{safe_name(facts.base)}{runs.TUNED}"
    record = run.model_copy(
        update={
            "name": target.name,
            "tuned": facts,
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "versions": versions(),
        }
    )
    by_split = folder.figures.by_split
    with runs.replacing(target) as room:
        aside = room / name
        if facts.kept == "after":
            with about(aside):
                base.model.save(aside)
            asked = _request(base, run.request, aside)
            (done,), _ = extract_missing(data.source, Request((asked,)), data.session)
            data.check_tuned(done.store, outcome)
            record = record.model_copy(update={"request": asked, "spec": done.store.spec, "views": None})
            rows, splits = rows_to_measure(
                replace(folder, run=record), None, data.on_message, data.session, None
            )
            by_split = measure_splits(outcome.head, rows, splits, run.classes)
        elif runs.has_own_base(folder):
            shutil.copyfile(run.request.base, aside)
        if aside.exists():
            # Named relative to the run's folder, which may be moved.
            record = record.model_copy(update={"request": record.request.model_copy(update={"base": name})})
        figures = runs.Figures(by_split=by_split, seconds=time.perf_counter() - started)
        publish(room / "table.parquet", (folder.path / "table.parquet").read_bytes())
        runs.write_run(room, record, figures, outcome.head)
    (target / CHECKPOINT).unlink(missing_ok=True)


def _request(base: LoadedBase, before: BaseRequest, path: Path) -> BaseRequest:
    """Ask for the tuned base at `path` without relying on defaults."""
    return BaseRequest(
        base=os.path.abspath(path),
        pooling=base.pooling,
        size=base.size,
        resize=before.resize,
        preprocessing=base.preprocessing,
        precision=before.precision,
        dtype=before.dtype,
        batch=before.batch,
    )
