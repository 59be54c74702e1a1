"""Small bitmaps and the rows they must have."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from PIL import Image

from bottleneck.extraction.report import Extraction
from tests.fakes import SIZE, base

Note = Callable[[str], None]


def adds_up(done: Extraction) -> Extraction:
    assert done.images == done.computed + done.reused + done.duplicates + done.rejected
    assert done.rows == done.computed + done.reused
    return done


def bitmap(seed: int, size: tuple[int, int] = (11, 9)) -> bytes:
    """An image whose file has the same length whatever it shows."""
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(buffer, "BMP")
    return buffer.getvalue()


def row_of(data: bytes) -> np.ndarray:
    """The reference row of an image file's bytes."""
    forward = base()
    batch = np.zeros((forward.batch, SIZE, SIZE, 3), np.float32)
    batch[0] = forward.decode(data)
    return forward.features(batch)[0]
