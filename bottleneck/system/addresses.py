"""URLs as a person may see them and a file may keep them, and which hosts a table from elsewhere may name.

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
#: Also of what was meant for a URL and is none: with one slash, or a blank before it.
_NAME_AND_PASSWORD = re.compile(r"(:/+)[^\s/:@'\"<>]+:[^\s/@'\"<>]+@")
_LEFT_OVER = re.compile(r"([?&;][A-Za-z][\w.-]*=)[^\s&;'\"<>]+")
_PORT = re.compile(r"(\[.*\]|[^:]*)(:\d*)?")
_AUTHORITY = re.compile(
    r"([^\s\\@\[\]]*@)?(?P<host>[\w.~-]*|\[[0-9A-Fa-f:.]+\])(:(?P<port>\d{1,5})?)?", re.ASCII
)
#: Names under which queries carry what nobody else should have.
_USUAL = re.compile(r"sig|token|key|pass|pwd|secret|auth|cred|sas|session|jwt|x-amz-|x-goog-", re.IGNORECASE)
_HIDDEN = "***"
_PORTS = {"http": 80, "https": 443}
_ONE_SERVICE = {"s3a": "s3", "gcs": "gs", "local": "file"}
#: URLs with secrets that this process was given, by their public form.
_given: dict[str, str] = {}


def redact(url: str) -> str:
    """A URL without what may be a secret: ``***`` stands for a password, a query, or values in a fragment.

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
        path, found, query = rest.partition(sign)
        if found and ("=" in query or (web and sign == "?")):
            rest = f"{path}{sign}{_HIDDEN}"
    return f"{protocol}{mark}{rest}"


def has_no_secret(url: str) -> bool:
    """Whether nothing in `url` may be a secret."""
    return redact(url) == url


def has_plain_query(url: str) -> bool:
    """Whether the only thing that `redact` hides of `url` is a query without the usual names of secrets.

    Examples
    --------
    >>> [has_plain_query(f"https://{rest}") for rest in ("host/a?id=3", "host/a?id=3&Sig=x", "me:word@host/a?id=3")]
    [True, False, False]
    """
    bare, mark, query = url.partition("?")
    return has_no_secret(bare) and bool(mark) and not _USUAL.search(query)


def redact_text(text: str, url: str = "") -> str:
    """A message of other people's code with every URL in it made public, and the secrets of `url` taken out.

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
    return _LEFT_OVER.sub(rf"\g<1>{_HIDDEN}", _ONE_URL.sub(_one_public, text))


def _one_public(match: re.Match[str]) -> str:
    whole = match.group()
    told = whole.rstrip(".,;:)]}")  # of the sentence, not of the URL
    return redact(told) + whole[len(told) :]


def _secrets(url: str) -> list[str]:
    """What `redact` hides of `url`, part by part, as it stands there and as libraries rewrite it; longest first."""
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
    """The public form of `url`; what it hides is known to this process from now on (see `unredacted_url`)."""
    shown = redact(url)
    if shown != url:
        _given[shown] = url
    return shown


def unredacted_url(url: str) -> str | None:
    """The URL that `url` is the public form of, from this process or ``$BOTTLENECK_SOURCE``; None where nobody knows.

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
    """A URL as the user gave it, and the hosts beside its own that may be read from.

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
        """Whether what lies here may name `url`: on its own host by its own protocol, or where the user said.

        Files of this machine are never named from elsewhere.

        Examples
        --------
        >>> here = Address("https://host/list.csv", ("cdn.org",))
        >>> [here.permits(url) for url in ("https://host/1.png", "http://host/1.png", "https://cdn.org/1", "file:///x")]
        [True, False, True, False]
        """
        own, other = origin(self.url), origin(url)
        return own == other or (other[0] not in LOCAL and is_named(other, own[0], self.allowed))


def origin(url: str) -> tuple[str, str, int | None]:
    """Protocol, host or bucket, and port of a URL; -1 is the port of what two libraries may read as two hosts.

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


def is_named(found: tuple[str, str, int | None], protocol: str, allowed: Sequence[str]) -> bool:
    """Whether one of `allowed` (``host``, ``host:port``, ``bucket``, ``protocol://host``) names the origin `found`.

    Without a protocol of its own a name is taken for one of the service that it is named from.
    """
    service = (found[0] in WEB) == (protocol in WEB) and (found[0] in WEB or found[0] == protocol)
    for name in allowed:
        if "://" in name:
            if origin(name) == found:
                return True
        elif service:
            plain = origin(f"{found[0]}://{name}")
            if plain[1] == found[1] and (plain[2] == found[2] or ":" not in name):
                return True
    return False
