"""Pictures to decode, and what is asked of them: against Pillow and numpy."""

from __future__ import annotations

import io
import struct
import zlib
from functools import cache

import numpy as np
import pytest
from PIL import Image

H, W = 21, 34


@cache
def graph(height: int = H, width: int = W, resize: str = "stretch"):
    from bottleneck.pixels.contract.decode import decoder

    return decoder(height, width, resize)


def decoded(data: bytes, height: int = H, width: int = W, resize: str = "stretch") -> np.ndarray:
    pixels = graph(height, width, resize)(data).numpy()
    assert pixels.shape == (height, width, 3)
    assert pixels.dtype == np.float32
    assert pixels.min() >= 0
    assert pixels.max() <= 255
    return pixels


def refused(data: bytes, words: str = "") -> None:
    import tensorflow as tf

    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        graph()(data)
    assert words in str(caught.value)


def photo(height: int = H, width: int = W, seed: int = 0, channels: int = 3) -> np.ndarray:
    """Structured, no symmetry, every channel different."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 6 + 2, width // 6 + 2, 4), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.BILINEAR))
    noise = rng.integers(-9, 10, smooth.shape)
    return (smooth.astype(int) + noise).clip(0, 255).astype(np.uint8)[..., :channels]


def encoded(image: Image.Image | np.ndarray, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, kind, **options)
    return buffer.getvalue()


def pillow(data: bytes) -> np.ndarray:
    """What Pillow makes of it, on white."""
    image = Image.open(io.BytesIO(data))
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    return np.asarray(image.convert("RGB")).astype(np.float32)


def png(colour: int, depth: int, rows: np.ndarray, *chunks: tuple[bytes, bytes], after: bytes = b"") -> bytes:
    """A PNG written by hand: kinds that Pillow does not write. `rows` are packed bytes, one array row each."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    wide = rows.shape[1] * 8 // depth // {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    raw = b"".join(b"\0" + row.tobytes() for row in rows)
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", struct.pack(">IIBBBBB", wide, len(rows), depth, colour, 0, 0, 0)),
            *(chunk(name, body) for name, body in chunks),
            chunk(b"IDAT", zlib.compress(raw)),
            chunk(b"eXIf", after) if after else b"",
            chunk(b"IEND", b""),
        ]
    )


def exif(orientation: int, order: str = "<", kind: int = 3, before: int = 0) -> bytes:
    entries = [struct.pack(order + "HHII", 0x0100 + i, 4, 1, 7) for i in range(before)]
    entries.append(struct.pack(order + "HHI", 0x0112, kind, 1) + struct.pack(order + "HH", orientation, 0))
    head = b"II*\0" if order == "<" else b"MM\0*"
    return head + struct.pack(order + "IH", 8, len(entries)) + b"".join(entries) + b"\0" * 4


def turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    ways = {
        1: None,
        2: "FLIP_LEFT_RIGHT",
        3: "ROTATE_180",
        4: "FLIP_TOP_BOTTOM",
        5: "TRANSPOSE",
        6: "ROTATE_270",
    }
    ways |= {7: "TRANSVERSE", 8: "ROTATE_90"}
    way = ways[orientation]
    image = Image.fromarray(pixels.astype(np.uint8))
    return np.asarray(image.transpose(Image.Transpose[way]) if way else image).astype(np.float32)
