"""Count the package files that receive a source or a run.

    python benchmarks/call_depth.py [CHECKOUT] [--of extract merge] [--verbose]

Two calls are traced in processes of their own, with PYTHONPATH set to CHECKOUT (this repository by default):
`extract(source)` on the base `tests.fakes:base`, its worker process included, and `merge(run)` of a logistic head on
SqueezeNet with random weights at 48 px.

How it counts: a profile function sees each call of a function in ``bottleneck/``. The function's file is counted when
one of the arguments, or one element of ``*args`` or ``**kwargs``, is the subject itself:

- for `extract`: text, bytes or a path that equals the source's path, or an object of a class with the methods
  ``claims``, ``entries``, ``read`` and ``passed_over`` (an open source);
- for `merge`: text or a path that equals the run's folder, or an object of a class named ``Run`` or ``RunFolder``.

`self` is an argument too. What only holds the subject in an attribute does not count. Files are listed in the order in
which the subject first reached them, each with the functions that were given it. A second figure is the number of
files in which any function was called at all; bodies of modules and classes, which run at import, do not count.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

#: Installed in the traced process and in each process that it starts: Python imports this module by itself.
_HOOK = """
import json, os, sys, threading

KIND, SUBJECT, PACKAGE, LOG = (os.environ["CALL_DEPTH_" + name] for name in ("KIND", "SUBJECT", "PACKAGE", "LOG"))
SOURCE = ("claims", "entries", "read", "passed_over")
PATHS = {SUBJECT, os.fsencode(SUBJECT)}
seen, entered, kinds = set(), set(), {}


def is_subject(value):
    kind = type(value)
    if kind in (str, bytes):
        return value in PATHS
    if kind not in kinds:
        if hasattr(kind, "__fspath__"):
            kinds[kind] = "path"
        elif KIND == "extract":
            kinds[kind] = all(callable(getattr(kind, name, None)) for name in SOURCE)
        else:
            kinds[kind] = kind.__name__ in ("Run", "RunFolder") and kind.__module__.startswith("bottleneck.")
    if kinds[kind] == "path":
        return os.fspath(value) in PATHS
    return kinds[kind]


def note(code, how):
    line = json.dumps([code.co_filename[len(PACKAGE):], code.co_qualname, how]) + "\\n"
    file = os.open(LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, line.encode())
    os.close(file)


def profile(frame, event, _):
    code = frame.f_code
    if event != "call" or code in seen or not code.co_filename.startswith(PACKAGE) or not code.co_flags & 1:
        return
    if code.co_filename not in entered:
        entered.add(code.co_filename)
        note(code, "entered")
    plain = code.co_argcount + code.co_kwonlyargcount
    names = code.co_varnames[: plain + bool(code.co_flags & 4) + bool(code.co_flags & 8)]
    values = []
    for place, name in enumerate(names):
        value = frame.f_locals.get(name)
        if place < plain:
            values.append(value)
        elif isinstance(value, (tuple, dict)):
            values.extend(value.values() if isinstance(value, dict) else value)
    if any(is_subject(value) for value in values):
        seen.add(code)
        note(code, "given")


def install():
    threading.setprofile(profile)
    sys.setprofile(profile)


if os.environ.get("CALL_DEPTH_NOW"):
    install()
"""

_EXTRACT = """
import os, sys
import bottleneck, call_depth_hook
os.environ["CALL_DEPTH_NOW"] = "1"
call_depth_hook.install()
bottleneck.extract(sys.argv[1], "tests.fakes:base", cache=sys.argv[2])
"""

_PREPARE = """
import sys
import bottleneck
bottleneck.train(
    sys.argv[1], "squeezenet", weights="random:0", size=48, head="logistic", run=sys.argv[2], cache=sys.argv[3]
)
"""

_MERGE = """
import os, sys
import bottleneck, call_depth_hook
os.environ["CALL_DEPTH_NOW"] = "1"
call_depth_hook.install()
bottleneck.merge(sys.argv[1], sys.argv[2], cache=sys.argv[3])
"""


def write_images(folder: Path) -> None:
    """Write 24 noise images of two classes."""
    import numpy as np
    from PIL import Image

    draw = np.random.default_rng(0)
    for number in range(24):
        path = folder / ("cat", "dog")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 256, (48, 48, 3), np.uint8)).save(path)


def trace(kind: str, checkout: Path, work: Path) -> tuple[dict[str, list[str]], int]:
    """Return the files that received the subject, and the number entered."""
    hook, log, cache = work / "hook", work / f"{kind}.log", work / "cache"
    hook.mkdir(exist_ok=True)
    (hook / "call_depth_hook.py").write_text(_HOOK)
    (hook / "sitecustomize.py").write_text(
        "import os\nif os.environ.get('CALL_DEPTH_NOW'): import call_depth_hook\n"
    )
    images, run = work / "images", work / "run"
    if not images.exists():
        write_images(images)
    subject = images if kind == "extract" else run
    environment = {
        **os.environ,
        "PYTHONPATH": f"{hook}:{checkout}",
        "CALL_DEPTH_KIND": kind,
        "CALL_DEPTH_SUBJECT": str(subject),
        "CALL_DEPTH_PACKAGE": f"{checkout}/bottleneck/",
        "CALL_DEPTH_LOG": str(log),
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }

    def python(script: str, *arguments: Path) -> None:
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", script, *map(str, arguments)],
            env=environment,
            cwd=work,
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    if kind == "extract":
        python(_EXTRACT, images, cache)
    else:
        python(_PREPARE, images, run, cache)
        python(_MERGE, run, work / "merged.keras", cache)
    files: dict[str, list[str]] = {}
    entered = set()
    for line in log.read_text().splitlines():
        file, function, how = json.loads(line)
        entered.add(file)
        if how == "given" and function not in files.setdefault(file, []):
            files[file].append(function)
    return {file: functions for file, functions in files.items() if functions}, len(entered)


def main(arguments: list[str] | None = None) -> dict[str, int]:
    """Print the files of each call and their number."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkout", nargs="?", type=Path, default=ROOT)
    parser.add_argument("--of", nargs="+", choices=("extract", "merge"), default=["extract", "merge"])
    parser.add_argument("--verbose", action="store_true", help="name the functions too")
    options = parser.parse_args(arguments)
    counts = {}
    for kind in options.of:
        with tempfile.TemporaryDirectory() as work:
            files, entered = trace(kind, options.checkout.resolve(), Path(work).resolve())
        counts[kind] = len(files)
        subject = "source" if kind == "extract" else "run"
        print(f"{kind}: {len(files)} files receive the {subject}, {entered} files are entered")
        for file, functions in files.items():
            print(f"  {file}" + (f": {', '.join(functions)}" if options.verbose else ""))
    return counts


if __name__ == "__main__":
    main()
