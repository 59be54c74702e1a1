"""Pixel contract 1 against Pillow and numpy, which share no code with it but libjpeg, libpng and libwebp."""

from __future__ import annotations

import contextlib
import io
import struct
import threading
import zlib
from functools import cache

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

pytestmark = pytest.mark.keras

H, W = 21, 34


@cache
def graph(height: int = H, width: int = W, resize: str = "stretch"):
    from bottleneck.images.decode import decoder

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


# --------------------------------------------------------------------------------------------------- formats


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"quality": 30}, {"subsampling": 0}])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_jpeg_at_ratio_1_equals_pillow_bit_for_bit(mode: str, options: dict[str, object]) -> None:
    data = encoded(Image.fromarray(photo()).convert(mode), "JPEG", **options)
    assert np.array_equal(decoded(data), pillow(data))


@pytest.mark.fault(69)
def test_cmyk_jpeg_is_converted_as_pillow_does_to_within_one() -> None:
    data = encoded(Image.fromarray(photo(channels=4), "CMYK"), "JPEG", quality=95)
    assert np.abs(decoded(data) - pillow(data)).max() <= 1
    assert pillow(data).std() > 20


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1", "I;16"])
def test_opaque_png(mode: str) -> None:
    if mode == "I;16":
        values = np.arange(H * W, dtype=np.uint16).reshape(H, W) * 91
        expected = np.repeat(values[..., None] / 257, 3, axis=2)
        data = encoded(Image.fromarray(values), "PNG")
        assert np.abs(decoded(data) - expected).max() < 1e-4
        return
    data = encoded(Image.fromarray(photo()).convert(mode), "PNG")
    assert np.array_equal(decoded(data), pillow(data))


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


@pytest.mark.fault(69)
def test_png_of_16_bits_is_scaled_and_not_cut_or_saturated() -> None:
    values = np.random.default_rng(0).integers(0, 65536, (H, W, 4), dtype=np.uint16)
    big = values.astype(">u2")
    plain = png(2, 16, big[..., :3].reshape(H, -1).view(np.uint8))
    assert np.abs(decoded(plain) - values[..., :3] / 257).max() < 1e-4
    alpha = values[..., 3:] / 65535
    clear = png(6, 16, big.reshape(H, -1).view(np.uint8))
    assert np.abs(decoded(clear) - (values[..., :3] / 257 * alpha + 255 * (1 - alpha))).max() < 1e-3


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
@pytest.mark.parametrize("clear", [False, True])
def test_grey_png_of_few_bits_with_and_without_a_transparent_shade(depth: int, clear: bool) -> None:
    shades = np.random.default_rng(1).integers(0, 2**depth, (8, 16), dtype=np.uint8)
    bits = (shades[..., None] >> np.arange(depth - 1, -1, -1)) & 1
    chunks = [(b"tRNS", b"\0\1")] if clear else []
    data = png(0, depth, np.packbits(bits.reshape(8, -1), axis=1), *chunks)
    expected = np.round(shades * (255 / (2**depth - 1)))
    if clear:
        expected = np.where(shades == 1, 255, expected)
    assert np.array_equal(decoded(data, 8, 16), np.repeat(expected[..., None], 3, axis=2))


@pytest.mark.fault(69)
@pytest.mark.parametrize("depth", [2, 8])
def test_palette_png_with_transparency(depth: int) -> None:
    indices = np.random.default_rng(2).integers(0, 4, (8, 16), dtype=np.uint8)
    bits = (indices[..., None] >> np.arange(depth - 1, -1, -1)) & 1
    palette = np.array([[255, 0, 0], [0, 200, 0], [0, 0, 100], [9, 9, 9]], np.float32)
    alpha = np.array([0, 51, 255, 255], np.float32)[:, None] / 255
    chunks = ((b"PLTE", palette.astype(np.uint8).tobytes()), (b"tRNS", b"\x00\x33"))
    data = png(3, depth, np.packbits(bits.reshape(8, -1), axis=1), *chunks)
    assert np.abs(decoded(data, 8, 16) - (palette * alpha + 255 * (1 - alpha))[indices]).max() < 1e-3


@pytest.mark.fault(69)
@pytest.mark.parametrize(("kind", "mode"), [("PNG", "RGBA"), ("PNG", "LA"), ("WebP", "RGBA")])
def test_alpha_lies_on_white(kind: str, mode: str) -> None:
    image = Image.fromarray(photo(channels=4), "RGBA").convert(mode)
    data = encoded(image, kind, **({"lossless": True, "exact": True} if kind == "WebP" else {}))
    values = np.asarray(image.convert("RGBA")).astype(np.float32)
    alpha = values[..., 3:] / 255
    assert np.abs(decoded(data) - (values[..., :3] * alpha + 255 * (1 - alpha))).max() < 1e-3


@pytest.mark.parametrize("options", [{"quality": 80}, {"lossless": True}])
def test_webp(options: dict[str, object]) -> None:
    data = encoded(photo(), "WebP", **options)
    assert np.array_equal(decoded(data), pillow(data))


