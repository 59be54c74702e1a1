"""Write the tiny real store of the current format; run once a format, and never again for an old one.

    python -m tests.formats.make

The store holds five made-up rows and a rejection under ``tests/formats/<format>/``, as `commit` wrote them then; since
format 2, where records say under which circumstances an image was given up, such a one too.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bottleneck.schema import RECORD_FORMAT, Cache, RejectedContent
from bottleneck.store.commit import commit
from bottleneck.store.header import begin_store
from bottleneck.store.plan import task_id
from tests.fakes import base


def rows() -> tuple[np.ndarray, np.ndarray]:
    """Keys (5, 32) and features (5, 6) by arithmetic alone."""
    keys = (np.arange(5 * 32) * 7 % 251).astype(np.uint8).reshape(5, 32)
    return keys, (np.arange(30, dtype=np.float32) / 8 - 1).reshape(5, 6)


def main() -> None:
    folder = Path(__file__).parent / str(RECORD_FORMAT)
    if folder.exists():
        raise SystemExit(f"{folder} is there: a store of an old format is kept as it was written")
    place, header = begin_store(Cache(folder), base().spec, 4)
    keys, features = rows()
    bad = [
        RejectedContent(content="ab" * 32, stage="decode", reason="not an image"),
        RejectedContent(
            content="cd" * 32,
            stage="decode",
            reason="it hung",
            retry=True,
            circumstances="deadline 60 s",
            final=True,
        ),
    ]
    commit(
        place / "shards",
        task_id(keys),
        header.spec,
        keys,
        features,
        rejected=bad,
        environment={"forward": "fake 1", "batch": "4"},
        canary="0" * 64,
    )


if __name__ == "__main__":
    main()
