"""An export: what is proved is delivered whole, the rest is refused by name, and until the end nothing is touched."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bottleneck
from bottleneck import catalog, runs
from bottleneck.errors import BaseError, ExportError, HeadError, ParityError, UnknownName, UsageError
from bottleneck.exports import artefact as artefact_module
from bottleneck.exports import export as exporting
from bottleneck.exports import manifest
from bottleneck.exports.artefact import load_exporters
from bottleneck.exports.export import Exported
from bottleneck.models import certificate as parity
from bottleneck.models.comparison import Outputs
from bottleneck.models.merge import load_run_model, merge_model
from bottleneck.models.reference import Reference, make_reference
from bottleneck.models.sample_images import OWN, PROBES, ComparisonImages
from bottleneck.models.twins import twins
from bottleneck.schema import Cache
from tests.exports import fake_exporters
from tests.fakes import write_images
from tests.in_process import Call, caller

keras_only = pytest.mark.keras


@pytest.fixture
def call(capfdbinary: pytest.CaptureFixture[bytes]) -> Call:
    return caller(capfdbinary)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on a small network with BatchNorm, one image of its source broken."""
    import keras

    place = tmp_path_factory.mktemp("exporting")
    source = write_images(place / "in", {"a|b": 14, "*dog*": 14, "owl": 14}, size=(30, 26))
    (source / "owl" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    keras.utils.set_random_seed(0)
    image = keras.Input((24, 24, 3))
    x = keras.layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False, name="first")(image)
    x = keras.layers.BatchNormalization(name="norm")(x)
    x = keras.layers.Activation("relu")(x)
    x = keras.layers.Dropout(0.5)(x)
    x = keras.layers.Conv2D(8, 3, padding="same", name="second")(x)
    keras.Model(image, keras.layers.GlobalAveragePooling2D(name="pool")(x)).save(place / "net.keras")
    bottleneck.train(
        source,
        str(place / "net.keras"),
        run=place / "run",
        preprocessing="scale=1/128,offset=-1",
        cache=place / "cache",
        max_bad=1.0,
    )
    return place / "run"


@pytest.fixture(scope="module")
def known(run: Path) -> Reference:
    """What all of these tests compare with: the base is loaded, and asked, once."""
    cache = Cache(run.parent / "cache")
    return make_reference(load_run_model(runs.read_run(run), cache), cache, 256)


@pytest.fixture(scope="module")
def once(known: Reference) -> tuple[Any, Any]:
    """The merged model, and what the broken twins give."""
    made = twins(known.model.base, known.model.head, known.images[PROBES].pixels, 8)
    return merge_model(known.model.base, known.model.head), made


