"""Training, measuring and taking features out, from Python and by the command line, with a base that is no network."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import bottleneck
from bottleneck import runs
from bottleneck.errors import SourceError, TooManyBadImages, UnknownName
from bottleneck.pipeline import stores
from tests.fakes import rows_by_hand, write_images
from tests.in_process import FAKE, Call, InProcessWorker, caller


@pytest.fixture(autouse=True)
def _worker_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("bottleneck.extraction.run.ExtractionRun.worker_type", InProcessWorker)
    monkeypatch.setenv("BOTTLENECK_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def call(capfdbinary: pytest.CaptureFixture[bytes]) -> Call:
    return caller(capfdbinary)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_images(tmp_path / "in", {"cat": 25, "dog": 25, "owl": 25})


def extract(call: Call, source: Path) -> dict[str, int]:
    done = call("extract", source, "--base", FAKE, "--json").json
    names = ("computed", "reused", "duplicates", "rejected")
    return {name: done[name] for name in names if done[name]}


def test_names_labels_folders_and_copies_are_free_and_one_pixel_is_not(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The issue's own sentence, at a hundredth of its size and by the command line."""
    from PIL import Image

    # The index is believed at once, and the changed file keeps its size: only the time of change can tell.
    monkeypatch.setattr("bottleneck.inventory.scan._SETTLED_NS", 0)
    source = write_images(tmp_path / "in", {"cat": 30, "dog": 30})
    with Image.open(source / "dog" / "001.png") as image:
        image.save(source / "dog" / "001.png", format="BMP")
    assert extract(call, source) == {"computed": 60}
    (source / "cat").rename(source / "felis catus")
    for folder in ("felis catus", "dog"):
        (tmp_path / "elsewhere" / folder).mkdir(parents=True)
        for path in sorted((source / folder).iterdir())[::2]:
            path.rename(tmp_path / "elsewhere" / folder / path.name)
    for path in sorted((source / "dog").iterdir())[:10]:
        shutil.copy2(path, source / "felis catus" / f"copy of {path.name}")
    assert extract(call, source) == {"reused": 30, "duplicates": 10}
    assert extract(call, tmp_path / "elsewhere") == {"reused": 30}
    victim = source / "dog" / "001.png"
    before = victim.stat()
    with Image.open(victim) as image:
        changed = image.copy()
    changed.putpixel((3, 4), (1, 2, 3))
    changed.save(victim, format="BMP")
    os.utime(victim, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = victim.stat()
    assert (after.st_mtime_ns, after.st_size, after.st_ino) == (
        before.st_mtime_ns,
        before.st_size,
        before.st_ino,
    )
    # Its copy still has the old content, so only the duplicate is one less.
    assert extract(call, source) == {"computed": 1, "reused": 30, "duplicates": 9}
    rows = bottleneck.features(source, FAKE)
    by_hand = rows_by_hand(source)
    assert set(rows.paths) == set(by_hand)
    for path, row in zip(rows.paths, rows.X, strict=True):
        np.testing.assert_array_equal(row, by_hand[path])


LOADERS = {
    "npy": (
        "import sys, numpy; folder = sys.argv[1]\n"
        "X = numpy.load(folder + '/features.npy', allow_pickle=False)\n"
        "assert not {'pyarrow', 'h5py', 'bottleneck.store'} & set(sys.modules)\n"
        "import pyarrow.parquet as pq; t = pq.read_table(folder + '/table.parquet')\n"
        "paths, labels, contents = (t.column(c).to_pylist() for c in ('path', 'label', 'content'))\n"
    ),
    "parquet": (
        "import sys, pyarrow.parquet as pq\n"
        "t = pq.read_table(sys.argv[1] + '/features.parquet')\n"
        "paths, labels, contents, X = (t.column(c).to_pylist() for c in ('path', 'label', 'content', 'features'))\n"
        "assert not {'h5py', 'bottleneck.store'} & set(sys.modules)\n"
        "import numpy; X = numpy.array(X, 'f4')\n"
    ),
    "h5": (
        "import sys, h5py\n"
        "with h5py.File(sys.argv[1] + '/features.h5') as f:\n"
        "    X = f['features'][:]; contents = [c.tobytes().hex() for c in f['content'][:]]\n"
        "    paths, labels = ([v.decode() for v in f[n][:]] for n in ('path', 'label'))\n"
        "assert not {'pyarrow', 'bottleneck.store'} & set(sys.modules)\n"
        "import numpy\n"
    ),
}


@pytest.mark.parametrize("kind", ["npy", "parquet", "h5"])
def test_features_load_elsewhere_with_one_library_and_are_the_joined_rows(
    call: Call, source: Path, tmp_path: Path, kind: str
) -> None:
    shutil.copy(source / "cat" / "003.png", source / "owl" / "copy.png")
    said = call("features", source, "--base", FAKE, "--out", tmp_path / "out", "--format", kind, "--json")
    assert said.json["shape"] == [76, 6]
    code = (
        LOADERS[kind]
        + "numpy.save(sys.argv[2], X); import json; json.dump([paths, labels, contents], sys.stdout)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "out"), str(tmp_path / "x.npy")],
        cwd=tmp_path / "out",
        capture_output=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    paths, labels, contents = json.loads(done.stdout)
    rows = bottleneck.features(source, FAKE)
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), rows.X)
    assert [path.encode() for path in paths] == list(rows.paths)
    assert labels == list(rows.y)
    assert contents == [key.tobytes().hex() for key in rows.keys]
    np.testing.assert_array_equal(
        rows.X[list(rows.paths).index(b"dog/007.png")], rows_by_hand(source)[b"dog/007.png"]
    )


