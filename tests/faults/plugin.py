"""What became of each fault: a summary at the end of a run, and the table that `scripts/faults` keeps.

A test names the rows of `tests.faults.fault_list` that it injects: ``@pytest.mark.fault(29)``.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.faults.fault_list import AWAITED, LATER, ROWS

NOTE = "fault note"

#: Carries a test's rows from the process that ran it to the one that counts.
_ROWS = "fault rows"

_STARTED = pytest.StashKey[float]()
_SEEN = pytest.StashKey["dict[str, Seen]"]()


@dataclass
class Seen:
    """One test of one or more rows."""

    rows: tuple[int, ...]
    name: str
    outcome: str = "passed"
    why: str = ""
    notes: list[str] = field(default_factory=list)


def regime() -> str:
    """``full`` when `scripts/faults` asks for whole sweeps, else ``sample``: one seeded sample of each."""
    return os.environ.get("BOTTLENECK_FAULTS", "sample")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fault-table", metavar="FILE", help="write what became of each fault to FILE")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_STARTED] = time.monotonic()
    config.stash[_SEEN] = {}
    config.pluginmanager.register(_Watcher(config.stash[_SEEN]), "fault-watcher")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        rows = tuple(sorted({row for mark in item.iter_markers("fault") for row in mark.args}))
        if rows:
            item.user_properties.append((_ROWS, rows))


class _Watcher:
    """Hears of every test, also of those that another process ran."""

    def __init__(self, seen: dict[str, Seen]) -> None:
        self._seen = seen

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        rows = next((tuple(value) for name, value in report.user_properties if name == _ROWS), ())
        if not rows:
            return
        name = report.nodeid.rpartition("::")[2].partition("[")[0]
        seen = self._seen.setdefault(report.nodeid, Seen(rows, name))
        seen.notes = [str(value) for name, value in report.user_properties if name == NOTE]
        if report.failed:
            seen.outcome = "failed"
        elif report.skipped:
            seen.outcome = "skipped"
            seen.why = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
            seen.why = seen.why.removeprefix("Skipped: ")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    found = list(config.stash[_SEEN].values())
    if not found:
        return
    write = terminalreporter.write_line
    write("")
    run = {row for seen in found for row in seen.rows if seen.outcome != "skipped"}
    write(f"faults ({regime()}): {len(run)} of {len(ROWS)} rows injected")
    skipped = sorted({(row, seen.why) for seen in found for row in seen.rows if seen.outcome == "skipped"})
    for row, why in skipped:
        part = " in part" if row in run else ""
        write(f"  skipped{part}: {row} {ROWS.get(row, '')} ({why})")
    for row in sorted(AWAITED - run):
        write(f"  without a test: {row} {ROWS[row]}")
    for row, why in LATER.items():
        write(f"  without a test: {row} {ROWS[row]} ({why})")


def pytest_sessionfinish(session: pytest.Session) -> None:
    target = session.config.getoption("--fault-table")
    if target:
        seconds = time.monotonic() - session.config.stash[_STARTED]
        text = table(list(session.config.stash[_SEEN].values()), seconds)
        Path(target).write_text(text, encoding="utf-8")


def table(found: list[Seen], seconds: float) -> str:
    """The table as Markdown."""
    lines = [
        "# Faults injected",
        "",
        "Written by `scripts/faults`; each row is an entry of [fault_list.py](fault_list.py). "
        "The oracle: each served row equals a reference for the image's current bytes, or a typed error is raised; "
        "acknowledged work survives; a rerun completes without anyone cleaning up.",
        "",
        f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC, {regime()} regime, {seconds / 60:.1f} minutes; "
        f"{_machine()}.",
        "",
        "| row | fault | tests | outcome | notes |",
        "|---|---|---|---|---|",
    ]
    for row, fault in ROWS.items():
        mine = [seen for seen in found if row in seen.rows]
        names = list(dict.fromkeys(seen.name for seen in mine))
        tests = ", ".join(names[:3]) + (f", {len(names) - 3} more" if len(names) > 3 else "")
        notes = [note for seen in mine for note in seen.notes]
        notes += sorted({f"skipped: {seen.why}" for seen in mine if seen.outcome == "skipped"})
        cells = (str(row), fault, tests, _outcome(row, mine), "; ".join(notes))
        lines.append("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _outcome(row: int, mine: list[Seen]) -> str:
    if not mine:
        return LATER.get(row, "awaited" if row in AWAITED else "not run")
    count = {kind: sum(seen.outcome == kind for seen in mine) for kind in ("passed", "failed", "skipped")}
    if count["failed"]:
        return f"FAILED ({count['failed']} of {len(mine)})"
    if not count["passed"]:
        return "skipped"
    return f"passed ({count['passed']})"


def _machine() -> str:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    libraries = ", ".join(
        f"{name} {importlib.metadata.version(name)}" for name in ("numpy", "h5py", "keras", "tensorflow")
    )
    return (
        f"{platform.system()} {platform.release()} {platform.machine()}, {os.cpu_count()} processors, "
        f"{memory:.0f} GiB, Python {platform.python_version()}, {libraries}"
    )
