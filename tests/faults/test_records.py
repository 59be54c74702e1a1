"""Records and headers with hostile names and values: rows 39 and 40."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bottleneck.errors import BottleneckError
from bottleneck.schema import Cache
from bottleneck.store.plan import task_id
from bottleneck.store.record import read_record
from tests.faults.reference_stores import (
    edit_record,
    python,
    serve,
    shards_of,
    some_store,
)

Note = Callable[[str], None]

_SERVE = """
import resource, sys, time
from pathlib import Path
from bottleneck.schema import Cache
from tests.faults.reference_stores import serve, some_store
import tempfile
keys, rows = some_store(Cache(Path(tempfile.mkdtemp())), 2, 10)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
started = time.process_time()
served = serve(Cache(Path(sys.argv[1])), keys, rows)
seconds = time.process_time() - started
print(served.verdict, served.right, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, seconds)
"""


def apart(cache: Cache, **more: Any) -> tuple[str, int, float, float]:
    """`serve` in a process of its own: verdict, right rows, MiB more, seconds."""
    done = python(_SERVE, cache.root, **more)
    assert done.returncode == 0, done.stderr
    verdict, right, kilobytes, seconds = done.stdout.split()
    return verdict, int(right), int(kilobytes) / 1024, float(seconds)


# --------------------------------------------------------------------------------------- 39: names that lead elsewhere


def link_shard(folder: Path, name: str, secret: Path) -> None:
    shard = folder / read_record(folder, name).shard
    shutil.move(shard, secret)
    shard.symlink_to(secret)


def link_blocks(folder: Path, name: str, secret: Path) -> None:
    blocks = folder / read_record(folder, name).blocks
    shutil.move(blocks, secret)
    blocks.symlink_to(secret)


def link_record(folder: Path, name: str, secret: Path) -> None:
    shutil.move(folder / name, secret)
    (folder / name).symlink_to(secret)


@pytest.mark.fault(39)
@pytest.mark.needs_tool("strace")
@pytest.mark.parametrize("plant", [link_shard, link_blocks, link_record])
def test_a_link_in_place_of_a_file_is_never_followed(
    cache: Cache, tmp_path: Path, plant: Callable[[Path, str, Path], None]
) -> None:
    keys, _ = some_store(cache, 2, 10)
    secret = tmp_path / "secret"
    plant(shards_of(cache), f"{task_id(keys[:10])}.json", secret)
    log = tmp_path / "calls"
    # -y prints what each descriptor that was given back really is.
    prefix = ("strace", "-f", "-y", "-e", "trace=open,openat,openat2", "-o", str(log))
    verdict, right, _, _ = apart(cache, prefix=prefix)
    calls = log.read_text(errors="replace")
    assert (verdict, right) == ("detected", 10)
    assert str(shards_of(cache)) in calls, "strace saw the store being opened"
    assert f"<{secret}>" not in calls


@pytest.mark.fault(39)
@pytest.mark.parametrize("which", ["shard", "blocks", "record"])
@pytest.mark.parametrize("kind", ["fifo", "folder", "socket", "zeros"])
def test_what_is_no_file_in_place_of_one_is_refused_without_waiting(
    cache: Cache, which: str, kind: str
) -> None:
    keys, rows = some_store(cache, 2, 10)
    folder = shards_of(cache)
    record = read_record(folder, f"{task_id(keys[:10])}.json")
    victim = folder / {"shard": record.shard, "blocks": record.blocks, "record": f"{record.id}.json"}[which]
    victim.unlink()
    if kind == "fifo":
        os.mkfifo(victim)
    elif kind == "folder":
        victim.mkdir()
    elif kind == "socket":
        os.mknod(victim, stat.S_IFSOCK | 0o600)
    else:  # an endless device, which only root can make
        try:
            os.mknod(victim, stat.S_IFCHR | 0o600, os.makedev(1, 5))
            os.close(os.open(victim, os.O_RDONLY))
        except PermissionError:
            pytest.skip("devices cannot be made here")
    served = serve(cache, keys, rows)
    assert (served.verdict, served.right) == ("detected", 10), served


@pytest.mark.fault(39)
@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.update(id="../" + d["id"][3:]),
        lambda d: d.update(id="/" + d["id"][1:]),
        lambda d: d.update(id=d["id"][:15] + "\0"),
        lambda d: d.update(id=d["id"] + "\n"),
        lambda d: d.update(id="f" * 16),
        lambda d: d.update(file_sha256="../../" + d["file_sha256"][6:]),
        lambda d: d.update(file_sha256="/dev/zero" + d["file_sha256"][9:]),
        lambda d: d.update(file_sha256=d["file_sha256"].upper()),
        lambda d: d.update(file_sha256="٣" * 64),
        lambda d: d.update(file_sha256="0" * 64),
    ],
)
def test_a_record_that_names_other_files(cache: Cache, change: Callable[[dict[str, Any]], None]) -> None:
    """Its own hash is right: whoever wrote it knew how."""
    keys, rows = some_store(cache, 2, 10)
    edit_record(shards_of(cache) / f"{task_id(keys[:10])}.json", change)
    served = serve(cache, keys, rows)
    assert (served.verdict, served.right) == ("detected", 10), served


# ------------------------------------------------------------------------------------------------- 40: hostile values


VALUES: list[Any] = [
    None, True, -1, 0, 1, 2**31, 2**63, 2**64 - 1, 10**19, 0.5, 1e300, "", "x", "0", "\0", "9" * 70, [], {}, [[]],
    [0], [-1], [2**62, 2**62], [6, 0], {"a": 1}, "é\ud800", ["x"] * 1000, "float64", "object", "float16", [None],
]  # fmt: skip


@pytest.mark.fault(40)
def test_any_value_in_any_field_of_a_record(cache: Cache, full: bool, note: Note) -> None:
    """Its own hash is right. A wrong row is never served; what is refused is refused by the two kinds of error."""
    keys, rows = some_store(cache, 2, 10)
    path = shards_of(cache) / f"{task_id(keys[:10])}.json"
    whole = path.read_bytes()
    fields = sorted(set(json.loads(whole)) - {"self"})
    verdicts = []
    for field in fields:
        for value in VALUES if full else VALUES[hash_of(field) % 3 :: 3]:
            edit_record(path, lambda d, f=field, v=value: d.update({f: v}))
            served = serve(cache, keys, rows)
            assert served.verdict != "SILENT", (field, value, served)
            assert served.right >= 10 or served.refused == 20, (field, value, served)
            verdicts.append(served.verdict)
            path.write_bytes(whole)
        edit_record(path, lambda d, f=field: d.pop(f))
        assert serve(cache, keys, rows).verdict != "SILENT", field
        path.write_bytes(whole)
    note(f"{len(verdicts)} values: {verdicts.count('detected')} refused, the others change no row")
    assert verdicts.count("detected") > 0.6 * len(verdicts)


def hash_of(text: str) -> int:
    """The same in every process, as Python's own is not."""
    return hashlib.sha256(text.encode()).digest()[0]


