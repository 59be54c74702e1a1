"""What is lost is computed again and nothing else; a shard is put right in place by its very bytes alone."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bottleneck.schema import Cache, Record
from bottleneck.store.listing import list_store
from bottleneck.store.maintenance.repair import Recomputed, repair_store
from bottleneck.store.maintenance.verify import verify_store
from bottleneck.store.read import open_store
from tests.store.maintenance.small_stores import SPEC, house, put, rejection, served, snapshot, some


class Oracle:
    """A source that knows some rows, and remembers what it was asked for."""

    def __init__(self, keys: np.ndarray, rows: np.ndarray, environment: str = "fake") -> None:
        self._rows = {key.tobytes(): row for key, row in zip(keys, rows, strict=True)}
        self._environment = environment
        self.asked: list[bytes] = []
        self.refilled = 0

    def recompute(self, keys: np.ndarray) -> Recomputed:
        self.asked += [key.tobytes() for key in keys]
        there = [key for key in keys if key.tobytes() in self._rows]
        return Recomputed(
            np.array(there, np.uint8).reshape(-1, 32),
            np.array([self._rows[key.tobytes()] for key in there], np.float32).reshape(-1, 6),
            {"forward": self._environment},
            "0" * 64,
        )

    def refill(self) -> None:
        self.refilled += 1


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


@pytest.fixture
def made(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, np.ndarray, np.ndarray, str, Record]:
    """A store with a shard of 5 blocks of 4 rows among others: folder, its keys and rows, its record's name."""
    monkeypatch.setattr("bottleneck.store.commit.block_rows", lambda _: 4)
    folder, _, _ = house(cache, 2)
    keys, rows = some(20, 8)
    record = put(cache, keys, rows, rejected=[rejection(9)])
    return folder, keys, rows, f"{record.id}.json", record


def flip(path: Path, offset: int) -> None:
    broken = bytearray(path.read_bytes())
    broken[offset] ^= 1
    path.write_bytes(broken)


def test_only_the_rows_of_a_damaged_block_are_computed_again(
    cache: Cache, made: tuple[Path, np.ndarray, np.ndarray, str, Record]
) -> None:
    folder, keys, rows, name, record = made
    whole = snapshot(folder)
    flip(folder / "shards" / record.shard, record.features_offset + 5 * SPEC.row_bytes)
    oracle = Oracle(keys, rows)
    done = repair_store(folder, verify_store(folder).damaged, oracle.recompute, oracle.refill)
    assert oracle.asked == [key.tobytes() for key in keys[4:8]] and not oracle.refilled
    assert (done.in_place, done.recomputed, done.lost) == ([name], 4, [])
    assert snapshot(folder) == whole


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder, record: (folder / record.blocks).unlink(),
        lambda folder, record: flip(folder / record.blocks, 40),
        lambda folder, record: (folder / record.blocks).write_bytes(b""),
        lambda folder, record: flip(folder / record.shard, 3),
        lambda folder, record: flip(folder / record.shard, record.features_offset - 1),
    ],
)
def test_what_the_rows_themselves_tell_is_not_computed(
    made: tuple[Path, np.ndarray, np.ndarray, str, Record], damage: Callable[[Path, Record], object]
) -> None:
    folder, keys, rows, name, record = made
    whole = snapshot(folder)
    damage(folder / "shards", record)
    oracle = Oracle(keys, rows)
    done = repair_store(folder, verify_store(folder).damaged, oracle.recompute, oracle.refill)
    assert (oracle.asked, oracle.refilled, done.in_place) == ([], 0, [name])
    assert snapshot(folder) == whole


def test_other_bits_never_replace_a_shard_but_stand_beside_it(
    cache: Cache, made: tuple[Path, np.ndarray, np.ndarray, str, Record]
) -> None:
    folder, keys, rows, name, record = made
    flip(folder / "shards" / record.shard, record.features_offset)
    oracle = Oracle(keys, rows * np.float32(1.0000001) + 1e-6, "another machine")
    done = repair_store(folder, verify_store(folder).damaged, oracle.recompute, oracle.refill)
    assert (done.in_place, done.superseded, done.recomputed, done.lost) == ([], [name], 4, [])
    verdict = verify_store(folder)
    assert (verdict.damaged, verdict.orphans, verdict.rows) == ((), (), 40)
    got = served(cache, keys)
    np.testing.assert_array_equal(got[4:], rows[4:])
    np.testing.assert_allclose(got[:4], rows[:4], atol=1e-5)
    assert bytes.fromhex(rejection(9).content) in open_store(cache, SPEC).rejected
    places = {r.environment["forward"]: r.rows for r in list_store(folder).standing.values()}
    assert places["another machine"] == 4


