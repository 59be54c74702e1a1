"""Run work in forked processes, slowed where a race needs it."""

from __future__ import annotations

import contextlib
import os
import pickle
import random
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bottleneck import cli
from bottleneck.extraction.run import ExtractionRun
from bottleneck.pipeline import stores
from tests.in_process import InProcessWorker


def command_work(arguments: Sequence[object], seed: int) -> Callable[[], None]:
    """The work of one command, in tasks of a random size."""

    def run() -> None:
        draw = random.Random(seed)
        ExtractionRun.task_rows = draw.randint(1, 6)
        ExtractionRun.worker_type = InProcessWorker
        if draw.random() < 0.5:  # several groups, not all in one shard
            whole = stores.compact_store
            stores.compact_store = (  # type: ignore[attr-defined]
                lambda folder, target, **more: whole(folder, target=7000, **more)
            )
        cli.main([str(argument) for argument in arguments])

    return run


def run_forked(said: Path, seed: int, work: Callable[[], None]) -> None:
    """The rest of a forked process: never returns."""
    status = 99
    try:
        descriptor = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        slow_system_calls(random.Random(seed))
        work()
        status = 0
    except SystemExit as end:
        status = int(end.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def slow_system_calls(draw: random.Random) -> None:
    """Hold this process up before and after what it does to names, at times for long."""

    def slowed(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            before, after = draw.random(), draw.random()
            if before < 0.15:
                time.sleep(draw.random() * (0.05 if before < 0.03 else 0.004))
            try:
                return real(*arguments, **options)
            finally:
                if after < 0.15:
                    time.sleep(draw.random() * (0.05 if after < 0.03 else 0.004))

        return call

    for name in ("link", "unlink", "replace", "listdir", "scandir", "open"):
        setattr(os, name, slowed(getattr(os, name)))


def in_a_fork(work: Callable[[], Any]) -> Any:
    """What `work` gives, in a process of its own: libraries with threads must not come to life in this one."""
    with tempfile.TemporaryFile() as answer:
        child = os.fork()
        if not child:
            try:
                found = work()
            except BaseException:
                found = [traceback.format_exc()]
            os.write(answer.fileno(), pickle.dumps(found))
            os._exit(0)
        os.waitpid(child, 0)
        answer.seek(0)
        return pickle.loads(answer.read())
