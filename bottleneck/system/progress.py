"""Progress as a person sees it: the only place that knows tqdm."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Protocol


class Bar(Protocol):
    """A bar that counts up to a total."""

    def update(self, count: int = 1) -> None:
        """Move on by `count`."""

    def note(self, text: str) -> None:
        """Show a short remark behind the bar."""

    def __enter__(self) -> Bar: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Progress(Protocol):
    """Makes bars; one for each stage of the trip."""

    def bar(self, label: str, total: int | None, unit: str = "images", *, brief: bool = False) -> Bar:
        """Make a bar of `total` units; a `brief` one shows late."""


class _Still:
    """A bar that shows nothing."""

    def update(self, count: int = 1) -> None:
        pass

    def note(self, text: str) -> None:
        pass

    def __enter__(self) -> _Still:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class Silent:
    """No progress: `--quiet`, libraries, tests."""

    def bar(self, label: str, total: int | None, unit: str = "images", *, brief: bool = False) -> Bar:
        """A bar that shows nothing."""
        return _Still()


class _TqdmBar:
    def __init__(self, label: str, total: int | None, unit: str, brief: bool) -> None:
        from tqdm import tqdm

        # A closed or full standard error must never cost a run: tqdm then draws into nothing.
        stream = sys.stderr
        self._broken = stream is None
        try:
            self._bar = tqdm(
                total=total,
                desc=f"{label:<8}",
                unit=f" {unit}",
                file=stream,
                disable=self._broken,
                dynamic_ncols=True,
                mininterval=0.2,
                smoothing=0.1,
                delay=0.5 if brief else 0.0,
            )
        except (OSError, ValueError):
            self._broken = True

    def _draw(self, action: str, *values: object) -> None:
        if self._broken:
            return
        try:
            getattr(self._bar, action)(*values)
        except (OSError, ValueError):
            self._broken = True

    def update(self, count: int = 1) -> None:
        self._draw("update", count)

    def note(self, text: str) -> None:
        self._draw("set_postfix_str", text)

    def __enter__(self) -> _TqdmBar:
        return self

    def __exit__(self, *_: object) -> None:
        self._draw("close")


class Terminal:
    """tqdm bars on standard error, with units a second and time left."""

    def bar(self, label: str, total: int | None, unit: str = "images", *, brief: bool = False) -> Bar:
        """A tqdm bar."""
        return _TqdmBar(label, total, unit, brief)
