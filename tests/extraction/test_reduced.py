"""Stores of reduced precision: what they cost is told, `auto` takes what is there, and machines do not mix."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bottleneck
from bottleneck.errors import ChangedBase, ForeignEnvironment
from bottleneck.extraction import setup
from bottleneck.extraction.run import ExtractionRun
from bottleneck.extraction.worker.main import Worker
from bottleneck.extraction.worker.messages import Open
from bottleneck.inventory.scan import scan_source
from bottleneck.schema import BaseRequest, Cache
from bottleneck.sources.open import open_source
from bottleneck.store.canary import canary_tolerance
from bottleneck.store.header import DRIFT, read_drift, read_header
from bottleneck.system.progress import Silent
from tests.extraction.fake_runs import counts, here
from tests.extraction.test_report import text_of
from tests.fakes import FakeForward, write_images
from tests.in_process import extract_one


class Reduced(FakeForward):
    """Eight bits of mantissa, as bfloat16 has."""

    def __init__(self, *, error: float = 0.0, **settings: Any) -> None:
        super().__init__(**settings)
        self._error = error
        recipe = self.spec.recipe.model_copy(update={"precision": "bfloat16"})
        self.spec = self.spec.model_copy(update={"recipe": recipe})

    def features(self, pixels: np.ndarray) -> np.ndarray:
        rows = super().features(pixels)
        rounded = (rows.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
        return rounded * np.float32(1 + self._error)

    def exact(self, pixels: np.ndarray) -> tuple[np.ndarray, ...]:
        padded = np.zeros((self.batch, *pixels.shape[1:]), np.float32)
        padded[: len(pixels)] = pixels
        return (super().features(padded)[: len(pixels)],)


def test_what_reduced_precision_costs_is_measured_on_the_users_images(tmp_path: Path) -> None:
    source, cache = write_images(tmp_path / "in", {"cat": 20, "dog": 20}), tmp_path / "cache"
    done, _, store = here(source, cache, Reduced())
    assert done.drift is not None
    assert done.drift.images == 4  # a batch of them
    assert 0 < done.drift.relative < 2**-7
    assert 0.99 < done.drift.cosine <= done.drift.mean_cosine < 1
    assert "bfloat16 costs" in text_of(done) and "computed in bfloat16" in text_of(done)
    document = done.to_json()
    assert document["precision"] == "bfloat16"
    assert document["drift"]["images"] == 4
    assert (store.folder / DRIFT).exists()
    again, _, _ = here(source, cache, Reduced())
    assert again.drift == done.drift


def test_a_damaged_word_about_the_cost_is_none_and_is_made_anew(tmp_path: Path) -> None:
    source, cache = write_images(tmp_path / "in", {"cat": 6}), tmp_path / "cache"
    _, _, store = here(source, cache, Reduced())
    path = store.folder / DRIFT
    path.write_bytes(path.read_bytes().replace(b'"images": 4', b'"images": 5'))
    assert read_drift(store.folder) is None
    assert here(source, cache, Reduced())[0].drift is None
    write_images(source, {"dog": 6}, seed=5)
    assert here(source, cache, Reduced())[0].drift is not None


def test_float32_says_nothing_of_a_cost(tmp_path: Path) -> None:
    source = write_images(tmp_path / "in", {"cat": 6})
    done, _, store = here(source, tmp_path / "cache")
    assert done.drift is None
    assert not (store.folder / DRIFT).exists()
    assert "costs" not in text_of(done)


def test_another_machine_may_round_otherwise_but_not_compute_otherwise(tmp_path: Path) -> None:
    source, cache = write_images(tmp_path / "in", {"cat": 6}), tmp_path / "cache"
    here(source, cache, Reduced())
    write_images(source, {"dog": 6}, seed=5)
    done, _, _ = here(source, cache, Reduced(error=0.01))
    assert counts(done) == {"computed": 6, "reused": 6}
    assert canary_tolerance(FakeForward().spec) == 1e-4
    write_images(source, {"cow": 6}, seed=6)
    other = Reduced(error=1.0)
    with pytest.raises(ChangedBase, match="computes other features"):
        here(source, cache, other)
    other.environment = {"forward": "fake 1", "machine": "another"}
    with pytest.raises(ForeignEnvironment, match="computes other features"):
        here(source, cache, other)


def test_a_store_remembers_its_precision_as_it_was_resolved(tmp_path: Path) -> None:
    source, cache = write_images(tmp_path / "in", {"cat": 3}), Cache(tmp_path / "cache")
    opened = open_source(source)
    request = BaseRequest(base="object:fake", precision="auto")
    worker = Worker(Reduced(), opened, cache, [request])
    _, _, store = extract_one(
        opened, lambda: scan_source(opened, cache.scans), request, cache, Silent(), worker=worker
    )
    header = read_header(store.folder)
    assert header is not None and header.request is not None
    assert header.request.precision == "bfloat16"


def test_auto_takes_a_complete_store_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, cache = write_images(tmp_path / "in", {"cat": 5}), Cache(tmp_path / "cache")
    here(source, cache.root)
    opened = open_source(source)

    class Process(Worker):
        def __init__(self, opening: Open, limits: object = None) -> None:
            super().__init__(Reduced(), opening.source, opening.cache, opening.requests)

        def begin(self) -> None: ...

        def reopen(self, requests: Any) -> None:
            assert [request.precision for request in requests] == ["float32"]
            super().__init__(FakeForward(), opened, cache, requests)

    monkeypatch.setattr(ExtractionRun, "worker_type", Process)
    monkeypatch.setattr(setup, "WorkerProcess", Process)

    def run(precision: str) -> Any:
        request = BaseRequest(base="tests.fakes:base", precision=precision)
        return extract_one(opened, lambda: scan_source(opened, cache.scans), request, cache, Silent())[0]

    taken = run("auto")
    assert counts(taken) == {"reused": 5}
    assert taken.spec.recipe.precision == "float32"
    assert "computed in float32" in text_of(taken)
    write_images(source, {"dog": 2}, seed=9)
    made = run("auto")
    assert counts(made) == {"computed": 7}
    assert made.spec.recipe.precision == "bfloat16"


@pytest.mark.keras
def test_a_model_of_reduced_features_is_certified_against_float32(tmp_path: Path) -> None:
    from tests.forward.test_frozen_graph import HAS_BFLOAT16

    if not HAS_BFLOAT16:
        pytest.skip("this processor has no bfloat16")
    source = write_images(tmp_path / "in", {"red": 12, "green": 12, "blue": 12}, size=(40, 40))
    run = tmp_path / "run"
    done = bottleneck.train(
        source, "squeezenet", run=run, weights="random:0", size=32, precision="auto", cache=tmp_path / "cache"
    )
    assert done.folder.run.request.precision == "bfloat16"
    assert done.extraction.drift is not None
    assert done.extraction.drift.images == 16
    made = bottleneck.merge(run, tmp_path / "model.keras")
    assert made.certificate.verdict == "certified"
    (drift,) = made.certificate.drift
    assert drift.form
