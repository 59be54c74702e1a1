"""Show promises: demo, model and SavedModel without this package, light face.

    python benchmarks/showcase.py demo      five split seeds from an empty folder, and once more: nothing to compute
    python benchmarks/showcase.py model     100 images of mixed formats, in an environment with only TensorFlow
    python benchmarks/showcase.py bytes     200 image files as they are, through the SavedModel in that environment
    python benchmarks/showcase.py face      import time, --help, and pandas beside us
    python benchmarks/showcase.py           all of these

`model` and `bytes` make that environment once with venv and ``pip install tensorflow`` (needs a package index; --venv
says where it lies) and the images with Pillow from this one. Figures go to benchmarks/results/showcase_*.json; exit
status 1 when a promise is not kept. A start that was cut off goes on where it ended.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import measuring
from measuring import OURS, Steps, say, table
from watching import watched

Verdicts = list[tuple[str, str, bool]]


def verdicts(title: str, found: Verdicts) -> bool:
    """Print what was asked, what was found, and whether it was kept."""
    table(
        title, ["", "found", ""], [[what, value, "kept" if ok else "NOT KEPT"] for what, value, ok in found]
    )
    return all(ok for _, _, ok in found)


# ------------------------------------------------------------------------------------------------ the demo


def show_demo(given: argparse.Namespace, steps: Steps) -> bool:
    """Digits from an empty folder, five split seeds; then once more."""
    out = given.work / "demo"
    cache = given.work / "caches" / "demo"

    def one(seed: int) -> dict[str, Any]:
        if seed == 0:
            shutil.rmtree(out, ignore_errors=True)
            measuring.fresh_cache(given.work, cache.name)
        told = run_demo(seed)
        dense = told["heads"]["dense"]["metrics"]["validation"]["accuracy"]
        return {**told["figures"], "dense": dense}

    def run_demo(seed: int) -> dict[str, Any]:
        command = [*OURS, "demo", "--seed", str(seed), "--out", str(out), "--cache", str(cache), "--json"]
        done = watched(command, timeout=given.timeout)
        told = done.json()
        held = told["heads"]["logistic"]["metrics"]["validation"]
        certificate = json.loads(Path(told["delivery"]["parity"]).read_text("utf-8"))
        told["figures"] = {
            "seed": seed,
            **done.figures(),
            "computed": told["extraction"]["computed"],
            "logistic": held["accuracy"],
            "held_out": held["images"],
            "best": told["best"],
            "verdict": certificate["verdict"],
            "recipe": told["extraction"]["recipe"],
        }
        return told

    rounds = [steps.run(f"demo, seed {seed}", lambda s=seed: one(s)) for seed in range(5)]
    again = steps.run("demo, seed 0 again", lambda: run_demo(0)["figures"])
    mean = statistics.mean(r["logistic"] for r in rounds)
    table(
        "The demo: scikit-learn's digits, SqueezeNet at 96 px",
        ["split seed", "computed", "held out", "logistic", "dense", "merged", "parity", "s", "peak MiB"],
        [
            [
                label,
                str(r["computed"]),
                str(r["held_out"]),
                f"{r['logistic']:.4f}",
                f"{r['dense']:.4f}" if "dense" in r else "",
                r["best"],
                r["verdict"],
                f"{r['seconds']:.1f}",
                f"{r['peak_mib']:.0f}",
            ]
            for label, r in [*((str(r["seed"]), r) for r in rounds), ("0 again", again)]
        ],
    )
    kept = verdicts(
        "Asked for",
        [
            ("logistic, mean of 5 seeds ≥ 0.97", f"{mean:.4f}", mean >= 0.97),
            (
                "parity certified, every time",
                ", ".join(sorted({r["verdict"] for r in [*rounds, again]})),
                all(r["verdict"] == "certified" for r in [*rounds, again]),
            ),
            ("again: 0 images computed", str(again["computed"]), again["computed"] == 0),
            ("again: under 20 s", f"{again['seconds']:.1f} s", again["seconds"] < 20),
        ],
    )
    measuring.save("showcase_demo", {"rounds": rounds, "again": again, "mean_logistic": mean, "kept": kept})
    return kept


# ------------------------------------------------------------------------------------------------ the model alone

#: Runs in the environment that has only TensorFlow; `decode.py` lies beside it.
READER = """
import importlib.util, json, os, sys
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
foreign = [n for n in ("bottleneck", "sklearn", "pandas", "PIL", "pyarrow") if importlib.util.find_spec(n)]
import keras, numpy as np, tensorflow as tf
from decode import decode
model = keras.saving.load_model(sys.argv[1])
folder, out = sys.argv[2], {}
names = sorted(os.listdir(folder))
pixels = []
for name in names:
    data = open(os.path.join(folder, name), "rb").read()
    x = np.asarray(decode(data))
    pixels.append(x)
    out[name] = {"one": np.asarray(model(x[None]))[0].tolist(), "naive": None}
    try:
        naive = tf.image.resize(tf.io.decode_image(data, channels=3, expand_animations=False), x.shape[:2])
        out[name]["naive"] = np.asarray(model(naive[None]))[0].tolist()
    except tf.errors.InvalidArgumentError:
        pass  # decode_image takes fewer kinds than decode.py
