"""Damaged and contradictory files of the five formats, made from a seed, and what Pillow makes of them."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image

from tests.pixels.pictures import encoded, photo, pillow, png

ROWS, COLUMNS = 24, 32


class Mutant(NamedTuple):
    """A file, and how it came to be."""

    name: str
    data: bytes


def sound_files() -> dict[str, bytes]:
    """One file of each kind that the decoders treat in a way of its own, all of ROWS x COLUMNS pixels."""
    picture = Image.fromarray(photo(ROWS, COLUMNS))
    clear = Image.fromarray(photo(ROWS, COLUMNS, channels=4), "RGBA")
    palette = picture.quantize(13)
    shades = np.asarray(picture.convert("L"))
    files = {
        **{f"png {mode}": encoded(picture.convert(mode), "PNG") for mode in ("RGB", "L", "P", "1")},
        **{f"png {mode}": encoded(clear.convert(mode), "PNG") for mode in ("RGBA", "LA")},
        "png P clear": encoded(palette, "PNG", transparency=bytes([0, 9, 200])),
        "png L clear": encoded(picture.convert("L"), "PNG", transparency=97),
        "png RGB clear": encoded(picture, "PNG", transparency=(9, 8, 7)),
        "png 16": encoded(Image.fromarray(shades.astype(np.uint16) * 257), "PNG"),
        **{f"bmp {mode}": encoded(picture.convert(mode), "BMP") for mode in ("RGB", "L", "P", "1")},
        "bmp RGBA": encoded(clear, "BMP"),
        "gif": encoded(palette, "GIF"),
        "gif clear": encoded(palette, "GIF", transparency=3),
        "jpeg": encoded(picture, "JPEG"),
        "jpeg L": encoded(picture.convert("L"), "JPEG"),
        "jpeg progressive": encoded(picture, "JPEG", progressive=True),
        "webp": encoded(picture, "WebP"),
        "webp lossless": encoded(picture, "WebP", lossless=True),
        "webp clear": encoded(clear, "WebP", lossless=True, exact=True),
    }
    for depth in (1, 2, 4, 8):
        bits = (shades[..., None] >> np.arange(7, 7 - depth, -1)) & 1
        rows = np.packbits(bits.reshape(ROWS, -1), axis=1)
        files[f"png L{depth}"] = png(0, depth, rows)
        files[f"png L{depth} clear"] = png(0, depth, rows, (b"tRNS", b"\0\1"))
        colours = photo(1, 2**depth, seed=depth)[0].tobytes()
        files[f"png P{depth}"] = png(3, depth, rows, (b"PLTE", colours))
        files[f"png P{depth} clear"] = png(3, depth, rows, (b"PLTE", colours), (b"tRNS", b"\x05\x80"))
    return files


def mutants(seed: int, count: int) -> Iterator[Mutant]:
    """`count` files: bytes changed, parts cut, doubled or swapped, and PNG chunks moved, damaged or made up."""
    rng = np.random.default_rng(seed)
    files = list(sound_files().items())
    for number in range(count):
        name, data = files[number % len(files)]
        ways = [_changed, _changed_head, _cut, _doubled]
        if name.startswith("png"):
            ways += [_chunks] * 4
        way = ways[rng.integers(len(ways))]
        yield Mutant(f"{number} {name} {way.__name__}", way(data, rng))


def by_pillow(data: bytes) -> np.ndarray | None:
    """(ROWS', COLUMNS', 3) on white; None where Pillow refuses, or says that something is wrong."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return pillow(data)
    except Exception:  # whatever Pillow raises of a damaged file: it has no common class
        return None


def _changed(data: bytes, rng: np.random.Generator) -> bytes:
    found = bytearray(data)
    for _ in range(rng.integers(1, 5)):
        found[rng.integers(2, len(found))] = rng.integers(256)
    return bytes(found)


def _changed_head(data: bytes, rng: np.random.Generator) -> bytes:
    found = bytearray(data)
    for _ in range(rng.integers(1, 3)):
        found[rng.integers(2, min(len(found), 64))] = rng.choice([0, 1, 7, 40, 45, 54, 128, 255])
    return bytes(found)


def _cut(data: bytes, rng: np.random.Generator) -> bytes:
    start = int(rng.integers(8, len(data)))
    return data[:start] + data[start + int(rng.integers(1, 64)) :]


def _doubled(data: bytes, rng: np.random.Generator) -> bytes:
    start = int(rng.integers(8, len(data)))
    end = start + int(rng.integers(1, 64))
    return data[:end] + data[start:end] + data[end:]


def _chunks(data: bytes, rng: np.random.Generator) -> bytes:
    """PNG chunks in another order, twice, left out, of another length or with a wrong checksum."""
    parts, at = [], 8
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        parts.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length], True))
        at += 12 + length
    if rng.integers(2):
        body = rng.bytes(int(rng.choice([0, 1, 2, 3, 6, 40, 257])))
        parts.insert(int(rng.integers(1, len(parts) + 1)), (b"tRNS", body, True))
    which = int(rng.integers(1, len(parts)))
    name, body, _ = parts[which]
    way = rng.integers(5)
    if way == 0:
        parts.insert(int(rng.integers(1, len(parts) + 1)), parts.pop(which))
    elif way == 1:
        parts.insert(int(rng.integers(1, len(parts) + 1)), parts[which])
    elif way == 2:
        parts[which] = (name, body, False)
    elif way == 3:
        parts[which] = (name, body[: len(body) // 2], True)
    else:
        parts[which] = (name, body + b"\0" * int(rng.integers(1, 40)), True)
    whole = io.BytesIO()
    whole.write(data[:8])
    for name, body, right in parts:
        checksum = zlib.crc32(name + body) ^ (not right)
        whole.write(struct.pack(">I", len(body)) + name + body + struct.pack(">I", checksum))
    return whole.getvalue()
