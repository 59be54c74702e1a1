"""Images that end, fill or hang a worker cost themselves alone."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import bottleneck
from bottleneck.errors import UsageError
from bottleneck.extraction.retry_policy import settled_contents
from bottleneck.extraction.run import ExtractionRun
from bottleneck.extraction.worker.channel import WorkerDied
from bottleneck.extraction.worker.main import Worker
from bottleneck.extraction.worker.process import WorkerProcess
from bottleneck.inventory.scan import scan_source
from bottleneck.pipeline.foresee import foresee
from bottleneck.pixels.header import check_header
from bottleneck.schema import Cache, Limits
from bottleneck.sources.open import open_source
from bottleneck.store.plan import plan_tasks
from bottleneck.store.read import open_store
from tests.extraction.fake_runs import FAKE, check_served, counts
from tests.fakes import base, write_images


def mark(source: Path, name: str, word: str) -> None:
    with (source / "cat" / name).open("ab") as file:
        file.write(word.encode())


@contextlib.contextmanager
def never_asked() -> Iterator[None]:
    """Nothing is asked of a worker."""

    def compute(worker: WorkerProcess, *_: Any) -> Any:
        raise AssertionError("asked to compute")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(WorkerProcess, "compute", compute)
        yield


@pytest.mark.parametrize(
    ("word", "why"),
    [
        ("KILLED", "SIGKILL"),
        ("ABORT", "SIGABRT"),
        ("HANGS", "no sign of life for 4 s"),
        ("GREEDY", "over the --memory-limit of 0.34 GB"),
    ],
)
def test_a_bad_image_costs_itself_alone(tmp_path: Path, word: str, why: str) -> None:
    source, cache = write_images(tmp_path / "in", {"cat": 20}), tmp_path / "cache"
    mark(source, "013.png", word)
    deadline = 4 if word == "HANGS" else 30
    done = bottleneck.extract(source, FAKE, cache=cache, deadline=deadline, memory_limit="320M")
    assert counts(done) == {"computed": 19, "rejected": 1}
    (bad,) = done.rejections
    assert bad.path == "cat/013.png"
    assert bad.stage == "decode"
    assert bad.retry
    assert why in bad.reason
    store = open_store(Cache(cache), base().spec)
    assert [item.reason for item in store.suspects.values()] == [bad.reason]
    assert bad.final, "it was tried twice, the second time last and alone"
    # Its circumstances are what they were: nothing is tried again.
    with never_asked():
        again = bottleneck.extract(source, FAKE, cache=cache, deadline=deadline, memory_limit="320M")
    assert counts(again) == {"reused": 19, "rejected": 1}
    assert again.rejections == done.rejections
    # Now they are others, and it is, alone.
    again = bottleneck.extract(source, FAKE, cache=cache, deadline=deadline + 0.5, memory_limit="320M")
    assert counts(again) == {"reused": 19, "rejected": 1}
    assert why in again.rejections[0].reason
    assert f"deadline {deadline + 0.5:g} s" in again.rejections[0].circumstances
    assert again.rejections[0].final
    assert len(list((again.store / "shards").glob("*.h5"))) == 1
    # What was final under the first limits is so still.
    with never_asked():
        bottleneck.extract(source, FAKE, cache=cache, deadline=deadline, memory_limit="320M")


def test_a_suspect_that_does_well_later_gets_its_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, cache = write_images(tmp_path / "in", {"cat": 6}), tmp_path / "cache"
    mark(source, "002.png", "KILLED")
    assert counts(bottleneck.extract(source, FAKE, cache=cache)) == {"computed": 5, "rejected": 1}
    # It has a record of its own by now, which must not win for ever.
    assert counts(bottleneck.extract(source, FAKE, cache=cache)) == {"reused": 5, "rejected": 1}
    again = bottleneck.extract(source, FAKE, cache=cache, retry_rejected=True)
    assert counts(again) == {"reused": 5, "rejected": 1}
    monkeypatch.setenv("FAKES_ARE_KIND", "1")
    assert counts(bottleneck.extract(source, FAKE, cache=cache)) == {"reused": 5, "rejected": 1}
    estimate = foresee(source, FAKE, cache=cache, retry_rejected=True)
    assert (estimate.to_compute, estimate.retried) == (1, 1)
    assert foresee(source, FAKE, cache=cache).to_compute == 0
    done = bottleneck.extract(source, FAKE, cache=cache, retry_rejected=True)
    assert counts(done) == {"computed": 1, "reused": 5}
    assert counts(bottleneck.extract(source, FAKE, cache=cache)) == {"reused": 6}
    check_served(source, cache)


def test_several_bad_images_of_one_task_are_all_found(tmp_path: Path) -> None:
    source, cache = write_images(tmp_path / "in", {"cat": 12}), tmp_path / "cache"
    for name in ("000.png", "001.png", "011.png"):
        mark(source, name, "ABORT")
    done = bottleneck.extract(source, FAKE, cache=cache, max_bad=0.5)
    assert counts(done) == {"computed": 9, "rejected": 3}
    assert [bad.path for bad in done.rejections] == ["cat/000.png", "cat/001.png", "cat/011.png"]


def test_an_image_that_does_well_the_second_time_has_a_row_in_the_same_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that is busy for a moment condemns nothing."""
    source, cache = write_images(tmp_path / "in", {"cat": 6}), tmp_path / "cache"
    mark(source, "002.png", "KILLED")
    tries = ExtractionRun._try_again

    def better(run: ExtractionRun, *given: Any) -> Any:
        run._setup.worker.rest()  # type: ignore[attr-defined]
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("FAKES_ARE_KIND", "1")
            return tries(run, *given)

    with monkeypatch.context() as patch:
        patch.setattr(ExtractionRun, "_try_again", better)
        assert counts(bottleneck.extract(source, FAKE, cache=cache)) == {"computed": 6}
    # The oracle decodes in this very process.
    monkeypatch.setenv("FAKES_ARE_KIND", "1")
    check_served(source, cache)


