"""Sources behind URLs, from a real S3 server and a plain web server on this machine."""

from __future__ import annotations

import errno
import json
import pickle
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import bottleneck
from bottleneck import runs
from bottleneck.errors import Rejected, SourceError
from bottleneck.inventory.scan import scan_source
from bottleneck.sources import open_source
from bottleneck.system import connections, objects
from bottleneck.system.connections import as_os_error
from tests.fakes import write_images
from tests.in_process import FAKE, Call, InProcessWorker, caller
from tests.servers import Bucket, web_server
from tests.sources.tiny_files import labels, png, tarred, tree, zipped


@pytest.fixture
def call(capfdbinary: pytest.CaptureFixture[bytes]) -> Call:
    return caller(capfdbinary)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every URL whose bytes were asked for."""
    asked: list[str] = []
    plain = objects.read_object

    def read(url: str, start: int | None = None, end: int | None = None, **more: Any) -> bytes:
        asked.append(url)
        return plain(url, start, end, **more)

    monkeypatch.setattr(objects, "read_object", read)
    return asked


def test_a_prefix_is_laid_out_like_a_folder(bucket: Bucket, tmp_path: Path) -> None:
    names = [
        "train/a/1.png",
        "train/b/sub/2.png",
        "val/a/3.png",
        "test/b/4 %20+#?é.png",
        "train/.DS_Store",
        ".hidden/5.png",
        "train/top.png",
    ]
    url = bucket.put_tree(tree(tmp_path, {name: at for at, name in enumerate(names)}), "photos/set 1")
    bucket.put("photos/set 1/train/a/", b"")  # what some tools leave to stand for a folder
    bucket.put("photos/set 10/other.png", b"")
    source = open_source(url + "/")
    assert source.location == url
    assert labels(source) == {
        b"train/a/1.png": ("a", "train"),
        b"train/b/sub/2.png": ("b", "train"),
        b"val/a/3.png": ("a", "validation"),
        "test/b/4 %20+#?é.png".encode(): ("b", "test"),
        b"train/top.png": (None, "train"),
    }
    assert source.passed_over() == {"system file": 1, "hidden folder": 1}
    for entry in source.entries():
        assert source.read(entry.path) == png(names.index(entry.path.decode()))


def test_a_flat_prefix_and_a_whole_bucket(bucket: Bucket) -> None:
    for key in ("1.png", "2.png"):
        bucket.put(f"flat/{key}", png(1))
    assert labels(open_source(f"{bucket.url}/flat")) == {b"1.png": (None, None), b"2.png": (None, None)}
    assert labels(open_source(bucket.url)) == {b"flat/1.png": ("flat", None), b"flat/2.png": ("flat", None)}


def test_what_cannot_be_read_is_an_error_with_a_number(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.put("in/a/1.png", png(1))
    bucket.put("in/a/2.png", png(2))
    source = open_source(f"{bucket.url}/in")
    assert len(labels(source)) == 2
    bucket.delete("in/a/2.png")
    with pytest.raises(FileNotFoundError) as caught:
        source.read(b"a/2.png")
    assert caught.value.errno == errno.ENOENT
    # Between listing and reading: a rejection of its own, the rest is read.
    (one,) = source.entries()
    listed = [one, one._replace(path=b"a/2.png")]
    monkeypatch.setattr(
        type(source),
        "entries",
        lambda _: iter(listed),
    )
    found = scan_source(source, None)
    assert [record.path for record in found] == [b"a/1.png"]
    assert [(r.path, r.reason, r.retry) for r in found.unreadable] == [
        ("a/2.png", "vanished between the listing and the reading", True)
    ]


def test_what_a_service_refuses_is_a_permission_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refused(Exception):
        status = 403

    class Unreachable(Exception):
        pass

    broken = FileNotFoundError("x")  # so does fsspec tell of a server that fails
    broken.__cause__ = type("Failed", (Exception,), {"status": 500})("500, message='Internal Server Error'")
    for error, number in (
        (PermissionError("Access Denied"), errno.EACCES),
        (Refused("403, message='Forbidden'"), errno.EACCES),
        (type("NoCredentialsError", (Exception,), {})("Unable to locate credentials"), errno.EACCES),
        (FileNotFoundError("x"), errno.ENOENT),
        (broken, errno.EIO),
        (TimeoutError(), errno.ETIMEDOUT),
        (Unreachable("dns"), errno.EIO),
    ):
        with pytest.raises(OSError, match=r".") as caught, as_os_error("s3://x/y"):
            raise error
        assert caught.value.errno == number, error


def test_a_server_that_never_answers_costs_its_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "_DEADLINE", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        started = time.monotonic()
        with pytest.raises(TimeoutError) as caught:
            objects.read_object(f"http://127.0.0.1:{silent.getsockname()[1]}/1.png")
        assert caught.value.errno == errno.ETIMEDOUT
        assert time.monotonic() - started < 120


def test_locations_that_cannot_be(bucket: Bucket, tmp_path: Path) -> None:
    bucket.put("one.png", png(1))
    bucket.put("bad.csv", b"name,kind\n")
    bucket.put("bad.zip", b"no zip")
    for location, expected in (
        (f"{bucket.url}/nothing", "nothing is"),
        ("s3://no-such-bucket-anywhere/x", "nothing is"),
        (f"{bucket.url}/none.csv", "nothing is there"),
        (f"{bucket.url}/one.png", "one object, and by its name neither"),
        (f"{bucket.url}/bad.csv", rf"^{bucket.url}/bad.csv: expected columns path,label"),
        (f"{bucket.url}/bad.zip", rf"^{bucket.url}/bad.zip: this is no sound zip"),
        (f"{bucket.url}/x.tar.gz", "compressed tar"),
        ("nosuch://bucket/x", "nosuch.*expected s3://"),
        ("http://127.0.0.1:9/x.csv", "cannot be reached"),
    ):
        with pytest.raises(SourceError, match=expected) as caught:
            open_source(location, fetched=tmp_path / "fetched")
        assert str(tmp_path) not in str(caught.value), "a message names what the user named"


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    with pytest.raises(SourceError, match=r"pip install gcsfs"):
        open_source("gs://bucket/photos")
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(SourceError, match=r'pip install "bottleneck-features\[remote\]"'):
        open_source("s3://bucket/photos")


def test_a_table_names_objects_beside_it_above_it_and_elsewhere(bucket: Bucket, tmp_path: Path) -> None:
    for at, key in enumerate(("in/lists/near.png", "in/up.png", "rooted.png", "other/far.png")):
        bucket.put(key, png(at))
    bucket.put(
        "in/lists/images.csv",
        "path,label,split\nnear.png,01,train\n../up.png,b,\n/rooted.png,c,val\n"
        f"{bucket.url}/other/far.png,d,test\nnone.png,e,\n".encode(),
    )
    source = open_source(f"{bucket.url}/in/lists/images.csv", fetched=tmp_path)
    assert labels(source) == {
        b"near.png": ("01", "train"),
        b"../up.png": ("b", None),
        b"/rooted.png": ("c", "validation"),
        f"{bucket.url}/other/far.png".encode(): ("d", "test"),
        b"none.png": ("e", None),
    }
    paths = [entry.path for entry in source.entries()]
    assert [source.read(path) for path in paths[:4]] == [png(0), png(1), png(2), png(3)]
    with pytest.raises(Rejected, match="there is none"):
        source.read(b"none.png")
    assert pickle.loads(pickle.dumps(source)).read(b"../up.png") == png(1)


def test_a_table_is_fetched_again_when_it_changed(bucket: Bucket, tmp_path: Path) -> None:
    url = f"{bucket.url}/images.csv"
    bucket.put("images.csv", b"path,label\na.png,x\n")
    assert labels(open_source(url, fetched=tmp_path)) == {b"a.png": ("x", None)}
    bucket.put("images.csv", b"path,label\na.png,y\n")
    assert labels(open_source(url, fetched=tmp_path)) == {b"a.png": ("y", None)}


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_an_archive_is_fetched_once_a_version(
    kind: str, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack = zipped if kind == "zip" else tarred
    url = f"{bucket.url}/sets/images.{kind}"
    bucket.put(f"sets/images.{kind}", pack(tmp_path / f"x.{kind}", {"a/1.png": 1, "b/2.png": 2}).read_bytes())
    fetches: list[str] = []
    plain = objects.fetch_object
    monkeypatch.setattr(
        objects, "fetch_object", lambda url, *rest, **more: fetches.append(url) or plain(url, *rest, **more)
    )
    fetched = tmp_path / "fetched"
    for _ in range(2):
        source = open_source(url, fetched=fetched)
        assert source.location == url
        assert labels(source) == {b"a/1.png": ("a", None), b"b/2.png": ("b", None)}
    assert fetches == [url]
    assert pickle.loads(pickle.dumps(source)).read(b"b/2.png") == png(2)
    bucket.put(f"sets/images.{kind}", pack(tmp_path / f"y.{kind}", {"a/1.png": 1}).read_bytes())
    assert labels(open_source(url, fetched=fetched)) == {b"a/1.png": ("a", None)}
    assert fetches == [url, url]
    assert sorted(path.suffix for path in fetched.iterdir()) == [f".{kind}"] * 2, "nothing half is left"


def test_a_fetch_that_breaks_off_leaves_nothing(bucket: Bucket, tmp_path: Path) -> None:
    bucket.put("x.zip", b"0123456789")

    def refuse(aside: Path) -> None:
        assert aside.read_bytes() == b"0123456789"
        raise OSError(errno.EIO, "broken off")

    with pytest.raises(OSError, match="broken off"):
        objects.fetch_object(f"{bucket.url}/x.zip", tmp_path / "x.zip", refuse)
    assert list(tmp_path.iterdir()) == []


def test_over_http_pages_are_folders_and_archives_and_tables_are_read(tmp_path: Path) -> None:
    site = tmp_path / "site"
    tree(site / "my set", {"a b/1 é#.png": 1, "c/2.png": 2})
    zipped(site / "x.ZIP", {"a/1.png": 1})
    (site / "my set" / "images.csv").write_text("path,label\na b/1 é#.png,x\nc/2.png,y\n")
    with web_server(site) as address:
        folder = open_source(f"{address}/my%20set/")
        table = open_source(f"{address}/my%20set/images.csv?token=1", fetched=tmp_path / "fetched")
        archive = open_source(f"{address}/x.ZIP?token=1", fetched=tmp_path / "fetched")
        first = "a b/1 é#.png".encode()
        assert labels(folder) == {
            first: ("a b", None),
            b"c/2.png": ("c", None),
            b"images.csv": (None, None),
        }
        assert labels(table) == {first: ("x", None), b"c/2.png": ("y", None)}
        assert labels(archive) == {b"a/1.png": ("a", None)}
        assert folder.read(first) == table.read(first) == archive.read(b"a/1.png") == png(1)
        sizes = {entry.path: entry.signature[0] for entry in folder.entries()}
        assert sizes[first] == len(png(1))
        with pytest.raises(FileNotFoundError):
            folder.read(b"c/none.png")
        assert labels(open_source(f"{address}/my%20set".replace("http", "HTTP"))) == labels(folder)


def test_from_s3_to_features_and_only_what_changed_again(
    bucket: Bucket, tmp_path: Path, call: Call, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bottleneck.extraction.run.ExtractionRun.worker_type", InProcessWorker)
    monkeypatch.setenv("BOTTLENECK_CACHE", str(tmp_path / "cache"))
    local = write_images(tmp_path / "in", {"cat": 10, "dog": 10})
    url = bucket.put_tree(local, "in")

    # The first time by a worker process, which is given the source by value.
    first = [
        sys.executable,
        "-W",
        "error::ResourceWarning",
        "-m",
        "bottleneck",
        "extract",
        url,
        "--base",
        FAKE,
    ]
    done = subprocess.run([*first, "--json", "--quiet"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["computed"] == 20

    def extracted() -> tuple[int, int, int]:
        reads.clear()
        done = call("extract", url, "--base", FAKE, "--json").json
        return done["computed"], done["reused"], len(reads)

    assert extracted() == (0, 20, 0), "what did not change is not read"
    bucket.put("in/cat/003.png", (local / "cat" / "002.png").read_bytes())
    write_images(tmp_path / "new", {"cat": 1}, seed=9)
    bucket.put("in/cat/004.png", (tmp_path / "new" / "cat" / "000.png").read_bytes())
    assert extracted() == (1, 18, 3), "two are read to know them, one of these to compute it"
    rows = bottleneck.features(url, FAKE)
    (tmp_path / "in/cat/004.png").write_bytes((tmp_path / "new/cat/000.png").read_bytes())
    (tmp_path / "in/cat/003.png").write_bytes((tmp_path / "in/cat/002.png").read_bytes())
    assert (rows.X[:] == bottleneck.features(local, FAKE).X[:]).all()
    done = call("train", url, "--base", FAKE, "--run", tmp_path / "run", "--json")
    assert done.status == 0, done.err
    assert runs.read_run(tmp_path / "run").run.source == url