@pytest.mark.fault(69)
@pytest.mark.parametrize("kind", ["GIF", "PNG"])
def test_the_first_frame_of_an_animation(kind: str) -> None:
    frames = [Image.fromarray(photo(seed=i)) for i in range(4)]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], duration=50)
    assert Image.open(io.BytesIO(data)).n_frames == 4
    assert np.array_equal(decoded(data), pillow(data))


@pytest.mark.fault(69)
def test_an_animated_webp_is_refused_before_the_decoder_sees_it() -> None:
    """TensorFlow 2.21 corrupts its heap on these: without the refusal this test takes the process with it."""
    frames = [Image.fromarray(photo(seed=i)) for i in range(4)]
    refused(
        encoded(frames[0], "WebP", save_all=True, append_images=frames[1:]), "animated WebP is not supported"
    )


def test_only_the_first_frame_of_a_gif_is_decoded() -> None:
    image = Image.fromarray(photo()).convert("P")
    whole = encoded(image, "GIF")
    # A second frame that no decoder could read, of a size that none could hold.
    bomb = whole[:-1] + b"," + struct.pack("<HHHHB", 0, 0, 65535, 65535, 0) + b"\x0c\5abc"
    assert np.array_equal(decoded(bomb), pillow(whole))


@pytest.mark.parametrize("interlace", [0, 1])
def test_a_gif_frame_on_a_larger_canvas_with_a_transparent_colour(interlace: int) -> None:
    image = Image.fromarray(photo(10, 12)).quantize(16)
    data = bytearray(encoded(image, "GIF", transparency=3, interlace=interlace))
    at = data.index(b"," + struct.pack("<HHHH", 0, 0, 12, 10))
    data[at + 1 : at + 5] = struct.pack("<HH", 5, 4)
    data[6:10] = struct.pack("<HH", W, H)
    expected = np.full((H, W, 3), 255, np.float32)
    indices = np.asarray(image)
    colours = np.array(image.getpalette()[:48], np.float32).reshape(16, 3)
    expected[4:14, 5:17] = np.where((indices == 3)[..., None], 255, colours[indices])
    assert (indices == 3).any()
    assert np.array_equal(decoded(bytes(data)), expected)


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1", "RGBA"])
def test_bmp(mode: str) -> None:
    image = Image.fromarray(photo()).convert(mode)
    data = encoded(image, "BMP")
    assert np.array_equal(decoded(data), pillow(data))


def test_bmp_of_16_colours_and_from_top_to_bottom() -> None:
    indices = np.random.default_rng(3).integers(0, 16, (6, 10), dtype=np.uint8)
    palette = np.random.default_rng(4).integers(0, 256, (16, 4), dtype=np.uint8)
    rows = np.pad(indices[:, ::2] << 4 | indices[:, 1::2], ((0, 0), (0, 3)))
    head = struct.pack("<IiiHHIIiiII", 40, 10, -6, 1, 4, 0, 0, 0, 0, 0, 0)
    data = b"BM" + struct.pack("<IHHI", 0, 0, 0, 14 + 40 + 64) + head + palette.tobytes() + rows.tobytes()
    assert np.array_equal(decoded(data, 6, 10), palette[indices][..., 2::-1])
    assert np.array_equal(decoded(data, 6, 10), pillow(data))


# ------------------------------------------------------------------------------------------------- refusals


@pytest.mark.fault(65)
def test_what_is_refused_and_in_which_words() -> None:
    bmp = encoded(photo(), "BMP")
    for data in (b"", b"\xff", b"hello", b"<html>", encoded(photo(), "TIFF"), b"RIFF\0\0\0\0WAVEfmt "):
        refused(data, "not a JPEG, PNG, GIF, BMP or WebP image")
    refused(bmp[:30] + b"\1" + bmp[31:], "plain kind")
    refused(bmp[:28] + b"\x10" + bmp[29:], "plain kind")
    refused(bmp[:-1], "BMP is cut off")
    refused(bmp[:18] + b"\xff\xff\xff\x7f\xff\xff\xff\x7f" + bmp[26:], "BMP is cut off")
    refused(b"GIF89a\1\0\1\0\0\0\0;", "GIF without a frame")
    refused(b"GIF89a\1\0\1\0\0\0\0,\0\0\0\0\1\0\1\0\0\2\2\x44\1\0;", "GIF without colours")


@pytest.mark.fault(66)
@pytest.mark.parametrize("kind", ["JPEG", "progressive", "PNG", "GIF", "BMP", "WebP", "lossless", "alpha"])
def test_a_file_cut_anywhere_is_refused_and_never_half_grey(kind: str) -> None:
    options = {"progressive": {"progressive": True}, "lossless": {"lossless": True}}.get(kind, {})
    name = {"progressive": "JPEG", "lossless": "WebP", "alpha": "WebP"}.get(kind, kind)
    data = encoded(photo(channels=4 if kind == "alpha" else 3), name, **options)
    whole = decoded(data)
    import tensorflow as tf

    read = []
    for cut in sorted({*np.linspace(0, len(data) - 1, 50).astype(int), len(data) - 2, len(data) - 3}):
        try:
            pixels = graph()(data[:cut]).numpy()
        except tf.errors.InvalidArgumentError:
            continue
        read.append(int(cut))
        assert np.array_equal(pixels, whole), cut
    # The end mark alone may be missing without harm.
    assert all(cut >= len(data) - 12 for cut in read)


