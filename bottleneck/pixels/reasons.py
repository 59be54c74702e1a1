"""Explain in one sentence why a decoder refused a file."""

from __future__ import annotations

import re
import zlib

from bottleneck.pixels.damage import png_chunks
from bottleneck.pixels.header import format_of

_LONGEST = 300

#: Lines that say where in the graph, and not what: a message of TensorFlow has twenty of them.
_WHERE = re.compile(
    r"Graph execution error|Detected at node|File \"|\[\[|\(\d+\) |\d+ root error|\d+ successful operation"
)
_OURS = re.compile(r"assertion failed: \[(.*?) \(bytes:\]")


def reason_for(message: str | None, data: bytes) -> str:
    """Explain why the file with these bytes was refused.

    Parameters
    ----------
    message : str or None
        The decoder's error.
    data : bytes
        The whole file.

    Examples
    --------
    >>> reason_for("Graph execution error:\\n\\nInvalid JPEG data, size 4\\n\\t [[{{node X}}]]", b"\\xff\\xd8\\xff?")
    'JPEG is cut off: 4 bytes without its end mark'
    >>> reason_for("assertion failed: [GIF without a frame (bytes:] [7] [)]", b"GIF89a;")
    'GIF without a frame'
    """
    ours = _OURS.search(message or "")
    if ours:
        return ours[1]
    kind = format_of(data[:1024])
    explain = {"JPEG": _jpeg, "PNG": _png, "WebP": _webp}.get(kind or "")
    flaw = explain(data) if explain else ""
    if flaw:
        return flaw
    lines = [line.strip() for line in (message or "").splitlines()]
    lines = [line for line in lines if line and not _WHERE.match(line)]
    if kind == "GIF" and lines:
        return f"GIF data is damaged: {lines[-1].rpartition('), ')[2]}"[:_LONGEST]
    if explain:
        return f"{kind} data is damaged"
    return lines[-1][:_LONGEST] if lines else "the decoder gave no reason"


def _jpeg(data: bytes) -> str:
    if b"\xff\xd9" in data[-64:] or data.rfind(b"\xff\xd9") > data.rfind(b"\xff\xda"):
        return ""
    return f"JPEG is cut off: {len(data):,} bytes without its end mark"


def _png(data: bytes) -> str:
    for raw, at, length in png_chunks(data):
        name = raw.decode("ascii") if raw.isalpha() else "unknown"
        end = at + length + 4
        if end > len(data):
            return (
                f"PNG is cut off or damaged: its {name} chunk ends {end - len(data):,} bytes behind the file"
            )
        # libpng passes over damaged chunks that are not critical: those have small letters.
        right = name[0].islower() or zlib.crc32(data[at - 4 : end - 4]) == int.from_bytes(
            data[end - 4 : end], "big"
        )
        if not right:
            return f"PNG is damaged: the checksum of its {name} chunk does not fit"
        if name == "IEND":
            return ""
    return f"PNG is cut off: {len(data):,} bytes without its end"


def _webp(data: bytes) -> str:
    promised = 8 + int.from_bytes(data[4:8], "little")
    return f"WebP is cut off: {len(data):,} of {promised:,} bytes" if len(data) < promised else ""