@pytest.fixture
def fakes(known: Reference, once: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Kinds of artefact, and a reference, that cost milliseconds."""
    monkeypatch.setattr(catalog, "EXPORTERS", fake_exporters.KINDS)
    monkeypatch.setattr(
        exporting, "run_bare", functools.partial(fake_exporters.run_here, known.model.forward.decode)
    )
    monkeypatch.setattr(exporting, "load_run_model", lambda *_: known.model)
    monkeypatch.setattr(exporting, "make_reference", lambda model, cache, most: shortened(known, most))
    monkeypatch.setattr(exporting, "merge_model", lambda *_: once[0])
    monkeypatch.setattr("bottleneck.models.reference.twins", lambda *_: once[1])
    monkeypatch.setattr(parity, "model_outputs", fake_exporters.answers)


def shortened(known: Reference, most: int) -> Reference:
    """The same with fewer of the run's images, or none."""
    mine, said = known.images[OWN], known.outputs[OWN]
    few = ComparisonImages(
        mine.pixels[:most], mine.files[:most], mine.truth[:most], mine.contents[:most], mine.unseen
    )
    images = {PROBES: known.images[PROBES], OWN: few}
    outputs = {
        PROBES: known.outputs[PROBES],
        OWN: Outputs(said.features[:most], said.logits[:most], said.probabilities[:most]),
    }
    if not most:
        del images[OWN], outputs[OWN]
    return dataclasses.replace(known, images=images, outputs=outputs)


def state(folder: Path) -> dict[str, bytes]:
    """Every file of an export that is whole, and nothing beside it that a stopped one would leave."""
    manifest.check_manifest(folder)
    assert not [p.name for p in folder.parent.iterdir() if p.name.startswith(f".{folder.name}.")]
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# --------------------------------------------------------------------------------------------------- kinds by name


def test_kinds_come_in_the_catalogs_order_and_once() -> None:
    made, left = load_exporters(["onnx", "keras", "onnx"])
    assert ([e.kind for e in made], left) == (["keras", "onnx"], ())


def test_all_leaves_out_what_cannot_be_made_here_and_a_name_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    real = artefact_module.util.find_spec
    monkeypatch.setattr(
        artefact_module.util, "find_spec", lambda name: None if name == "openvino" else real(name)
    )
    made, left = load_exporters(["all"])
    assert left == ("openvino",)
    assert [e.kind for e in made] == [kind for kind in catalog.EXPORTERS if kind != "openvino"]
    with pytest.raises(ExportError, match=r"openvino needs openvino.*pip install"):
        load_exporters(["all", "openvino"])


@pytest.mark.parametrize(
    ("kinds", "error", "why"),
    [
        (["tflite"], UnknownName, "there is no kind of artefact called 'tflite'.*litert"),
        ([], UsageError, "names no kind"),
    ],
)
def test_kinds_that_are_not_there_are_named(kinds: list[str], error: type, why: str) -> None:
    with pytest.raises(error, match=why):
        load_exporters(kinds)


# ----------------------------------------------------------------------------------------------- what is delivered


@keras_only
def test_an_export_is_whole_and_says_everything(run: Path, fakes: None, tmp_path: Path) -> None:
    done = bottleneck.export(run, tmp_path / "out", ["plain", "files", "rough"])
    found = state(done.folder)
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

    from bottleneck import runs
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
    assert {"files.plain"} == {name for name in state(out) if name.endswith(".plain")}


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
    found = state(done.folder)
    assert {"model.plain", "rough.plain"} == {name for name in found if name.endswith(".plain")}
    assert [c.form for c in done.certificate.refused] == ["poor"]
    assert "**`poor`**" in found["card.md"].decode()
    none = bottleneck.export(run, tmp_path / "out", ["poor"], gate=0.0)
    assert [a.kind for a in none.manifest.artefacts] == ["poor"]


FAULTS: dict[str, tuple[list[str], type[Exception], str]] = {
    "a form that differs": (["plain", "wrong"], ParityError, "the wrong differs.*features"),
    "a form that cannot be made": (["plain", "impossible"], ExportError, "no such operation"),
    "a full disk": (["plain", "rough-full"], ExportError, "No space left"),
    "nothing left to deliver": (
        ["poor", "rough-impossible"],
        ExportError,
        r"poor: .* 0\.97 is needed; rough-imp",
    ),
    "an artefact with other classes": (["stranger"], ExportError, "does not carry the classes"),
}


@keras_only
@pytest.mark.parametrize("name", FAULTS)
def test_where_one_fails_the_previous_export_is_untouched(
    run: Path, fakes: None, tmp_path: Path, name: str
) -> None:
    kinds, error, why = FAULTS[name]
    out = tmp_path / "out"
    bottleneck.export(run, out, ["plain"])
    before = state(out)
    with pytest.raises(error, match=why):
        bottleneck.export(run, out, kinds)
    assert state(out) == before
    with pytest.raises(error, match=why):
        bottleneck.export(run, tmp_path / "new", kinds)
    assert not (tmp_path / "new").exists()


@keras_only
@pytest.mark.parametrize("name", ["card.md", "export.json"])
def test_a_disk_that_fills_up_at_the_end_costs_nothing(
    run: Path, fakes: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    out = tmp_path / "out"
    bottleneck.export(run, out, ["plain"])
    before = state(out)
    real = exporting.publish

    def full(path: Path, data: bytes, **options: bool) -> bool:
        if path.name == name:
            raise OSError(28, "No space left on device", str(path))
        return real(path, data, **options)

    monkeypatch.setattr(exporting, "publish", full)
    with pytest.raises(OSError, match="No space left"):
        bottleneck.export(run, out, ["plain", "rough"])
    assert state(out) == before


@keras_only
@pytest.mark.parametrize("named", ["/tmp/of-keras", None])
def test_a_disk_that_is_full_when_an_artefact_is_loaded_again_is_named(
    run: Path, fakes: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str | None
) -> None:
    out = tmp_path / "out"
    bottleneck.export(run, out, ["plain"])
    before = state(out)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", named)

    monkeypatch.setattr("keras.saving.load_model", full)
    with pytest.raises(OSError, match=f"No space left on device: '{named or out / 'live.plain'}'"):
        bottleneck.export(run, out, ["plain", "live"])
    assert state(out) == before


@keras_only
def test_files_that_are_decoded_otherwise_are_noticed(
    run: Path, fakes: None, known: Reference, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    darker = functools.partial(
        fake_exporters.run_here, lambda data: known.model.forward.decode(data) * np.float32(0.9)
    )
    monkeypatch.setattr(exporting, "run_bare", darker)
    with pytest.raises(ParityError, match=r"files, from files differs.*probabilities"):
        bottleneck.export(run, tmp_path / "out", ["plain", "files"])


@keras_only
def test_a_merged_model_that_differs_costs_no_artefact(
    run: Path, fakes: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = fake_exporters.answers
    monkeypatch.setattr(
        parity, "model_outputs", lambda *a: real(*a)._replace(logits=real(*a).logits + np.eye(3)[0] * 0.01)
    )
    monkeypatch.setattr(fake_exporters.Plain, "write", lambda *_: pytest.fail("it was written"))
    with pytest.raises(ParityError, match="the merged model differs"):
        bottleneck.export(run, tmp_path / "out", ["plain"])


@keras_only
def test_a_base_that_shows_no_twin_gets_no_export(
    run: Path, fakes: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parity, "_shows", lambda twin, least: "channels" not in twin.form)
    with pytest.raises(ParityError, match=r"no power.*channels reversed"):
        bottleneck.export(run, tmp_path / "out", ["plain"])
    assert not (tmp_path / "out").exists()


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


# --------------------------------------------------------------------------------------------------- what is refused


def test_a_target_that_holds_something_else_is_refused_before_anything_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("precious")
    monkeypatch.setattr(exporting, "load_run_model", lambda *_: pytest.fail("it went on"))
    with pytest.raises(UsageError, match=r"holds other things \(thesis\.txt\)"):
        exporting.export_artefacts(None, tmp_path / "out", ["keras"], None, None)  # type: ignore[arg-type]
    assert (tmp_path / "out" / "thesis.txt").read_text() == "precious"


@keras_only
@pytest.mark.parametrize(
    ("edit", "error", "why"),
    [
        (lambda d: d["request"].update(cut="second", pooling="avg"), BaseError, r"is \w{16}, the run's \w{16}"),
        (lambda d: d["spec"]["recipe"].update(pooling="max"), HeadError, r"recipe \w{64}, but .* fitted on \w{64}"),
        (lambda d: d["classes"].reverse(), HeadError, r"classes \['owl', 'a\|b', '\*dog\*'\], but"),
        (lambda d: d["spec"].update(shape=[9]), HeadError, r"rows of shape \(9,\)"),
        (lambda d: d["spec"]["recipe"]["pixels"].update(height=32, width=32), HeadError, r"features of the recipe"),
    ],
    ids=["another cut", "another pooling", "other classes", "another shape", "another size"],
)  # fmt: skip
def test_a_head_that_was_made_on_something_else_is_refused_with_both_fingerprints(
    run: Path, tmp_path: Path, edit: Callable[[dict], object], error: type, why: str
) -> None:
    shutil.copytree(run, tmp_path / "run")
    document = json.loads((tmp_path / "run" / "run.json").read_text())
    edit(document)
    (tmp_path / "run" / "run.json").write_text(json.dumps(document))
    for command in (
        lambda: bottleneck.export(tmp_path / "run", tmp_path / "out", ["keras"]),
        lambda: bottleneck.merge(tmp_path / "run", tmp_path / "model.keras"),
    ):
        with pytest.raises(error, match=why):
            command()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run"]


@pytest.mark.parametrize(("options", "why"), [({"gate": 1.5}, "--gate 1.5"), ({"images": 0}, "--images 0")])
def test_options_that_cannot_be_are_refused(tmp_path: Path, options: dict, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        bottleneck.export(tmp_path / "run", tmp_path / "out", ["keras"], **options)


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
    state(delivered.folder)
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
    before, model = state(out), file.read_bytes()
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
    assert "model.plain" in state(out)
