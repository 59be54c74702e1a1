"""Run a worker process and bear its death; never import TensorFlow."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from bottleneck.extraction.resources import WorkerResources
from bottleneck.extraction.worker.channel import OverMemory, WorkerChannel, WorkerDied
from bottleneck.extraction.worker.messages import Care, Compute, Open, Proof, Prove, Search, Touching, Try
from bottleneck.extraction.worker.task import TaskOutcome
from bottleneck.extraction.worker.trial import Trial
from bottleneck.forward.batch_size import LONG
from bottleneck.schema import BaseRequest, Limits, Rejection, StoreSpec, Task
from bottleneck.system.durable import shown

#: Deaths of a worker that no image explains, at one task, until it is given up.
_LIVES = 2

#: Images, one after the other and none that came through before them, that a forward pass dies of, or at which little
#: more was wanted than memory held already, until the base is to blame.
_ODD_DEATHS = 2

#: Share of the memory limit that is more than little: an image that takes as much is to blame itself, whatever the
#: one before it did.
_MUCH = 1 / 8

_ADVICE = (
    "Shards that were finished are kept; the same command goes on from there. If memory ran out, use a smaller "
    "--batch or a larger --memory-limit; if the base is slow, a longer --deadline"
)


class WorkerProcess:
    """A worker process, started when needed and again when it dies.

    An image that kills or stalls it costs itself: the task is run once more with care, the next death names its
    culprit, and the task goes on without that image, which is rejected for its circumstances. Of an image that was
    rejected so before, under the same limits and versions, that is the last word.

    Parameters
    ----------
    opening : Open
        The base, and the source of the images.
    limits : Limits, optional
        How long an image may be worked on in silence, and how much memory the worker may have.
    share : WorkerResources, optional
        The part of the machine that it gets; by default it helps itself.

    Examples
    --------
    >>> opening = Open(source, (BaseRequest(base="squeezenet"),), Cache(Path("cache")))  # doctest: +SKIP
    >>> with WorkerProcess(opening) as worker:  # doctest: +SKIP
    ...     worker.specs[0].shape
    (512,)
    """

    def __init__(
        self, opening: Open, limits: Limits | None = None, share: WorkerResources | None = None
    ) -> None:
        self._limits = limits or Limits()
        self._channel = WorkerChannel(opening, self._limits, share)
        self._odd_deaths = 0

    @property
    def specs(self) -> tuple[StoreSpec, ...]:
        """The rows of each cut; builds the base. Raises `WorkerDied`."""
        for life in range(_LIVES):
            try:
                self._channel.start()
                break
            except WorkerDied as death:
                self._channel.stop()
                if life + 1 == _LIVES:
                    raise WorkerDied(f"{death} Twice, while the base was built. {_ADVICE}") from death
        return self._channel.specs

    def prove(self) -> Proof:
        """Compute the canary pictures. Raises `WorkerDied` at the first death."""
        proof: Proof = self._ask_once(Prove())
        return proof

    def begin(self) -> None:
        """Start to build the base, and do not wait for it."""
        self._channel.begin()

    def compute(self, task: Task, on_progress: Callable[[int], None]) -> tuple[TaskOutcome, ...]:
        """Run one task; a worker that dies is started again.

        Raises
        ------
        WorkerDied
            Workers died of something that is no image's fault; what the last one said is in the message.
        BottleneckError
            What the worker itself raised.
        """
        # The one image of a task needs no first death to be named.
        care, unexplained = Care(careful=len(task.keys) == 1), 0
        while True:
            seen = 0

            def count(images: int) -> None:
                nonlocal seen
                seen += images
                on_progress(images)

            self._channel.touching = Touching("")
            try:
                self._channel.start()
                answer: tuple[TaskOutcome, ...] = self._channel.ask(Compute(task, care), count)
                return answer
            except WorkerDied as death:
                self._channel.stop()
                on_progress(-seen)
                suspects = self._channel.touching.images
                if care.careful and len(suspects) > 1:
                    care = replace(care, alone=frozenset(suspects))
                elif care.careful and suspects and not self._blames_base(death, task, seen):
                    refused = {**care.refused, suspects[0]: self._refusal(task, suspects[0], death)}
                    # Where there are two there may be more: each then costs one death and not two.
                    care = Care(careful=len(refused) > 1, refused=refused)
                else:
                    unexplained += care.careful or not self._channel.was_built
                    if unexplained >= _LIVES or self._odd_deaths > _ODD_DEATHS:
                        raise self._despair(death, task) from death
                    care = replace(care, careful=self._channel.was_built or care.careful)

    def attempt(self, task: Task, on_progress: Callable[[int], None]) -> Trial:
        """Run a sample of `task`. Raises `WorkerDied` at the first death."""
        started = time.monotonic()
        self._channel.start()
        waited = time.monotonic() - started
        trial: Trial = self._channel.ask(Try(task), on_progress)
        return replace(trial, start=waited + trial.start)

    def best_batch(self, images: int, tried: Callable[[int], None]) -> int | None:
        """Search as `Worker.best_batch` for a `LONG` run. Raises `WorkerDied`."""
        batch: int | None = self._ask_once(Search(images, LONG), tried)
        return batch

    def reopen(self, requests: Sequence[BaseRequest]) -> None:
        """From the next task on the base is built as these ask."""
        self._channel.reopen(requests)

    def rest(self) -> None:
        """Let the worker go until the next task."""
        self._channel.stop()

    def end(self) -> None:
        """End the worker from another thread; whoever waits hears an error."""
        self._channel.end()

    def __enter__(self) -> WorkerProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()

    # -------------------------------------------------------------------------------------------- deaths

    def _ask_once(self, what: Prove | Search, on_progress: Callable[[int], None] = lambda _: None) -> Any:
        try:
            self._channel.start()
            return self._channel.ask(what, on_progress)
        except WorkerDied:
            self._channel.stop()  # it may live yet, over its memory limit
            raise

    def _blames_base(self, death: WorkerDied, task: Task, came_through: int) -> bool:
        """Whether images die one after another as only bases make them."""
        tight = isinstance(death, OverMemory) and death.growth < _MUCH
        odd = tight or self._channel.touching.stage == "forward"
        # What is tried alone was given up before: that says nothing new of the base.
        self._odd_deaths = self._odd_deaths + 1 if odd and not came_through and len(task.keys) > 1 else 0
        return self._odd_deaths > _ODD_DEATHS

    def _refusal(self, task: Task, index: int, death: WorkerDied) -> Rejection:
        return Rejection(
            content=task.keys[index].tobytes().hex(),
            path=task.paths[index].decode("utf-8", "backslashreplace"),
            stage=self._channel.touching.stage,
            reason=f"at this image {death}"[:500],
            retry=True,
            circumstances=self._limits.circumstances,
            final=self._limits.circumstances in task.blamed,
        )

    def _despair(self, death: WorkerDied, task: Task) -> WorkerDied:
        first, last = shown(task.paths[0]), shown(task.paths[-1])
        return WorkerDied(
            f"{death} No single image explains it; it happened again and again at the task of {len(task.paths)} "
            f"images from {first} to {last}. {_ADVICE}"
        )
