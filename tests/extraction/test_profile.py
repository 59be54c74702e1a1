"""Which stage bounds an extraction: pure judgement, and what real tasks measure for it."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bottleneck.extraction.forecast.forecast import sample_task
from bottleneck.extraction.profile import Clock, bottleneck_stage, combine_clocks, explain_profile
from bottleneck.extraction.worker import main as worker_module
from bottleneck.extraction.worker.main import Worker
from bottleneck.inventory.scan import scan_source
from bottleneck.schema import Cache
from bottleneck.sources.open import open_source
from bottleneck.store.plan import plan_tasks
from tests.extraction.fake_runs import here
from tests.extraction.test_report import text_of
from tests.fakes import FakeForward, write_images


@pytest.mark.parametrize(
    ("waited", "reading", "stage"),
    [
        ({"decode": 5.0, "forward": 1.0, "write": 0.1}, 0.1, "decode"),
        ({"decode": 5.0, "forward": 1.0, "write": 0.1}, 0.8, "read"),
        ({"decode": 1.0, "forward": 5.0, "write": 0.1}, 0.8, "forward"),
        ({"decode": 1.0, "forward": 1.0, "write": 9.0}, 0.8, "write"),
    ],
)
def test_the_stage_that_is_waited_for_is_the_bottleneck(
    waited: dict[str, float], reading: float, stage: str
) -> None:
    clock = Clock(waited, {"decode": 6.04, "forward": 850.4}, reading, 2)
    assert bottleneck_stage(clock) == stage
    line = explain_profile(clock)
    assert line.startswith(f"{stage}-bound: ")
    assert "6.0 images/s" in line and "the base could take 850" in line
    assert "What would help: " in line


def test_a_base_on_the_processors_that_decode_is_the_bottleneck_where_it_is_the_slower() -> None:
    waited = {"decode": 5.0, "forward": 1.0}
    assert bottleneck_stage(Clock(waited, {"decode": 850.0, "forward": 390.0}, 0.1, 2)) == "forward"
    assert bottleneck_stage(Clock(waited, {"decode": 390.0, "forward": 850.0}, 0.1, 2)) == "decode"
    assert bottleneck_stage(Clock(waited, {"decode": 850.0, "forward": 390.0}, 0.9, 2)) == "read"
    assert bottleneck_stage(Clock(waited, {"decode": 850.0}, 0.1, 2)) == "decode"


def test_without_measured_rates_the_line_claims_none() -> None:
    line = explain_profile(Clock({"forward": 2.0}, {}, 0.0, 1))
    assert line.startswith("forward-bound. What would help: ")
    assert explain_profile(Clock()) == ""
    assert "1 processor decodes 9.0 images/s" in explain_profile(
        Clock({"decode": 1.0}, {"decode": 9.0}, 0.0, 1)
    )


def test_where_numba_is_not_installed_it_is_what_helps_to_decode() -> None:
    waits = {"decode": 5.0, "forward": 1.0}
    without = combine_clocks([Clock(waits), Clock(waits, has_numba=False)])
    assert "pip install numba" in explain_profile(without)
    assert "numba" not in explain_profile(Clock(waits))
    assert "numba" not in explain_profile(Clock({"forward": 9.0}, has_numba=False))


@given(
    st.lists(
        st.builds(
            Clock,
            st.fixed_dictionaries({stage: st.floats(0, 1e3) for stage in ("decode", "forward", "write")}),
            st.dictionaries(st.sampled_from(["decode", "forward"]), st.floats(0.1, 1e4)),
            st.floats(0, 1),
            st.integers(1, 64),
        ),
        min_size=1,
    )
)
def test_tasks_together_wait_as_long_as_each_alone(clocks: list[Clock]) -> None:
    whole = combine_clocks(clocks)
    for stage in ("decode", "forward", "write"):
        assert whole.waited[stage] == pytest.approx(sum(clock.waited[stage] for clock in clocks))
    for stage, rate in whole.alone.items():
        seen = [clock.alone[stage] for clock in clocks if stage in clock.alone]
        assert min(seen) <= rate <= max(seen)
    assert bottleneck_stage(whole) in ("read", "decode", "forward", "write")


# Slow beyond what a busy machine adds to the other stage: a pause of 0.3 s in it has been seen.
class SlowDecoder(FakeForward):
    def decode(self, data: bytes) -> np.ndarray:
        time.sleep(0.5)
        return super().decode(data)


class SlowBase(FakeForward):
    def features(self, pixels: np.ndarray) -> np.ndarray:
        time.sleep(1)
        return super().features(pixels)


@pytest.mark.parametrize(("forward", "stage"), [(SlowDecoder(), "decode"), (SlowBase(), "forward")])
def test_a_run_names_its_slow_stage_and_what_each_could_do(
    tmp_path: Path, forward: FakeForward, stage: str
) -> None:
    source = write_images(tmp_path / "in", {"cat": 6, "dog": 6})
    done, _, _ = here(source, tmp_path / "cache", forward)
    assert done.bottleneck_stage == stage
    slower, faster = ("decode", "forward") if stage == "decode" else ("forward", "decode")
    assert done.clock.alone[slower] < done.clock.alone[faster]
    said = text_of(done)
    assert f"{stage}-bound" in said and "What would help" in said
    document = done.to_json()
    assert document["stages"].keys() == {"decode", "forward", "write"}
    assert document["stages_alone"].keys() == {"decode", "forward"}


class SetsUpAside(FakeForward):
    is_ready = False

    def ready(self, coming: int = 0) -> None:
        self.is_ready = True

    def decode(self, data: bytes) -> np.ndarray:
        assert self.is_ready, "setting up would count as decoding"
        return super().decode(data)


def test_what_is_set_up_beside_the_first_passes_is_waited_for_before_anything_is_timed(
    tmp_path: Path,
) -> None:
    source = write_images(tmp_path / "in", {"cat": 3})
    done, _, _ = here(source, tmp_path / "cache", SetsUpAside())
    assert done.computed == 3


class SetsUpForMany(FakeForward):
    told = 0

    def ready(self, coming: int = 0) -> None:
        self.told = coming


def test_a_sample_is_run_as_a_long_run_would_be_once_it_is_set_up(tmp_path: Path) -> None:
    source = open_source(write_images(tmp_path / "in", {"cat": 12}))
    task = sample_task(
        plan_tasks(scan_source(source, tmp_path / "scans"), FakeForward().spec, np.zeros(12, bool))
    )
    forward = SetsUpForMany()
    with Worker(forward, source, Cache(tmp_path / "cache")) as worker:
        worker.attempt(task, lambda _: None)
    assert forward.told == 12


class SetsUpAtItsFirstFile(SetsUpAside):
    is_begun = False

    def ready(self, coming: int = 0) -> None:
        self.is_ready = self.is_begun

    def decode(self, data: bytes) -> np.ndarray:
        if not self.is_begun:
            self.is_begun = True
            return FakeForward.decode(self, data)
        return super().decode(data)


def test_what_files_like_the_first_call_for_is_waited_for_too(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "in", {"cat": 12})
    done, _, _ = here(folder, tmp_path / "cache", SetsUpAtItsFirstFile())
    assert done.computed == 12


class HangsAtItsFirstFile(SetsUpAtItsFirstFile):
    has_ended = False
    gone_on = threading.Event()

    def decode(self, data: bytes) -> np.ndarray:
        self.is_begun = True
        self.gone_on.wait(5)
        self.has_ended = True
        return FakeForward.decode(self, data)


def test_a_first_file_that_hangs_is_left_to_its_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "_FIRST_FILE", 0.2)
    source = open_source(write_images(tmp_path / "in", {"cat": 12}))
    task = sample_task(
        plan_tasks(scan_source(source, tmp_path / "scans"), FakeForward().spec, np.zeros(12, bool))
    )
    forward = HangsAtItsFirstFile()
    with Worker(forward, source, Cache(tmp_path / "cache")) as worker:
        worker.see_first(task)
        # What the parent watches begins only when this is done.
        worker.targets(task)
        assert forward.is_begun and not forward.has_ended
        forward.gone_on.set()


# A file that is gone calls for nothing.
@pytest.mark.parametrize(
    ("first", "forward"), [(b"\x89PNG\r\n\x1a\n no more", SetsUpAtItsFirstFile), (None, SetsUpAside)]
)
def test_and_before_a_sample_whatever_the_first_file_is(
    tmp_path: Path, first: bytes | None, forward: type[FakeForward]
) -> None:
    source = open_source(write_images(tmp_path / "in", {"cat": 12}))
    task = sample_task(
        plan_tasks(scan_source(source, tmp_path / "scans"), FakeForward().spec, np.zeros(12, bool))
    )
    path = tmp_path / "in" / os.fsdecode(task.paths[0])
    path.write_bytes(first) if first else path.unlink()
    with Worker(forward(), source, Cache(tmp_path / "cache")) as worker:
        assert worker.attempt(task, lambda count: None).images == 12


def test_a_run_with_nothing_to_do_has_no_bottleneck(tmp_path: Path) -> None:
    source = write_images(tmp_path / "in", {"cat": 3})
    here(source, tmp_path / "cache")
    again, _, _ = here(source, tmp_path / "cache")
    assert again.bottleneck_stage == "nothing to compute"
    assert "bottleneck" not in text_of(again)