def test_a_flat_folder_can_be_extracted_and_predicted_and_not_trained_on(
    call: Call, source: Path, tmp_path: Path
) -> None:
    flat = source / "cat"
    said = call("train", flat, "--base", FAKE, "--run", tmp_path / "run", "--json")
    assert said.status == 1
    for words in (
        "25 images and no labels",
        "one sub-folder a class",
        "train/, val/ and test/",
        "path,label",
    ):
        assert words in said.json["error"]
    assert call("train", source, "--base", FAKE, "--run", tmp_path / "run", "--quiet").status == 0
    said = call("predict", "--trust", tmp_path / "run", flat, "--json", "--quiet")
    assert [row["label"] for row in said.json["predictions"]] == ["cat"] * 25
    assert all(abs(sum(row["probabilities"].values()) - 1) < 1e-5 for row in said.json["predictions"])
    said = call("evaluate", "--trust", tmp_path / "run", flat, "--json")
    assert said.status == 2
    assert "no labelled images" in said.json["error"] and "bottleneck predict" in said.json["error"]


def test_given_splits_are_kept_and_copies_across_them_reported(call: Call, tmp_path: Path) -> None:
    source = tmp_path / "in"
    for seed, (name, count) in enumerate({"train": 20, "val": 6, "test": 8}.items()):
        write_images(source / name, {"cat": count, "dog": count}, seed=seed)
    said = call("train", source, "--base", FAKE, "--run", tmp_path / "run", "--json")
    assert said.json["counts"] == {"train": 40, "validation": 12, "test": 16}
    assert list(said.json["metrics"]) == ["train", "validation", "test"]
    assert said.json["advice"] == []
    shutil.copy(source / "train" / "cat" / "000.png", source / "test" / "cat" / "copy.png")
    said = call("train", source, "--base", FAKE, "--run", tmp_path / "run", "--json")
    (advice,) = said.json["advice"]
    assert "1 image on two sides of the given splits" in advice
    assert "test/cat/copy.png" in advice and "train/cat/000.png" in advice
    assert f"note: {advice}" in said.err


