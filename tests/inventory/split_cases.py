"""Inventories from rows, and what the split makes of them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from bottleneck.inventory.checks import check_trainable
from bottleneck.schema import Inventory

Row = tuple[int, str | None, str | None, str | None]  # content, label, group, split


def inventory(rows: Sequence[Row], names: Sequence[bytes] | None = None) -> Inventory:
    paths = list(names) if names is not None else [b"%06d" % at for at in range(len(rows))]
    table = pa.table(
        {
            "path": pa.array(paths, pa.binary()),
            "content": pa.array([hashlib.sha256(b"%d" % row[0]).digest() for row in rows], pa.binary(32)),
            "label": pa.array([row[1] for row in rows], pa.string()),
            "group": pa.array([row[2] for row in rows], pa.string()),
            "split": pa.array([row[3] for row in rows], pa.string()),
        }
    )
    return Inventory(table.take(pa.array(np.argsort(np.array(paths, object), kind="stable"))), "/images")


def check(
    rows: Sequence[Row], found: Sequence[str], *, exact: bool = False, **facts: object
) -> tuple[str, ...]:
    held = inventory(rows)
    given = Inventory(held.table, "/images", **facts)  # type: ignore[arg-type]
    return check_trainable(given, np.array(found, "<U10"), exact=exact)
