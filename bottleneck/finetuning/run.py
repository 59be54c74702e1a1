"""Fine-tune in stages that unfreeze more and more layers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from bottleneck.bases.custom import foreign
from bottleneck.bases.graph import IMAGE, walk
from bottleneck.bases.load import LoadedBase
from bottleneck.contracts import Head
from bottleneck.errors import TuningError
from bottleneck.finetuning import checkpoint
from bottleneck.finetuning.checkpoint import Checkpoint
from bottleneck.finetuning.feeds import Feed
from bottleneck.finetuning.prefix import prefix, tail
from bottleneck.finetuning.stage_training import Chain, StageProgram, train_stage
from bottleneck.finetuning.unfreeze import choices, paths
from bottleneck.heads.training_loop import Course, epoch_note
from bottleneck.models.comparison import spread
from bottleneck.schema import StageDone, TuneSettings, TuneStage, canonical_json
from bottleneck.system.progress import Progress


@dataclass(frozen=True)
class Stage:
    """A stage as it will be run.

    Attributes
    ----------
    asked : TuneStage
    rates : dict of str to float
        Rate of each layer of the base that trains, by path.
    head_rate : float
    end : int
        The step of the base's walk that ends the prefix.
    prefix : str or None
        Its path; None where the stage begins at the pixels.
    """

    asked: TuneStage
    rates: dict[str, float]
    head_rate: float
    end: int
    prefix: str | None


@dataclass(frozen=True)
class TuningPlan:
    """All stages, and what is worth saying before they run."""

    stages: tuple[Stage, ...]
    remarks: tuple[str, ...]


def plan_stages(
    base: LoadedBase, blocks: str, asked: Sequence[TuneStage], settings: TuneSettings
) -> TuningPlan:
    """What each stage trains and where its prefix ends. Reads no image.

    Parameters
    ----------
    base : LoadedBase
    blocks : str
        Block pattern; empty where the base has none.
    asked : sequence of TuneStage
        Each sets free what it names, and what the stages before it did stays free.
    settings : TuneSettings

    Returns
    -------
    Plan

    Raises
    ------
    UnknownName, UsageError
        A name that means nothing here.
    TuningError
        Layers that a tuned base could not be saved with.
    """
    strangers = foreign(base.model)
    if strangers:
        raise TuningError(
            f"the base {base.name} holds layers that are not Keras' own ({', '.join(strangers)}): a tuned base is a "
            ".keras file, which would load only beside their code. Rebuild the base from stock layers"
        )
    known = choices(base.model, blocks)
    network = walk(base.model)
    by_path = dict(paths(base.model))
    path_of = {id(operation): path for path, operation in by_path.items()}
    stages, free, remarks = [], frozenset[str](), []
    for one in asked:
        free |= known.chosen(one)
        end = IMAGE if settings.needs_pixels else prefix(network, {id(by_path[path]) for path in free})
        rates, head_rate = known.rates(free, settings)
        where = None if end == IMAGE else path_of[id(network.steps[end].operation)]
        stages.append(Stage(one, rates, head_rate, end, where))
        above = [unit.name for unit in known.units if not free & set(unit.layers)]
        lowest = next(number for number, unit in enumerate(known.units) if free & set(unit.layers))
        stuck = [name for name in above if name in [unit.name for unit in known.units[lowest:]]]
        if stuck:
            remarks.append(
                f"--unfreeze {one}: {', '.join(stuck)} above it stay{'s' if len(stuck) == 1 else ''} frozen; "
                f"top:{len(known.units) - lowest} sets all from there on free"
            )
    known.check_rates(free, settings)
    if not known.blocks and any(one.top for one in asked):
        remarks.append(
            f"{base.name} is no base of the catalog and has no blocks: top:N counts layers with weights"
        )
    return TuningPlan(tuple(stages), tuple(remarks))


class Fed(NamedTuple):
    """What a stage trains on and is watched by."""

    training: Feed
    watched: Feed | None


@dataclass(frozen=True, eq=False)
class TuningOutcome:
    """The result of a fine-tuning.

    The base it was given holds the tuned weights where `kept` is ``after``.

    Attributes
    ----------
    head : Head
    done : tuple of StageDone
    kept : {"before", "after"}
    features : callable
        What the base gives now, pooled, for rows as the last stage was fed with.
    """

    head: Head
    done: tuple[StageDone, ...]
    kept: Literal["before", "after"]
    features: Callable[[np.ndarray], np.ndarray]


def finetuning_identity(*facts: Any) -> str:
    """64 hex digits of everything that decides the course of a fine-tuning."""
    return hashlib.sha256(b"bottleneck finetune 1\n" + canonical_json(facts)).hexdigest()


def run_stages(
    base: LoadedBase,
    head: Head,
    planned: TuningPlan,
    settings: TuneSettings,
    feed: Callable[[Stage], Fed],
    weights: np.ndarray | None,
    *,
    at: Path,
    identity: str,
    progress: Progress,
    on_message: Callable[[str], None],
) -> TuningOutcome:
    """Run the stages, or what is left of them.

    Parameters
    ----------
    base : LoadedBase
        Its weights are changed in place, after each stage that lowered the validation loss.
    head : Head
        Fitted; it is left as it is.
    planned : Plan
    settings : TuneSettings
    feed : callable
        What a stage is fed with.
    weights : numpy.ndarray or None
        (classes,) float32.
    at : Path
        The checkpoint, written after each epoch.
    identity : str
        A checkpoint of another one is not gone on from.
    progress : Progress
    on_message : callable
        Hears that an interrupted fine-tuning goes on.

    Returns
    -------
    Outcome

    Raises
    ------
    TuningError
    """
    layers = head.layers()[:-1]
    network = walk(base.model)
    path_of = {id(operation): path for path, operation in paths(base.model)}
    point = checkpoint.load_checkpoint(at, identity)
    done: list[StageDone] = [] if point is None else list(point[0].done)
    program: Any = None
    for number, stage in enumerate(planned.stages):
        if number < len(done):
            continue
        fed = feed(stage)
        chain = Chain(
            base.preprocessing if stage.end == IMAGE else None,
            tail(network, stage.end, path_of),
            base.pooling,
            layers,
        )
        program = StageProgram(chain, stage.rates, stage.head_rate, settings, weights)
        course = Course()
        if point is not None:
            course = _resumed(program, *point)
            on_message(f"going on after epoch {len(course.history) - 1} of --unfreeze {stage.asked}")
            point = None

        def save(course: Course, program: StageProgram = program) -> None:
            now = program.values()
            arrays = {"now": now, "best": course.kept or now, "optimizer": _optimizer_values(program)}
            facts = Checkpoint(
                identity=identity,
                done=tuple(done),
                history=tuple(course.history),
                best=course.best,
            )
            checkpoint.save_checkpoint(at, facts, arrays)

        with progress.bar("finetune", settings.epochs, "epochs") as bar:
            bar.update(max(0, len(course.history) - 1))

            def epoch_done(entry: dict[str, float], bar: Any = bar) -> None:
                bar.update(1)
                bar.note(epoch_note(entry))

            before = sum(len(one.history) - 1 for one in done)
            train_stage(
                program, fed.training, fed.watched, settings, course,
                before=before, save=save, on_epoch=epoch_done,
            )  # fmt: skip
        chain.tail.give_back()
        done.append(
            StageDone(
                unfreeze=stage.asked.unfreeze,
                trained=tuple(stage.rates),
                parameters=program.parameters,
                frozen=program.frozen,
                prefix=stage.prefix,
                history=tuple(course.history),
                best_epoch=course.best,
            )
        )
    kept: Literal["before", "after"] = "after" if any(one.best_epoch for one in done) else "before"
    return TuningOutcome(with_weights(head, layers), tuple(done), kept, program.features)


def _optimizer_values(program: StageProgram) -> list[np.ndarray]:
    return [np.array(variable.numpy()) for variable in program.optimizer.variables]


def _resumed(program: StageProgram, point: Checkpoint, arrays: checkpoint.Arrays) -> Course:
    """The course of a checkpoint, whose values are put into the program."""
    variables = program.optimizer.variables
    try:
        program.restore(arrays["now"])
        for variable, value in zip(variables, arrays["optimizer"], strict=True):
            variable.assign(value)
        kept = list(arrays["best"])
    except (KeyError, ValueError) as error:
        raise TuningError(
            f"the checkpoint does not fit the layers that train ({error}): remove the new run's folder and begin anew"
        ) from error
    return Course([dict(entry) for entry in point.history], point.best, kept)


def with_weights(head: Head, layers: Sequence[Any]) -> Head:
    """`head` again, with the weights of these layers: its own, trained on.

    Parameters
    ----------
    head : Head
    layers : sequence of keras.layers.Layer
        Whose weights, in order, are the head's arrays in the order of its `layout`.

    Raises
    ------
    TuningError
        They are not.
    """
    _, arrays = head.state()
    learnt = [weight for layer in layers for weight in layer.get_weights()]
    shapes = [array.shape for array in arrays.values()]
    if [weight.shape for weight in learnt] != shapes:
        raise TuningError(
            f"a head {type(head).__name__} cannot be fine-tuned: its layers hold weights of the shapes "
            f"{[weight.shape for weight in learnt]}, its arrays are {shapes}; train a dense or a logistic head"
        )
    return head.with_arrays(dict(zip(arrays, learnt, strict=True)))


def check_rows(stored: np.ndarray, now: np.ndarray, what: str, tolerance: float) -> None:
    """Check that two ways give the same rows (n, …).

    Their difference counts relative to the spread between images.

    Raises
    ------
    TuningError
        They do not; `what` names the two ways.
    """
    scale = spread(now)
    gap = float(np.abs(stored.astype(np.float64) - now).max(initial=0.0))
    if not gap <= tolerance * scale:
        raise TuningError(
            f"{what} differ by {gap / scale if scale else gap:.2g} of their spread between images "
            f"({tolerance:g} is allowed), so a part of the network that was trained on them would not fit the whole. "
            "Its weights or code may have changed since the run: train the run again, or use --full"
        )
