"""Read, check and decode the images of a task."""

from __future__ import annotations

import errno
import hashlib
import itertools
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from bottleneck.contracts import Forward
from bottleneck.errors import Rejected
from bottleneck.extraction.profile import Stopwatch
from bottleneck.extraction.worker.messages import Care
from bottleneck.schema import Task
from bottleneck.store.views import is_of

#: Seconds after which a task that has filled no batch says that it lives.
_SIGN_OF_LIFE = 1.0


class FileChanged(Exception):
    """The file is not what was planned."""


@dataclass(frozen=True)
class Watch:
    """Callbacks of a task.

    `on_progress` gets how many images are done (0 is a sign of life), `touch` what comes next.
    """

    on_progress: Callable[[int], None]
    touch: Callable[[str, tuple[int, ...]], None] = lambda stage, images: None


@dataclass(frozen=True, eq=False)
class ImageReader:
    """The images of a task as pixels; `pool` reads and decodes."""

    forward: Forward
    read: Callable[[bytes], bytes]
    task: Task
    pool: ThreadPoolExecutor
    stopwatch: Stopwatch
    watch: Watch
    care: Care

    def __iter__(self) -> Iterator[tuple[int, np.ndarray | Rejected | FileChanged]]:
        return self._one_by_one() if self.care.careful else self._in_order()

    def _in_order(self) -> Iterator[tuple[int, np.ndarray | Rejected | FileChanged]]:
        """Decode in task order, a bounded number of images ahead."""
        ahead: deque[tuple[list[int], Future[list[np.ndarray]]]] = deque()
        upcoming = iter(self._files())
        bound, coming = 2 * self.forward.batch + 8, 0
        reported = time.perf_counter()
        while True:
            while coming < bound:
                indices = next(upcoming, [])
                if not indices:
                    break
                ahead.append((indices, self.pool.submit(self._pixels, indices)))
                coming += len(indices)
            if not ahead:
                return
            indices, future = ahead.popleft()
            coming -= len(indices)
            started = time.perf_counter()
            error = future.exception()
            now = time.perf_counter()
            self.stopwatch.waited["decode"] += now - started
            if now - reported > _SIGN_OF_LIFE:
                # Slow files fill no batch for long; that is no silence.
                self.watch.on_progress(0)
                reported = now
            if error is None:
                yield from zip(indices, future.result(), strict=True)
            elif isinstance(error, (Rejected, FileChanged)):
                yield from ((index, error) for index in indices)
            else:
                raise error

    def _one_by_one(self) -> Iterator[tuple[int, np.ndarray | Rejected | FileChanged]]:
        """Decode in task order; name each image before touching it."""
        for index in range(len(self.task.paths)):
            if index in self.care.refused:
                continue
            self.watch.touch("decode", (index,))
            started = time.perf_counter()
            result: np.ndarray | Rejected | FileChanged
            try:
                # In the pool's thread, as ever: what crashes in one thread may not in another.
                result = self.pool.submit(self._pixels, [index]).result()[0]
            except (Rejected, FileChanged) as error:
                result = error
            self.stopwatch.waited["decode"] += time.perf_counter() - started
            yield index, result

    def _files(self) -> list[list[int]]:
        """Group images by file: views of one need it read once."""
        paths = self.task.paths
        wanted = [index for index in range(len(paths)) if index not in self.care.refused]
        return [list(group) for _, group in itertools.groupby(wanted, key=paths.__getitem__)]

    def _pixels(self, indices: list[int]) -> list[np.ndarray]:
        """Read a file once, hash it, and decode that very buffer."""
        task = self.task
        keys = [task.keys[index].tobytes() for index in indices]
        started = time.perf_counter()
        try:
            data = self.read(task.paths[indices[0]])
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR):
                raise FileChanged from error
            raise Rejected("read", error.strerror or str(error), retry=True) from error
        read = time.perf_counter() - started
        content = hashlib.sha256(data).digest()
        policy = task.views
        if not all(key == content if policy is None else is_of(key, content) for key in keys):
            raise FileChanged
        pixels = self.forward.decode(data)
        self.stopwatch.got.append((read, time.perf_counter() - started))
        return [pixels] if policy is None else [self.forward.view(pixels, key, policy) for key in keys]
