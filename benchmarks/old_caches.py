"""Check that this code reads what an earlier commit wrote.

    python benchmarks/old_caches.py [--commit 96ef23a] [--keep FOLDER] [--formats keras litert onnx]

The earlier commit is cloned from this repository into a temporary folder, and its command line makes, of images drawn
here: a store of the base `tests.fakes:base`, one of SqueezeNet (random weights, 64 px), one whose extraction is killed
halfway, two runs, a merged model with its certificate, and an export. Then the present command line reads all of it.
Each line of the table is one comparison of the two; exit status 1 when one fails. The table goes to
benchmarks/results/old_caches.json.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from measuring import ROOT, save, say, table

IMAGES = 60
FAKE = ["--base", "tests.fakes:base"]
SLOW = ["--base", "tests.fakes:slow_base"]
SQUEEZENET = ["--base", "squeezenet", "--weights", "random:0", "--size", "64"]
HEADS = {"logistic": [], "dense": ["--set", "epochs=3"]}
#: Rows of a task of the extraction that is killed, so that it has many tasks to be killed between.
TASK_ROWS = 4


class Code:
    """The command line of one checkout, as processes in the folder `work`."""

    def __init__(self, checkout: Path, work: Path) -> None:
        self.checkout, self.work = checkout, work
        self._environment = {**os.environ, "PYTHONPATH": str(checkout), "TF_CPP_MIN_LOG_LEVEL": "3"}

    def start(self, *arguments: str | Path) -> subprocess.Popen[bytes]:
        """Start Python with `arguments`, in a process group of its own."""
        return subprocess.Popen(
            [sys.executable, "-W", "ignore", *map(str, arguments)],
            cwd=self.work,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    def python(self, *arguments: str | Path) -> bytes:
        """Run Python with `arguments` and return its output."""
        process = self.start(*arguments)
        out, err = process.communicate(timeout=900)
        if process.returncode:
            words = (out + err).decode(errors="replace")[-2000:]
            raise RuntimeError(f"{self.checkout.name}: {arguments} ended with {process.returncode}: {words}")
        return out

    def run(self, *arguments: str | Path) -> bytes:
        """Run one command of the package, quietly."""
        return self.python("-m", "bottleneck", *arguments, "--quiet")

    def json(self, *arguments: str | Path) -> Any:
        """Run one command of the package and return its JSON object."""
        return json.loads(self.python("-m", "bottleneck", *arguments, "--json"))


def draw_images(folder: Path) -> None:
    """Draw red and green noise that a head can tell apart."""
    import numpy as np
    from PIL import Image

    draw = np.random.default_rng(0)
    for number in range(IMAGES):
        pixels = draw.integers(0, 160, (64, 64, 3), np.uint8)
        pixels[:, :, number % 2] += 90
        path = folder / ("red", "green")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)


def kill_halfway(old: Code) -> int:
    """Kill an old extraction after two shards; return the shards left."""
    builder = old.start(
        *(
            "-m",
            "tests.faults.small",
            str(TASK_ROWS),
            "0",
            "extract",
            "images",
            *SLOW,
            "--cache",
            "begun",
            "--json",
        )
    )
    shards: list[Path] = []
    while builder.poll() is None and len(shards) < 2:
        time.sleep(0.02)
        shards = list(old.work.glob("begun/stores/*/shards/*.h5"))
    os.killpg(builder.pid, signal.SIGKILL)
    builder.communicate()
    return len(list(old.work.glob("begun/stores/*/shards/*.h5")))


def write_old(old: Code, formats: list[str]) -> None:
    """Have the old code write everything that the present code must read."""
    for base, name in ((FAKE, "fake"), (SQUEEZENET, "squeezenet")):
        old.run("features", "images", *base, "--out", f"old-{name}", "--cache", "cache")
    old.run("features", "images", *SLOW, "--out", "old-slow", "--cache", "whole")
    for head, settings in HEADS.items():
        arguments = ["--head", head, "--run", f"runs/{head}", *settings, "--cache", "cache"]
        old.run("train", "images", *SQUEEZENET, *arguments)
        (old.work / f"old-{head}.csv").write_bytes(
            old.run("predict", f"runs/{head}", "images", "--cache", "cache")
        )
        evaluated = old.json("evaluate", f"runs/{head}", "--cache", "cache")
        (old.work / f"old-{head}.json").write_text(json.dumps(evaluated))
    old.run("merge", "runs/logistic", "--out", "old.keras", "--cache", "cache")
    (old.work / "old-merged.csv").write_bytes(old.run("predict", "old.keras", "images"))
    chosen = ["--format", ",".join(formats), "--out", "old-export"]
    old.run("export", "runs/logistic", *chosen, "--cache", "cache")


def digests(code: Code, cache: str) -> str:
    """Return the line that stands for the shard files of a cache."""
    return code.run("store", "verify", "--digest", "--cache", cache).decode().strip()


def taken_out(folder: Path) -> dict[str, Any]:
    """Return a matrix's sha256 and the columns of its table."""
    import pyarrow.parquet

    matrix = hashlib.sha256((folder / "features.npy").read_bytes()).hexdigest()
    return {"matrix": matrix, **pyarrow.parquet.read_table(folder / "table.parquet").to_pydict()}


