"""Choose images to compare on: probes, and the run's own images."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from bottleneck.contracts import Source
from bottleneck.errors import Rejected, UsageError
from bottleneck.forward.keras_forward import KerasForward
from bottleneck.models.merge import RunModel
from bottleneck.pixels.probes import probes
from bottleneck.schema import Cache, ImageRecord

#: Names of the two sets in a certificate.
PROBES, OWN = "probes", "own images"

_PROBE_COUNT = 32

#: Images that nothing was learnt from say most about a form; those of the training split come last.
UNSEEN_FIRST = ("validation", "test", "train")

#: A form that is calibrated on images must not be judged on them, so these are taken from the other end.
LEARNT_FIRST = ("train", "test", "validation")

#: Bytes of pixels, of rows and of files, each, that are in memory at a time; each form's answer adds as much.
_MOST_BYTES = 256 << 20
_FEWEST = 32


@dataclass(frozen=True, eq=False)
class ComparisonImages:
    """Decoded images, with their files and classes.

    Attributes
    ----------
    pixels : numpy.ndarray
        (n, height, width, 3) float32 in 0..255.
    files : tuple of bytes
        The files of the first images: of all, unless they are very large.
    truth : numpy.ndarray
        (n,) the column of each image's class; -1 where it has none, or where the head learnt from the image but not
        from all others: a form is only right or wrong about what is new.
    contents : numpy.ndarray
        (n, 32) uint8: sha256 of the files.
    unseen : int
        How many of them the head did not learn from.
    """

    pixels: np.ndarray
    files: tuple[bytes, ...]
    truth: np.ndarray
    contents: np.ndarray
    unseen: int = 0

    def __len__(self) -> int:
        return len(self.pixels)


def choose_images(model: RunModel, cache: Cache, most: int) -> dict[str, ComparisonImages]:
    """Choose the probes and up to `most` of the run's own images.

    Probes show what grey photographs hide.
    """
    import tensorflow as tf

    size = model.folder.run.spec.recipe.pixels
    pixels = probes(_PROBE_COUNT, size.height, size.width)
    # Their values are whole numbers, so PNG loses nothing.
    files = tuple(tf.io.encode_png(picture.astype(np.uint8)).numpy() for picture in pixels)
    contents = np.array([list(hashlib.sha256(data).digest()) for data in files], np.uint8)
    images = {PROBES: ComparisonImages(pixels, files, np.full(_PROBE_COUNT, -1), contents)}
    own = run_images(model, cache, most)
    return {**images, OWN: own} if len(own) else images


def spread_out(
    labels: Sequence[str | None], splits: Sequence[str | None], keys: np.ndarray, first: Sequence[str]
) -> np.ndarray:
    """Order the rows of a table for comparison. Pure.

    By split as `first` says (others after these), within a split one of each class in turn, within a class by content,
    which is as good as chance and the same on every machine. Copies of an image count once.

    Parameters
    ----------
    labels, splits : sequence of str or None
        (n,)
    keys : numpy.ndarray
        (n, 32) uint8 contents.
    first : sequence of str

    Returns
    -------
    numpy.ndarray
        Row numbers.

    Examples
    --------
    >>> keys = np.zeros((5, 32), np.uint8)
    >>> keys[:, 0] = range(5)
    >>> spread_out(["a", "a", "a", "b", "b"], ["train", "test", "test", "test", "test"], keys, UNSEEN_FIRST).tolist()
    [1, 3, 2, 4, 0]
    """
    by_content = np.argsort(np.ascontiguousarray(keys).view("V32").ravel(), kind="stable")
    seen: set[bytes] = set()
    turns: dict[tuple[str | None, str | None], int] = {}
    places: list[tuple[int, int, str, int]] = []
    for row in map(int, by_content):
        content = keys[row].tobytes()
        if content in seen:
            continue
        seen.add(content)
        group = (splits[row], labels[row])
        turn = turns[group] = turns.get(group, -1) + 1
        rank = first.index(str(splits[row])) if splits[row] in first else len(first)
        places.append((rank, turn, labels[row] or "", row))
    return np.array([place[-1] for place in sorted(places)], np.int64)


def run_images(
    model: RunModel,
    cache: Cache,
    most: int,
    *,
    first: Sequence[str] = UNSEEN_FIRST,
    without: np.ndarray | None = None,
) -> ComparisonImages:
    """Read up to `most` of the run's images from its source.

    Only images that have a row in the store and did not change since. Fewer where they, or their rows, are very large;
    at least 32 all the same, if as many exist.

    Parameters
    ----------
    model : RunModel
    cache : Cache
        Where files behind URLs are kept.
    most : int
    first : sequence of str
        Splits, in order of preference.
    without : numpy.ndarray, optional
        (m, 32) uint8 contents to leave out.

    Returns
    -------
    ComparisonImages
        Empty when none can be read any more.

    Raises
    ------
    UsageError
        The run's source cannot be opened.
    """
    run, inventory = model.folder.run, model.folder.inventory()
    labels, splits = (inventory.table.column(name).to_pylist() for name in ("label", "split"))
    order = spread_out(labels, splits, inventory.keys, first)
    order = order[model.store.find(inventory.keys[order]) >= 0]
    if without is not None:
        left_out = {content.tobytes() for content in without}
        order = order[[inventory.keys[row].tobytes() not in left_out for row in order]]
    shape = (run.spec.recipe.pixels.height, run.spec.recipe.pixels.width, 3)
    largest = 4 * max(int(np.prod(shape)), int(np.prod(run.spec.shape)))
    most = min(most, max(_FEWEST, _MOST_BYTES // largest))
    try:
        source = model.folder.source(cache.fetched)
    except Exception as error:
        raise UsageError(f"the run's images are needed for the certificate, but {error}") from error
    place = {name: column for column, name in enumerate(run.classes)}
    pixels, files, chosen, room = [], [], [], _MOST_BYTES
    for image, data, decoded in _readable(source, model.forward, (inventory[int(row)] for row in order)):
        pixels.append(decoded)
        room -= len(data)
        if room >= 0:
            files.append(data)
        chosen.append(image)
        if len(pixels) == most:
            break
    truth = np.array([place.get(image.label or "", -1) for image in chosen], np.int64)
    unseen = np.array([image.split != "train" for image in chosen], bool)
    return ComparisonImages(
        np.stack(pixels) if pixels else np.zeros((0, *shape), np.float32),
        tuple(files),
        np.where(unseen, truth, -1) if unseen.any() else truth,
        np.frombuffer(b"".join(image.content for image in chosen), np.uint8).reshape(-1, 32),
        int(unseen.sum()),
    )


def _readable(
    source: Source, forward: KerasForward, images: Iterator[ImageRecord]
) -> Iterator[tuple[ImageRecord, bytes, np.ndarray]]:
    for image in images:
        try:
            data = source.read(image.path)
            # Another picture under the old name would be compared with the old one's features.
            if hashlib.sha256(data).digest() == image.content:
                yield image, data, forward.decode(data)
        except (OSError, Rejected):
            continue  # gone since; others stand for it
