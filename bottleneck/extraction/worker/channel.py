"""Talk to a worker process through pipes."""

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

from bottleneck.errors import BottleneckError
from bottleneck.extraction.resources import WorkerResources
from bottleneck.extraction.worker.messages import BaseReady, Failure, ImagesDone, Open, Touching
from bottleneck.schema import BaseRequest, Limits, StoreSpec
from bottleneck.system import onednn

#: How many times as long as the first forward pass another may take before it counts as silence.
_SLOWEST = 10.0

_TICK = 0.25

#: For glibc. Arrays of a picture's extent are let go and wanted again all the time; by its own rules it gives their
#: pages back each time, and to have one of them anew takes longer than what is done with it.
_KEEPS_PAGES = {"MALLOC_MMAP_THRESHOLD_": str(1 << 25), "MALLOC_TRIM_THRESHOLD_": str(1 << 28)}


def worker_environment() -> dict[str, str]:
    """Make a worker's environment: this process's, and what serves a worker.

    Examples
    --------
    >>> "MALLOC_TRIM_THRESHOLD_" in worker_environment()
    True
    """
    return {"TF_CPP_MIN_LOG_LEVEL": "2", **_KEEPS_PAGES, **onednn.requested_environment(), **os.environ}


class WorkerDied(BottleneckError):
    """The worker process ended, or was ended, without an answer."""


class OverMemory(WorkerDied):
    """The worker was ended for its memory.

    Attributes
    ----------
    growth : float
        How much of the limit it had taken since it last said what it was about to do.
    """

    growth = 0.0


class _AnswersEnd:
    """What the listening thread says when there is nothing more to hear."""


