"""Silence converters, whose messages are not for the user."""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator

_LOGGERS = ("tensorflow", "absl", "tf2onnx")

#: Beginnings of warnings that nobody can act upon: pandas, where a converter brings it, looks for the other package of
#: this one's name; TensorFlow would rather have its own calibration use another package of theirs.
_WARNINGS = (
    r"Pandas requires version .* of 'bottleneck'",
    r"\s*Warning: tf.lite.Interpreter is deprecated",
    r"Statistics for quantized inputs were expected, but not specified",
)


@contextlib.contextmanager
def quiet_converters() -> Iterator[None]:
    """Silence the converters' loggers, except errors, and their known warnings."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    with warnings.catch_warnings():
        for message in _WARNINGS:
            warnings.filterwarnings("ignore", message, UserWarning)
        try:
            for logger in loggers:
                # A filter and not a level: TensorFlow sets the level back while it saves.
                logger.addFilter(_is_error)
            yield
        finally:
            for logger in loggers:
                logger.removeFilter(_is_error)


def _is_error(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR


@contextlib.contextmanager
def silent_stderr() -> Iterator[None]:
    """Discard standard error, for compiled code that writes to it.

    The exception of a failure says the same.
    """
    try:
        kept = os.dup(2)
    except OSError:  # closed: there is nothing to mute
        yield
        return
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
