"""Views against Keras' own layers, and what a view may depend on: its content, its number and the seed."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from bottleneck.schema import DEFAULT_VIEWS, ViewPolicy

pytestmark = pytest.mark.keras

EVERYTHING = ViewPolicy.parse(
    "flip=horizontal_and_vertical,rotation=0.2,zoom=0.3,zoom_width=0.2,translation=0.2,crop=0.8,contrast=0.5,"
    "brightness=0.3,seed=5"
)


def key(content: int, view: int) -> bytes:
    return hashlib.sha256(bytes([content])).digest()[:30] + view.to_bytes(2, "big")


def picture(height: int = 32, width: int = 40, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, 255, (height, width, 3)).astype(np.float32)


def smooth(height: int, width: int) -> np.ndarray:
    """Waves of a dozen pixels: interpolating twice costs next to nothing."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    waves = [np.sin(x / 5 + i) + np.cos(y / 6 - i) + np.sin((x + y) / 9) for i in range(3)]
    return (127 + 40 * np.stack(waves, -1)).astype(np.float32)


def views(policy: ViewPolicy, pixels: np.ndarray, keys: list[bytes]) -> list[np.ndarray]:
    import tensorflow as tf

    from bottleneck.pixels.augment import augmenter

    view = augmenter(*pixels.shape[:2], policy)
    return [view(pixels, tf.constant(policy.draw_seed(k), tf.int64)).numpy() for k in keys]


def one(policy: ViewPolicy, pixels: np.ndarray) -> np.ndarray:
    return views(policy, pixels, [key(0, 1)])[0]


@pytest.mark.parametrize(
    ("name", "arguments", "text"),
    [
        ("RandomRotation", {"factor": (0.07, 0.07)}, "rotation=0.07:0.07"),
        ("RandomRotation", {"factor": (-0.31, -0.31)}, "rotation=-0.31:-0.31"),
        ("RandomZoom", {"height_factor": (0.3, 0.3)}, "zoom=0.3:0.3"),
        ("RandomZoom", {"height_factor": (-0.4, -0.4)}, "zoom=-0.4:-0.4"),
        (
            "RandomZoom",
            {"height_factor": (0.3, 0.3), "width_factor": (-0.2, -0.2)},
            "zoom=0.3:0.3,zoom_width=-0.2:-0.2",
        ),
        (
            "RandomTranslation",
            {"height_factor": (0.11, 0.11), "width_factor": (-0.23, -0.23)},
            "translation=0.11:0.11,translation_width=-0.23:-0.23",
        ),
        # (lower, upper) is 1 - lower to 1 + upper there.
        ("RandomContrast", {"factor": (-0.3, 0.3)}, "contrast=0.3:0.3"),
        ("RandomBrightness", {"factor": (0.2, 0.2)}, "brightness=0.2:0.2"),
        ("RandomBrightness", {"factor": (-0.7, -0.7)}, "brightness=-0.7:-0.7"),
    ],
)
def test_a_fixed_factor_gives_what_the_keras_layer_gives(
    name: str, arguments: dict[str, Any], text: str
) -> None:
    import keras

    pixels = picture()
    layer = getattr(keras.layers, name)(**arguments)
    expected = np.asarray(layer(pixels[None], training=True))[0]
    found = one(ViewPolicy.parse(text), pixels)
    assert np.abs(expected - pixels).max() > 5, "the layer did something"
    # Borders that fall on a reflection's edge may differ by rounding of the coordinates.
    assert np.mean(np.abs(found - expected) > 0.05) < 0.002
    assert np.abs(found - expected).mean() < 0.01


def test_flips_are_those_of_keras() -> None:
    pixels = picture()
    for axis, mode in ((1, "horizontal"), (0, "vertical")):
        keys = [key(1, k) for k in range(1, 30)]
        found = views(ViewPolicy(flip=mode), pixels, keys)  # type: ignore[arg-type]
        flipped = [np.array_equal(view, np.flip(pixels, axis)) for view in found]
        assert all(f or np.array_equal(view, pixels) for f, view in zip(flipped, found, strict=True))
        assert 5 < sum(flipped) < 24


def test_a_crop_is_a_window_resized_as_keras_resizes() -> None:
    import keras
    import tensorflow as tf

    from bottleneck.pixels.augment import parameters

    pixels, policy = smooth(40, 60), ViewPolicy(crop=0.5)
    seed = policy.draw_seed(key(3, 1))
    drawn = parameters(policy, tf.constant(seed, tf.int64))
    # The window at the nearest whole pixel, and the view's own place a fraction beside it.
    top, left = float(drawn["crop_y"]) * 20, float(drawn["crop_x"]) * 30
    y, x = round(top), round(left)
    window = keras.layers.Resizing(40, 60)(pixels[None, y : y + 20, x : x + 30])[0]
    found = views(policy, pixels, [key(3, 1)])[0]
    slope = np.abs(np.diff(pixels, axis=0)).max() + np.abs(np.diff(pixels, axis=1)).max()
    off = (abs(top - y) + abs(left - x)) * slope
    assert np.abs(found - np.asarray(window))[2:-2, 2:-2].max() < off + 1.5
    # A window at a whole pixel is the same to rounding.
    exact = _cropped_at(pixels, 0.5, 7, 11)
    whole = np.asarray(keras.layers.Resizing(40, 60)(pixels[None, 7:27, 11:41])[0])
    np.testing.assert_allclose(exact[2:-2, 2:-2], whole[2:-2, 2:-2], atol=1e-2)