for name, row in zip(names, model.predict(np.stack(pixels), verbose=0)):
    out[name]["batch"] = row.tolist()
print(json.dumps({"foreign": foreign, "tensorflow": tf.__version__, "rows": out}))
"""


def show_model(given: argparse.Namespace, steps: Steps) -> bool:
    """The merged file and decode.py in a bare environment against `bottleneck predict`."""
    python = bare_environment(given.venv)
    images = given.work / "mixed"
    kinds = make_images(images, 100)
    out = given.work / "model"

    def compare(model: Path, run: Path) -> dict[str, Any]:
        shutil.copyfile(model.parent / "decode.py", reader.parent / "decode.py")
        bare = {"PYTHONPATH": "", "PYTHONNOUSERSITE": "1"}
        read = watched(
            [python, str(reader), str(model), str(images)],
            timeout=given.timeout,
            extra=bare,
            cwd=reader.parent,
        ).json()
        return {
            "foreign": read["foreign"],
            "tensorflow": read["tensorflow"],
            **differences(read["rows"], predictions(given, model, images), predictions(given, run, images)),
        }

    reader = given.work / "reader" / "reader.py"
    reader.parent.mkdir(parents=True, exist_ok=True)
    reader.write_text(READER, "utf-8")
    best = steps.run("model: demo and a soft head, merged", lambda: two_heads(given))["best"]
    found = {
        "demo's": steps.run("model: the demo's", lambda: compare(out / "model.keras", out / "runs" / best)),
        "soft": steps.run(
            "model: the soft one", lambda: compare(out / "soft" / "model.keras", out / "runs" / "soft")
        ),
    }
    table(
        f"{sum(kinds.values())} images, in an environment with only TensorFlow",
        ["kind", "images"],
        [[kind, str(count)] for kind, count in kinds.items()],
    )
    table(
        "Largest difference of a probability",
        ["head", "predicted", "reader - predict MODEL", "reader - predict RUN", "one - batch", "control",
         "median top"],
        [
            [
                name,
                f"{r['predicted_model']} / {r['predicted_run']}",
                f"{r['model']:.1e}",
                f"{r['run']:.1e}",
                f"{r['batch']:.1e}",
                f"{r['control']:.2f}",
                f"{r['median_top']:.2f}",
            ]
            for name, r in found.items()
        ],
    )  # fmt: skip
    print(
        "  control: the same with tf.io.decode_image and tf.image.resize in place of decode.py; must be large"
    )
    count = sum(kinds.values())
    worst = max(max(r["model"], r["run"], r["batch"]) for r in found.values())
    foreign = sorted({name for r in found.values() for name in r["foreign"]})
    all_there = all(r["predicted_model"] == r["predicted_run"] == count for r in found.values())
    kept = verdicts(
        "Asked for",
        [
            ("only TensorFlow there", ", ".join(foreign) or "no foreign package", not foreign),
            (f"all {count} images predicted, both ways", "yes" if all_there else "no", all_there),
            ("largest difference ≤ 1e-5", f"{worst:.1e}", worst <= 1e-5),
            (
                "control differs by ≥ 0.01",
                f"{found['soft']['control']:.3f}",
                found["soft"]["control"] >= 0.01,
            ),
        ],
    )
    measuring.save("showcase_model", {"images": kinds, "heads": found, "worst": worst, "kept": kept})
    return kept


def two_heads(given: argparse.Namespace) -> dict[str, Any]:
    """The demo, and a soft head beside it; both merged."""
    out, cache = given.work / "model", given.work / "caches" / "model"
    shutil.rmtree(out, ignore_errors=True)
    measuring.fresh_cache(given.work, cache.name)
    command = [*OURS, "demo", "--out", str(out), "--cache", str(cache), "--json"]
    told = watched(command, timeout=given.timeout).json()
    # A run with a soft head as well: the demo's own is sure of most images, and 0 equals 0 proves little.
    base = ["--base", "squeezenet", "--weights", "imagenet", "--cut", "fire8", "--size", "96"]
    run = str(out / "runs" / "soft")
    train = [*OURS, "train", str(out / "digits"), *base, "--set", "C=0.0001", "--run", run]
    watched([*train, "--cache", str(cache), "--json"], timeout=given.timeout)
    soft = out / "soft" / "model.keras"
    watched([*OURS, "merge", run, "--out", str(soft), "--cache", str(cache), "--json"], timeout=given.timeout)
    return {"best": told["best"]}


def predictions(given: argparse.Namespace, what: Path, images: Path) -> dict[str, list[float]]:
    """Probabilities by file name, of those that `bottleneck predict` gives any."""
    cache = given.work / "caches" / "model"
    command = [*OURS, "predict", str(what), str(images), "--format", "jsonl", "--cache", str(cache)]
    done = watched([*command, "--quiet"], timeout=given.timeout)
    lines = [json.loads(line) for line in done.output.splitlines()]
    bad = [line for line in lines if "error" in line]
    for line in bad:
        say(f"rejected: {line['path']}: {line['error']}")
    return {line["path"]: list(line["probabilities"].values()) for line in lines if "error" not in line}


def differences(
    rows: dict[str, Any], model: dict[str, list[float]], run: dict[str, list[float]]
) -> dict[str, Any]:
    """Return the largest differences between the reader's probabilities and ours."""

    def largest(other: Callable[[str], list[float] | None]) -> float:
        pairs = [(row["one"], other(name)) for name, row in rows.items()]
        return max(abs(a - b) for one, two in pairs if two for a, b in zip(one, two, strict=True))

    return {
        "predicted_model": len(model),
        "predicted_run": len(run),
        "model": largest(model.get),
        "run": largest(run.get),
        "batch": largest(lambda name: rows[name]["batch"]),
        "control": largest(lambda name: rows[name]["naive"]),
        "median_top": statistics.median(max(row["one"]) for row in rows.values()),
    }