@pytest.mark.fault(40)
@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("long text", lambda: b'{"format": 1, "id": "' + b"x" * (63 << 20) + b'"}'),
        ("many keys", lambda: json.dumps({f"k{n}": n for n in range(200_000)}).encode()),
        ("deep list", lambda: b"[" * 200_000),
        ("deep object", lambda: b'{"a":' * 200_000),
        ("digits", lambda: b'{"rows": ' + b"9" * 5000 + b"}"),
        ("NaN", lambda: b'{"rows": NaN}'),
        ("twice", lambda: b'{"format": 1, "format": 1}'),
        ("no UTF-8", lambda: b"\xff\xfe{}"),
        ("zeros", lambda: bytes(1 << 20)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_document_that_is_none_costs_its_own_shard_and_little_else(
    cache: Cache, name: str, make: Callable[[], bytes]
) -> None:
    keys, rows = some_store(cache, 2, 10)
    (shards_of(cache) / f"{task_id(keys[:10])}.json").write_bytes(make())
    served = serve(cache, keys, rows)
    assert (served.verdict, served.right) == ("detected", 10), served


@pytest.mark.fault(40)
@pytest.mark.parametrize("name", ["record", "recipe.json"])
def test_a_document_of_a_gigabyte_is_not_read(cache: Cache, name: str) -> None:
    keys, _ = some_store(cache, 2, 10)
    folder = shards_of(cache)
    path = folder / f"{task_id(keys[:10])}.json" if name == "record" else folder.parent / name
    os.truncate(path, 1 << 30)  # sparse
    verdict, right, mebibytes, seconds = apart(cache)
    assert (verdict, right) == ("detected", 10 if name == "record" else 0)
    assert mebibytes < 200, f"{mebibytes:.0f} MiB for a document that is refused by its size"
    assert seconds < 2


@pytest.mark.fault(40)
def test_a_record_of_four_billion_rows(cache: Cache) -> None:
    keys, _ = some_store(cache, 2, 10)
    edit_record(
        shards_of(cache) / f"{task_id(keys[:10])}.json",
        lambda d: d.update(rows=1 << 32, file_bytes=1 << 50, block_rows=1 << 20),
    )
    verdict, right, mebibytes, seconds = apart(cache)
    assert (verdict, right) == ("detected", 10)
    assert mebibytes < 100
    assert seconds < 2


@pytest.mark.fault(40)
def test_rubbish_of_any_bytes_never_escapes_as_another_error(cache: Cache, full: bool, note: Note) -> None:
    """Random edits of a record's and a header's text: a store is served right, or one kind of error is raised."""
    keys, rows = some_store(cache, 2, 10)
    folder = shards_of(cache)
    draw = np.random.default_rng(0)
    count = 0
    for path in (folder / f"{task_id(keys[:10])}.json", folder.parent / "recipe.json"):
        whole = path.read_bytes()
        for _ in range(500 if full else 60):
            data = bytearray(whole)
            for _ in range(int(draw.integers(1, 6))):
                at, size = int(draw.integers(len(data))), int(draw.integers(0, 9))
                data[at : at + size] = (
                    draw.integers(0, 256, int(draw.integers(0, 9))).astype(np.uint8).tobytes()
                )
            path.write_bytes(data)
            try:
                served = serve(cache, keys, rows)
            except BottleneckError as error:
                raise AssertionError("`serve` catches these itself") from error
            assert served.verdict != "SILENT", (bytes(data), served)
            count += 1
        path.write_bytes(whole)
    note(f"{count} edits")
