"""The parent's side: a worker process, watched. This side stays light and never imports TensorFlow."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from typing import Any

from bottleneck.contracts import Source
from bottleneck.errors import BottleneckError
from bottleneck.extraction.messages import Compute, Failure, Moved, Open
from bottleneck.extraction.task import Outcome
from bottleneck.files import shown
from bottleneck.schema import BaseRequest, Cache, StoreSpec, Task

#: A task that costs two workers their lives is given up.
_LIVES = 2


class WorkerDied(BottleneckError):
    """The worker process ended without an answer."""


class WorkerProcess:
    """A worker in a process of its own, started when first needed and again when it dies.

    Examples
    --------
    >>> with WorkerProcess(BaseRequest(base="squeezenet"), Cache(Path("cache"))) as worker:  # doctest: +SKIP
    ...     worker.spec.shape
    (512,)
    """

    def __init__(self, request: BaseRequest, cache: Cache) -> None:
        self._request, self._cache = request, cache
        self._process: subprocess.Popen[bytes] | None = None
        self._spec: StoreSpec | None = None
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the worker

    @property
    def spec(self) -> StoreSpec:
        """What the rows will be; builds the base."""
        self._running()
        assert self._spec is not None
        return self._spec

    def compute(self, source: Source, task: Task, moved_on: Callable[[int], None]) -> Outcome:
        """Run one task; a worker that dies is started again once.

        Raises
        ------
        WorkerDied
            The task ended two workers; what they last said is in the message.
        BottleneckError
            What the worker itself raised.
        """
        for life in range(_LIVES):
            seen = 0

            def count(images: int) -> None:
                nonlocal seen
                seen += images
                moved_on(images)

            try:
                self._running()
                answer: Outcome = self._ask(Compute(source, task), count)
                return answer
            except WorkerDied as error:
                self._stop()
                moved_on(-seen)
                if life + 1 == _LIVES:
                    first, last = shown(task.paths[0]), shown(task.paths[-1])
                    raise WorkerDied(
                        f"{error} Twice, at the task of {len(task.paths)} images from {first} to {last}. "
                        "Shards that were finished are kept; run the same command to go on. If memory ran out, "
                        "use a smaller --batch"
                    ) from error
        raise AssertionError("unreachable")

    def __enter__(self) -> WorkerProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()
        self._log.close()

    def _running(self) -> None:
        if self._process is not None and self._process.poll() is None:
            return
        # The graphs are TensorFlow's, whatever the user's other work runs on.
        environment = {"TF_CPP_MIN_LOG_LEVEL": "2", **os.environ, "KERAS_BACKEND": "tensorflow"}
        # What the parent can import, the worker can: `--base module:function` from a notebook's folder too.
        environment["PYTHONPATH"] = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bottleneck.extraction.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=environment,
            # Ctrl-C is the parent's to handle: it then ends the worker.
            start_new_session=True,
        )
        self._spec = self._ask(Open(self._request, self._cache))

    def _ask(self, ask: Any, moved_on: Callable[[int], None] | None = None) -> Any:
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            pickle.dump(ask, process.stdin, protocol=pickle.HIGHEST_PROTOCOL)
            process.stdin.flush()
            while True:
                answer = pickle.load(process.stdout)
                if isinstance(answer, Moved):
                    if moved_on is not None:
                        moved_on(answer.images)
                elif isinstance(answer, Failure):
                    raise answer.error()
                else:
                    return answer
        except (EOFError, BrokenPipeError, pickle.UnpicklingError) as error:
            raise WorkerDied(self._obituary()) from error

    def _obituary(self) -> str:
        assert self._process is not None
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
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
