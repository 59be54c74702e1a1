"""What fails or is refused leaves the previous export untouched."""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import bottleneck
from bottleneck.errors import BaseError, ExportError, HeadError, ParityError, UsageError
from bottleneck.exports import export as exporting
from bottleneck.models import certificate as parity
from bottleneck.models.reference import Reference
from tests.exports import fake_exporters
from tests.exports.export_files import exported_files

keras_only = pytest.mark.keras

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
    before = exported_files(out)
    with pytest.raises(error, match=why):
        bottleneck.export(run, out, kinds)
    assert exported_files(out) == before
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
    before = exported_files(out)
    real = exporting.publish

    def full(path: Path, data: bytes, **options: bool) -> bool:
        if path.name == name:
            raise OSError(28, "No space left on device", str(path))
        return real(path, data, **options)

    monkeypatch.setattr(exporting, "publish", full)
    with pytest.raises(OSError, match="No space left"):
        bottleneck.export(run, out, ["plain", "rough"])
    assert exported_files(out) == before


@keras_only
@pytest.mark.parametrize("named", ["/tmp/of-keras", None])
def test_a_disk_that_is_full_when_an_artefact_is_loaded_again_is_named(
    run: Path, fakes: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str | None
) -> None:
    out = tmp_path / "out"
    bottleneck.export(run, out, ["plain"])
    before = exported_files(out)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", named)

    monkeypatch.setattr("keras.saving.load_model", full)
    with pytest.raises(OSError, match=f"No space left on device: '{named or out / 'live.plain'}'"):
        bottleneck.export(run, out, ["plain", "live"])
    assert exported_files(out) == before


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