def bare_environment(folder: Path) -> str:
    """Make an environment with TensorFlow, once; return its Python."""
    python, mark = folder / "bin" / "python", folder / ".made"
    if not mark.is_file():
        say(f"making an environment with only TensorFlow in {folder} (once)")
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True, timeout=300)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "tensorflow"]
        subprocess.run(pip, check=True, timeout=1800, stderr=subprocess.DEVNULL)
        mark.touch()
    return str(python)


def make_images(folder: Path, count: int) -> dict[str, int]:
    """Write `count` images of every kind the pixel contract reads."""
    import numpy as np
    from PIL import Image

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    kinds: Counter[str] = Counter()
    sizes = [(5, 3), (3, 5), (1, 400), (400, 1), (31, 33), (96, 96), (97, 95), (191, 192), (200, 150),
             (333, 500), (640, 480), (500, 375), (1024, 100), (60, 900), (2000, 1500)]  # fmt: skip
    chance = random.Random(7)

    def picture(width: int, height: int, seed: int) -> np.ndarray:
        # Coloured slopes, waves and a rough patch: every channel, direction and scale matters.
        rng = np.random.default_rng(seed)
        y, x = np.mgrid[0:height, 0:width].astype(np.float32)
        y, x = y / max(1, height - 1), x / max(1, width - 1)
        a, b, c = rng.uniform(2, 12, 3)
        image = np.stack([x * 200 + 40 * np.sin(a * y * 6), y * 200 + 40 * np.cos(b * x * 6),
                          120 + 100 * np.sin(c * (x + y) * 3)], axis=-1)  # fmt: skip
        rough = rng.normal(0, 25, image.shape) * (x > 0.6)[..., None]
        return np.clip(image + rough, 0, 255).astype(np.uint8)

    def save(kind: str, suffix: str, image: Any, **options: Any) -> None:
        image.save(folder / f"{sum(kinds.values()):03d}-{kind.replace(' ', '-')}.{suffix}", **options)
        kinds[kind] += 1

    def rgb(number: int) -> Any:
        return Image.fromarray(picture(*sizes[number % len(sizes)], seed=number))

    def with_alpha(image: Any) -> Any:
        alpha = np.asarray(image.convert("L").rotate(180))
        return Image.merge("RGBA", [*image.split(), Image.fromarray(np.ascontiguousarray(alpha))])

    def turned(number: int) -> Any:
        exif = Image.Exif()
        exif[0x0112] = number % 8 + 1
        return exif

    def deep(number: int) -> Any:
        grey = picture(*sizes[number % len(sizes)], seed=number)[..., 0].astype(np.uint16)
        return Image.fromarray(grey * 257 + 3)

    def animated(number: int) -> dict[str, Any]:
        more = [Image.fromarray(picture(*rgb(number).size, seed=900 + k)).convert("P") for k in range(2)]
        return {"save_all": True, "append_images": more, "duration": 100}

    makers: list[tuple[str, str, Callable[[int], Any], Callable[[int], dict[str, Any]]]] = [
        ("jpeg rgb", "jpg", rgb, lambda n: {"quality": 90}),
        ("jpeg 4-4-4", "jpg", rgb, lambda n: {"quality": 75, "subsampling": 0}),
        ("jpeg progressive", "jpg", rgb, lambda n: {"progressive": True}),
        ("jpeg grey", "jpg", lambda n: rgb(n).convert("L"), lambda n: {}),
        ("jpeg cmyk", "jpg", lambda n: rgb(n).convert("CMYK"), lambda n: {}),
        ("jpeg turned by exif", "jpg", rgb, lambda n: {"exif": turned(n)}),
        ("png rgb", "png", rgb, lambda n: {}),
        ("png grey", "png", lambda n: rgb(n).convert("L"), lambda n: {}),
        ("png 1 bit", "png", lambda n: rgb(n).convert("1"), lambda n: {}),
        ("png palette", "png", lambda n: rgb(n).convert("P"), lambda n: {}),
        ("png palette, transparent", "png", lambda n: rgb(n).convert("P"), lambda n: {"transparency": 3}),
        ("png alpha", "png", lambda n: with_alpha(rgb(n)), lambda n: {}),
        ("png grey and alpha", "png", lambda n: with_alpha(rgb(n)).convert("LA"), lambda n: {}),
        ("png 16 bit", "png", deep, lambda n: {}),
        ("png turned by exif", "png", rgb, lambda n: {"exif": turned(n)}),
        ("gif", "gif", lambda n: rgb(n).convert("P"), lambda n: {}),
        ("gif animated", "gif", lambda n: rgb(n).convert("P"), animated),
        ("bmp", "bmp", rgb, lambda n: {}),
        ("bmp grey", "bmp", lambda n: rgb(n).convert("L"), lambda n: {}),
        ("webp", "webp", rgb, lambda n: {"quality": 80}),
        ("webp lossless", "webp", rgb, lambda n: {"lossless": True}),
        ("webp alpha", "webp", lambda n: with_alpha(rgb(n)), lambda n: {"lossless": True}),
    ]
    chance.shuffle(sizes)
    for number in range(count):
        kind, suffix, image, options = makers[number % len(makers)]
        save(kind, suffix, image(number), **options(number))
    return dict(kinds)


