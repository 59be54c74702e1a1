"""A password or a signature in a URL is used, and stands nowhere afterwards: no output, no error, no file."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import traceback
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

import bottleneck
from bottleneck import runs
from bottleneck.errors import BottleneckError, SourceError
from bottleneck.schema import Cache
from bottleneck.sources import open_source
from bottleneck.system import addresses
from bottleneck.system.addresses import redact
from tests.fakes import write_images
from tests.in_process import FAKE, Call
from tests.secret_urls import FORMS, SECRET, TRACES, commands, nothing_is_written, with_secret
from tests.servers import Bucket, Site, site
from tests.sources.tiny_files import zipped


@pytest.fixture
def call(call: Call, monkeypatch: pytest.MonkeyPatch) -> Call:
    """The same, and no command may show a trace of the secret."""
    monkeypatch.delenv("BOTTLENECK_SOURCE", raising=False)
    monkeypatch.setattr(addresses, "_given", {})

    def checked(*arguments: object) -> object:
        said = call(*arguments)
        for text in (said.out, said.err):
            assert not any(trace in text for trace in TRACES), (arguments, text)
        return said

    return checked  # type: ignore[return-value]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Site]:
    """Images, a table and a zip behind a server that wants the secret for what it is asked by its whole URL."""
    names = {f"{label}/{n}.png": 10 * at + n for at, label in enumerate("ab") for n in range(6)}
    folder = write_images(tmp_path / "site", {"a": 6, "b": 6})
    packed = zipped(tmp_path / "site" / "images.zip", names).read_bytes()
    rows = "".join(f"{label}/{n:03d}.png,{label}\n" for label in "ab" for n in range(6))
    with site() as made:

        def guarded(body: bytes) -> object:
            def answer(handler: BaseHTTPRequestHandler) -> None:
                known = SECRET in handler.path or "Authorization" in handler.headers
                handler.send_response(200 if known else 403)
                handler.send_header("Content-Type", "text/html" if body.startswith(b"<") else "image/png")
                handler.send_header("Content-Length", str(len(body)))
                handler.send_header("ETag", f'"{hash(body)}"')
                handler.end_headers()
                if handler.command != "HEAD":
                    handler.wfile.write(body)

            return answer

        for path in folder.rglob("*.png"):
            made.answers[f"/{path.relative_to(folder).as_posix()}"] = path.read_bytes()
        made.answers["/images.csv"] = guarded(b"path,label\n" + rows.encode())  # type: ignore[assignment]
        made.answers["/images.zip"] = guarded(packed)  # type: ignore[assignment]
        yield made


@pytest.mark.parametrize("form", FORMS)
def test_a_secret_works_and_stands_nowhere(form: str, call: Call, served: Site, tmp_path: Path) -> None:
    url = with_secret(f"{served.url}/images.{FORMS[form] or 'csv'}", form)
    for command in commands(url, tmp_path) if FORMS[form] else commands(url, tmp_path)[1:2]:
        said = call(*command)
        assert said.status == 0, (command, said.err)
    if FORMS[form]:
        source = runs.read_run(tmp_path / "run").run.source
        assert source == redact(url) and "***" in source
    nothing_is_written(tmp_path)


def test_a_secret_stands_in_no_error(call: Call, served: Site, tmp_path: Path) -> None:
    def broken(handler: BaseHTTPRequestHandler) -> None:
        handler.connection.close()

    def torn(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        handler.close_connection = True

    def told(handler: BaseHTTPRequestHandler) -> None:
        """A server that says in its own words what it was asked."""
        handler.send_response(500, f"cannot serve {handler.path}")
        handler.end_headers()

    def led(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(302)
        handler.send_header("Location", f"http://127.0.0.2:1{handler.path}")
        handler.end_headers()

    local = write_images(tmp_path / "in", {"a": 6, "b": 6})
    assert call("train", local, "--base", FAKE, "--run", tmp_path / "run").status == 0
    ends = {"403": 403, "404": 404, "broken": broken, "torn": torn, "told": told, "led": led, "html": b"<a>"}
    for name, answer in ends.items():
        for end in (".csv", ".zip", ""):
            served.answers[f"/{name}{end}"] = answer  # type: ignore[assignment]
            url = with_secret(f"{served.url}/{name}{end}", "both" if end else "password")
            for command in commands(url, tmp_path)[1 : 14 if name + end == "403.csv" else 2]:
                call(*command)  # whatever it ends with
            with pytest.raises(BottleneckError) as caught:
                list(open_source(url, fetched=tmp_path / "cache" / "remote").entries())
            everything = "".join(traceback.format_exception(caught.value))
            assert not any(trace in everything for trace in TRACES), everything
    nothing_is_written(tmp_path)


@pytest.mark.parametrize(
    "url",
    [
        f"http://me:{SECRET}@127.0.0.1:9/x.csv",
        f"http://127.0.0.1:9/x?sig={SECRET}",
        f"http://me:{SECRET}/more@127.0.0.1:9/x.csv",
        f"http://me:{SECRET}@127.0.0.1:nine/x.csv",
        f"http://127.0.0.1:9/x.csv#access_token={SECRET}",
        f"http://127.0.0.1:9/my set/x.csv?sig={SECRET}",
        f"nosuch://me:{SECRET}@host/x",
        f"sftp://me:{SECRET}@127.0.0.1/x",
        f"ftp://me:{SECRET}@127.0.0.1:9/x.csv",
        f"az://container/x.csv?sv=1&sig={SECRET}",
        f"abfs://container@account.dfs.core.windows.net/x.csv?sig={SECRET}",
        f"gs://bucket/x.csv?X-Goog-Signature={SECRET}",
        f"s3://key:{SECRET}@no-such-bucket/x.csv",
        f"webhdfs://me:{SECRET}@127.0.0.1:9/x.csv",
        f"smb://me:{SECRET}@127.0.0.1:9/x.csv",
    ],
)
def test_a_secret_stands_in_no_error_of_any_protocol(
    url: str, call: Call, tmp_path: Path, bucket: Bucket
) -> None:
    for command in (
        ("extract", url, "--base", FAKE),
        ("extract", url, "--base", FAKE, "--json"),
        ("extract", tmp_path / "none", "--base", FAKE, "--remote", url),
        ("store", "copy", url, tmp_path / "out"),
        ("store", "prune", "--keep", url, "--json"),
        ("bases", "vgg16", url),
        ("bases", url),
    ):
        said = call(*command)
        if command[0] == "extract":
            assert said.status == 1 and "Traceback" not in said.err, said.err
    nothing_is_written(tmp_path)


@pytest.mark.parametrize("how", [[], ["--json"]])
def test_a_secret_stands_in_no_traceback(
    how: list[str], call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"http://me:{SECRET}@127.0.0.1:9/x.csv?sig={SECRET}"

    def fails(*_: object, **__: object) -> None:
        try:
            raise OSError(f"no answer from {url}")
        except OSError as error:
            raise RuntimeError(f"cannot read {url}") from error

    monkeypatch.setattr("bottleneck.pipeline.extract.extract", fails)
    said = call("extract", url, "--base", FAKE, *how)
    assert said.status == 1
    assert said.err.endswith("\nRuntimeError: cannot read http://***@127.0.0.1:9/x.csv?***\n")
    assert "OSError: no answer from http://***@" in said.err


def test_a_cache_elsewhere_keeps_its_password_to_itself(call: Call, tmp_path: Path) -> None:
    local = write_images(tmp_path / "in", {"a": 6, "b": 6})
    assert call("extract", local, "--base", FAKE).status == 0
    folder = tmp_path / "cache" / "stores"
    with site() as there:
        for path in folder.rglob("*"):
            if path.is_file():
                there.answers[f"/stores/{path.relative_to(folder).as_posix()}"] = path.read_bytes()
        (store,) = folder.iterdir()
        for at, inside in (
            ("stores", [f"{store.name}/"]),
            (f"stores/{store.name}/shards", [p.name for p in (store / "shards").iterdir()]),
        ):
            there.answers[f"/{at}"] = "".join(f"<a href='{name}'></a>" for name in inside).encode()
        url = with_secret(there.url, "password")
        for command in (
            (
                "extract",
                local,
                "--base",
                FAKE,
                "--remote",
                url,
                "--cache",
                tmp_path / "cache" / "two",
                "--json",
            ),
            ("store", "copy", url, tmp_path / "out", "--json"),
            ("store", "copy", url, tmp_path / "out"),
        ):
            said = call(*command)
            assert said.status == 0, said.err
        assert not any(trace in repr(Cache.at(None, url)) for trace in TRACES)
    nothing_is_written(tmp_path)


def test_a_later_command_says_what_it_lacks_or_finds_it(
    call: Call, served: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = with_secret(f"{served.url}/images.csv", "signature")
    assert call("train", url, "--base", FAKE, "--run", tmp_path / "run").status == 0
    empty = ("evaluate", tmp_path / "run", "--trust", "--json", "--cache", tmp_path / "cache" / "empty")
    assert call(*empty).status == 0, "this process was given it"
    monkeypatch.setattr(addresses, "_given", {})
    assert call("evaluate", tmp_path / "run", "--trust").status == 0, "all of it is stored"
    lost = ("evaluate", tmp_path / "run", "--trust", "--json", "--cache", tmp_path / "cache" / "more")
    said = call(*lost)
    assert said.status == 1
    assert "give the source again" in said.json["error"] and "$BOTTLENECK_SOURCE" in said.json["error"]
    monkeypatch.setenv("BOTTLENECK_SOURCE", with_secret(f"{served.url}/another.csv", "signature"))
    assert call(*lost).status == 1, "that is another"
    monkeypatch.setenv("BOTTLENECK_SOURCE", url)
    assert call(*lost).status == 0
    with pytest.raises(SourceError, match="give the source again"):
        open_source("https://***@host/x.csv")


def test_a_run_that_remembers_a_secret_passes_it_on_to_none(call: Call, tmp_path: Path) -> None:
    """Runs of earlier versions had it in their record."""
    local = write_images(tmp_path / "in", {"a": 6, "b": 6})
    assert call("train", local, "--base", FAKE, "--run", tmp_path / "old").status == 0
    record = tmp_path / "old" / "run.json"
    document = json.loads(record.read_text())
    document["source"] = f"http://me:{SECRET}@127.0.0.1:9/images.csv"
    record.write_text(json.dumps(document))
    old = runs.read_run(tmp_path / "old")
    (tmp_path / "run").mkdir()
    shutil.copyfile(tmp_path / "old" / "table.parquet", tmp_path / "run" / "table.parquet")
    runs.write_run(tmp_path / "run", old.run, old.figures, old.head())
    assert runs.read_run(tmp_path / "run").run.source == "http://***@127.0.0.1:9/images.csv"
    assert call("evaluate", tmp_path / "old", "--trust", "--cache", tmp_path / "cache" / "empty").status == 1
    nothing_is_written(tmp_path)


def test_a_table_with_signed_paths_is_refused(call: Call, served: Site, tmp_path: Path) -> None:
    served.answers["/signed.csv"] = f"path,label\n{served.url}/a/000.png?sig={SECRET},a\n".encode()
    said = call("extract", f"{served.url}/signed.csv", "--base", FAKE)
    assert said.status == 1 and "a password or a signature" in said.err
    nothing_is_written(tmp_path)


def test_workers_and_their_parent_say_nothing_of_it(served: Site, tmp_path: Path) -> None:
    """Real processes, with all their logs."""
    url = with_secret(f"{served.url}/images.csv", "both")
    command = [
        sys.executable,
        "-m",
        "bottleneck",
        "extract",
        url,
        "--base",
        FAKE,
        "--cache",
        tmp_path / "cache",
    ]
    done = subprocess.run(
        [*map(str, command), "--json"], capture_output=True, text=True, check=False, env={**os.environ}
    )
    assert done.returncode == 0, done.stderr
    assert not any(trace in done.stdout + done.stderr for trace in TRACES)
    nothing_is_written(tmp_path)


def test_pipeline_api_shows_none(served: Site, tmp_path: Path) -> None:
    url = with_secret(f"{served.url}/images.csv", "both")
    source = open_source(url, fetched=tmp_path)
    assert SECRET not in repr(source) and SECRET not in source.location
    assert SECRET not in repr(bottleneck.scan(url, cache=tmp_path / "cache"))


@pytest.mark.parametrize("start", ["https:///", "https:/", " https://", "HTTPS:////"])
def test_a_secret_in_what_is_nearly_a_url_is_hidden_in_messages(
    call: Call, tmp_path: Path, start: str
) -> None:
    said = call("extract", f"{start}me:{SECRET}@host/x?sig={SECRET}", "--base", FAKE, "--json")
    assert said.status != 0
    assert "***" in said.json["error"]
