"""Bound where redirects of HTTP lead and how long bodies are."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import Any

from bottleneck.errors import RemoteError
from bottleneck.system.addresses import WEB, is_named, origin, redact


def client_factory(allowed: Sequence[str], silence: float, largest: int) -> Any:
    """Give what fsspec makes its session with.

    Parameters
    ----------
    allowed : sequence of str
        Hosts that an answer may lead to, besides the one that was asked.
    silence : float
        Seconds without a byte until a connection is given up.
    largest : int
        Bytes of an answer that is taken into memory.
    """
    import aiohttp

    class Bounded(aiohttp.ClientResponse):
        """An answer whose body, unpacked, has an end."""

        async def read(self) -> bytes:
            if self._body is None:
                pieces, count = [], 0
                async for piece in self.content.iter_any():
                    count += len(piece)
                    if count > largest:
                        self.close()
                        raise OSError(errno.EFBIG, f"more than the limit of {largest:,} bytes", str(self.url))
                    pieces.append(piece)
                self._body = b"".join(pieces)
            return await super().read()

    async def look_where(_: Any, __: Any, step: aiohttp.TraceRequestRedirectParams) -> None:
        headers = step.response.headers
        try:
            check_redirect(str(step.url), headers.get("Location") or headers.get("URI") or "", allowed)
        except BaseException:
            step.response.close()
            raise

    async def client(**settings: Any) -> aiohttp.ClientSession:
        watch = aiohttp.TraceConfig()
        watch.on_request_redirect.append(look_where)
        patience = aiohttp.ClientTimeout(total=None, sock_connect=silence, sock_read=silence)
        settings = {"timeout": patience, **settings}
        return aiohttp.ClientSession(response_class=Bounded, trace_configs=[watch], **settings)

    return client


def check_redirect(url: str, target: str, allowed: Sequence[str]) -> None:
    """Refuse a redirect of `url` to a host that nobody named.

    Raises
    ------
    RemoteError
        With the host and the option.

    Examples
    --------
    >>> check_redirect("http://host/a", "https://host/b", ())
    >>> check_redirect("https://host/a", "http://10.0.0.1/secret", ())
    Traceback (most recent call last):
    bottleneck.errors.RemoteError: https://host/a leads to another place, http://10.0.0.1/secret: ...
    """
    from yarl import URL

    # As the client itself will read it: two parsers may see two hosts in one address.
    destination = str(URL(url).join(URL(target)))
    own, other = origin(url), origin(destination)
    upgraded = (own[0], own[2], other[0], other[2]) == ("http", 80, "https", 443) and own[1] == other[1]
    if other[0] in WEB and (own == other or upgraded or is_named(other, own[0], allowed)):
        return
    raise RemoteError(
        f"{redact(url)} leads to another place, {redact(destination)}: when you want that read, name its host: "
        f"--allow-host {other[1]} (in Python allow_host=[{other[1]!r}])"
    )
