"""Bad input by the command line: a clear message, a rejection or a counted ignore; nothing else is lost."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes import write_images
from tests.in_process import FAKE, Call, caller

ROOT = Path(__file__).parents[2]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_images(tmp_path / "in", {"cat": 12, "dog": 12})


def extract(call: Call, source: object, *more: object) -> dict[str, object]:
    said = call("extract", source, "--base", FAKE, "--json", *more)
    assert said.status == 0, said.out
    done = said.json
    assert done["images"] == done["computed"] + done["reused"] + done["duplicates"] + done["rejected"]
    return done


def refused(call: Call, status: int, *arguments: object) -> str:
    """The message of a command that must fail: the same one as text and as an object."""
    said = call(*arguments, "--json")
    assert said.status == status, (said.out, said.err)
    assert said.json["exit_status"] == status
    assert said.err.splitlines()[-1] in f"error: {said.json['error']}" or "\n" in said.json["error"]
    assert "Traceback" not in said.err
    return str(said.json["error"])


def train(source: object, run: object, *more: object) -> tuple[object, ...]:
    return ("train", source, "--base", FAKE, "--run", run, *more)


def test_nothing_there_names_the_nearest_folder_and_the_layouts(call: Call, source: Path) -> None:
    text = refused(call, 1, "extract", source / "cta", "--base", FAKE)
    assert "nothing is there" in text and str(source) in text and "one sub-folder a class" in text


@pytest.mark.fault(59)
def test_no_images(call: Call, tmp_path: Path) -> None:
    (tmp_path / "in" / "cat").mkdir(parents=True)
    assert "no images were found" in refused(call, 1, "extract", tmp_path / "in", "--base", FAKE)
    (tmp_path / "in" / "cat" / "notes.txt").write_text("nothing here")
    text = refused(call, 1, *train(tmp_path / "in", tmp_path / "run"))
    assert "no images were found (passed over: 1 not an image)" in text and "JPEG, PNG" in text


@pytest.mark.fault(59)
def test_one_class(call: Call, tmp_path: Path) -> None:
    source = write_images(tmp_path / "in", {"cat": 9})
    text = refused(call, 1, *train(source, tmp_path / "run"))
    assert "all 9 labelled images are of one class, 'cat'" in text and "at least two" in text
    # Refused by the scan, before anything was computed.
    assert extract(call, source)["computed"] == 9


@pytest.mark.fault(59)
def test_a_class_of_one_image_is_trained_on_and_reported(call: Call, source: Path, tmp_path: Path) -> None:
    write_images(source, {"owl": 1}, seed=7)
    # Some seed puts the one image into validation; that is refused, and says how to go on.
    for seed in range(10):
        said = call(*train(source, tmp_path / f"run{seed}", "--split", "hash", "--seed", seed, "--json"))
        if said.status:
            assert "'owl' (1 validation)" in said.json["error"] and "--split exact" in said.json["error"]
        else:
            assert any("1 class of one image: 'owl'" in text for text in said.json["advice"])
    said = call(*train(source, tmp_path / "exact", "--json"))
    assert said.status == 0
    assert said.json["split"]["kind"] == "exact"
    assert said.json["classes_without_images"] == {"validation": 1}
    assert any("1 of 3 classes has no validation image: 'owl'" in text for text in said.json["advice"])
    assert said.json["classes"] == ["cat", "dog", "owl"]
    assert "note: 1 class of one image: 'owl'" in said.err


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that others may enter: pytest closes its own whenever it starts, also from another terminal."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        yield Path(name)


@pytest.mark.fault(62)
@pytest.mark.needs_tool("setpriv")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can drop privileges")
def test_an_unreadable_folder_is_a_rejection_and_the_rest_goes_on(open_folder: Path) -> None:
    source = write_images(open_folder / "in", {"cat": 5, "dog": 5, "owl": 5})
    (source / "owl").chmod(0o700)
    (open_folder / "cache").mkdir()
    (open_folder / "cache").chmod(0o777)
    script = (
        "import sys, bottleneck.extraction.run as run; from tests.in_process import InProcessWorker\n"
        "run.ExtractionRun.worker_type = InProcessWorker  # nobody may not be able to start this Python again\n"
        "from bottleneck.cli import main; main(sys.argv[1:])"
    )
    python = ["setpriv", "--reuid=65534", "--clear-groups", sys.executable, "-c"]
    if subprocess.run(
        [*python, "import tests.in_process"], cwd=ROOT, capture_output=True, check=False
    ).returncode:
        pytest.skip("this Python cannot be run by another user")
    arguments = [*python, script, "extract", str(source), "--base", FAKE, "--json", "--quiet"]
    arguments += ["--cache", str(open_folder / "cache")]
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["computed"], found["rejected"]) == (10, 1)
    assert found["rejections"][0]["path"] == "owl"
    assert "permission denied" in found["rejections"][0]["reason"]
    assert found["ignored_why"]["unreadable folder"] == 1
    source.chmod(0o700)
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "cannot be listed: permission denied" in json.loads(done.stdout)["error"]


@pytest.mark.fault(65)
def test_files_that_are_no_images_are_rejected_or_ignored_and_counted(call: Call, source: Path) -> None:
    (source / "cat" / "empty.jpg").write_bytes(b"")
    (source / "cat" / "page.png").write_bytes(b"<html>not found</html>")
    (source / "cat" / "notes.txt").write_text("mine")
    (source / "cat" / "scene").write_bytes(
        (source / "cat" / "000.png").read_bytes() + b"x"
    )  # an image, unnamed
    done = extract(call, source, "--max-bad", "0.2")
    assert (done["computed"], done["rejected"], done["ignored"]) == (25, 2, 1)
    assert done["ignored_why"] == {"not an image": 1}
    text = refused(call, 3, "extract", source, "--base", FAKE)
    assert (
        "2 of 27 images have no features" in text and "allows 1" in text and "The other 25 are stored" in text
    )
    assert "cat/empty.jpg" in text and "cat/page.png" in text


@pytest.mark.fault(71)
def test_nothing_but_bad_images_is_no_success_unless_asked_for(call: Call, tmp_path: Path) -> None:
    (tmp_path / "in" / "cat").mkdir(parents=True)
    (tmp_path / "in" / "cat" / "page.png").write_bytes(b"<html>")
    assert "1 of 1 images have no features" in refused(call, 3, "extract", tmp_path / "in", "--base", FAKE)
    assert extract(call, tmp_path / "in", "--max-bad", "1")["rejected"] == 1


def test_images_at_the_top_beside_folders_are_extracted_and_not_trained_on(
    call: Call, source: Path, tmp_path: Path
) -> None:
    shutil.copy(source / "cat" / "000.png", source / "loose.png")
    with (source / "loose.png").open("ab") as file:
        file.write(b"another content")
    assert extract(call, source)["computed"] == 25
    said = call(*train(source, tmp_path / "run", "--json"))
    assert said.status == 0
    assert any("1 image without a label, not trained on: loose.png" in text for text in said.json["advice"])
    assert sum(said.json["counts"].values()) == 24


def test_nested_folders_belong_to_the_class_above_them(call: Call, source: Path, tmp_path: Path) -> None:
    (source / "cat" / "indoors" / "night").mkdir(parents=True)
    (source / "cat" / "000.png").rename(source / "cat" / "indoors" / "night" / "000.png")
    said = call(*train(source, tmp_path / "run", "--json"))
    assert said.json["classes"] == ["cat", "dog"]
    assert sum(said.json["counts"].values()) == 24


def test_a_class_called_train_among_others_is_a_class(call: Call, tmp_path: Path) -> None:
    source = write_images(tmp_path / "in", {"plane": 12, "train": 12})
    said = call(*train(source, tmp_path / "run", "--json"))
    assert said.status == 0, said.out
    assert said.json["classes"] == ["plane", "train"]


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("file,label\nin/cat/000.png,cat\n", ["missing: path", "expected columns path,label", "'file'"]),
        ("path,lable\nin/cat/000.png,cat\n", ["missing: label", "nearest to label: 'lable'"]),
        ("path,label\nin/cat/000.png,cat\nin/cat/000.png,dog\n", ["two labels", "'cat' in row 1", "row 2"]),
        ("path,label\nin/cat/000.png,cat\nin/cat/001.png,\n", ["empty or NaN label in row 2"]),
        ("path,label\nin/cat/000.png,NaN\nin/cat/001.png,nan\n", ["empty or NaN label in rows 1, 2"]),
        ("path,label\n,cat\n", ["empty path in row 1"]),
        ("path,label,split\nin/cat/000.png,cat,tset\n", ["unknown split 'tset'", "nearest: test"]),
        ("", ["expected columns path,label"]),
    ],
)
def test_a_faulty_table_is_refused_by_row(
    call: Call, source: Path, tmp_path: Path, table: str, words: list[str]
) -> None:
    (tmp_path / "table.csv").write_text(table)
    text = refused(call, 1, "extract", tmp_path / "table.csv", "--base", FAKE)
    for word in ("table.csv", *words):
        assert word in text


def test_a_missing_file_of_a_table_costs_that_image(call: Call, source: Path, tmp_path: Path) -> None:
    lines = [f"in/{k}/{i:03d}.png,{k}" for k in ("cat", "dog") for i in range(12)]
    (tmp_path / "table.csv").write_text("path,label\n" + "\n".join(lines) + "\nin/cat/gone.png,cat\n")
    done = extract(call, tmp_path / "table.csv")
    assert (done["computed"], done["rejected"]) == (24, 1)
    assert done["rejections"][0]["path"] == "in/cat/gone.png"
    assert "there is none" in done["rejections"][0]["reason"]


def test_an_encrypted_zip_says_what_to_do(call: Call, source: Path, tmp_path: Path) -> None:
    path = tmp_path / "in.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(source / "cat" / "000.png", "cat/000.png")
    data = bytearray(path.read_bytes())
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(mark) + offset] |= 1
    path.write_bytes(data)
    text = refused(call, 1, "extract", path, "--base", FAKE)
    assert "encrypted" in text and "cat/000.png" in text and "password" in text


def test_a_member_that_stands_twice_in_a_tar_counts_once(call: Call, source: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "in.tar", "w") as archive:
        for name in ("000", "001", "002"):
            archive.add(source / "cat" / f"{name}.png", f"cat/{name}.png")
        archive.add(source / "dog" / "000.png", "cat/000.png")
    done = extract(call, tmp_path / "in.tar")
    assert (done["computed"], done["ignored_why"]) == (3, {"older member of the same name": 1})
    # The last one counts, as in unpacking: the dog is known now, the first cat is not.
    assert extract(call, source / "dog")["reused"] == 1
    assert extract(call, source / "cat")["computed"] == 10


def test_strips_of_one_pixel_are_images(call: Call, tmp_path: Path) -> None:
    write_images(tmp_path / "in", {"a": 3}, size=(1, 400))
    write_images(tmp_path / "in", {"b": 3}, size=(400, 1))
    assert extract(call, tmp_path / "in")["computed"] == 6


@pytest.mark.keras
def test_strips_of_one_pixel_have_features(capfdbinary: pytest.CaptureFixture[bytes], tmp_path: Path) -> None:
    write_images(tmp_path / "in", {"a": 2}, size=(1, 400))
    write_images(tmp_path / "in", {"b": 2}, size=(400, 1))
    said = caller(capfdbinary)(
        *("extract", tmp_path / "in", "--base", "squeezenet", "--weights", "random:0", "--size", 64),
        *("--cache", tmp_path / "cache", "--json", "--quiet"),
    )
    assert said.status == 0, said.out
    assert said.json["computed"] == 4


@pytest.mark.keras
def test_a_size_that_the_cut_cannot_take_says_so_before_anything_is_built(
    capfdbinary: pytest.CaptureFixture[bytes], tmp_path: Path
) -> None:
    write_images(tmp_path / "in", {"a": 2, "b": 2})
    said = caller(capfdbinary)(
        *(
            "extract",
            tmp_path / "in",
            "--base",
            "vgg16",
            "--cut",
            "fc6",
            "--size",
            96,
            "--weights",
            "random:0",
        ),
        *("--cache", tmp_path / "cache", "--json", "--quiet"),
    )
    assert said.status in (1, 2)
    for word in ("--size 96", "224", "pool5"):
        assert word in said.json["error"]


@pytest.mark.keras
def test_a_base_with_several_inputs_is_refused(
    capfdbinary: pytest.CaptureFixture[bytes], tmp_path: Path
) -> None:
    import keras

    left, right = keras.Input((8, 8, 3), name="left"), keras.Input((8, 8, 3), name="right")
    keras.Model([left, right], keras.layers.Add()([left, right])).save(tmp_path / "two.keras")
    write_images(tmp_path / "in", {"a": 2, "b": 2})
    said = caller(capfdbinary)(
        *("extract", tmp_path / "in", "--base", tmp_path / "two.keras", "--preprocessing", "none"),
        *("--cache", tmp_path / "cache", "--json", "--quiet"),
    )
    assert said.status == 1
    assert "2 inputs" in said.json["error"] or "several inputs" in said.json["error"]
    assert "one image input" in said.json["error"] or "expected" in said.json["error"]