def weights(model: Path) -> dict[str, bytes]:
    """Return each array in a .keras file: its shape, type and bytes."""
    import h5py

    found: dict[str, bytes] = {}
    with zipfile.ZipFile(model) as archive, h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as file:

        def add(name: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset):
                found[name] = f"{item.shape} {item.dtype} ".encode() + item[()].tobytes()

        file.visititems(add)
    return found


def run_export(folder: str, out: str) -> None:
    """Run each artefact of an export over fixed pixels."""
    import numpy as np

    from bottleneck import catalog
    from bottleneck.exports.bare import run_bare

    pixels = np.random.default_rng(1).integers(0, 256, (4, 64, 64, 3), np.uint8)
    results = {}
    for delivered in json.loads((Path(folder) / "export.json").read_text())["artefacts"]:
        kind = delivered["kind"]
        module, _, name = catalog.EXPORTERS[kind].partition(":")
        exporter = getattr(__import__(module, fromlist=[name]), name)
        ran = run_bare(exporter.reader, Path(folder) / delivered["path"], pixels=pixels)
        results.update({f"{kind} {stage}": rows for stage, rows in ran.outputs.items()})
    np.savez(out, **results)


def arrays(path: Path) -> dict[str, Any]:
    """Return the arrays of an .npz file."""
    import numpy as np

    with np.load(path) as file:
        return {name: file[name] for name in file.files}


