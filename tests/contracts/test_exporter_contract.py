"""What every kind of artefact must do."""

from __future__ import annotations

import hashlib
import resource
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bottleneck import catalog
from bottleneck.contracts import Exporter, Making
from bottleneck.errors import ExportError
from bottleneck.exports.bare import BareResult, run_bare
from bottleneck.models.comparison import WIDEST
from bottleneck.models.outputs import ENERGY
from bottleneck.schema import Pixels
from tests.exports import tiny_model

pytestmark = pytest.mark.keras

#: How far a kind that rounds may be from the small model: its share of the spread that may differ. What a user's
#: model loses is measured anew for each; here a kind that loses its wits is to be noticed.
ROUNDING = {"litert-float16": 0.01, "litert-dynamic": 0.3, "litert-int16x8": 0.1, "litert-int8": 0.6}


def exporter(kind: str) -> Exporter:
    return catalog.load("kind of artefact", catalog.EXPORTERS, kind)()


def fingerprint(path: Path) -> dict[str, str]:
    """Every file under `path`, with a digest of its bytes."""
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    return {str(p.relative_to(path.parent)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture(scope="module", params=sorted(catalog.EXPORTERS))
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Exporter, Path]:
    """One of each kind, in a folder where something else lies too."""
    kind = exporter(request.param)
    folder = tmp_path_factory.mktemp(request.param)
    (folder / "note.txt").write_text("mine")
    return kind, kind.write(tiny_model.merged(), folder, tiny_model.making())


@pytest.fixture(scope="module")
def ran(made: tuple[Exporter, Path]) -> BareResult:
    return run_bare(made[0].reader, made[1], pixels=tiny_model.images(7), batch=3)


@pytest.fixture
def small_files() -> Iterator[Any]:
    """A limit on the size of a file, as a full disk is one: no writer of any library gets past it."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(size: int) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))

    yield limit
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_the_catalog_names_it_and_no_two_share_a_name() -> None:
    kinds = {kind: exporter(kind) for kind in catalog.EXPORTERS}
    assert {kind: made.kind for kind, made in kinds.items()} == {kind: kind for kind in kinds}
    assert len({made.name for made in kinds.values()}) == len(kinds)
    # Broken twins are held to the widest tolerance there is.
    assert all(made.tolerance is None or made.tolerance <= WIDEST for made in kinds.values())


def test_it_writes_one_thing_of_its_name(made: tuple[Exporter, Path]) -> None:
    kind, path = made
    assert path == path.parent / kind.name
    assert {p.name for p in path.parent.iterdir()} == {kind.name, "note.txt"}


def test_run_without_this_package_it_is_the_merged_model(
    made: tuple[Exporter, Path], ran: BareResult
) -> None:
    kind, _ = made
    wanted = tiny_model.stages(tiny_model.merged(), tiny_model.images(7))
    assert set(ran.outputs) == set(wanted)
    # The certificate's for LiteRT leaves room for deep networks, which this one is not.
    tolerance = ROUNDING[kind.kind] if kind.tolerance is None else min(kind.tolerance, 1e-4)
    for name, values in wanted.items():
        if name == ENERGY and kind.tolerance is None:
            continue  # 16-bit logarithms turn it upside down; the gate then refuses the kind
        assert tiny_model.apart(values, ran.outputs[name]) <= tolerance, name
        assert ran.outputs[name].dtype == np.float32
    assert 0 < ran.milliseconds < 10_000


def test_another_model_would_be_noticed(made: tuple[Exporter, Path], ran: BareResult) -> None:
    """The bounds of the test above have power."""
    wrong = tiny_model.stages(tiny_model.merged(), tiny_model.images(7)[..., ::-1])
    tolerance = ROUNDING[made[0].kind] if made[0].tolerance is None else made[0].tolerance
    assert tiny_model.apart(wrong["features"], ran.outputs["features"]) > 2 * tolerance


def test_it_carries_its_document(ran: BareResult) -> None:
    assert ran.document == tiny_model.DOCUMENT


def test_written_again_it_takes_the_place_of_the_old_one_and_says_nothing(
    made: tuple[Exporter, Path], capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    kind, _ = made
    first = kind.write(
        tiny_model.merged(), tmp_path, Making({"classes": ["old"]}, _pixels(), tiny_model.images(2))
    )
    before = fingerprint(first)
    assert kind.write(tiny_model.merged(), tmp_path, tiny_model.making()) == first
    assert fingerprint(first) != before
    assert [p.name for p in tmp_path.iterdir()] == [kind.name]
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")


def test_a_full_disk_leaves_the_previous_one_untouched(made: tuple[Exporter, Path], small_files: Any) -> None:
    kind, path = made
    before = fingerprint(path)
    sizes = [p.stat().st_size for p in ([path] if path.is_file() else path.rglob("*")) if p.is_file()]
    small_files(max(sizes) // 2)
    with pytest.raises(ExportError, match="nothing was put in its place") as caught:
        kind.write(tiny_model.merged(), path.parent, tiny_model.making())
    small_files(resource.RLIM_INFINITY)
    assert str(path) in str(caught.value)
    assert fingerprint(path) == before
    assert {p.name for p in path.parent.iterdir()} == {kind.name, "note.txt"}


def test_a_weight_that_is_not_finite_is_refused_by_name(made: tuple[Exporter, Path]) -> None:
    import keras

    kind, path = made
    before = fingerprint(path)
    broken = keras.models.clone_model(tiny_model.merged())
    broken.set_weights(tiny_model.merged().get_weights())
    kernel, bias = broken.get_layer("logits").get_weights()
    kernel[3, 1] = np.nan
    broken.get_layer("logits").set_weights([kernel, bias])
    with pytest.raises(ExportError, match=r"1 of \d+ values of the weight logits/kernel are not finite"):
        kind.write(broken, path.parent, tiny_model.making())
    assert fingerprint(path) == before


def _pixels() -> Pixels:
    return Pixels(height=tiny_model.SIZE, width=tiny_model.SIZE)


def test_zips_are_whole(made: tuple[Exporter, Path]) -> None:
    """Files that are a zip, or end in one, name no member twice and no member is damaged."""
    _, path = made
    if path.is_file() and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            assert archive.testzip() is None
            assert len(archive.namelist()) == len(set(archive.namelist()))
