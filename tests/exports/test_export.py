"""An export delivers whole what is proved, and says everything about it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import bottleneck
from bottleneck import runs
from bottleneck.exports import export as exporting
from bottleneck.exports import manifest
from bottleneck.exports.export import Exported
from bottleneck.models.reference import Reference
from tests.exports.export_files import exported_files, shortened
from tests.in_process import Call, caller

keras_only = pytest.mark.keras


@pytest.fixture
def call(capfdbinary: pytest.CaptureFixture[bytes]) -> Call:
    return caller(capfdbinary)


# ----------------------------------------------------------------------------------------------- what is delivered


@keras_only
def test_an_export_is_whole_and_says_everything(run: Path, fakes: None, tmp_path: Path) -> None:
    done = bottleneck.export(run, tmp_path / "out", ["plain", "files", "rough"])
    found = exported_files(done.folder)
    assert sorted(found) == [
        "card.json", "card.md", "decode.py", "export.json", "files.plain", "labels.txt", "model.plain",
        "parity.json", "rough.plain",
    ]  # fmt: skip
    assert found["labels.txt"].decode().splitlines() == ["*dog*", "a|b", "owl"]
    certificate = done.certificate
    assert json.loads(found["parity.json"]) == json.loads(certificate.model_dump_json())
    assert certificate.verdict == "certified"
    forms = {(c.form, c.images): c for c in certificate.forms}
    assert set(forms) == {
        ("merged model", "probes"), ("merged model", "own images"),
        ("plain", "probes"), ("plain", "own images"),
        ("files", "probes"), ("files", "own images"),
        ("files, from files", "probes"), ("files, from files", "own images"),
        ("rough", "own images"),
    }  # fmt: skip
    assert forms["plain", "own images"].count == 42
    assert forms["rough", "own images"].gate == 0.97
    assert [d.quantity for d in forms["files, from files", "probes"].differences] == ["probabilities"]
    accuracy = forms["plain", "own images"].accuracy
    assert accuracy is not None
    unseen = bottleneck.evaluate(run)["validation"]
    assert (accuracy.images, done.card.compared, done.card.unseen) == (unseen.images, 42, unseen.images)
    assert accuracy.head == accuracy.form == pytest.approx(unseen.accuracy)
    assert {t.form for t in certificate.twins} == {
        "channels reversed",
        "preprocessing left out",
        "BatchNorm in training mode",
        "awake randomness",
    }
    card = done.card
    assert json.loads(found["card.json"]) == json.loads(card.model_dump_json())
    assert card.parameters["head"] == 8 * 3 + 3
    assert sum(sum(by.values()) for by in card.data.classes.values()) == card.data.images == 42
    assert card.data.rejected is not None
    (broken,) = card.data.rejected
    assert (broken.images, broken.paths) == (1, ("owl/broken.png",))
    assert "a\\|b" in found["card.md"].decode()


@keras_only
def test_the_fingerprint_of_the_data_is_of_contents_and_not_of_names(run: Path, tmp_path: Path) -> None:
    import pyarrow as pa

    from bottleneck.exports.card_facts import data_fingerprint
    from bottleneck.schema import Inventory

    inventory = runs.read_run(run).inventory()
    renamed = inventory.table.set_column(
        0, "path", pa.array([b"%d" % i for i in range(len(inventory))], pa.binary())
    )
    turned = renamed.take(np.random.default_rng(0).permutation(len(inventory)))
    assert data_fingerprint(Inventory(turned, "elsewhere")) == data_fingerprint(inventory)
    labels = turned.column("label").to_pylist()
    labels[0] = "owl" if labels[0] != "owl" else "cat"
    other = turned.set_column(turned.schema.get_field_index("label"), "label", pa.array(labels, pa.string()))
    assert data_fingerprint(Inventory(other, "elsewhere")) != data_fingerprint(inventory)


@keras_only
def test_a_second_export_replaces_the_first_as_a_whole(run: Path, fakes: None, tmp_path: Path) -> None:
    out = tmp_path / "out"
    bottleneck.export(run, out, ["plain", "rough"])
    bottleneck.export(run, out, ["files"])
    assert {"files.plain"} == {name for name in exported_files(out) if name.endswith(".plain")}


@keras_only
def test_a_kind_that_rounds_too_much_is_refused_by_name_and_the_others_come(
    run: Path, fakes: None, tmp_path: Path
) -> None:
    done = bottleneck.export(run, tmp_path / "out", ["plain", "rough", "poor", "rough-impossible"])
    assert [a.kind for a in done.manifest.artefacts] == ["plain", "rough"]
    why = {r.kind: r.why for r in done.manifest.refused}
    assert "0.000 of 42 images" in why["poor"]
    assert "0.97 is needed" in why["poor"]
    assert "no such operation" in why["rough-impossible"]
    found = exported_files(done.folder)
    assert {"model.plain", "rough.plain"} == {name for name in found if name.endswith(".plain")}
    assert [c.form for c in done.certificate.refused] == ["poor"]
    assert "**`poor`**" in found["card.md"].decode()
    none = bottleneck.export(run, tmp_path / "out", ["poor"], gate=0.0)
    assert [a.kind for a in none.manifest.artefacts] == ["poor"]


@keras_only
def test_without_the_runs_images_what_rounds_is_refused_and_the_rest_is_proved_on_probes(
    run: Path, fakes: None, known: Reference, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "make_reference", lambda *_: shortened(known, 0))
    done = bottleneck.export(run, tmp_path / "out", ["plain", "rough"])
    assert {c.images for c in done.certificate.forms} == {"probes"}
    assert [a.kind for a in done.manifest.artefacts] == ["plain"]
    (refusal,) = done.manifest.refused
    assert "none of them can be read" in refusal.why


# --------------------------------------------------------------------------------------------------- the command


@keras_only
def test_the_command_prints_one_table_and_notes_what_is_refused(
    run: Path, fakes: None, tmp_path: Path, call: Call
) -> None:
    said = call("export", run, "--format", "plain,poor", "--out", tmp_path / "out")
    assert said.status == 0, said.err
    assert "note: poor is not delivered: names the head's first choice for 0.000 of 42 images" in said.err
    (line,) = [line for line in said.out.splitlines() if line.strip().startswith("plain")]
    assert line.split()[-1] == "equal"
    assert "REFUSED" in said.out
    assert "channels reversed" in said.out
    assert str(tmp_path / "out" / "card.md") in said.out


@keras_only
def test_the_command_gives_one_object(run: Path, fakes: None, tmp_path: Path, call: Call) -> None:
    said = call(
        "export", run, "--format", "plain, poor", "--out", tmp_path / "out", "--json", "--images", "9"
    )
    assert said.status == 0
    found = said.json
    assert [a["kind"] for a in found["artefacts"]] == ["plain"]
    assert [r["kind"] for r in found["refused"]] == ["poor"]
    assert found["certificate"]["verdict"] == "certified"
    assert {c["count"] for c in found["certificate"]["forms"] if c["images"] == "own images"} == {9}
    said = call("export", run, "--format", "wrong", "--out", tmp_path / "out", "--json")
    assert said.status == 1
    assert said.json["kind"] == "ParityError"


# ---------------------------------------------------------------------------------------------- real ones, real kills


@pytest.fixture(scope="module")
def delivered(run: Path) -> Exported:
    kinds = ["keras", "saved_model", "litert", "litert-float16", "litert-int8", "onnx"]
    return bottleneck.export(run, run.parent / "delivered", kinds)


@keras_only
def test_real_artefacts_are_certified_each_in_a_process_of_its_own(run: Path, delivered: Exported) -> None:
    exported_files(delivered.folder)
    assert delivered.certificate.verdict == "certified"
    there = {a.kind: a for a in delivered.manifest.artefacts}
    assert {"keras", "saved_model", "litert", "litert-float16", "onnx"} <= set(there)
    # Whether eight bits are enough is for the gate to say; that they were judged is certain.
    assert ("litert-int8" in there) != ("litert-int8" in {r.kind for r in delivered.manifest.refused})
    assert there["litert-float16"].bytes < there["litert"].bytes
    assert all(a.milliseconds > 0 for a in there.values())
    # What Keras loads was called in every way, and trained around.
    assert [still.form for still in delivered.certificate.still] == ["keras"]
    assert "keras, called in training mode" in {c.form for c in delivered.certificate.forms}
    assert there["saved_model"].milliseconds_from_file is not None
    by_run = bottleneck.predict(run, run.parent / "in", cache=run.parent / "cache")
    by_model = bottleneck.predict(delivered.folder / "model.keras", run.parent / "in")
    np.testing.assert_allclose(by_run.probabilities, by_model.probabilities, atol=1e-5)


@pytest.mark.fault(79)
@keras_only
def test_killed_in_the_middle_the_last_good_export_and_the_last_good_file_are_there(
    run: Path, delivered: Exported, fakes: None, tmp_path: Path
) -> None:
    out, file = tmp_path / "out", tmp_path / "model.keras"
    shutil.copytree(delivered.folder, out)
    shutil.copy(delivered.folder / "model.keras", file)
    before, model = exported_files(out), file.read_bytes()
    export = ["export", str(run), "--format", "keras,litert", "--out", str(out), "--quiet", "--images", "4"]
    merging = ["merge", str(run), "--out", str(file), "--quiet"]
    for arguments, moment in (
        (export, ".out.*.making"),
        (export, ".out.*.making/model.keras"),
        (merging, ".model.keras.*.making/model.keras"),
    ):
        command = [sys.executable, "-m", "bottleneck", *arguments]
        with subprocess.Popen(command, cwd=Path(__file__).parents[2], start_new_session=True) as process:
            deadline = time.monotonic() + 240
            while not list(tmp_path.glob(moment)):
                assert process.poll() is None, f"it ended before {moment} was there"
                assert time.monotonic() < deadline
                time.sleep(0.01)
            os.killpg(process.pid, signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
        assert list(tmp_path.glob(moment))
        manifest.check_manifest(out)
        assert {name: (out / name).read_bytes() for name in before} == before
        assert file.read_bytes() == model
    bottleneck.predict(out / "model.keras", run.parent / "in")
    bottleneck.export(run, out, ["plain"])
    assert "model.plain" in exported_files(out)
