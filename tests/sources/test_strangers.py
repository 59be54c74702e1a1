"""What a table or a server elsewhere may make this machine read: its own host, within bounds, and no more."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from bottleneck.errors import Rejected, SourceError
from bottleneck.sources import open_source
from bottleneck.system import connections, objects
from bottleneck.system.addresses import Address
from tests.in_process import FAKE, Call, InProcessWorker, caller
from tests.servers import Bucket, Site, endless, site
from tests.sources.tiny_files import labels, png, tree, zipped


@pytest.fixture
def here() -> Iterator[Site]:
    with site() as made:
        yield made


@pytest.fixture
def inside() -> Iterator[Site]:
    """A server that the user never named: it must hear nothing."""
    with site() as made:
        made.answers["/secret.png"] = png(7)
        yield made


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit that a test reaches."""
    for module in (connections, objects):
        monkeypatch.setattr(module, "LARGEST", 1 << 20)
    monkeypatch.setattr(connections, "_connected", {})


def table(*paths: str) -> bytes:
    return "\n".join(["path,label", *(f'"{path}",x' for path in paths)]).encode() + b"\n"


@pytest.mark.parametrize(
    "path",
    [
        "file:///etc/hostname",
        "FILE:///dev/zero",
        "local:///etc/hostname",
        "https://127.0.0.1/secret.png",
        "http://127.0.0.1/secret.png",
        "http://localhost:PORT/secret.png",
        "http://me@127.0.0.2:PORT/secret.png",
        "http://127.0.0.1:PORT\\@127.0.0.2/secret.png",
        "http://127.0.0.2\\@127.0.0.1:PORT/secret.png",
        "http://127.0.0.1:PORT@127.0.0.2/secret.png",
        "http://127.0.0.1:999999/secret.png",
        "s3://bucket/secret.png",
        "memory://shelf/secret.png",
        "ftp://127.0.0.1/secret.png",
        "github://org:repo@main/secret.png",
        "INSIDE/secret.png",
    ],
)
def test_a_table_from_elsewhere_names_its_own_host_only(
    path: str, here: Site, inside: Site, tmp_path: Path
) -> None:
    path = path.replace("PORT", here.url.rpartition(":")[2]).replace("INSIDE", inside.url)
    here.answers.update({"/images.csv": table("a.png", path), "/a.png": png(1), "/secret.png": png(2)})
    source = open_source(f"{here.url}/images.csv", fetched=tmp_path)
    opening = len(here.asked)
    with pytest.raises(
        SourceError, match=r"images\.csv: the path .* (--allow-host|file of this machine)"
    ) as caught:
        list(source.entries())
    assert path.partition("@")[2] in str(caught.value)
    assert len(here.asked) == 2 * opening, "fetched once more to be read, and not to be removed"
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(Rejected, match=r"--allow-host|file of this machine"):
        source.read(path.encode())
    assert inside.asked == []
    assert "/secret.png" not in here.asked and "/a.png" not in here.asked, (
        "refused before anything is asked for"
    )


def test_hosts_that_the_user_names_are_read(here: Site, inside: Site, tmp_path: Path) -> None:
    there = f"{inside.url}/secret.png"
    here.answers.update({"/images.csv": table("a.png", f"{here.url}/a.png?id=3", there), "/a.png": png(1)})
    for host in ("127.0.0.1", inside.url.partition("://")[2], inside.url):
        source = open_source(f"{here.url}/images.csv", fetched=tmp_path, allow_host=[host])
        assert len(labels(source)) == 3
        assert source.read(there.encode()) == png(7)
        assert source.read(f"{here.url}/a.png?id=3".encode()) == png(1)
    with pytest.raises(SourceError, match="--allow-host"):
        list(open_source(f"{here.url}/images.csv", fetched=tmp_path, allow_host=["127.0.0.2"]).entries())


def test_files_of_this_machine_are_not_named_from_elsewhere_whatever_is_allowed() -> None:
    for name in ("", "file://", "localhost"):
        assert not Address("https://host/x.csv", (name,)).permits("file:///etc/passwd")
        assert not Address("https://host/x.csv", (name,)).permits("file://localhost/etc/passwd")


def test_another_bucket_is_another_host(bucket: Bucket, tmp_path: Path) -> None:
    bucket.put("images.csv", table("a.png", "s3://another-bucket/a.png"))
    with pytest.raises(SourceError, match="--allow-host another-bucket"):
        list(open_source(f"{bucket.url}/images.csv", fetched=tmp_path).entries())
    allowed = open_source(f"{bucket.url}/images.csv", fetched=tmp_path, allow_host=["another-bucket"])
    assert len(list(allowed.entries())) == 2
    assert not Address(bucket.url, ("another-bucket",)).permits("https://another-bucket/x")


