"""Translate what a scheduler's futures raise."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

from bottleneck.errors import BottleneckError, EngineError


def relay_errors(asked: Future[Any], engine: str) -> Future[Any]:
    """Copy `asked`, with an `EngineError` for whatever `engine` itself raises.

    Examples
    --------
    >>> asked = Future()
    >>> answered = relay_errors(asked, "dask")
    >>> asked.set_exception(KeyError("gone"))
    >>> answered.exception()
    EngineError("--engine dask: KeyError: 'gone'")
    """
    answered: Future[Any] = Future()

    def tell(done: Future[Any]) -> None:
        try:
            answered.set_result(done.result())
        except BottleneckError as error:
            answered.set_exception(error)
        except Exception as error:
            answered.set_exception(EngineError(f"--engine {engine}: {type(error).__name__}: {error}"))

    asked.add_done_callback(tell)
    return answered
