"""Bars: on standard error, with rate and time left; never worth a run."""

from __future__ import annotations

import io
import sys

import pytest

from bottleneck.system.progress import Progress, Silent, Terminal


class Broken(io.StringIO):
    """A terminal that went away."""

    broken = False

    def write(self, text: str) -> int:
        if self.broken:
            raise OSError(5, "Input/output error")
        return super().write(text)


def drive(progress: Progress) -> None:
    with progress.bar("extract", 10) as bar:
        bar.update(4)
        bar.note("1 rejected")
        bar.update(-2)
        bar.update(8)
    with progress.bar("scan", None, "files") as bar:
        bar.update()


def test_silence_is_silent(capfd: pytest.CaptureFixture[str]) -> None:
    drive(Silent())
    assert capfd.readouterr() == ("", "")


def test_a_bar_shows_what_how_many_and_how_fast_on_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    drive(Terminal())
    out, err = capfd.readouterr()
    assert out == ""
    for word in ("extract", "10/10", "images/s", "1 rejected", "scan", "1 files"):
        assert word in err


@pytest.mark.fault(75)
def test_a_terminal_that_goes_away_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Broken()
    monkeypatch.setattr(sys, "stderr", stream)
    with Terminal().bar("extract", 10) as bar:
        stream.broken = True
        for _ in range(10):
            bar.update()
            bar.note("x")


@pytest.mark.fault(75)
def test_without_standard_error_there_are_no_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    drive(Terminal())
