"""Large JPEG files at an eighth: TensorFlow's own pixels, or no answer."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from bottleneck.pixels.fast.jpeg_header import scan_of
from tests.pixels.pictures import encoded, photo

pytestmark = pytest.mark.keras

SUBSAMPLINGS = ("4:4:4", "4:2:2", "4:2:0")
unhurried = settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])


def by_tensorflow(data: bytes) -> np.ndarray | None:
    import tensorflow as tf

    try:
        return tf.io.decode_jpeg(data, channels=3, ratio=8, dct_method="INTEGER_ACCURATE").numpy()
    except tf.errors.InvalidArgumentError:
        return None


def ours(data: bytes) -> np.ndarray | None:
    from bottleneck.pixels.fast.jpeg_eighth import at_an_eighth

    found = at_an_eighth(data)
    return None if found is None else found[0]


def same(data: bytes) -> None:
    found = ours(data)
    assert found is not None
    np.testing.assert_array_equal(found, by_tensorflow(data))


@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
@pytest.mark.parametrize("quality", [5, 50, 75, 90, 98, 100])
@pytest.mark.parametrize("restart", [0, 1, 7])
def test_usual_files(subsampling: str, quality: int, restart: int) -> None:
    picture = photo(203, 331, seed=quality)
    # Pillow's buffer is too small for the best quality with codes of its own.
    for optimize in (False, True)[: 1 + (quality < 100)]:
        same(
            encoded(
                picture,
                "JPEG",
                quality=quality,
                subsampling=subsampling,
                optimize=optimize,
                restart_marker_blocks=restart,
            )
        )


def noise(height: int, width: int, seed: int) -> np.ndarray:
    """As dear as pictures get: 63 coefficients in each block, and codes of every length."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def checks(height: int, width: int, side: int) -> np.ndarray:
    """Black and white in full: samples that are cut to eight bits."""
    rows, columns = np.indices((height, width)) // side
    return np.repeat(((rows + columns) % 2 * 255).astype(np.uint8)[..., None], 3, axis=2)


@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
@pytest.mark.parametrize("quality", [1, 60, 95, 100])
def test_pictures_at_the_limits(subsampling: str, quality: int) -> None:
    coloured = checks(150, 170, 8) * np.array([1, 0, 1], np.uint8)
    for picture in (noise(150, 170, 0), checks(150, 170, 1), checks(150, 170, 5), coloured, noise(8, 8, 1)):
        same(encoded(picture, "JPEG", quality=quality, subsampling=subsampling))


@unhurried
@given(
    extent=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    quality=st.integers(1, 100),
    subsampling=st.sampled_from(SUBSAMPLINGS),
    restart=st.integers(0, 5),
    strength=st.sampled_from([0, 4, 40, 255]),
    seed=st.integers(0, 2**16),
)
def test_any_picture(
    extent: tuple[int, int], quality: int, subsampling: str, restart: int, strength: int, seed: int
) -> None:
    grain = np.random.default_rng(seed).integers(-strength, strength + 1, (*extent, 3))
    picture = np.clip(photo(*extent, seed=seed) + grain, 0, 255).astype(np.uint8)
    same(encoded(picture, "JPEG", quality=quality, subsampling=subsampling, restart_marker_blocks=restart))


@settings(unhurried, max_examples=600)
@given(data=st.data())
def test_a_damaged_file_has_no_answer_or_tensorflows(data: st.DataObject) -> None:
    subsampling = data.draw(st.sampled_from(SUBSAMPLINGS))
    restart = data.draw(st.sampled_from([0, 2]))
    file = bytearray(
        encoded(photo(60, 75), "JPEG", subsampling=subsampling, restart_marker_blocks=restart, quality=92)
    )
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(2, len(file) - 1))
        if data.draw(st.booleans()):
            file[at] = data.draw(st.integers(0, 255))
        else:
            del file[at : at + data.draw(st.integers(1, 40))]
    found = ours(bytes(file))
    if found is not None:
        wanted = by_tensorflow(bytes(file))
        assert wanted is not None, "TensorFlow refuses it"
        np.testing.assert_array_equal(found, wanted)


def test_a_file_that_ends_early_or_late_has_no_answer() -> None:
    data = encoded(photo(120, 160), "JPEG", quality=90)
    start = scan_of(data).start
    assert all(ours(data[:end]) is None for end in range(start, len(data)))
    assert ours(data[:-2] + b"\0" + data[-2:]) is None
    assert ours(data + b"a second picture, or whatever") is not None


def test_restart_markers_out_of_order_have_no_answer() -> None:
    data = encoded(photo(120, 160), "JPEG", quality=90, restart_marker_blocks=2)
    assert ours(data) is not None
    assert ours(data.replace(b"\xff\xd1", b"\xff\xd2", 1)) is None
    first = data.index(b"\xff\xd0")
    assert ours(data[:first] + data[first + 2 :]) is None


def test_an_unusual_file_has_no_answer() -> None:
    assert ours(encoded(photo(120, 160), "JPEG", progressive=True)) is None
    assert ours(encoded(Image.fromarray(photo(120, 160)).convert("L"), "JPEG")) is None
    assert ours(b"") is None