def _cropped_at(pixels: np.ndarray, share: float, y: int, x: int) -> np.ndarray:
    import tensorflow as tf

    from bottleneck.pixels.augment import _warp, warp_matrix

    height, width = pixels.shape[:2]
    place = {"crop_y": y / ((1 - share) * height), "crop_x": x / ((1 - share) * width)}
    drawn = {name: tf.constant(value, tf.float64) for name, value in place.items()}
    return _warp(tf.constant(pixels), warp_matrix(height, width, ViewPolicy(crop=share), drawn)).numpy()


def test_one_warp_is_the_layers_one_after_another() -> None:
    import keras

    pixels = smooth(96, 128)
    policy = ViewPolicy.parse(
        "rotation=0.04:0.04,zoom=-0.2:-0.2,translation=0.05:0.05,translation_width=-0.08:-0.08,"
        "contrast=0.2:0.2,brightness=-0.1:-0.1"
    )
    expected = pixels[None]
    for layer in (
        keras.layers.RandomRotation((0.04, 0.04)),
        keras.layers.RandomZoom((-0.2, -0.2)),
        keras.layers.RandomTranslation((0.05, 0.05), (-0.08, -0.08)),
    ):
        expected = np.asarray(layer(expected, training=True))
    found = one(policy.model_copy(update={"contrast": (0.0, 0.0), "brightness": (0.0, 0.0)}), pixels)
    inner = (slice(14, -14), slice(18, -18))
    assert np.abs(found - expected[0])[inner].max() < 1.5
    wrong = one(ViewPolicy.parse("rotation=-0.04:-0.04,zoom=-0.2:-0.2"), pixels)
    assert np.abs(wrong - expected[0])[inner].max() > 20, "the comparison can fail"
    # Colour comes last, on the warped image.
    for layer in (keras.layers.RandomContrast((-0.2, 0.2)), keras.layers.RandomBrightness((-0.1, -0.1))):
        found = np.asarray(layer(found[None], training=True))[0]
    np.testing.assert_allclose(one(policy, pixels), found, atol=0.01)


@pytest.mark.parametrize("text", ["seed=3", "rotation=0,zoom=0,zoom_width=0,translation=0,contrast=0,seed=1"])
@pytest.mark.parametrize("size", [(1, 1), (5, 7), (33, 20)])
def test_zero_ranges_change_no_bit(text: str, size: tuple[int, int]) -> None:
    pixels = picture(*size)
    np.testing.assert_array_equal(one(ViewPolicy.parse(text), pixels), pixels)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (6, 2), (31, 31)])
@pytest.mark.parametrize("level", [0.0, 255.0, None])
def test_views_stay_between_0_and_255_and_keep_their_size(size: tuple[int, int], level: float | None) -> None:
    pixels = picture(*size) if level is None else np.full((*size, 3), level, np.float32)
    extreme = ViewPolicy.parse(
        "flip=horizontal_and_vertical,rotation=1,zoom=-0.99:1,zoom_width=-0.99:1,translation=1,crop=0.01,"
        "contrast=1,brightness=1"
    )
    for view in views(extreme, pixels, [key(0, k) for k in range(1, 12)]):
        assert view.shape == pixels.shape and view.dtype == np.float32
        assert view.min() >= 0 and view.max() <= 255


def test_grey_stays_grey() -> None:
    grey = np.repeat(picture()[..., :1], 3, axis=2)
    for view in views(EVERYTHING, grey, [key(0, k) for k in range(1, 9)]):
        np.testing.assert_array_equal(view[..., 0], view[..., 1])
        np.testing.assert_array_equal(view[..., 0], view[..., 2])


def test_a_view_depends_on_its_key_and_the_seed_alone() -> None:
    keys = [key(content, view) for content in range(3) for view in range(1, 6)]
    pictures = picture()
    first = dict(zip(keys, views(EVERYTHING, pictures, keys), strict=True))
    backwards = dict(zip(keys[::-1], views(EVERYTHING, pictures, keys[::-1]), strict=True))
    with ThreadPoolExecutor(4) as pool:
        at_once = dict(zip(keys, pool.map(lambda k: views(EVERYTHING, pictures, [k])[0], keys), strict=True))
    for k in keys:
        np.testing.assert_array_equal(first[k], backwards[k])
        np.testing.assert_array_equal(first[k], at_once[k])
    other_seed = views(EVERYTHING.model_copy(update={"seed": 6}), pictures, keys)
    made = {view.tobytes() for view in [*first.values(), *other_seed]}
    assert len(made) == 2 * len(keys), "every key and seed draws another view"