def test_an_answer_leads_to_its_own_host_only(here: Site, inside: Site, tmp_path: Path) -> None:
    outside = f"{inside.url}/secret.png"
    here.answers.update(
        {
            "/images.csv": table("a.png", "moved.png", "led.png"),
            "/a.png": png(1),
            "/moved.png": "/a.png",
            "/led.png": outside,
            "/led": f"{inside.url}/",
            "/led.csv": f"{inside.url}/images.csv",
            "/led.zip": "file:///etc/passwd",
            "/led2.zip": "//127.0.0.2/x.zip",
        }
    )
    inside.answers.update({"/": b"<a href='secret.png'>", "/images.csv": table("secret.png")})
    source = open_source(f"{here.url}/images.csv", fetched=tmp_path)
    assert len(labels(source)) == 3
    assert source.read(b"moved.png") == png(1)
    with pytest.raises(Rejected, match=r"led\.png leads to another place, .*--allow-host 127\.0\.0\.1"):
        source.read(b"led.png")
    for name in ("led", "led.csv", "led.zip", "led2.zip"):
        with pytest.raises(SourceError, match=r"leads to another place.*--allow-host"):
            open_source(f"{here.url}/{name}", fetched=tmp_path)
    assert inside.asked == []
    allowed = open_source(f"{here.url}/images.csv", fetched=tmp_path, allow_host=["127.0.0.1"])
    assert allowed.read(b"led.png") == png(7)
    assert labels(open_source(f"{here.url}/led.csv", fetched=tmp_path, allow_host=["127.0.0.1"])) != {}


def test_by_the_command_line_it_is_an_option(
    here: Site,
    inside: Site,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfdbinary: pytest.CaptureFixture[bytes],
) -> None:
    call: Call = caller(capfdbinary)
    monkeypatch.setattr("bottleneck.extraction.run.ExtractionRun.worker_type", InProcessWorker)
    monkeypatch.setenv("BOTTLENECK_CACHE", str(tmp_path / "cache"))
    rows = [f"{label}{n}.png" for label in "ab" for n in range(8)]
    here.answers["/images.csv"] = (
        b"path,label\n" + "".join(f"{inside.url}/{row},{row[0]}\n" for row in rows).encode()
    )
    inside.answers.update({f"/{row}": png(n) for n, row in enumerate(rows)})
    url, run = f"{here.url}/images.csv", tmp_path / "run"
    refused = call("extract", url, "--base", FAKE, "--json")
    assert refused.status == 1 and "--allow-host 127.0.0.1" in refused.json["error"]
    assert inside.asked == []
    allow = ("--allow-host", "127.0.0.1", "--trust", "--json")
    done = call("train", url, "--base", FAKE, "--run", run, "--allow-host", "127.0.0.1", "--json")
    assert done.status == 0, done.err
    assert call("predict", run, url, *allow).status == 0
    assert call("evaluate", run, *allow, "--cache", tmp_path / "empty").status == 0
    assert call("evaluate", run, "--trust", "--cache", tmp_path / "other").status == 1


def test_what_has_no_end_is_given_up(small: None, here: Site, tmp_path: Path) -> None:
    def packed(handler: BaseHTTPRequestHandler) -> None:
        import zlib

        body = zlib.compress(bytes(64 << 20), 9)
        handler.send_response(200)
        handler.send_header("Content-Encoding", "deflate")
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    here.answers.update(
        {"/endless.png": endless, "/packed.png": packed, "/pages": endless, "/t.csv": endless}
    )
    here.answers["/images.csv"] = table("endless.png", "packed.png")
    source = open_source(f"{here.url}/images.csv", fetched=tmp_path)
    for name in (b"endless.png", b"packed.png"):
        with pytest.raises(OSError, match="more than the limit") as caught:
            source.read(name)
        assert caught.value.errno == errno.EFBIG
    with pytest.raises(SourceError, match="more than the limit"):
        open_source(f"{here.url}/pages")


def test_a_table_that_has_no_end_fills_no_disk(
    here: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bottleneck.sources.fetched._LARGEST_TABLE", 1 << 20)
    here.answers["/t.csv"] = endless
    with pytest.raises(SourceError, match="more than the limit"):
        open_source(f"{here.url}/t.csv", fetched=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_large_object_is_not_taken_in_and_an_empty_one_is_empty(
    small: None, bucket: Bucket, tmp_path: Path
) -> None:
    bucket.put("in/a/large.png", bytes((1 << 20) + 1))
    bucket.put("in/a/fits.png", bytes(1 << 20))
    bucket.put("in/a/none.png", b"")
    source = open_source(f"{bucket.url}/in")
    with pytest.raises(OSError, match="more than the limit"):
        source.read(b"a/large.png")
    assert source.read(b"a/fits.png") == bytes(1 << 20)
    assert source.read(b"a/none.png") == b""
    with pytest.raises(FileNotFoundError):
        source.read(b"a/gone.png")


@pytest.mark.parametrize("kind", ["fifo", "device", "link to a device"])
def test_pipes_and_devices_behind_a_file_url_are_refused(kind: str, tmp_path: Path) -> None:
    bad = Path("/dev/zero") if kind == "device" else tmp_path / "bad"
    if kind == "fifo":
        os.mkfifo(bad)
    elif kind == "link to a device":
        bad.symlink_to("/dev/zero")
    with pytest.raises(OSError, match="not a regular file"):
        objects.read_object(f"file://{bad}")


@pytest.mark.parametrize("protocol", ["file", "FILE", "local"])
def test_a_file_url_of_a_source_is_the_path_that_it_names(protocol: str, tmp_path: Path) -> None:
    """So that what is known of paths holds of it too: the file system in a signature, and what is no regular file."""
    folder = tree(tmp_path / "in 1%20?x=1", {"a/1.png": 1, "b/2.png": 2})
    (folder / "images.csv").write_bytes(table("a/1.png"))
    for path in (folder, folder / "images.csv", zipped(tmp_path / "images.zip", {"a/1.png": 1})):
        source, plain = open_source(f"{protocol}://{path}"), open_source(path)
        assert (source, source.location) == (plain, str(path))
        assert list(source.entries()) == list(plain.entries())
    with pytest.raises(SourceError, match="empty text"):
        open_source(f"{protocol}://")
