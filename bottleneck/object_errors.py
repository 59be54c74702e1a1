"""What goes wrong behind a URL, as an OSError with a number: a vanished object is handled as a vanished file."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator

from bottleneck.errors import RemoteError


@contextlib.contextmanager
def as_os_error(url: str) -> Iterator[None]:
    """Raise whatever a protocol raises within as an OSError about `url`; a `RemoteError` goes through.

    Examples
    --------
    >>> with as_os_error("s3://bucket/1.png"):
    ...     raise RuntimeError("the service is confused")
    Traceback (most recent call last):
    OSError: [Errno 5] the service is confused: 's3://bucket/1.png'
    """
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise _numbered(error, url) from error
        raise
    except (RemoteError, NotImplementedError):
        raise
    except Exception as error:
        raise _numbered(error, url) from error


def _numbered(error: Exception, url: str) -> OSError:
    status = getattr(error, "status", None)
    cause = error.__cause__
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, PermissionError) or status in (401, 403) or "Credentials" in type(error).__name__:
        return PermissionError(errno.EACCES, f"not allowed ({text})", url)
    if isinstance(error, FileNotFoundError) or status in (404, 410):
        # Over HTTP a server that cannot be reached looks like one that has no such page.
        if isinstance(cause, OSError) and not isinstance(cause, FileNotFoundError):
            return OSError(errno.EHOSTUNREACH, f"it cannot be reached ({cause})", url)
        if getattr(cause, "status", None) in (401, 403):
            return PermissionError(errno.EACCES, f"not allowed ({cause})", url)
        return FileNotFoundError(errno.ENOENT, "nothing is there", url)
    if isinstance(error, TimeoutError):
        return TimeoutError(errno.ETIMEDOUT, "no answer in time", url)
    return OSError(errno.EIO, text, url)
