"""Standard streams and signals of a command.

Full disks, closed pipes and Ctrl-C cost no work. Nothing is printed here.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from typing import Any, NoReturn

from bottleneck.errors import BottleneckError


@contextlib.contextmanager
def writing() -> Iterator[None]:
    """Guard the writing of the result.

    By now everything is stored; a full disk behind `>` should not hide that.
    """
    try:
        yield
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        drop(sys.stdout)
        raise BottleneckError(
            f"the result could not be written to standard output: {error.strerror}; "
            "features and runs are stored, and the same command shows them again"
        ) from error


def drop(stream: Any) -> None:
    """Discard what a stream still holds: Python would fail at exit."""
    # A stream without a file holds nothing back.
    with contextlib.suppress(AttributeError, OSError, ValueError):
        held = stream.fileno()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, held)
        os.close(nowhere)


class ForgivingStream:
    """Standard error whose failures cost nothing."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write if it can be."""
        with contextlib.suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush if it can be."""
        with contextlib.suppress(OSError):
            self._stream.flush()


class Terminated(SystemExit):
    """Somebody asked this process to end."""


def _stop(number: int, _: Any) -> NoReturn:
    """Unwind at the first signal; at the second, leave at once."""
    for again in (signal.SIGINT, signal.SIGTERM):
        signal.signal(again, _leave)
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise Terminated(128 + number)


def _leave(number: int, _: Any) -> NoReturn:
    # Workers end with this process, the kernel frees its locks, and nothing half written has a name.
    with contextlib.suppress(OSError):
        os.write(
            2,
            b"error: interrupted twice; finished shards are kept, and the same command goes on from there\n",
        )
    os._exit(128 + number)


@contextlib.contextmanager
def command_streams() -> Iterator[None]:
    """Set signals and streams as a command needs them, for a while."""
    before: dict[int, Any] = {}
    with contextlib.suppress(ValueError):  # not in the main thread
        before = {number: signal.signal(number, _stop) for number in (signal.SIGINT, signal.SIGTERM)}
    errors = sys.stderr
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # A name that the terminal's encoding lacks is shown escaped.
            stream.reconfigure(errors="backslashreplace")
    if errors is not None:
        sys.stderr = ForgivingStream(errors)
    try:
        yield
    finally:
        sys.stderr = errors
        if errors is not None:
            try:
                errors.flush()
            except (OSError, ValueError):
                drop(errors)
        for number, handler in before.items():
            signal.signal(number, handler)