# ------------------------------------------------------------------------------------------------------ EXIF


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


@pytest.mark.fault(69)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WebP"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_all_eight_orientations(kind: str, order: str) -> None:
    for orientation in range(1, 9):
        block = exif(orientation, order, before=orientation)
        data = encoded(photo(), kind, exif=b"Exif\0\0" + block)
        expected = turned(pillow(data), orientation)
        assert np.array_equal(decoded(data, *expected.shape[:2]), expected), orientation


def test_orientation_in_a_png_behind_its_pixels() -> None:
    pixels = photo()
    data = png(2, 8, pixels.reshape(H, -1), after=exif(6))
    assert np.array_equal(decoded(data, W, H), turned(pixels, 6))


def test_orientation_behind_other_segments_and_filling() -> None:
    data = encoded(photo(), "JPEG")
    segment = b"\xff\xff\xe1" + struct.pack(">H", len(exif(3)) + 8) + b"Exif\0\0" + exif(3)
    others = b"".join(b"\xff\xe2" + struct.pack(">H", 4) + b"ab" for _ in range(30))
    xmp = b"\xff\xe1" + struct.pack(">H", 31) + b"http://ns.adobe.com/xap/1.0/\0"
    assert np.array_equal(decoded(data[:2] + others + xmp + segment + data[2:]), turned(pillow(data), 3))


def with_exif(block: bytes) -> bytes:
    data = encoded(photo(), "JPEG")
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 8) + b"Exif\0\0" + block + data[2:]


@pytest.mark.parametrize(
    "block",
    [
        exif(0),
        exif(9),
        exif(0xFFFF),
        exif(3, kind=2),
        b"",
        b"II*\0",
        b"II*\0\xff\xff\xff\xff",
        b"II*\0\x08\0\0\0\xff\xff",
        b"II*\0\0\0\0\0\1\0",
        b"XX" + exif(3)[2:],
        b"MM\0*" + exif(3)[4:],
        exif(3)[:-8],
    ],
)
def test_exif_that_makes_no_sense_is_orientation_1(block: bytes) -> None:
    data = with_exif(block)
    assert np.array_equal(decoded(data), pillow(encoded(photo(), "JPEG")))


@given(st.data())
@settings(max_examples=120, deadline=5000, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
def test_malformed_exif_is_never_an_error(data: st.DataObject) -> None:
    block = bytearray(exif(data.draw(st.integers(0, 9)), data.draw(st.sampled_from("<>")), before=2))
    for _ in range(data.draw(st.integers(0, 6))):
        block[data.draw(st.integers(0, len(block) - 1))] = data.draw(st.sampled_from([0, 1, 3, 8, 127, 255]))
    block = block[: data.draw(st.integers(0, len(block)))]
    pixels = decoded(with_exif(bytes(block)))
    assert abs(float(pixels.mean()) - float(photo().mean())) < 5


@given(st.binary(max_size=200), st.sampled_from(["JPEG", "PNG", "GIF", "BMP", "WebP"]))
@settings(max_examples=80, deadline=5000, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
def test_rubbish_behind_a_signature_is_an_invalid_argument(rubbish: bytes, kind: str) -> None:
    import tensorflow as tf

    start = {"JPEG": b"\xff\xd8\xff", "PNG": b"\x89PNG\r\n\x1a\n", "GIF": b"GIF89a", "BMP": b"BM"}
    # Nothing else may come out of it; a picture may.
    with contextlib.suppress(tf.errors.InvalidArgumentError):
        graph()(start.get(kind, b"RIFF\0\0\0\0WEBP") + rubbish)


# -------------------------------------------------------------------------------------------------- geometry


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


def test_unknown_resizes_and_extents_are_refused() -> None:
    from bottleneck.images.decode import decoder

    for arguments in ((0, 5, "stretch"), (5, -1, "stretch"), (5, 5, "fit")):
        with pytest.raises(ValueError, match="must be"):
            decoder(*arguments)


# ------------------------------------------------------------------------------------------------- where it runs


def test_many_threads_and_map_fn_give_the_same_bits() -> None:
    import tensorflow as tf

    images = [
        encoded(photo(50 + i, 90, seed=i), f) for i, f in enumerate(["JPEG", "PNG", "GIF", "BMP", "WebP"])
    ]
    alone = [decoded(data) for data in images]
    found: dict[int, np.ndarray] = {}

    def work(i: int) -> None:
        found[i] = graph()(images[i % 5]).numpy()

    threads = [threading.Thread(target=work, args=(i,)) for i in range(20)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert all(np.array_equal(found[i], alone[i % 5]) for i in range(20))
    spec = tf.TensorSpec([H, W, 3], tf.float32)
    batch = tf.function(lambda b: tf.map_fn(graph(), b, fn_output_signature=spec))(tf.constant(images))
    assert np.array_equal(batch, alone)
