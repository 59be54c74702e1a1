"""Which images a model learns from and which it is judged by.

The side of an image is drawn from what it is, never from its name or its neighbours: its key (the group,
where a table gives one, else the content's sha256) is hashed with the run's seed to a number in [0, 1), and
numbers under the wanted fraction go to validation. Copies of one image, and images of one group, always lie
on one side.

Where the source names no sides, this holds of ``hash``. Renaming files moves nothing, and neither does adding
new images, to whichever group. Adding a copy of an image that was there, under another group, makes one unit of
both: it takes the side of the group that comes first in order of code points (of the group, where the image had
none), so that one of the two parts stays where it was and only the other may move. Nothing else moves. More is
not possible: two parts that lay on two sides cannot both stay, and the table does not tell which was there first.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bottleneck.inventory.duplicates import content_codes
from bottleneck.schema import NAMED_BY_SOURCE, Inventory, SplitPolicy

#: Images of the smallest class that a side gets in the mean, from which on each image is drawn by itself: the chance
#: that such a class has none there is below 5 in 100,000.
_ENOUGH = 10

_TRAIN, _VALIDATION, _TEST = 0, 1, 2
_NAMES = np.array(["train", "validation", "test"])


def split_images(inventory: Inventory, policy: SplitPolicy) -> np.ndarray:
    """Assign every image to a side.

    Given sides stay as given. An image without one joins the side that its copies or its group were given;
    where the source gives no validation images, the policy takes them out of the training images. Images
    given as ``test`` are never touched, and ``test`` is never made.

    Parameters
    ----------
    inventory : Inventory
        n images.
    policy : SplitPolicy
        ``hash``: each unit (content, or group with all that shares a content with it) by its own number, so
        the fraction holds on average. ``exact``: each label gives its share, counted in contents, to within
        one unit, those with the lowest numbers first; a class with a single unit stays in training. ``auto``: what
        `resolve_split` says.

    Returns
    -------
    numpy.ndarray
        (n,) of ``train``, ``validation``, ``test``.

    Examples
    --------
    >>> table = pa.table({
    ...     "path": pa.array([b"%d" % i for i in range(10)]),
    ...     "content": pa.array([bytes([i]) * 32 for i in range(10)], pa.binary(32)),
    ...     "label": ["cat", "dog"] * 5, "group": pa.nulls(10, pa.string()),
    ...     "split": pa.nulls(10, pa.string()),
    ... })
    >>> sides = split_images(Inventory(table, "/images"), SplitPolicy(kind="exact", validation=0.2))
    >>> sorted(sides.tolist())[-3:]
    ['train', 'validation', 'validation']
    """
    if not len(inventory):
        return _NAMES[:0]
    policy = resolve_split(inventory, policy)
    contents, unique = content_codes(inventory)
    units, keys = _units(inventory, contents, unique)
    sides = _given(inventory, units, len(keys))
    if (sides == _VALIDATION).any() or policy.validation == 0.0:
        return _NAMES[np.where(sides < 0, _TRAIN, sides)]
    pool = np.flatnonzero((sides < 0) | (sides == _TRAIN))
    taken = np.zeros(len(keys), bool)
    asked = np.unique(units[pool])
    numbers = np.ones(len(keys))
    numbers[asked] = _draw_numbers([keys[unit] for unit in asked.tolist()], policy.seed)
    if policy.kind == "hash":
        taken[asked] = numbers[asked] < policy.validation
    else:
        taken = _stratified(inventory, contents, units, pool, numbers, policy.validation)
    sides[pool] = np.where(taken[units[pool]], _VALIDATION, _TRAIN)
    return _NAMES[sides]


def resolve_split(inventory: Inventory, policy: SplitPolicy) -> SplitPolicy:
    """Choose the policy that ``auto`` stands for, with the reason.

    Any other stays, but for the reason where the source names the validation images.

    ``exact`` where the smallest class would give a side fewer than ten units in the mean (with a fifth held out: where
    it has fewer than 50): drawn by itself each, they might leave it without a validation image. Else ``hash``, under
    which images that are added later move no others.

    Examples
    --------
    >>> def images(count):
    ...     return Inventory(pa.table({
    ...         "path": pa.array([b"%d" % i for i in range(count)]),
    ...         "content": pa.array([b"%032d" % i for i in range(count)], pa.binary(32)),
    ...         "label": ["cat", "dog"] * (count // 2), "group": pa.nulls(count, pa.string()),
    ...         "split": pa.nulls(count, pa.string()),
    ...     }), "/images")
    >>> [resolve_split(images(count), SplitPolicy(kind="auto")).kind for count in (98, 100)]
    ['exact', 'hash']
    """
    kind, why = policy.kind, policy.why
    if pc.any(pc.equal(inventory.table.column("split"), "validation")).as_py():
        kind, why = "hash" if kind == "auto" else kind, NAMED_BY_SOURCE
    elif kind == "auto":
        kind, why = _choose_kind(inventory, policy.validation)
    return policy.model_copy(update={"kind": kind, "why": why})


def _choose_kind(inventory: Inventory, validation: float) -> tuple[Literal["hash", "exact"], str]:
    if validation == 0.0:
        return "hash", "nothing is held out"
    if not len(inventory):
        return "hash", "there are no images"
    contents, unique = content_codes(inventory)
    units, keys = _units(inventory, contents, unique)
    sides = _given(inventory, units, len(keys))
    pool = np.flatnonzero((sides < 0) | (sides == _TRAIN))
    labels, codes = _number_labels(inventory)
    # A group of several classes counts for each of them.
    pairs = np.unique(np.stack([codes[pool], units[pool]]), axis=1)[0]
    there = pairs[pairs < len(labels)]
    if not len(there):
        return "hash", "no image has a label"
    size = int(np.unique(there, return_counts=True)[1].min())
    needed = math.ceil(_ENOUGH / min(validation, 1 - validation))
    what = "images" if len(keys) == unique else "images or groups"
    if size < needed:
        return "exact", f"the smallest class has {size:,} {what}, under {needed:,}"
    return "hash", f"the smallest class has {size:,} {what}, {needed:,} or more"


def _draw_numbers(keys: Sequence[bytes], seed: int) -> np.ndarray:
    """Hash each key with the seed to 53 bits in [0, 1)."""
    start = hashlib.sha256(b"bottleneck split 1\n%d\n" % seed)
    numbers = np.empty(len(keys))
    for at, key in enumerate(keys):
        digest = start.copy()
        digest.update(key)
        numbers[at] = int.from_bytes(digest.digest()[:8], "big") >> 11
    return numbers / 2.0**53


def _units(inventory: Inventory, contents: np.ndarray, unique: int) -> tuple[np.ndarray, list[bytes]]:
    """Number the unit of each image (n,), and give each unit's key.

    A unit moves as one. Without groups it is a content. Else it is a group; groups that share a content are one unit,
    known by their first group in order of code points. So neither copies nor groups are ever torn apart.
    """
    first = np.zeros(unique, np.int64)
    first[contents[::-1]] = np.arange(len(contents))[::-1]
    by_content = [b"content\0" + key.tobytes() for key in inventory.keys[first]]
    column = inventory.table.column("group")
    if column.null_count == len(column):
        return contents, by_content
    names = sorted(x for x in pc.unique(column).to_pylist() if x is not None)
    number = pc.index_in(column, value_set=pa.array(names, pa.string()))
    groups = np.asarray(pc.fill_null(number, len(names)).to_numpy(), np.int64)
    grouped = groups < len(names)
    nobody = len(names)
    head = np.arange(nobody + 1)
    of_content = np.full(unique, nobody)
    while True:
        np.minimum.at(of_content, contents[grouped], head[groups[grouped]])
        lower = head.copy()
        np.minimum.at(lower, groups[grouped], of_content[contents[grouped]])
        lower = lower[lower]
        if np.array_equal(lower, head):
            break
        head = lower
    keys = [b"group\0" + name.encode() for name in names]
    units = np.where(of_content[contents] < nobody, of_content[contents], nobody + contents)
    used, renumbered = np.unique(units, return_inverse=True)
    return renumbered, [keys[u] if u < nobody else by_content[u - nobody] for u in used.tolist()]


def _given(inventory: Inventory, units: np.ndarray, count: int) -> np.ndarray:
    """Give each side (n,) as its unit was given, else -1."""
    number = pc.index_in(inventory.table.column("split"), value_set=pa.array(_NAMES.tolist()))
    sides = np.asarray(pc.fill_null(number, -1).to_numpy(), np.int64)
    of_unit = np.full(count, -1)
    np.maximum.at(of_unit, units, sides)
    return np.where(sides < 0, of_unit[units], sides)


def _number_labels(inventory: Inventory) -> tuple[list[str], np.ndarray]:
    """Sort labels; number each image's (n,), unlabelled ones behind the last."""
    column = inventory.table.column("label")
    labels = sorted(x for x in pc.unique(column).to_pylist() if x is not None)
    number = pc.index_in(column, value_set=pa.array(labels, pa.string()))
    return labels, np.asarray(pc.fill_null(number, len(labels)).to_numpy(), np.int64)


def _stratified(
    inventory: Inventory,
    contents: np.ndarray,
    units: np.ndarray,
    pool: np.ndarray,
    numbers: np.ndarray,
    fraction: float,
) -> np.ndarray:
    """Choose units for validation, (units,) bool, by each label's share.

    Shares are rounded so that their sum is right too (largest remainders; ties in order of the label).
    """
    _, one_each = np.unique(contents[pool], return_index=True)
    rows = pool[one_each]
    sizes = np.bincount(units[rows], minlength=len(numbers))
    labels, codes = _number_labels(inventory)
    # A unit with several labels (a group, or one image under two labels) counts for its first; one outside the pool
    # for none.
    stratum = np.full(len(numbers), len(labels) + 1)
    np.minimum.at(stratum, units[pool], codes[pool])
    wanted = np.bincount(stratum, weights=sizes, minlength=len(labels) + 2) * fraction
    quota = np.floor(wanted)
    missing = round(float(wanted.sum() - quota.sum()))
    quota[np.argsort(-(wanted - quota), kind="stable")[:missing]] += 1
    taken = np.zeros(len(numbers), bool)
    order = np.lexsort((numbers, stratum))
    order = order[sizes[order] > 0]
    bounds = np.flatnonzero(np.diff(stratum[order], prepend=-1, append=-1))
    for start, end in pairwise(bounds.tolist()):
        chosen, have = order[start:end], 0.0
        want = quota[stratum[chosen[0]]]
        left = len(chosen)
        for unit in chosen.tolist():
            # The last unit of a class stays in training; a big group is taken when that comes nearer the
            # share.
            if left > 1 and have + sizes[unit] / 2 <= want and have < want:
                taken[unit] = True
                have += float(sizes[unit])
                left -= 1
    return taken