def test_a_record_of_an_earlier_version_has_its_images_tried_again(tmp_path: Path) -> None:
    """It says of no circumstances under which they failed, so they may be others."""
    source, cache = write_images(tmp_path / "in", {"cat": 6}), tmp_path / "cache"
    mark(source, "002.png", "ABORT")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Limits, "circumstances", "")
        done = bottleneck.extract(source, FAKE, cache=cache)
    records = (done.store / "shards").glob("*.json")
    assert {json.loads(record.read_bytes())["format"] for record in records} == {1}
    assert not done.rejections[0].final
    done = bottleneck.extract(source, FAKE, cache=cache)
    assert done.rejections[0].final
    with never_asked():
        bottleneck.extract(source, FAKE, cache=cache)


def test_an_image_over_the_limit_of_pixels_is_refused_once(tmp_path: Path) -> None:
    """No worker has to die for that, and no run to be started for it again."""
    source, cache = write_images(tmp_path / "in", {"cat": 3}), Cache(tmp_path / "cache")
    opened = open_source(source)
    inventory = scan_source(opened, None)
    forward = base()
    forward.decode = lambda data: check_header(data, 10) and np.zeros((8, 8, 3), np.float32)  # type: ignore
    with Worker(forward, opened, cache) as worker:
        (task,) = plan_tasks(inventory, base().spec, np.zeros(len(inventory), bool))
        (outcome,) = worker.compute(task, lambda _: None)
    assert {(why.retry, why.final, why.circumstances) for why in outcome.rejections} == {
        (True, True, "at most 10 pixels")
    }
    store = open_store(cache, base().spec)
    assert not store.known(inventory.keys).any()
    assert settled_contents(store, inventory.keys, frozenset(["at most 10 pixels"])).all()
    assert not settled_contents(store, inventory.keys, frozenset(["at most 20 pixels"])).any()