class WorkerChannel:
    """The pipes to one worker process; its death is judged elsewhere.

    Parameters
    ----------
    opening : Open
        What the worker opens first.
    limits : Limits
    share : WorkerResources, optional

    Attributes
    ----------
    process : subprocess.Popen or None
    specs : tuple of StoreSpec
        What the last one that was opened had to say of its base.
    touching : Touching
        What it last said it was about to do.
    was_built : bool
        Whether the base of the last one came to be.

    Examples
    --------
    >>> from bottleneck.sources import open_source
    >>> from bottleneck.schema import Cache
    >>> opening = Open(open_source("."), (BaseRequest(base="squeezenet"),), Cache(Path("cache")))
    >>> channel = WorkerChannel(opening, Limits())
    >>> channel.process is None
    True
    >>> channel.close()
    """

    def __init__(self, opening: Open, limits: Limits, share: WorkerResources | None = None) -> None:
        self._opening = replace(opening, threads=share.threads if share else None)
        self._limits, self._share = limits, share
        self.process: subprocess.Popen[bytes] | None = None
        self.specs: tuple[StoreSpec, ...] = ()
        self.touching = Touching("")
        self.was_built = False
        self._resident_before = 0
        self._starting = threading.Lock()
        self._is_over = False
        self._is_opening = False
        self._answers: SimpleQueue[Any] = SimpleQueue()
        self._listener: threading.Thread | None = None
        self._log: IO[bytes] | None = None

    def start(self) -> None:
        """Wait for a built base. Raises `WorkerDied`, and what building raised."""
        self.begin()
        if not self._is_opening:
            return
        self._is_opening = False
        self.specs = self._hear(lambda _: None)
        self.was_built = True

    def begin(self) -> None:
        """Start a worker, which builds its base; do not wait."""
        if self._is_opening or (self.process is not None and self.process.poll() is None):
            return
        self.was_built = False
        if self._log is None:
            self._log = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as this
        environment = worker_environment()
        # The graphs are TensorFlow's, whatever the user's other work runs on.
        environment["KERAS_BACKEND"] = "tensorflow"
        # What the parent can import, the worker can: `--base module:function` from a notebook's folder too.
        environment["PYTHONPATH"] = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
        if self._share is not None:
            environment.update(self._share.environment())
        with self._starting:
            if self._is_over:
                raise BottleneckError("the worker was ended with its run")
            self.process = subprocess.Popen(
                [sys.executable, "-m", "bottleneck.extraction.worker.main"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                env=environment,
                # Ctrl-C is the parent's to handle: it then ends the worker.
                start_new_session=True,
            )
        self._answers = SimpleQueue()
        self._listener = threading.Thread(
            target=_listen, args=(self.process.stdout, self._answers), daemon=True, name="worker"
        )
        self._listener.start()
        # Of one that is dead already `start` hears.
        with contextlib.suppress(OSError):
            self._tell(self._opening)
        self._is_opening = True

    def ask(self, what: Any, on_progress: Callable[[int], None] = lambda _: None) -> Any:
        """Get the answer to `what`. Raises `WorkerDied`, and the worker's errors."""
        try:
            self._tell(what)
        except OSError as error:
            raise WorkerDied(self._obituary()) from error
        return self._hear(on_progress)

    def _tell(self, what: Any) -> None:
        assert self.process is not None
        assert self.process.stdin is not None
        pickle.dump(what, self.process.stdin, protocol=pickle.HIGHEST_PROTOCOL)
        self.process.stdin.flush()

    def _hear(self, on_progress: Callable[[int], None]) -> Any:
        # Building a base may download its weights, and a first pass may compile: no deadline before `BaseReady`.
        patience: float | None = None
        silence = 0.0
        while True:
            before = time.monotonic()
            try:
                answer = self._answers.get(timeout=_TICK)
            except Empty:
                self._check_memory()
                # When this process was paused itself, the worker is not to blame for the pause.
                silence += min(time.monotonic() - before, 2 * _TICK)
                if patience is not None and silence > patience and self.touching.stage != "write":
                    raise WorkerDied(
                        f"the worker process gave no sign of life for {patience:.0f} s and was ended."
                    ) from None
                continue
            silence = 0.0
            if isinstance(answer, BaseReady):
                patience = max(self._limits.deadline, _SLOWEST * answer.seconds)
            elif isinstance(answer, ImagesDone):
                on_progress(answer.images)
            elif isinstance(answer, Touching):
                # Before the next image is touched: what is over the bound by now is the last one's doing.
                self._resident_before = self._check_memory()
                self.touching = answer
            elif isinstance(answer, Failure):
                raise answer.error()
            elif isinstance(answer, _AnswersEnd):
                raise WorkerDied(self._obituary())
            else:
                return answer

    def reopen(self, requests: Sequence[BaseRequest]) -> None:
        """From the next start on the base is built as these ask."""
        self._opening = replace(self._opening, requests=tuple(requests))
        self.stop()

    def stop(self) -> None:
        """End the worker, if there is one."""
        process, self.process = self.process, None
        self._is_opening = False
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

    def end(self) -> None:
        """End the worker from another thread; whoever waits hears an error."""
        with self._starting:
            self._is_over = True
            if self.process is not None:
                self.process.kill()

    def close(self) -> None:
        """End the worker and forget what it said."""
        self.stop()
        if self._log is not None:
            self._log.close()

    def _check_memory(self) -> int:
        """Measure the worker's memory, 0 without a bound. Raises `OverMemory`."""
        bound = self._limits.memory
        if bound is None or self.process is None:
            return 0
        taken = resident_bytes(self.process.pid)
        if taken > bound:
            death = OverMemory(
                f"the worker process held {taken / 1e9:.2f} GB, over the --memory-limit of {bound / 1e9:.2f} GB, "
                "and was ended."
            )
            death.growth = (taken - self._resident_before) / bound
            raise death
        return taken

    def _obituary(self) -> str:
        assert self.process is not None
        assert self._log is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(10)
        status = self.process.returncode
        how = "stopped answering" if status is None else f"ended with status {status}"
        if status is not None and status < 0:
            how = f"was ended by {signal.Signals(-status).name}"
            if -status == signal.SIGKILL:
                how += " (often: out of memory)"
        self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, self._log.tell() - 2000))
        last = self._log.read().decode("utf-8", "replace").strip().splitlines()[-3:]
        last_words = f" It last said: {' | '.join(last)}." if last else ""
        return f"the worker process {how}.{last_words}"


def _listen(answers: Any, heard: SimpleQueue[Any]) -> None:
    """Queue the worker's answers, so that the asker can watch the clock."""
    while True:
        try:
            answer = pickle.load(answers)
        except Exception:  # half a message, or none: either way it said its last
            heard.put(_AnswersEnd())
            return
        heard.put(answer)


def resident_bytes(process: int) -> int:
    """Measure the memory of `process`; 0 where the system does not tell."""
    try:
        pages = Path(f"/proc/{process}/statm").read_text(encoding="ascii").split()[1]
    except (OSError, IndexError):
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")
