"""Keep secrets out of URLs, and say which hosts may be read.

A URL may carry a password (``user:password@``) or a signature (``?X-Amz-Signature=…``, ``?sig=…``, ``?token=…``). Which
query is a secret nobody can tell by its name, so none is shown and none is written: `redact` is what stands in
messages, runs, indexes and results, and the URL as it was given lives in the memory of the process alone.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import quote, unquote

WEB = ("http", "https")
#: Protocols that lead to this very machine.
LOCAL = ("file", "local")
#: Where the whole URL of a run's source may be given again.
VARIABLE = "BOTTLENECK_SOURCE"

_ONE_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"<>]*")
#: Also in broken URLs: with one slash, or a blank before it.
_NAME_AND_PASSWORD = re.compile(r"(:/+)[^\s/:@'\"<>]+:[^\s/@'\"<>]+@")
_LEFT_OVER = re.compile(r"([?&;][A-Za-z][\w.-]*=)[^\s&;'\"<>]+")
_PORT = re.compile(r"(\[.*\]|[^:]*)(:\d*)?")
_AUTHORITY = re.compile(
    r"([^\s\\@\[\]]*@)?(?P<host>[\w.~-]*|\[[0-9A-Fa-f:.]+\])(:(?P<port>\d{1,5})?)?", re.ASCII
)
#: Usual names of secrets in queries.
_USUAL = re.compile(r"sig|token|key|pass|pwd|secret|auth|cred|sas|session|jwt|x-amz-|x-goog-", re.IGNORECASE)
_HIDDEN = "***"
_PORTS = {"http": 80, "https": 443}
_ONE_SERVICE = {"s3a": "s3", "gcs": "gs", "local": "file"}
#: URLs with secrets that this process was given, by their redacted form.
_given: dict[str, str] = {}


def redact(url: str) -> str:
    """Replace what may be secret in a URL by ``***``.

    Examples
    --------
    >>> redact("https://me:word@host/a.csv?sig=1"), redact("s3://bucket/a?.png"), redact("sftp://me@host/a")
    ('https://***@host/a.csv?***', 's3://bucket/a?.png', 'sftp://me@host/a')
    """
    protocol, mark, rest = url.partition("://")
    web = protocol.lower() in WEB
    host = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if "@" not in host and "@" in rest and (not _PORT.fullmatch(host) or (web and not host)):
        host = rest[: rest.rindex("@") + 1]  # a password with a slash in it, or a slash too many before it
    user, at, _ = host.rpartition("@")
    if at and (web or ":" in user):
        rest = f"{_HIDDEN}@{rest[len(user) + 1 :]}"
    for sign in "?#":
        path, separator, query = rest.partition(sign)
        if separator and ("=" in query or (web and sign == "?")):
            rest = f"{path}{sign}{_HIDDEN}"
    return f"{protocol}{mark}{rest}"


def has_no_secret(url: str) -> bool:
    """Tell whether nothing in `url` may be a secret."""
    return redact(url) == url


def has_plain_query(url: str) -> bool:
    """Tell whether only a query without secret names is hidden.

    Examples
    --------
    >>> [has_plain_query(f"https://{rest}") for rest in ("host/a?id=3", "host/a?id=3&Sig=x", "me:word@host/a?id=3")]
    [True, False, False]
    """
    bare, mark, query = url.partition("?")
    return has_no_secret(bare) and bool(mark) and not _USUAL.search(query)


def redact_text(text: str, url: str = "") -> str:
    """Redact a message of other people's code, and the secrets of `url`.

    Examples
    --------
    >>> redact_text("403 for https://host/a?sig=abcd, tried 'abcd'", "https://host/a?sig=abcd")
    "403 for https://host/a?***, tried '***'"
    """
    for secret in _secrets(url):
        text = text.replace(secret, _HIDDEN)
    text = _NAME_AND_PASSWORD.sub(rf"\g<1>{_HIDDEN}@", text)
    if ":/" not in text:
        return text
    return _LEFT_OVER.sub(rf"\g<1>{_HIDDEN}", _ONE_URL.sub(_redact_match, text))


def _redact_match(match: re.Match[str]) -> str:
    text = match.group()
    url = text.rstrip(".,;:)]}")  # what follows belongs to the sentence
    return redact(url) + text[len(url) :]


def _secrets(url: str) -> list[str]:
    """List what `redact` hides of `url`, in all spellings, longest first."""
    if has_no_secret(url):
        return []
    rest = url.partition("://")[2]
    user, _, below = rest.rpartition("@")
    query = re.split(r"[?#]", below, maxsplit=1)[1:]
    parts = {user, *re.split(r"[:/@]", user)[1:], *query}
    parts |= {pair.partition("=")[2] for text in query for pair in re.split(r"[&#;]", text)}
    forms = parts | {unquote(part) for part in parts} | {quote(unquote(part), safe="") for part in parts}
    return sorted((form for form in forms if len(form) > 3 and form != _HIDDEN), key=len, reverse=True)


def remember_url(url: str) -> str:
    """Redact `url` and remember it whole (see `unredacted_url`)."""
    redacted = redact(url)
    if redacted != url:
        _given[redacted] = url
    return redacted


def unredacted_url(url: str) -> str | None:
    """Find the URL behind `url`, from this process or ``$BOTTLENECK_SOURCE``, else None.

    Examples
    --------
    >>> unredacted_url(remember_url("https://host/a.csv?sig=abcd")), unredacted_url("https://host/b.csv?***"), unredacted_url("s3://bucket/a")
    ('https://host/a.csv?sig=abcd', None, 's3://bucket/a')
    """
    if f"{_HIDDEN}@" not in url and not url.endswith(_HIDDEN):
        return url
    given = os.environ.get(VARIABLE, "")
    return given if given and redact(given) == url and given != url else _given.get(url)


@dataclass(frozen=True)
class Address:
    """A URL as given, and the other hosts that may be read.

    Attributes
    ----------
    url : str
        With its secrets; no representation shows it.
    allowed : tuple of str
        Hosts or buckets that the user named.
    """

    url: str = field(repr=False)
    allowed: tuple[str, ...] = ()

    def permits(self, url: str) -> bool:
        """Tell whether what lies here may name `url`.

        It may on its own host by its own protocol, and on hosts that the user named. Files of this machine are never
        named from elsewhere.

        Examples
        --------
        >>> here = Address("https://host/list.csv", ("cdn.org",))
        >>> [here.permits(url) for url in ("https://host/1.png", "http://host/1.png", "https://cdn.org/1", "file:///x")]
        [True, False, True, False]
        """
        own, other = origin(self.url), origin(url)
        return own == other or (other[0] not in LOCAL and is_named(other, own[0], self.allowed))


def origin(url: str) -> tuple[str, str, int | None]:
    """Split a URL into protocol, host or bucket, and port.

    The port is -1 where two libraries may read two hosts.

    Examples
    --------
    >>> origin("HTTPS://me@Host/x"), origin("s3a://bucket/x"), origin("http://host\\\\@other/x")[2]
    (('https', 'host', 443), ('s3', 'bucket', None), -1)
    """
    protocol, _, rest = url.partition("://")
    protocol = _ONE_SERVICE.get(protocol.lower(), protocol.lower())
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    plain = _AUTHORITY.fullmatch(authority)
    if plain is None:
        return protocol, authority.rpartition("@")[2].lower(), -1
    port = plain["port"]
    return protocol, plain["host"].lower().rstrip("."), int(port) if port else _PORTS.get(protocol)


def is_named(place: tuple[str, str, int | None], protocol: str, allowed: Sequence[str]) -> bool:
    """Tell whether one of `allowed` names the origin `place`.

    A name is ``host``, ``host:port``, ``bucket`` or ``protocol://host``. Without a protocol it is taken for one of the
    service that it is named from.
    """
    service = (place[0] in WEB) == (protocol in WEB) and (place[0] in WEB or place[0] == protocol)
    for name in allowed:
        if "://" in name:
            if origin(name) == place:
                return True
        elif service:
            plain = origin(f"{place[0]}://{name}")
            if plain[1] == place[1] and (plain[2] == place[2] or ":" not in name):
                return True
    return False
