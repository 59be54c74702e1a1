"""What goes wrong behind a URL, as an OSError with a number: a vanished object is handled as a vanished file."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator

from bottleneck.errors import RemoteError
from bottleneck.system.addresses import has_no_secret, redact, redact_text


@contextlib.contextmanager
def as_os_error(url: str) -> Iterator[None]:
    """Raise whatever a protocol raises within as an OSError about `url`, without its secrets.

    A `RemoteError` goes through.

    Examples
    --------
    >>> with as_os_error("s3://bucket/1.png"):
    ...     raise RuntimeError("the service is confused")
    Traceback (most recent call last):
    OSError: [Errno 5] the service is confused: 's3://bucket/1.png'
    """
    try:
        yield
    except (RemoteError, NotImplementedError):
        raise
    except Exception as error:
        if isinstance(error.__cause__, RemoteError):  # fsspec takes what its client raises for a missing page
            raise error.__cause__ from None
        if isinstance(error, OSError) and error.errno is not None and has_no_secret(url):
            raise
        told = _numbered(error, url)
        # With its cause, a traceback would print what the message leaves out.
        raise told from (error if has_no_secret(url) else None)


def _numbered(error: Exception, url: str) -> OSError:
    here = redact(url)
    status = getattr(error, "status", None)
    cause = error.__cause__
    text = " ".join(redact_text(str(error), url).split()) or type(error).__name__
    why = redact_text(str(cause), url)
    if isinstance(error, OSError) and error.errno is not None:
        return OSError(error.errno, redact_text(error.strerror or text, url), here)
    if isinstance(error, PermissionError) or status in (401, 403) or "Credentials" in type(error).__name__:
        return PermissionError(errno.EACCES, f"not allowed ({text})", here)
    if isinstance(error, FileNotFoundError) or status in (404, 410):
        # Over HTTP a server that cannot be reached looks like one that has no such page.
        if isinstance(cause, OSError) and not isinstance(cause, FileNotFoundError):
            return OSError(errno.EHOSTUNREACH, f"it cannot be reached ({why})", here)
        if getattr(cause, "status", None) in (401, 403):
            return PermissionError(errno.EACCES, f"not allowed ({why})", here)
        if (getattr(cause, "status", None) or 0) >= 500:
            return OSError(errno.EIO, f"its server failed ({why})", here)
        return FileNotFoundError(errno.ENOENT, "nothing is there", here)
    if isinstance(error, TimeoutError):
        return TimeoutError(errno.ETIMEDOUT, "no answer in time", here)
    return OSError(errno.EIO, text, here)