class Checks:
    """Comparisons by name, each with its outcome."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def check(self, name: str, compare: Callable[[], str]) -> None:
        """Run a comparison, which returns what it saw or raises."""
        say(f"{name} …")
        try:
            self.rows.append({"check": name, "passed": True, "detail": compare()})
        except Exception as error:  # any failure of the present code is a line of the table
            self.rows.append({"check": name, "passed": False, "detail": f"{type(error).__name__}: {error}"})


def equal(old: Any, new: Any, what: str) -> str:
    """Raise unless both are equal."""
    if old != new:
        raise AssertionError(f"{what} differ: {str(old)[:200]} and {str(new)[:200]}")
    return f"{what} equal"


def check_stores(checks: Checks, old: Code, new: Code) -> None:
    """Compare what both say of the old stores, and extract again."""
    work = new.work
    before = digests(old, "cache")
    checks.check("store ls", lambda: f"{len(new.json('store', 'ls', '--cache', 'cache')['stores'])} stores")
    checks.check("store verify", lambda: (new.run("store", "verify", "--cache", "cache"), "whole")[1])
    checks.check("store verify --digest", lambda: equal(before, digests(new, "cache"), "digests"))
    for base, name in ((FAKE, "fake"), (SQUEEZENET, "squeezenet")):

        def again(base: list[str] = base) -> str:
            done = new.json("extract", "images", *base, "--cache", "cache")
            return equal((0, IMAGES), (done["computed"], done["reused"]), "0 computed, all reused:")

        def rows(base: list[str] = base, name: str = name) -> str:
            new.run("features", "images", *base, "--out", f"new-{name}", "--cache", "cache")
            return equal(taken_out(work / f"old-{name}"), taken_out(work / f"new-{name}"), "matrix and table")

        checks.check(f"extract {name} again", again)
        checks.check(f"features {name}", rows)
    checks.check("store verify --digest after it", lambda: equal(before, digests(new, "cache"), "digests"))


def check_interrupted(checks: Checks, old: Code, new: Code) -> None:
    """Kill an old extraction, then continue it with present code."""

    def go_on() -> str:
        left = kill_halfway(old)
        if not 0 < left < IMAGES // TASK_ROWS:
            raise AssertionError(f"the kill left {left} shards; try again")
        kept = left * TASK_ROWS
        done = new.json("extract", "images", *SLOW, "--cache", "begun")
        equal((IMAGES - kept, kept), (done["computed"], done["reused"]), "computed and reused")
        new.run("features", "images", *SLOW, "--out", "new-slow", "--cache", "begun")
        equal(
            taken_out(new.work / "old-slow"), taken_out(new.work / "new-slow"), "rows of an undisturbed run"
        )
        return f"{kept} rows kept, {IMAGES - kept} computed, rows equal"

    checks.check("an interrupted extraction goes on", go_on)


def check_runs(checks: Checks, new: Code) -> None:
    """Compare figures, predictions and the merged model of the old runs."""
    work = new.work

    def predictions(source: str, against: str, *cache: str) -> str:
        return equal(
            (work / against).read_bytes(), new.run("predict", source, "images", *cache), "predictions"
        )

    def figures(head: str) -> str:
        old = json.loads((work / f"old-{head}.json").read_text())
        return equal(old, new.json("evaluate", f"runs/{head}", "--cache", "cache"), "figures")

    def merged() -> str:
        new.run("merge", "runs/logistic", "--out", "new.keras", "--cache", "cache")
        before, after = weights(work / "old.keras"), weights(work / "new.keras")
        equal(before, after, "weights")
        return f"{len(before)} arrays equal, byte for byte"

    def verdict() -> str:
        both = [json.loads((work / f"{name}.parity.json").read_text())["verdict"] for name in ("old", "new")]
        return equal(*both, "verdicts") + f": {both[0]}"

    for head in HEADS:
        checks.check(f"evaluate the {head} run", lambda head=head: figures(head))
        checks.check(
            f"predict by the {head} run",
            lambda head=head: predictions(f"runs/{head}", f"old-{head}.csv", "--cache", "cache"),
        )
    checks.check("merge of the old run", merged)
    checks.check("certificates", verdict)
    checks.check("predict by the old merged model", lambda: predictions("old.keras", "old-merged.csv"))


def check_export(checks: Checks, old: Code, new: Code) -> None:
    """Run the old export by the readers of both."""

    def outputs() -> str:
        found = []
        for code, name in ((old, "old-outputs.npz"), (new, "new-outputs.npz")):
            code.python(Path(__file__), "--run-export", "old-export", name)
            found.append({key: rows.tobytes() for key, rows in arrays(code.work / name).items()})
        equal(*found, "outputs")
        return f"outputs equal: {', '.join(found[0])}"

    checks.check("the old export by the present readers", outputs)


@contextmanager
def working_folder(keep: Path | None) -> Iterator[Path]:
    """Give `keep`, or a folder that is removed afterwards."""
    if keep is not None:
        keep.mkdir(parents=True)
        yield keep.resolve()
        return
    with tempfile.TemporaryDirectory(prefix="old-caches-") as folder:
        yield Path(folder).resolve()


def clone(commit: str, target: Path) -> Path:
    """Clone this repository at `commit`."""
    subprocess.run(["git", "clone", "-q", "--no-checkout", str(ROOT), str(target)], check=True)
    subprocess.run(["git", "-C", str(target), "checkout", "-q", commit], check=True)
    return target


def main() -> int:
    """Write with old code, compare with present code, save the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--commit", default="96ef23a")
    parser.add_argument("--keep", type=Path, help="a new folder to work in, which is kept")
    parser.add_argument("--formats", nargs="+", default=["keras", "litert", "onnx", "openvino"])
    parser.add_argument("--run-export", nargs=2, metavar=("FOLDER", "OUT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run_export:
        run_export(*options.run_export)
        return 0
    started, checks = time.monotonic(), Checks()
    with working_folder(options.keep) as folder:
        work = folder / "work"
        draw_images(work / "images")
        old, new = Code(clone(options.commit, folder / "old"), work), Code(ROOT, work)
        say(f"writing by {options.commit} …")
        write_old(old, options.formats)
        check_stores(checks, old, new)
        check_interrupted(checks, old, new)
        check_runs(checks, new)
        check_export(checks, old, new)
    table(
        f"what {options.commit} wrote, by the present code",
        ["check", "outcome", "detail"],
        [[row["check"], "ok" if row["passed"] else "FAILED", row["detail"][:60]] for row in checks.rows],
    )
    save(
        "old_caches",
        {
            "old_commit": options.commit,
            "images": IMAGES,
            "formats": options.formats,
            "seconds": round(time.monotonic() - started, 1),
            "checks": checks.rows,
        },
    )
    return 0 if all(row["passed"] for row in checks.rows) else 1


if __name__ == "__main__":
    sys.exit(main())