# ------------------------------------------------------------------------------------------------ files as they are

#: Runs in the environment that has only TensorFlow, and is called as a server calls it: a batch of files in.
SERVER = """
import importlib.util, json, os, sys
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
foreign = [n for n in ("bottleneck", "sklearn", "pandas", "PIL", "pyarrow") if importlib.util.find_spec(n)]
import tensorflow as tf
model = tf.saved_model.load(sys.argv[1])
serve = model.signatures["serve_bytes"]
names = sorted(os.listdir(sys.argv[2]))
rows = {}
for start in range(0, len(names), 16):
    part = names[start:start + 16]
    files = [open(os.path.join(sys.argv[2], name), "rb").read() for name in part]
    found = serve(image_bytes=tf.constant(files))["probabilities"].numpy()
    rows.update(zip(part, found.tolist()))
print(json.dumps({"foreign": foreign, "tensorflow": tf.__version__, "rows": rows}))
"""


def show_bytes(given: argparse.Namespace, steps: Steps) -> bool:
    """Compare the SavedModel's own decoding of 200 files with the head."""
    python = bare_environment(given.venv)
    images = given.work / "mixed-200"
    kinds = make_images(images, 200)
    out, count = given.work / "model", 200
    best = steps.run("bytes: demo and a soft head, merged", lambda: two_heads(given))["best"]
    server = given.work / "reader" / "server.py"
    server.parent.mkdir(parents=True, exist_ok=True)
    server.write_text(SERVER, "utf-8")

    def compare(name: str) -> dict[str, Any]:
        run, folder = out / "runs" / name, out / f"export-{name}"
        export = [*OURS, "export", str(run), "--format", "saved_model", "--out", str(folder), "--json"]
        watched([*export, "--cache", str(given.work / "caches" / "model")], timeout=given.timeout)
        bare = {"PYTHONPATH": "", "PYTHONNOUSERSITE": "1"}
        served = watched(
            [python, str(server), str(folder / "saved_model"), str(images)],
            timeout=given.timeout,
            extra=bare,
            cwd=server.parent,
        ).json()
        head = predictions(given, run, images)
        pairs = [(row, head[file]) for file, row in served["rows"].items() if file in head]
        return {
            "foreign": served["foreign"],
            "tensorflow": served["tensorflow"],
            "compared": len(pairs),
            "largest": max(abs(a - b) for one, two in pairs for a, b in zip(one, two, strict=True)),
            "median_top": statistics.median(max(row) for row, _ in pairs),
        }

    found = {name: steps.run(f"bytes: {name}", lambda n=name: compare(n)) for name in (best, "soft")}
    worst = max(one["largest"] for one in found.values())
    answered, soft = min(one["compared"] for one in found.values()), found["soft"]
    kept = verdicts(
        f"{count} files as they are, through SavedModel's `serve_bytes` in an environment with only TensorFlow",
        [
            (
                "only TensorFlow there",
                ", ".join(soft["foreign"]) or "no foreign package",
                not soft["foreign"],
            ),
            ("files answered, twice", str(answered), answered == count),
            ("largest difference to the cached head ≤ 1e-5", f"{worst:.1e}", worst <= 1e-5),
            ("the soft head is not sure of itself", f"{soft['median_top']:.2f}", soft["median_top"] < 0.9),
        ],
    )
    measuring.save("showcase_bytes", {"images": kinds, "heads": found, "worst": worst, "kept": kept})
    return kept