@pytest.mark.parametrize("places", [(0, 1, 2), (3, 4, 5, 6)])
def test_any_number_of_images_that_fill_the_memory_are_refused_one_by_one(
    tmp_path: Path, places: tuple[int, ...]
) -> None:
    source, cache = write_images(tmp_path / "in", {"cat": 8}), tmp_path / "cache"
    for place in places:
        mark(source, f"{place:03d}.png", "GREEDY")
    done = bottleneck.extract(source, FAKE, cache=cache, memory_limit="320M", max_bad=1.0)
    assert counts(done) == {
        k: n for k, n in {"computed": 8 - len(places), "rejected": len(places)}.items() if n
    }
    assert [bad.path for bad in done.rejections] == [f"cat/{place:03d}.png" for place in places]
    assert all("over the --memory-limit of 0.34 GB" in bad.reason and bad.final for bad in done.rejections)


def test_several_images_that_end_a_forward_pass_are_refused_where_others_come_through(tmp_path: Path) -> None:
    source, cache = write_images(tmp_path / "in", {"cat": 11}), tmp_path / "cache"
    for number in range(4):
        Image.new("RGB", (9 + number, 9), (1, 1, 1)).save(source / "cat" / f"005{number}.png")
    done = bottleneck.extract(source, "tests.fakes:fragile_base", cache=cache, max_bad=0.5)
    assert counts(done) == {"computed": 11, "rejected": 4}
    assert all(bad.stage == "forward" and bad.final for bad in done.rejections)


def test_a_forward_pass_that_dies_of_one_image_rejects_that_image(tmp_path: Path) -> None:
    source, cache = write_images(tmp_path / "in", {"cat": 11}), tmp_path / "cache"
    Image.new("RGB", (9, 9), (1, 1, 1)).save(source / "cat" / "005b.png")
    done = bottleneck.extract(source, "tests.fakes:fragile_base", cache=cache)
    assert counts(done) == {"computed": 11, "rejected": 1}
    (bad,) = done.rejections
    assert (bad.path, bad.stage, bad.retry) == ("cat/005b.png", "forward", True)
    check_served_others(source, cache)


def check_served_others(source: Path, cache: Path) -> None:
    (source / "cat" / "005b.png").unlink()
    check_served(source, cache)


def test_a_base_that_dies_of_every_image_is_to_blame_itself(tmp_path: Path) -> None:
    source = write_images(tmp_path / "in", {"cat": 40})
    with pytest.raises(WorkerDied, match=r"SIGABRT.*No single image explains it.*smaller --batch"):
        bottleneck.extract(source, "tests.fakes:doomed_base", cache=tmp_path / "cache")


def test_a_memory_limit_below_what_the_worker_itself_needs_is_said(tmp_path: Path) -> None:
    source = write_images(tmp_path / "in", {"cat": 5})
    with pytest.raises(WorkerDied, match=r"--memory-limit of 0.01 GB.*larger --memory-limit"):
        bottleneck.extract(source, "tests.fakes:slow_base", cache=tmp_path / "cache", memory_limit=10_000_000)


@pytest.mark.parametrize(
    "options", [{"deadline": 0}, {"deadline": -1}, {"memory_limit": "much"}, {"retry_rejected": "perhaps"}]
)
def test_limits_are_read_at_the_door(tmp_path: Path, options: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="--deadline, --memory-limit, --retry-rejected"):
        bottleneck.extract(write_images(tmp_path, {"cat": 1}), FAKE, cache=tmp_path / "c", **options)


def test_circumstances_name_what_decodes_and_computes_and_nothing_else() -> None:
    _, _, *versions = Limits().circumstances.split(", ")
    assert {version.split()[0] for version in versions} - {"numba"} == {
        *("Python", "bottleneck-features", "tensorflow", "keras", "numpy")
    }
