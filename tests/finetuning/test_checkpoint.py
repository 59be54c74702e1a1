"""Checkpoints of a fine-tuning: without pickle, replaced whole, never another fine-tuning's."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from bottleneck.errors import TuningError
from bottleneck.finetuning.checkpoint import Checkpoint, load_checkpoint, save_checkpoint

POINT = Checkpoint(identity="a" * 64, done=(), history=({"epoch": 0.0, "val_loss": 1.5},), best=0)


def arrays(count: int) -> dict[str, list[np.ndarray]]:
    draw = np.random.default_rng(count)
    return {"now": [draw.normal(size=(n + 1,)).astype("f4") for n in range(count)], "empty": [np.int64(7)]}


def test_what_was_saved_comes_back_in_order_and_to_the_bit(tmp_path: Path) -> None:
    path = tmp_path / "point.npz"
    save_checkpoint(path, POINT, arrays(12))  # more than ten: names are not sorted as text
    found = load_checkpoint(path, "a" * 64)
    assert found is not None
    point, groups = found
    assert point == POINT
    assert [part.tobytes() for part in groups["now"]] == [part.tobytes() for part in arrays(12)["now"]]
    assert [path.name for path in tmp_path.iterdir()] == ["point.npz"]


def test_another_fine_tunings_point_and_none_at_all_begin_anew(tmp_path: Path) -> None:
    path = tmp_path / "point.npz"
    assert load_checkpoint(path, "a" * 64) is None
    save_checkpoint(path, POINT, arrays(1))
    assert load_checkpoint(path, "b" * 64) is None


def test_a_damaged_point_is_refused_by_name_and_a_pickle_is_never_opened(tmp_path: Path) -> None:
    path = tmp_path / "point.npz"
    save_checkpoint(path, POINT, arrays(3))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(TuningError, match=r"point\.npz is no checkpoint"):
        load_checkpoint(path, "a" * 64)
    trap = np.array([{"a": 1}], object)
    np.savez(path, point=trap)
    with pytest.raises(TuningError, match="no checkpoint"):
        load_checkpoint(path, "a" * 64)
    path.write_bytes(pickle.dumps({"point": 1}))
    with pytest.raises(TuningError, match="no checkpoint"):
        load_checkpoint(path, "a" * 64)