# ------------------------------------------------------------------------------------------------ the face

PANDAS = """
import warnings
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import bottleneck
    import pandas as pd
    s, d = pd.Series([1.0, float("nan"), 3.0]), pd.DataFrame({"a": [1.0, 2.0, 6.0], "b": [3.0, 4.0, 5.0]})
    right = s.max() == 3.0 and s.sum() == 4.0 and d.median().tolist() == [2.0, 4.0] and d.max().tolist() == [6.0, 5.0]
import json
print(json.dumps({"right": bool(right), "warnings": [f"{w.category.__name__}: {w.message}" for w in caught],
                  "pandas": pd.__version__}))
"""
FOREIGN = (
    "import sys; before = set(sys.modules); import bottleneck; "
    "print(sorted({m.split('.')[0] for m in set(sys.modules) - before}"
    " - set(sys.stdlib_module_names) - {'bottleneck'}))"
)


def show_face(given: argparse.Namespace, steps: Steps) -> bool:
    """What `import bottleneck` and `--help` cost, and whether pandas survives us."""
    from bench import face_times

    times = steps.run("face: times", lambda: face_times(21))
    foreign = watched([sys.executable, "-c", FOREIGN], timeout=60).output.strip()
    beside = watched([sys.executable, "-c", PANDAS], timeout=120).json()
    imports, helped = times["import_ms"], times["help_s"]
    kept = verdicts(
        "The face",
        [
            ("import bottleneck ≤ 15 ms", f"{imports['median']:.1f} ms", imports["median"] <= 15),
            ("imports beyond the standard library: none", foreign, foreign == "[]"),
            ("bottleneck --help ≤ 0.5 s", f"{helped['median']:.2f} s", helped["median"] <= 0.5),
            (f"pandas {beside['pandas']} counts right", str(beside["right"]), beside["right"]),
            ("warnings at import pandas: 1", str(len(beside["warnings"])), len(beside["warnings"]) == 1),
        ],
    )
    for warning in beside["warnings"]:
        print(f"  {warning}")
    measuring.save("showcase_face", {**times, "foreign": foreign, "pandas": beside, "kept": kept})
    return kept


