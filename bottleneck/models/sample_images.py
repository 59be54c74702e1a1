"""Images that forms of one model are compared on: probes, which show what grey photographs hide, and the user's own."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from bottleneck import runs
from bottleneck.contracts import Source
from bottleneck.errors import Rejected, UsageError
from bottleneck.forward.keras_forward import KerasForward
from bottleneck.pixels.probes import probes
from bottleneck.schema import Cache, ImageRecord
from bottleneck.store.read import Store

PROBES = 32

#: Images that nothing was learnt from say most about a form; those of the training split come last.
UNSEEN_FIRST = ("validation", "test", "train")

#: Whoever is calibrated on images must not be judged on the same ones, so these are taken from the other end.
LEARNT_FIRST = ("train", "test", "validation")

#: So many bytes of pixels, of rows or of files, each, are held at a time, and as much again for each form's answer.
_MOST_BYTES = 256 << 20
_FEWEST = 32


@dataclass(frozen=True, eq=False)
class ComparisonImages:
    """Images decoded, with what else is known of them.

    Attributes
    ----------
    pixels : numpy.ndarray
        (n, height, width, 3) float32 in 0..255.
    files : tuple of bytes
        The image files as they are, of the first of them: all, unless they are very large.
    truth : numpy.ndarray
        (n,) the column of each image's class; -1 where it has none, or where the head learnt from the image and not
        from some of the others: a form is only right or wrong about what is new.
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


def probe_images(height: int, width: int) -> ComparisonImages:
    """The probe images, and as PNG files: their pixels are whole numbers, so nothing is lost."""
    import tensorflow as tf

    pixels = probes(PROBES, height, width)
    files = tuple(tf.io.encode_png(picture.astype(np.uint8)).numpy() for picture in pixels)
    contents = np.array([list(hashlib.sha256(data).digest()) for data in files], np.uint8)
    return ComparisonImages(pixels, files, np.full(PROBES, -1), contents)


def spread_out(
    labels: Sequence[str | None], splits: Sequence[str | None], keys: np.ndarray, first: Sequence[str]
) -> np.ndarray:
    """Rows of a table in the order in which images are compared. Pure.

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
    folder: runs.RunFolder,
    forward: KerasForward,
    store: Store,
    cache: Cache,
    most: int,
    *,
    first: Sequence[str] = UNSEEN_FIRST,
    without: np.ndarray | None = None,
) -> ComparisonImages:
    """Up to `most` of the run's images that have a row in `store` and are still where the run found them.

    Fewer where they, or their rows, are very large; at least 32 all the same, when there are as many.

    Parameters
    ----------
    folder : RunFolder
    forward : KerasForward
        Decodes them.
    store : Store
    cache : Cache
        Where files behind URLs are kept.
    most : int
    first : sequence of str
        Splits, those to ask first at the beginning.
    without : numpy.ndarray, optional
        (m, 32) uint8 contents to leave out.

    Returns
    -------
    ComparisonImages
        Empty when none of them is there any more.

    Raises
    ------
    UsageError
        The run's source cannot be opened.
    """
    run, inventory = folder.run, folder.inventory()
    labels, splits = (inventory.table.column(name).to_pylist() for name in ("label", "split"))
    order = spread_out(labels, splits, inventory.keys, first)
    order = order[store.find(inventory.keys[order]) >= 0]
    if without is not None:
        left_out = {content.tobytes() for content in without}
        order = order[[inventory.keys[row].tobytes() not in left_out for row in order]]
    shape = (run.spec.recipe.pixels.height, run.spec.recipe.pixels.width, 3)
    largest = 4 * max(int(np.prod(shape)), int(np.prod(run.spec.shape)))
    most = min(most, max(_FEWEST, _MOST_BYTES // largest))
    try:
        source = folder.source(cache.fetched)
    except Exception as error:
        raise UsageError(f"the run's images are needed for the certificate, but {error}") from error
    place = {name: column for column, name in enumerate(run.classes)}
    pixels, files, found, room = [], [], [], _MOST_BYTES
    for image, data, decoded in _readable(source, forward, (inventory[int(row)] for row in order)):
        pixels.append(decoded)
        room -= len(data)
        if room >= 0:
            files.append(data)
        found.append(image)
        if len(pixels) == most:
            break
    truth = np.array([place.get(image.label or "", -1) for image in found], np.int64)
    unseen = np.array([image.split != "train" for image in found], bool)
    return ComparisonImages(
        np.stack(pixels) if pixels else np.zeros((0, *shape), np.float32),
        tuple(files),
        np.where(unseen, truth, -1) if unseen.any() else truth,
        np.frombuffer(b"".join(image.content for image in found), np.uint8).reshape(-1, 32),
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
