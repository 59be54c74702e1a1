"""The parent's side: a worker process, watched. This side stays light and never imports TensorFlow."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import IO, Any

from bottleneck.contracts import Source
from bottleneck.errors import BottleneckError
from bottleneck.extraction.batch import LONG
from bottleneck.extraction.messages import Care, Compute, Failure, Founded, Moved, Open, Search, Touching, Try
from bottleneck.extraction.pins import Pins
from bottleneck.extraction.task import Outcome
from bottleneck.extraction.trial import Trial
from bottleneck.files import shown
from bottleneck.schema import BaseRequest, Cache, Limits, Rejection, StoreSpec, Task

#: Deaths of a worker that no image explains, at one task, until it is given up.
_LIVES = 2

#: Images, one after the other, that a forward pass dies of or that fill the memory, until the base is to blame.
_ODD_DEATHS = 2

#: A forward pass may take so many times what the first one took before it counts as silence.
_SLOWEST = 10.0

_TICK = 0.25

_ADVICE = (
    "Shards that were finished are kept; the same command goes on from there. If memory ran out, use a smaller "
    "--batch or a larger --memory-limit; if the base is slow, a longer --deadline"
)


class WorkerDied(BottleneckError):
    """The worker process ended, or was ended, without an answer."""


class _OverMemory(WorkerDied):
    """It was ended for its memory."""


class _Gone:
    """What the listening thread says when there is nothing more to hear."""


class WorkerProcess:
    """A worker in a process of its own, started when first needed and again when it dies.

    An image that kills or stalls it costs itself: the task is run once more with care, the next death names its
    culprit, and the task goes on without that image, which is rejected for its circumstances.

    Parameters
    ----------
    requests : sequence of BaseRequest
        The base at one cut or at several: they differ in nothing else.
    cache : Cache
    limits : Limits, optional
        How long an image may be worked on in silence, and how much memory the worker may have.
    share : Pins, optional
        The part of the machine that it gets; by default it helps itself.

    Examples
    --------
    >>> with WorkerProcess([BaseRequest(base="squeezenet")], Cache(Path("cache"))) as worker:  # doctest: +SKIP
    ...     worker.specs[0].shape
    (512,)
    """

    def __init__(
        self,
        requests: Sequence[BaseRequest],
        cache: Cache,
        limits: Limits | None = None,
        share: Pins | None = None,
    ) -> None:
        self._requests, self._cache, self._limits = tuple(requests), cache, limits or Limits()
        self._share = share
        self._starting = threading.Lock()
        self._is_over = False
        self._process: subprocess.Popen[bytes] | None = None
        self._answers: SimpleQueue[Any] = SimpleQueue()
        self._listener: threading.Thread | None = None
        self._specs: tuple[StoreSpec, ...] = ()
        self._touching = Touching("")
        self._was_built = False
        self._build_seconds = 0.0
        self._odd_deaths = 0
        self._log: IO[bytes] | None = None

    @property
    def specs(self) -> tuple[StoreSpec, ...]:
        """What the rows of each cut will be; builds the base. Raises `WorkerDied` where that ends a worker twice."""
        for life in range(_LIVES):
            try:
                self._running()
                break
            except WorkerDied as death:
                self._stop()
                if life + 1 == _LIVES:
                    raise WorkerDied(f"{death} Twice, while the base was built. {_ADVICE}") from death
        return self._specs

    def compute(self, source: Source, task: Task, moved_on: Callable[[int], None]) -> tuple[Outcome, ...]:
        """Run one task; a worker that dies is started again.

        Raises
        ------
        WorkerDied
            Workers died of something that is no image's fault; what the last one said is in the message.
        BottleneckError
            What the worker itself raised.
        """
        care, unexplained = Care(), 0
        while True:
            seen = 0

            def count(images: int) -> None:
                nonlocal seen
                seen += images
                moved_on(images)

            self._touching = Touching("")
            try:
                self._running()
                answer: tuple[Outcome, ...] = self._ask(Compute(source, task, care), count)
                return answer
            except WorkerDied as death:
                self._stop()
                moved_on(-seen)
                suspects = self._touching.images
                if care.careful and len(suspects) > 1:
                    care = replace(care, alone=frozenset(suspects))
                elif care.careful and suspects and not self._blames_base(death):
                    care = Care(
                        refused={**care.refused, suspects[0]: self._refusal(task, suspects[0], death)}
                    )
                else:
                    unexplained += care.careful or not self._was_built
                    if unexplained >= _LIVES or self._odd_deaths > _ODD_DEATHS:
                        raise self._despair(death, task) from death
                    care = replace(care, careful=self._was_built or care.careful)

    def attempt(self, source: Source, task: Task, moved_on: Callable[[int], None]) -> Trial:
        """Run a sample of `task` and throw it away. Raises `WorkerDied` at the first death."""
        self._running()
        trial: Trial = self._ask(Try(source, task), moved_on)
        return replace(trial, start=self._build_seconds + trial.start)

    def best_batch(self, images: int, tried: Callable[[int], None]) -> int | None:
        """As `Worker.best_batch` for a `LONG` run. Raises `WorkerDied` at the first death: of one that did not fit."""
        try:
            self._running()
            found: int | None = self._ask(Search(images, LONG), tried)
        except WorkerDied:
            self._stop()  # it may live yet, over its memory limit
            raise
        return found

    def reopen(self, requests: Sequence[BaseRequest]) -> None:
        """From the next task on the base is built as these ask."""
        self._requests = tuple(requests)
        self._stop()

    def rest(self) -> None:
        """Let the worker go until the next task."""
        self._stop()

    def end(self) -> None:
        """End the worker for good, from another thread than the one that waits for it: that one hears an error."""
        with self._starting:
            self._is_over = True
            if self._process is not None:
                self._process.kill()

    def __enter__(self) -> WorkerProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()
        if self._log is not None:
            self._log.close()

    # -------------------------------------------------------------------------------------------- deaths

    def _blames_base(self, death: WorkerDied) -> bool:
        """Whether one image after the other ends a forward pass or the memory: images do not do that, machines do."""
        odd = self._touching.stage == "forward" or isinstance(death, _OverMemory)
        self._odd_deaths = self._odd_deaths + 1 if odd else 0
        return self._odd_deaths > _ODD_DEATHS

    def _refusal(self, task: Task, index: int, death: WorkerDied) -> Rejection:
        return Rejection(
            content=task.keys[index].tobytes().hex(),
            path=task.paths[index].decode("utf-8", "backslashreplace"),
            stage=self._touching.stage,
            reason=f"at this image {death}"[:500],
            retry=True,
        )

    def _despair(self, death: WorkerDied, task: Task) -> WorkerDied:
        first, last = shown(task.paths[0]), shown(task.paths[-1])
        return WorkerDied(
            f"{death} No single image explains it; it happened again and again at the task of {len(task.paths)} "
            f"images from {first} to {last}. {_ADVICE}"
        )

    # ------------------------------------------------------------------------------------------- process

    def _running(self) -> None:
        if self._process is not None and self._process.poll() is None:
            return
        self._was_built = False
        started = time.monotonic()
        if self._log is None:
            self._log = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as this
        # The graphs are TensorFlow's, whatever the user's other work runs on.
        environment = {"TF_CPP_MIN_LOG_LEVEL": "2", **os.environ, "KERAS_BACKEND": "tensorflow"}
        # What the parent can import, the worker can: `--base module:function` from a notebook's folder too.
        environment["PYTHONPATH"] = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
        if self._share is not None:
            environment.update(self._share.environment())
        with self._starting:
            if self._is_over:
                raise BottleneckError("the worker was ended with its run")
            self._process = subprocess.Popen(
                [sys.executable, "-m", "bottleneck.extraction.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                env=environment,
                # Ctrl-C is the parent's to handle: it then ends the worker.
                start_new_session=True,
            )
        self._answers = SimpleQueue()
        self._listener = threading.Thread(
            target=_listen, args=(self._process.stdout, self._answers), daemon=True, name="worker"
        )
        self._listener.start()
        threads = self._share.threads if self._share else None
        self._specs = self._ask(Open(self._requests, self._cache, threads))
        self._was_built = True
        self._build_seconds = time.monotonic() - started

    def _ask(self, ask: Any, moved_on: Callable[[int], None] = lambda _: None) -> Any:
        process = self._process
        assert process is not None
        assert process.stdin is not None
        # Building a base may download its weights, and a first pass may compile: no deadline before `Founded`.
        patience: float | None = None
        silence = 0.0
        try:
            pickle.dump(ask, process.stdin, protocol=pickle.HIGHEST_PROTOCOL)
            process.stdin.flush()
        except (BrokenPipeError, OSError) as error:
            raise WorkerDied(self._obituary()) from error
        while True:
            before = time.monotonic()
            try:
                answer = self._answers.get(timeout=_TICK)
            except Empty:
                self._check_memory()
                # When this process was paused itself, the worker is not to blame for the pause.
                silence += min(time.monotonic() - before, 2 * _TICK)
                if patience is not None and silence > patience and self._touching.stage != "write":
                    raise WorkerDied(
                        f"the worker process gave no sign of life for {patience:.0f} s and was ended."
                    ) from None
                continue
            silence = 0.0
            if isinstance(answer, Founded):
                patience = max(self._limits.deadline, _SLOWEST * answer.seconds)
            elif isinstance(answer, Moved):
                moved_on(answer.images)
            elif isinstance(answer, Touching):
                # Before the next image is touched: what is over the bound by now is the last one's doing.
                self._check_memory()
                self._touching = answer
            elif isinstance(answer, Failure):
                raise answer.error()
            elif isinstance(answer, _Gone):
                raise WorkerDied(self._obituary())
            else:
                return answer

    def _check_memory(self) -> None:
        bound = self._limits.memory
        if bound is None or self._process is None:
            return
        held = resident(self._process.pid)
        if held > bound:
            raise _OverMemory(
                f"the worker process held {held / 1e9:.2f} GB, over the --memory-limit of {bound / 1e9:.2f} GB, "
                "and was ended."
            )

    def _obituary(self) -> str:
        assert self._process is not None
        assert self._log is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(10)
        status = self._process.returncode
        how = "stopped answering" if status is None else f"ended with status {status}"
        if status is not None and status < 0:
            how = f"was ended by {signal.Signals(-status).name}"
            if -status == signal.SIGKILL:
                how += " (often: out of memory)"
        self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, self._log.tell() - 2000))
        last = self._log.read().decode("utf-8", "replace").strip().splitlines()[-3:]
        said = f" It last said: {' | '.join(last)}." if last else ""
        return f"the worker process {how}.{said}"

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        # At once: whatever it was writing has no name yet, and an interrupt must not wait for it.
        process.kill()
        process.wait()
        # Now that the worker is gone the listening thread hears the end, and lets go of the stream.
        if self._listener is not None:
            self._listener.join(5)
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()


def _listen(answers: Any, heard: SimpleQueue[Any]) -> None:
    """Hand on what the worker says, in a thread of its own, so that the asking side can look at the clock."""
    while True:
        try:
            answer = pickle.load(answers)
        except Exception:  # half a message, or none: either way it said its last
            heard.put(_Gone())
            return
        heard.put(answer)


def resident(process: int) -> int:
    """Bytes of memory that `process` holds; 0 where the system does not tell (it does on Linux) or it is gone."""
    try:
        pages = Path(f"/proc/{process}/statm").read_text(encoding="ascii").split()[1]
    except (OSError, IndexError):
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")
