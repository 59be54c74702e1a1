"""Publish plans, so that all builders cut the same tasks.

`plans/<id>.plan` is one line ``bottleneck plan 1 <rows a task> <contents>``, the contents (n, 32) in order, and sha256
over all before it, of which `<id>` is the first 16 hex digits. Equal plans have equal names and the first one wins. A
plan is a piece of advice: one that is damaged, foreign or can never be finished is passed over.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from bottleneck.errors import StoreError
from bottleneck.schema.strict_json import MalformedDocument
from bottleneck.store.locks import committing
from bottleneck.store.plan import PublishedPlan, task_id
from bottleneck.store.record import read_file
from bottleneck.system.durable import publish

_NAME = re.compile(r"([0-9a-f]{16})\.plan")
_HEAD = re.compile(rb"bottleneck plan 1 ([1-9][0-9]{0,8}) ([1-9][0-9]{0,9})\n")


def publish_plan(folder: Path, keys: np.ndarray, task_rows: int) -> Path:
    """Publish a plan in `folder`, unless the same one is there.

    Parameters
    ----------
    folder : Path
        The store's ``plans/``.
    keys : numpy.ndarray
        (n, 32) uint8, n >= 1, each content once.
    task_rows : int

    Raises
    ------
    OSError
        Disk full and its kin.
    """
    head = b"bottleneck plan 1 %d %d\n" % (task_rows, len(keys))
    # One buffer: a plan of ten million contents is 320 MB.
    whole = bytearray(len(head) + keys.nbytes + 32)
    whole[: len(head)] = head
    body = np.frombuffer(whole, np.uint8)[len(head) : -32]
    body.reshape(-1, 32)[:] = keys
    digest = hashlib.sha256(memoryview(whole)[:-32]).digest()
    whole[-32:] = digest
    path = folder / f"{digest.hex()[:16]}.plan"
    with committing(folder.parent):  # or a sweep takes the unfinished file for a dead builder's
        publish(path, memoryview(whole))
    return path


def read_plan(folder: Path, name: str) -> PublishedPlan:
    """Read the plan in `folder`/`name`.

    Raises
    ------
    MalformedDocument
        Not a plan, not whole, changed since it was written, or under another name.
    StoreError
        No regular file.
    OSError
        It cannot be read.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise MalformedDocument(f"{name!r} is no plan's name")
    data = read_file(folder, name, None)
    head = _HEAD.match(data)
    if head is None or len(data) != head.end() + int(head[2]) * 32 + 32:
        raise MalformedDocument("not a plan, or not a whole one")
    digest = hashlib.sha256(memoryview(data)[:-32]).digest()
    if digest != data[-32:] or digest.hex()[:16] != match[1]:
        raise MalformedDocument("its own hash does not fit")
    keys = np.frombuffer(data, np.uint8, int(head[2]) * 32, head.end()).reshape(-1, 32)
    return PublishedPlan(keys, int(head[1]))


def read_plans(folder: Path, most_rows: int) -> dict[str, PublishedPlan]:
    """Read every plan in `folder` that can be read, by name.

    Parameters
    ----------
    folder : Path
        The store's ``plans/``.
    most_rows : int
        Plans of larger tasks are passed over: a task is kept in memory.
    """
    plans: dict[str, PublishedPlan] = {}
    for name in _names(folder):
        with contextlib.suppress(OSError, StoreError, MalformedDocument):
            one = read_plan(folder, name)
            if one.task_rows <= most_rows:
                plans[name] = one
    return plans


def task_contents(one: PublishedPlan) -> Iterator[np.ndarray]:
    """Split a plan into the contents of its tasks, (k, 32)."""
    return (one.keys[start : start + one.task_rows] for start in range(0, len(one.keys), one.task_rows))


def remove_settled(folder: Path, settled: Callable[[np.ndarray], np.ndarray]) -> list[str]:
    """Remove the plans that nobody can take a task of any more.

    Parameters
    ----------
    folder : Path
        The store's ``plans/``.
    settled : callable
        Says of contents (k, 32) which of them need no computing, (k,) bool. A task is taken over only when all of
        its contents are missing, so one that is there settles the task.

    Returns
    -------
    list of str
        Ids of the tasks of plans that were removed.
    """
    gone: list[str] = []
    for name, one in read_plans(folder, 1 << 32).items():
        known = settled(one.keys)
        starts = np.arange(0, len(known), one.task_rows)
        if np.logical_or.reduceat(known, starts).all():
            with contextlib.suppress(OSError):
                os.unlink(folder / name)
                gone += [task_id(keys) for keys in task_contents(one)]
    return gone


def _names(folder: Path) -> list[str]:
    try:
        return sorted(name for name in os.listdir(folder) if _NAME.fullmatch(name))
    except OSError:
        return []
