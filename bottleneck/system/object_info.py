"""Describe an object or folder in the same words for every protocol."""

from __future__ import annotations

import email.utils
import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from bottleneck.schema import Signature

#: Volumes of a signature: an object is known by a tag, by its time, or not at all.
_TAGGED, _TIMED, _UNKNOWN = -1, 1, 0


class ObjectInfo(NamedTuple):
    """One object or folder, as the service describes it.

    `tag` names the content's version (an ETag or its kin), empty where the service gives none; `modified_ns` is 0
    where unknown; `size` is -1 where unknown.
    """

    name: str
    folder: bool
    size: int = -1
    tag: str = ""
    modified_ns: int = 0

    @property
    def versioned(self) -> bool:
        """Whether a change of the content shows."""
        return bool(self.tag or self.modified_ns)

    @property
    def signature(self) -> Signature:
        """For the scan index: numbers that change with the content.

        A tag is believed at once: its digest stands where times stand, as numbers from before 1970. A time is
        believed once it is a while ago, and nothing at all never.

        Examples
        --------
        >>> a, b = (ObjectInfo("x", False, 3, tag, 10**18).signature for tag in ("one", "two"))
        >>> a != b, a.size, all(-(1 << 63) <= n < 1 << 63 for n in a), a.mtime_ns < 0
        (True, 3, True, True)
        >>> ObjectInfo("x", False, 3, "", 10**18).signature[:3]
        (3, 1000000000000000000, 1000000000000000000)
        """
        weak = self.tag.startswith("W/")
        digest = hashlib.sha256(self.tag.encode("utf-8", "surrogateescape")).digest()
        first, second, third = (int.from_bytes(digest[at : at + 8], "big") >> 1 for at in (0, 8, 16))
        if self.tag and not weak:
            return Signature(self.size, -1 - first, -1 - second, third, _TAGGED)
        if self.modified_ns:
            return Signature(self.size, self.modified_ns, self.modified_ns, third, _TIMED)
        return Signature(self.size, 0, 0, third, _UNKNOWN)


def parse_object_info(name: str, info: Mapping[str, Any]) -> ObjectInfo:
    """Describe the object `name` from what a protocol says of it.

    Examples
    --------
    >>> parse_object_info("1.png", {"size": 3, "ETag": '"5d41"', "LastModified": "2026-11-30T06:00:00+00:00"})
    ObjectInfo(name='1.png', folder=False, size=3, tag='5d41', modified_ns=1796018400000000000)
    """
    size = info.get("size")
    tags = (info.get(key) for key in ("ETag", "etag", "e_tag", "generation", "md5Hash"))
    tag = next((str(value) for value in tags if value), "")
    times = (
        info.get(key)
        for key in ("LastModified", "last_modified", "mtime", "updated", "Last-Modified", "created")
    )
    modified = next((value for value in times if value), None)
    return ObjectInfo(name, False, -1 if size is None else int(size), tag.strip('"'), _nanoseconds(modified))


def _nanoseconds(when: Any) -> int:
    if isinstance(when, (int, float)):
        return int(when * 1e9)
    if isinstance(when, str):
        try:
            when = email.utils.parsedate_to_datetime(when)
        except ValueError:
            try:
                when = datetime.fromisoformat(when)
            except ValueError:
                return 0
    if not isinstance(when, datetime):
        return 0
    return int((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() * 1e9)