def test_what_the_source_does_not_have_is_named_and_the_rest_kept(
    cache: Cache, made: tuple[Path, np.ndarray, np.ndarray, str, Record]
) -> None:
    folder, keys, rows, _, record = made
    flip(folder / "shards" / record.shard, record.features_offset + 9 * SPEC.row_bytes)
    oracle = Oracle(keys[:9], rows[:9])
    done = repair_store(folder, verify_store(folder).damaged, oracle.recompute, oracle.refill)
    assert done.lost == [key.tobytes().hex() for key in keys[9:12]]
    assert done.recomputed == 1
    assert verify_store(folder).damaged == ()
    left = np.r_[0:9, 12:20]
    np.testing.assert_array_equal(served(cache, keys[left]), rows[left])
    assert (open_store(cache, SPEC).find(keys[9:12]) == -1).all()


@pytest.mark.parametrize("part", ["content", "shard", "record"])
def test_where_contents_cannot_be_told_the_source_is_asked_for_everything_missing(
    cache: Cache, made: tuple[Path, np.ndarray, np.ndarray, str, Record], part: str
) -> None:
    folder, keys, rows, name, record = made
    sound = snapshot(folder)
    if part == "content":
        flip(folder / "shards" / record.shard, record.content_offset)
    elif part == "shard":
        (folder / "shards" / record.shard).unlink()
    else:
        flip(folder / "shards" / name, 200)
    asked: list[int] = []

    def refill() -> None:
        store = open_store(cache, SPEC)
        asked.append(int((~store.known(keys)).sum()))
        put(cache, keys, rows, rejected=[rejection(9)])

    done = repair_store(folder, verify_store(folder).damaged, Oracle(keys, rows).recompute, refill)
    assert asked == [20]
    assert done.in_place + done.superseded == [name]
    verdict = verify_store(folder)
    assert (verdict.damaged, verdict.orphans, verdict.rows) == ((), (), 40)
    np.testing.assert_array_equal(served(cache, keys), rows)
    assert {n for n in sound if n.endswith(".h5")} == {n for n in snapshot(folder) if n.endswith(".h5")}


def test_a_record_whose_images_may_be_another_sources_stays(
    cache: Cache, made: tuple[Path, np.ndarray, np.ndarray, str, Record]
) -> None:
    folder, keys, rows, name, record = made
    (folder / "shards" / record.shard).unlink()

    def refill() -> None:
        put(cache, keys[:19], rows[:19])

    done = repair_store(folder, verify_store(folder).damaged, Oracle(keys, rows).recompute, refill)
    assert list(done.left) == [name] and "19 other rows" in done.left[name]
    assert (folder / "shards" / name).exists()

    done = repair_store(
        folder, verify_store(folder).damaged, Oracle(keys, rows).recompute, lambda: put(cache, *some(20, 70))
    )
    assert done.superseded == [name]
    assert verify_store(folder).damaged == ()


def test_a_disk_that_refuses_to_be_read_loses_nothing(
    made: tuple[Path, np.ndarray, np.ndarray, str, Record],
) -> None:
    folder, keys, rows, name, _ = made
    before = snapshot(folder)
    (damage,) = [d for d in _refused(folder) if d.name == name]
    oracle = Oracle(keys, rows)
    done = repair_store(folder, [damage], oracle.recompute, oracle.refill)
    assert list(done.left) == [name] and not oracle.asked and not oracle.refilled
    assert snapshot(folder) == before


def _refused(folder: Path) -> tuple[object, ...]:
    with pytest.MonkeyPatch.context() as patch:

        def refuse(*_: object) -> bytes:
            raise OSError(5, "Input/output error")

        patch.setattr("bottleneck.store.maintenance.shard_check.os.pread", refuse)
        return verify_store(folder).damaged