def test_a_table_with_groups_keeps_each_on_one_side(tmp_path: Path, source: Path) -> None:
    lines = ["path,label,group"]
    for name in ("cat", "dog", "owl"):
        lines += [f"in/{name}/{i:03d}.png,{name},person {i // 5} of {name}" for i in range(25)]
    (tmp_path / "table.csv").write_text("\n".join(lines))
    for kind, seed in (("hash", 1), ("exact", 0), ("exact", 3)):
        done = bottleneck.train(
            tmp_path / "table.csv", FAKE, run=tmp_path / "run", split=kind, seed=seed, validation=0.4
        )
        sides: dict[str, set[str]] = {}
        for row in done.folder.table().to_pylist():
            sides.setdefault(row["group"], set()).add(row["split"])
        assert len(sides) == 15
        assert all(len(side) == 1 for side in sides.values())
        assert {"train", "validation"} == set().union(*sides.values())


@pytest.mark.parametrize("asked", ["exact", "auto"])
def test_an_exact_split_takes_its_share_of_each_class_and_is_frozen(
    call: Call, source: Path, tmp_path: Path, asked: str
) -> None:
    """Asked for, or because classes are small: the run says which."""
    run = tmp_path / "run"
    options = ("--split", "exact") if asked == "exact" else ()
    said = call("train", source, "--base", FAKE, "--run", run, *options, "--validation", 0.2, "--json")
    why = "" if asked == "exact" else "the smallest class has 25 images, under 50"
    assert said.json["split"] == {"kind": "exact", "validation": 0.2, "seed": 0, "why": why}
    assert runs.read_run(run).run.split.why == why
    assert said.json["classes_without_images"] == {}
    assert said.json["counts"] == {"train": 60, "validation": 15, "test": 0}
    assert [c["images"] for c in said.json["metrics"]["validation"]["classes"]] == [5, 5, 5]
    before = runs.read_run(run).table()
    # More images, other names: the run's own figures do not move.
    write_images(source, {"cat": 25, "dog": 40}, seed=9)
    (source / "owl").rename(source / "strix")
    assert call("evaluate", "--trust", run, "--json").json["metrics"] == said.json["metrics"]
    assert runs.read_run(run).table().equals(before)


def test_bad_images_have_a_line_of_their_own_in_predictions(call: Call, source: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    bottleneck.train(source, FAKE, run=run)
    bad = tmp_path / "bad"
    write_images(bad, {"x": 2}, seed=3)
    for name in "abc":
        (bad / "x" / f"{name}.png").write_bytes(name.encode())
    found = bottleneck.predict(run, bad, trust=True)
    assert len(found) == 5
    assert [bool(error) for error in found.errors] == [False, False, True, True, True]
    assert np.isnan(found.probabilities[2:]).all() and np.isfinite(found.probabilities[:2]).all()
    assert found.labels[2:] == [None] * 3
    with pytest.raises(TooManyBadImages, match="3 of 5 images"):
        bottleneck.predict(run, bad, max_bad=0.1, trust=True)
    for path in (bad / "x").glob("0*"):
        path.unlink()
    assert bottleneck.predict(run, bad, trust=True).labels == [None] * 3
    shutil.rmtree(bad / "x")
    with pytest.raises(SourceError, match="no images were found"):
        bottleneck.predict(run, bad, trust=True)


def test_an_option_that_no_verb_has_is_refused_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="no option of extract called 'max_bat'; nearest: max_bad"):
        bottleneck.extract(tmp_path, "squeezenet", max_bat=0.5)
    with pytest.raises(UnknownName, match="no option of train called 'validaton'; nearest: validation"):
        bottleneck.train(tmp_path, "squeezenet", run=tmp_path / "run", validaton=0.5)
    with pytest.raises(UnknownName, match="no option of finetune called 'epoch'; nearest: epochs"):
        bottleneck.finetune(tmp_path / "run", "top:1", epoch=3)
    with pytest.raises(UnknownName, match="no option of merge called 'weights'"):
        bottleneck.merge(tmp_path / "run", tmp_path / "model.keras", weights="imagenet")
    with pytest.raises(UnknownName, match="no option of list_stores called 'cash'; nearest: cache"):
        stores.list_stores(cash=tmp_path)