def main() -> int:
    shows: dict[str, Callable[[argparse.Namespace, Steps], bool]] = {
        "demo": show_demo,
        "model": show_model,
        "bytes": show_bytes,
        "face": show_face,
    }
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="*", default=[], help=f"Of {', '.join(shows)}; all by default.")
    parser.add_argument("--work", type=Path, default=measuring.WORK)
    parser.add_argument(
        "--venv", type=Path, help="The environment with only TensorFlow.  [default: in --work]"
    )
    parser.add_argument("--again", action="store_true", help="Forget steps of a start that was cut off.")
    parser.add_argument("--timeout", type=float, default=1800, metavar="SECONDS", help="For each command.")
    given = parser.parse_args()
    for name in given.what:
        if name not in shows:
            parser.error(f"{name!r} is none of {', '.join(shows)}")
    given.work = given.work.resolve()
    given.venv = Path(os.path.abspath(given.venv or given.work / "only-tensorflow"))
    started, kept = time.perf_counter(), True
    measuring.squeezenet_weights(given.work)
    for name in given.what or shows:
        steps = Steps(given.work, f"showcase_{name}", {}, again=given.again)
        kept &= shows[name](given, steps)
        steps.forget()
    print(f"\n  {'all kept' if kept else 'NOT all kept'}, {time.perf_counter() - started:.0f} s")
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
