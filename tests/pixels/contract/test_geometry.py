"""Extents and averages against numpy."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tests.pixels.pictures import H, W, decoded, encoded, exif, photo, turned

pytestmark = pytest.mark.keras


def bilinear(image: np.ndarray, height: int, width: int) -> np.ndarray:
    def axis(extent: int, target: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        at = ((np.arange(target) + 0.5) * extent / target - 0.5).astype(np.float64)
        low = np.floor(at).astype(int)
        return np.clip(low, 0, extent - 1), np.clip(low + 1, 0, extent - 1), at - low

    low, high, part = axis(image.shape[0], height)
    image = image[low] * (1 - part)[:, None, None] + image[high] * part[:, None, None]
    low, high, part = axis(image.shape[1], width)
    return image[:, low] * (1 - part)[None, :, None] + image[:, high] * part[None, :, None]


def reference(image: np.ndarray, height: int, width: int, resize: str) -> np.ndarray:
    image = image.astype(np.float64)
    rows, columns = image.shape[:2]
    if resize == "crop":
        tall, wide = (
            min(rows, max(1, columns * height // width)),
            min(columns, max(1, rows * width // height)),
        )
        top, left = (rows - tall) // 2, (columns - wide) // 2
        image = image[top : top + tall, left : left + wide]
    target = (height, width)
    if resize == "pad":
        scale = max(rows / height, columns / width)
        target = (
            min(height, max(1, int(rows / scale + 0.5 + 1e-9))),
            min(width, max(1, int(columns / scale + 0.5 + 1e-9))),
        )
    for axis in (0, 1):
        image = np.moveaxis(image, axis, 0)
        box = max(1, len(image) // target[axis])
        count = len(image) // box
        start = (len(image) - count * box) // 2
        image = image[start : start + count * box].reshape(count, box, *image.shape[1:]).mean(axis=1)
        image = np.moveaxis(image, 0, axis)
    image = bilinear(image, *target)
    top, left = (height - target[0]) // 2, (width - target[1]) // 2
    bars = ((top, height - target[0] - top), (left, width - target[1] - left), (0, 0))
    return np.pad(image, bars)


SIZES = [(21, 34), (43, 69), (100, 30), (30, 100), (211, 340), (5, 7), (1, 300), (300, 1), (1, 1), (64, 65)]


@pytest.mark.parametrize("resize", ["stretch", "crop", "pad"])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_resize_against_numpy(resize: str, size: tuple[int, int]) -> None:
    pixels = photo(*size)
    assert (
        np.abs(decoded(encoded(pixels, "PNG"), resize=resize) - reference(pixels, H, W, resize)).max() < 2e-3
    )


@pytest.mark.parametrize("resize", ["stretch", "crop", "pad"])
def test_long_strips(resize: str) -> None:
    for size in ((1, 60_000), (60_000, 1)):
        pixels = np.random.default_rng(5).integers(0, 256, (*size, 3), dtype=np.uint8)
        expected = reference(pixels, H, W, resize)
        assert np.abs(decoded(encoded(pixels, "PNG"), resize=resize) - expected).max() < 2e-3


def test_boxes_see_every_pixel() -> None:
    """Plain bilinear would see 4 of 100 pixels of each box."""
    pixels = np.zeros((10 * H, 10 * W, 3), np.uint8)
    pixels[::10, ::10] = 200
    assert np.allclose(decoded(encoded(pixels, "PNG")), 2.0)


def test_a_sixteen_bit_image_is_averaged_before_anything_is_rounded() -> None:
    values = np.random.default_rng(6).integers(0, 65536, (4 * H, 3 * W), dtype=np.uint16)
    expected = values.reshape(H, 4, W, 3).mean(axis=(1, 3))[..., None] / 257
    assert np.abs(decoded(encoded(Image.fromarray(values), "PNG")) - expected).max() < 1e-3


@pytest.mark.parametrize(
    ("size", "resize", "ratio"),
    [
        ((21, 34), "stretch", 1),
        ((42, 67), "stretch", 1),
        ((42, 68), "stretch", 2),
        ((84, 136), "stretch", 4),
        ((168, 272), "stretch", 8),
        ((168, 40), "stretch", 1),
        ((500, 136), "crop", 4),
        ((500, 136), "pad", 8),
        ((84, 20), "pad", 4),
    ],
)
@pytest.mark.parametrize("orientation", [1, 6])
def test_the_jpeg_ratio_is_the_largest_that_leaves_the_target(
    size: tuple[int, int], resize: str, ratio: int, orientation: int
) -> None:
    import tensorflow as tf

    stored = size if orientation == 1 else size[::-1]
    data = encoded(photo(*stored), "JPEG", exif=b"Exif\0\0" + exif(orientation))
    reduced = tf.io.decode_jpeg(data, channels=3, ratio=ratio, dct_method="INTEGER_ACCURATE").numpy()
    expected = reference(turned(reduced, orientation), H, W, resize)
    assert np.abs(decoded(data, resize=resize) - expected).max() < 2e-3
