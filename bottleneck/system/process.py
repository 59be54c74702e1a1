"""Prepare a process that only extracts."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import os
import signal
import sys
from collections.abc import Iterator
from typing import BinaryIO

#: Keras uses these for data frames and estimators, and works without them. With them its import takes 2.6 s and
#: 685 MiB, without them 1.6 s and 548.
_OPTIONAL = ("pandas", "scipy", "sklearn")


def die_with_parent() -> None:
    """Have the kernel end this process with its parent (Linux only).

    Examples
    --------
    >>> die_with_parent()  # doctest: +SKIP
    """
    set_parent_death_signal = 1
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)


def take_streams() -> tuple[BinaryIO, BinaryIO]:
    """Keep standard input and output from what libraries print and read.

    They print to standard error, and read nothing.

    Examples
    --------
    >>> asks, answers = take_streams()  # doctest: +SKIP
    """
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    asks = os.fdopen(os.dup(0), "rb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.stdin = None
    return asks, answers


def import_tensorflow() -> None:
    """Import TensorFlow and Keras without pandas, SciPy and scikit-learn.

    For a process of our own: whoever imports those three by name has them as ever.

    Examples
    --------
    >>> import_tensorflow()  # doctest: +SKIP
    """
    with _hidden(*(name for name in _OPTIONAL if name not in sys.modules)):
        importlib.import_module("tensorflow")
        importlib.import_module("keras")


@contextlib.contextmanager
def _hidden(*names: str) -> Iterator[None]:
    """Make imports of `names` fail: None stands for a missing module."""
    sys.modules.update(dict.fromkeys(names))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in names:
            del sys.modules[name]
