"""Checks whether a head can be trained on an inventory."""

from __future__ import annotations

import unicodedata
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bottleneck.errors import SourceError, UsageError
from bottleneck.inventory.duplicates import duplicates
from bottleneck.schema import Inventory
from bottleneck.sources.layout import LAYOUTS
from bottleneck.system.durable import shown


def check_trainable(
    inventory: Inventory, splits: np.ndarray, *, validated: bool = True, exact: bool = False
) -> tuple[str, ...]:
    """Refuse what cannot be trained on; remark on what is odd.

    Parameters
    ----------
    inventory : Inventory
        n images.
    splits : numpy.ndarray
        (n,) of ``train``, ``validation``, ``test``, from `bottleneck.inventory.split.split_images`.
    validated : bool
        Whether images were to be held out; when not, none is missed.
    exact : bool
        Whether each class gave its share already; no remark then advises it.

    Returns
    -------
    tuple of str
        Remarks for a person: images without label, classes of one image, classes that are not validated,
        labels that read the same and are not, copies with two labels, in two groups or on two sides.

    Raises
    ------
    SourceError
        No images, no labels, a single class, or a class without a training image by the source's own splits.
    UsageError
        The split left a class without a training image, or nothing to validate on: another split would do.

    Examples
    --------
    >>> import pyarrow as pa
    >>> table = pa.table({
    ...     "path": pa.array([b"a", b"b", b"c"]), "label": ["cat", "dog", "dog"],
    ...     "content": pa.array([b"a" * 32, b"b" * 32, b"c" * 32], pa.binary(32)),
    ...     "group": pa.nulls(3, pa.string()), "split": pa.nulls(3, pa.string()),
    ... })
    >>> remarks = check_trainable(Inventory(table, "/images"), np.array(["train", "train", "validation"]))
    >>> [remark.partition(";")[0] for remark in remarks]
    ["1 class of one image: 'cat'", "1 of 2 classes has no validation image: 'cat'"]
    """
    where = shown(inventory.location)
    if not len(inventory):
        raise SourceError(f"{where}: no images{_passed_over(inventory)}; expected {LAYOUTS}")
    labels = inventory.table.column("label")
    labelled = labels.is_valid().to_numpy()
    counts: Counter[str] = Counter(labels.drop_null().to_pylist())
    if not counts:
        raise SourceError(
            f"{where}: {len(inventory):,} images and no labels; training needs {LAYOUTS} "
            "(a flat folder can be extracted and predicted)"
        )
    if len(counts) == 1:
        (name,) = counts
        raise SourceError(
            f"{where}: all {counts[name]:,} labelled images are of one class, {name!r}; training needs at "
            f"least two; give the folder that holds the class folders: {LAYOUTS}"
        )
    sides = {
        side: Counter(pc.drop_null(labels.filter(pa.array(splits == side))).to_pylist())
        for side in ("train", "validation", "test")
    }
    validated = validated or bool(sides["validation"])
    _check_sides(inventory, where, counts, sides, validated)
    remarks = []
    if not labelled.all():
        missing = np.flatnonzero(~labelled)
        example = shown(inventory[int(missing[0])].path)
        remarks.append(f"{_count(len(missing), 'image')} without a label, not trained on: {example}"[:300])
    single = sorted(name for name, count in counts.items() if count == 1)
    if single:
        them = "it is" if len(single) == 1 else "they are"
        kinds = "class" if len(single) == 1 else "classes"
        remarks.append(
            f"{len(single)} {kinds} of one image: {_first_names(single)}; {them} trained on and never validated"
        )
    unseen = sorted(set(counts) - set(sides["validation"])) if validated else []
    if unseen:
        remedy = "--split exact gives each class of several images its share"
        if set(unseen) <= set(single):
            remedy = "more images of them would give some"
        elif "validation" in _given_sides(inventory):
            remedy = "the source can name some"
        elif exact:
            remedy = "more images of them, or a larger --validation where there are several, would give some"
        remarks.append(
            f"{not_validated(unseen, len(counts))}; validation figures, and early stopping where the head has it, go "
            f"by the others; {remedy}"
        )
    for what in ("label", "group"):
        remarks += _lookalikes(inventory, what)
    copies = duplicates(inventory)
    for found, what, how, written in (
        (copies.two_labels, "with two labels", "labelled", repr),
        (copies.two_groups, "in two groups, which count as one", "in", repr),
        (copies.straddling, "on two sides of the given splits", "in", str),
    ):
        if found:
            paths, values = map(shown, found[0].paths[:2]), map(written, found[0].values)
            remarks.append(
                f"{_count(len(found), 'image')} {what}: {' and '.join(paths)} are the same image, "
                f"{how} {' and '.join(values)}"
            )
    return tuple(remarks)


def not_validated(names: list[str], classes: int) -> str:
    """Name the classes that have no validation image.

    Examples
    --------
    >>> not_validated(["cat"], 3)
    "1 of 3 classes has no validation image: 'cat'"
    """
    have = "has" if len(names) == 1 else "have"
    return f"{len(names):,} of {classes:,} classes {have} no validation image: {_first_names(names)}"


def _lookalikes(inventory: Inventory, what: str) -> list[str]:
    """Remark on names that differ only in Unicode composition (``é``)."""
    first: dict[str, str] = {}
    pairs = []
    for name in inventory.table.column(what).unique().drop_null().to_pylist():
        other = name if name.isascii() else first.setdefault(unicodedata.normalize("NFC", name), name)
        if other != name:
            pairs.append(sorted((other, name)))
    if not pairs:
        return []
    one, two = min(pairs)
    does = "reads like another one, and is" if len(pairs) == 1 else "read like another one, and are each"
    return [f"{_count(len(pairs), what)} that {does} taken for a {what} of its own: {one!a} and {two!a}"]


def _check_sides(
    inventory: Inventory, where: str, counts: Counter[str], sides: dict[str, Counter[str]], validated: bool
) -> None:
    given = _given_sides(inventory)
    shares = ", ".join(f"{sum(side.values()):,} {name}" for name, side in sides.items())
    if not sides["train"]:
        raise SourceError(f"{where}: no training images ({shares}); expected some in train/ or split=train")
    untrained = sorted(set(counts) - set(sides["train"]))
    if untrained:
        kind = "class" if len(untrained) == 1 else "classes"
        message = f"{where}: {len(untrained)} {kind} without a training image: " + ", ".join(
            f"{name!r} ({', '.join(f'{side[name]} {s}' for s, side in sides.items() if side[name])})"
            for name in untrained[:5]
        )
        if "validation" in given or any(not sides["validation"][name] for name in untrained):
            raise SourceError(f"{message}; put images of each class into train, or take the class out")
        raise UsageError(f"{message}; use --split exact, another --seed, or more images of it")
    if validated and not sides["validation"]:
        raise UsageError(
            f"{where}: nothing to validate on ({shares}); use --split exact, a larger --validation, "
            "or more images"
        )


def _given_sides(inventory: Inventory) -> set[str]:
    return set(inventory.table.column("split").drop_null().unique().to_pylist())


def _passed_over(inventory: Inventory) -> str:
    parts = [f"{count:,} {reason}" for reason, count in inventory.ignored.items()]
    if inventory.unreadable:
        first = inventory.unreadable[0]
        parts.append(f"{len(inventory.unreadable):,} unreadable, {first.path}: {first.reason}")
    return f" (passed over: {', '.join(parts)})" if parts else ""


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def _first_names(names: list[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(map(repr, names[:5])) + more