_ELSEWHERE = """
import hashlib, sys
import tensorflow as tf
tf.config.threading.set_intra_op_parallelism_threads(int(sys.argv[1]))
from tests.pixels.test_augment import EVERYTHING, key, picture, views
found = views(EVERYTHING, picture(301, 217), [key(9, k) for k in (4, 1, 3, 2)])
print(hashlib.sha256(b"".join(view.tobytes() for view in found)).hexdigest())
"""


def test_processes_and_thread_counts_give_the_same_bits() -> None:
    found = views(EVERYTHING, picture(301, 217), [key(9, k) for k in (1, 2, 3, 4)])
    here = hashlib.sha256(b"".join(found[k - 1].tobytes() for k in (4, 1, 3, 2))).hexdigest()
    for threads in ("1", "3"):
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", _ELSEWHERE, threads],
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.split() == [here]


def test_parameters_are_uniform_in_their_ranges_and_independent() -> None:
    import tensorflow as tf
    from scipy.stats import kstest

    from bottleneck.pixels.augment import parameters

    count = 3000
    policy = EVERYTHING.model_copy(update={"rotation": (-0.1, 0.2)})
    seeds = [policy.draw_seed(key(i % 251, 1 + i // 251)) for i in range(count)]
    draw = tf.function(lambda seed: parameters(policy, seed), autograph=False)
    drawn: dict[str, list[float]] = {}
    for seed in seeds:
        for name, value in draw(tf.constant(seed, tf.int64)).items():
            drawn.setdefault(name, []).append(float(value))
    wide = {
        "rotation": (-0.1, 0.2),
        "zoom_y": (0.7, 1.3),
        "zoom_x": (0.8, 1.2),
        "translation_y": (-0.2, 0.2),
        "translation_x": (-0.2, 0.2),
        "crop_y": (0.0, 1.0),
        "crop_x": (0.0, 1.0),
        "contrast": (0.5, 1.5),
        "brightness": (-0.3, 0.3),
    }
    assert set(drawn) == {*wide, "flip_x", "flip_y"}
    for name, (lower, upper) in wide.items():
        values = np.array(drawn[name])
        assert lower <= values.min() and values.max() <= upper
        assert kstest((values - lower) / (upper - lower), "uniform").pvalue > 1e-4, name
    for name in ("flip_x", "flip_y"):
        assert set(drawn[name]) == {-1.0, 1.0}
        assert abs(np.mean(drawn[name])) < 4 / np.sqrt(count)
    together = np.corrcoef([drawn[name] for name in sorted(drawn)])
    assert np.abs(together - np.eye(len(drawn))).max() < 5 / np.sqrt(count)


def test_what_a_key_draws_is_pinned() -> None:
    """Stored views rest on it. When this fails, raise `ViewPolicy.contract` or undo the change."""
    import tensorflow as tf

    from bottleneck.pixels.augment import parameters

    seed = EVERYTHING.draw_seed(key(1, 2))
    assert seed == (-6011914217494601588, 6842706547175013325)
    drawn = {name: float(v) for name, v in parameters(EVERYTHING, tf.constant(seed, tf.int64)).items()}
    assert drawn == pytest.approx(
        {
            "flip_x": -1.0,
            "flip_y": -1.0,
            "rotation": 0.011386108,
            "zoom_y": 1.252943039,
            "zoom_x": 0.827600908,
            "translation_y": 0.146012592,
            "translation_x": -0.051302099,
            "crop_y": 0.589575291,
            "crop_x": 0.642363191,
            "contrast": 1.009027243,
            "brightness": -0.185360241,
        },
        abs=1e-8,
    )


def test_turning_a_part_off_leaves_the_other_draws() -> None:
    import tensorflow as tf

    from bottleneck.pixels.augment import parameters

    seed = tf.constant([3, 4], tf.int64)
    full = parameters(EVERYTHING, seed)
    part = parameters(EVERYTHING.model_copy(update={"flip": "none", "rotation": (0.0, 0.0)}), seed)
    for name in ("zoom_y", "zoom_x", "translation_y", "crop_x", "contrast", "brightness"):
        assert float(full[name]) == float(part[name])
    assert float(part["rotation"]) == 0 and float(part["flip_x"]) == 1
    square = parameters(EVERYTHING.model_copy(update={"zoom_width": None}), seed)
    assert float(square["zoom_x"]) == float(square["zoom_y"]) == float(full["zoom_y"])


def test_the_default_policy_shows_something_else_each_time() -> None:
    pixels = smooth(64, 64)
    found = views(DEFAULT_VIEWS, pixels, [key(0, k) for k in range(1, 9)])
    for number, view in enumerate(found):
        assert np.abs(view - pixels).mean() > 2
        assert all(np.abs(view - other).mean() > 1 for other in found[:number])
