"""The batch shape of a new store: searched for where a run is long, within memory, and the same for all builders."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import bottleneck
from bottleneck.extraction import setup
from bottleneck.extraction.worker import process
from bottleneck.extraction.worker.channel import WorkerDied
from bottleneck.extraction.worker.main import Worker
from bottleneck.extraction.worker.messages import Open
from bottleneck.extraction.worker.process import WorkerProcess
from bottleneck.forward import batch_size as batches
from bottleneck.forward.batch_size import climb, within_memory
from bottleneck.schema import BaseRequest, Cache
from bottleneck.sources import open_source
from bottleneck.store.header import read_header
from tests.fakes import FakeForward, TunableForward, base, write_images
from tests.models.tiny_network import PREPROCESSING, save_network

SHAPES = [8, 16, 32, 64, 128, 256, 512]


@given(st.lists(st.floats(1, 1000), min_size=7, max_size=7))
def test_what_is_found_is_never_slower_than_the_usual(rates: list[float]) -> None:
    known = dict(zip(SHAPES, rates, strict=True))
    found = climb(known.__getitem__, 16)
    assert known[found] >= known[16]
    assert found == 16 or known[found] >= 1.03 * known[16]


def test_the_search_goes_up_then_down_and_stops_at_the_ends() -> None:
    assert climb(float, 16) == 512
    assert climb(lambda batch: 1 / batch, 16) == 8
    assert climb(lambda batch: 5.0, 16) == 16


def test_what_does_not_fit_ends_the_way_up() -> None:
    def rate(batch: int) -> float:
        if batch > 128:
            raise MemoryError
        return float(batch)

    assert climb(rate, 16) == 128


def test_a_larger_batch_is_not_tried_where_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def rate(batch: int) -> float:
        asked.append(batch)
        return float(batch)

    monkeypatch.setattr(batches, "_available", lambda: 1 << 20)
    assert climb(within_memory(rate), 16) == 16
    assert asked == [16, 8]
    monkeypatch.setattr(batches, "_available", lambda: 1 << 50)
    assert climb(within_memory(rate), 16) == 512


def test_a_worker_searches_for_long_runs_alone(tmp_path: Path) -> None:
    tried: list[int] = []
    worker = Worker(TunableForward(), open_source(tmp_path), Cache(tmp_path))
    assert worker.best_batch(10, 3600.0, tried.append) is None
    assert not tried
    assert worker.best_batch(10, 0.0, tried.append) == 16
    assert tried == [1, 1, 1, 1]  # 4, 8, 16, 32
    assert (
        Worker(FakeForward(), open_source(tmp_path), Cache(tmp_path)).best_batch(10, 0.0, tried.append)
        is None
    )


def test_the_search_runs_in_the_worker_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "LONG", 0.0)
    tried: list[int] = []
    opening = Open(open_source(tmp_path), (BaseRequest(base="tests.fakes:tunable"),), Cache(tmp_path))
    with WorkerProcess(opening) as worker:
        assert worker.best_batch(10, tried.append) == 16
    assert tried == [1, 1, 1, 1]


def test_a_worker_that_dies_of_a_batch_costs_the_search_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(setup, "FEWEST", 1)
    monkeypatch.setattr(process, "LONG", 0.0)
    source = write_images(tmp_path / "in", {"cat": 5})
    opening = Open(open_source(source), (BaseRequest(base="tests.fakes:deadly"),), Cache(tmp_path / "cache"))
    with (
        WorkerProcess(opening) as worker,
        pytest.raises(WorkerDied, match="SIGKILL"),
    ):
        worker.best_batch(5, lambda _: None)
    assert bottleneck.extract(source, "tests.fakes:deadly", cache=tmp_path / "cache").computed == 5


@pytest.mark.keras
def test_what_was_found_is_the_stores_before_any_row_and_of_every_later_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched: list[int] = []

    def best(self: WorkerProcess, images: int, tried: object) -> int:
        searched.append(images)
        return 64

    monkeypatch.setattr(setup, "FEWEST", 5)
    monkeypatch.setattr(WorkerProcess, "best_batch", best)
    cache, base = tmp_path / "cache", {"base": str(save_network(tmp_path)), "preprocessing": PREPROCESSING}
    few = write_images(tmp_path / "few", {"cat": 4}, seed=1)
    many = write_images(tmp_path / "many", {"cat": 6}, seed=2)
    more = write_images(tmp_path / "more", {"dog": 6}, seed=3)

    short = bottleneck.extract(few, **base, cut="block1_out", cache=cache)
    assert batches_of(short.store) == {"16"}
    assert searched == []
    done = bottleneck.extract(many, **base, cache=cache)
    header = read_header(done.store)
    assert header is not None
    assert header.batch == 64
    assert batches_of(done.store) == {"64"}
    bottleneck.extract(more, **base, cache=cache)
    assert batches_of(done.store) == {"64"}
    asked = bottleneck.extract(more, **base, cut="block2_out", batch=8, cache=cache)
    assert batches_of(asked.store) == {"8"}
    assert searched == [6]


def batches_of(store: Path) -> set[str]:
    records = [json.loads(path.read_text("utf-8")) for path in (store / "shards").glob("*.json")]
    return {record["environment"]["batch"] for record in records}


@pytest.mark.keras
@pytest.mark.parametrize(("gpus", "usual"), [(0, 16), (1, 32)])
def test_a_new_store_has_the_usual_shape_of_the_device(
    gpus: int, usual: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tensorflow as tf

    from bottleneck.forward.keras_forward import batch_for

    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["device"] * gpus)
    choose = batch_for(BaseRequest(base="fake"), Cache(tmp_path))
    assert choose([base().spec]) == usual
    assert batch_for(BaseRequest(base="fake", batch=5), Cache(tmp_path))([base().spec]) == 5


@pytest.mark.keras
def test_a_base_can_be_tried_at_other_shapes() -> None:
    from bottleneck.bases.load import load_model
    from bottleneck.forward.keras_forward import KerasForward, keras_forward
    from bottleneck.schema import Preprocessing
    from tests.models.tiny_network import SIZE, network

    model = network()
    request = BaseRequest(base="object:toy", preprocessing=Preprocessing.parse(PREPROCESSING))
    forward = keras_forward(lambda asked: load_model(model, asked), [request], Cache(Path("unused")))
    images = np.random.default_rng(0).uniform(0, 255, (16, SIZE, SIZE, 3)).astype(np.float32)
    before = forward.features(images)
    assert forward.rate(8) > 0
    assert forward.rate(32) > 0
    np.testing.assert_array_equal(forward.features(images), before)
    with pytest.raises(MemoryError, match="once more"):
        KerasForward(load_model(model, [request]), lambda _: 4).rate(8)
