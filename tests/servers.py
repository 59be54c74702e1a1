"""Servers on this machine to read from: a real S3 service and a plain web server; both of other people's code."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

#: What tells every client, ours and any other, where S3 is and who is asking.
ACCESS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}

#: The server asks for a signature in some cases and checks none.
_HEADERS = {
    "Content-Type": "application/octet-stream",
    "Authorization": "AWS4-HMAC-SHA256 Credential=testing/20200101/us-east-1/s3/aws4_request, "
    "SignedHeaders=host, Signature=00",
}


class Bucket(NamedTuple):
    """A bucket of its own for one test; written to by plain HTTP, which knows nothing of our clients."""

    endpoint: str
    name: str

    @property
    def url(self) -> str:
        return f"s3://{self.name}"

    def put(self, key: str, data: bytes) -> None:
        self._ask("PUT", key, data)

    def get(self, key: str) -> bytes:
        return self._ask("GET", key)

    def delete(self, key: str) -> None:
        self._ask("DELETE", key)

    def put_tree(self, folder: Path, prefix: str) -> str:
        """All files below `folder`, and the URL of the prefix."""
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                self.put(f"{prefix}/{path.relative_to(folder).as_posix()}", path.read_bytes())
        return f"{self.url}/{prefix}"

    def _ask(self, method: str, key: str, data: bytes | None = None) -> bytes:
        where = f"{self.endpoint}/{self.name}/{quote(key)}".rstrip("/")
        request = urllib.request.Request(where, data, _HEADERS, method=method)
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.read()


@contextlib.contextmanager
def s3_server() -> Iterator[str]:
    """Moto's server in a process of its own; gives its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, **ACCESS}
    )
    try:
        for _ in range(6000):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            assert process.poll() is None, "the S3 server did not start"
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def web_server(folder: Path) -> Iterator[str]:
    """`folder` behind http://, with pages that list what is in it."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Site:
    """A web server that answers as a test says, and remembers who asked for what.

    `answers` maps a path to bytes (the body), text (a redirect to there), a number (that status), or a callable that
    is given the handler and writes whatever it likes.
    """

    def __init__(self) -> None:
        self.answers: dict[str, bytes | str | int | Callable[[BaseHTTPRequestHandler], None]] = {}
        self.asked: list[str] = []
        self.url = ""

    def serve(self, handler: BaseHTTPRequestHandler) -> None:
        """Answer one request."""
        self.asked.append(handler.path)
        answer = self.answers.get(handler.path.partition("?")[0], 404)
        if callable(answer):
            answer(handler)
            return
        handler.send_response(302 if isinstance(answer, str) else answer if isinstance(answer, int) else 200)
        if isinstance(answer, str):
            handler.send_header("Location", answer)
        body = answer if isinstance(answer, bytes) else b""
        if body.startswith(b"<"):
            handler.send_header("Content-Type", "text/html")
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(body)


def endless(handler: BaseHTTPRequestHandler) -> None:
    """A body without an end, until nobody listens."""
    handler.send_response(200)
    handler.send_header("Content-Type", "text/html")
    handler.end_headers()
    with contextlib.suppress(OSError):
        while handler.command != "HEAD":
            handler.wfile.write(b"<a>" * 20000)
    handler.close_connection = True


@contextlib.contextmanager
def site(host: str = "127.0.0.1") -> Iterator[Site]:
    """A `Site` that is served while the block runs."""
    made = Site()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            made.serve(self)

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer((host, 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    made.url = f"http://{host}:{server.server_address[1]}"
    try:
        yield made
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
