"""URLs that hold a secret, the commands that take them, and what must not hold it."""

from __future__ import annotations

from pathlib import Path

from tests.in_process import FAKE

SECRET = "qv7SENTINEL2f"
#: The same as libraries may write it.
TRACES = (SECRET, SECRET.lower(), "cXY3U0VOVElORUwyZg", "qv7%53ENTINEL2f")


def with_secret(url: str, form: str) -> str:
    """`url` with the secret in one of the places where people put it."""
    protocol, _, rest = url.partition("://")
    return {
        "password": f"{protocol}://me:{SECRET}@{rest}",
        "user": f"{protocol}://{SECRET}@{rest}",
        "signature": f"{url}?X-Amz-Algorithm=x&X-Amz-Signature={SECRET}",
        "sas": f"{url}?sv=2024&sig={SECRET}%3D&se=2030",
        "bare query": f"{url}?{SECRET}",
        "odd name": f"{url}?x={SECRET}",
        "both": f"{protocol}://me:{SECRET}@{rest}?token={SECRET}",
    }[form]


#: What each form is tried on by every command; the others by the one that opens, fetches and indexes.
FORMS = {
    "password": "csv",
    "signature": "zip",
    "user": "",
    "sas": "",
    "bare query": "",
    "odd name": "",
    "both": "",
}


def nothing_is_written(tmp_path: Path) -> None:
    """No file below the cache, the run or the outputs has the secret."""
    for path in [path for name in ("cache", "run", "out") for path in (tmp_path / name).rglob("*")]:
        assert not any(trace in str(path) for trace in TRACES), path
        if path.is_file():
            data = path.read_bytes()
            assert not any(trace.encode() in data for trace in TRACES), path


def commands(url: str, tmp_path: Path) -> list[tuple[object, ...]]:
    """Every command that takes a source."""
    run = tmp_path / "run"
    return [
        ("extract", url, "--base", FAKE, "--dry-run"),
        ("extract", url, "--base", FAKE, "--json"),
        ("extract", url, "--base", FAKE),
        ("features", url, "--base", FAKE, "--out", tmp_path / "out"),
        ("train", url, "--base", FAKE, "--run", run),
        ("train", url, "--base", FAKE, "--run", run, "--json"),
        ("predict", run, url, "--trust"),
        ("predict", run, url, "--trust", "--json"),
        ("evaluate", run, "--trust"),
        ("evaluate", run, url, "--trust", "--json", "--rehash"),
        ("store", "verify", "--repair", url, "--trust"),
        ("store", "verify", "--sample", 2, "--source", url, "--trust", "--json"),
        ("store", "prune", "--keep", url),
    ]
