"""What is shown of a URL holds no password and no signature."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bottleneck.system.addresses import redact, redact_text
from bottleneck.system.durable import shown
from tests.secret_urls import SECRET

_PIECE = st.text("abcXYZ019._-~%+", min_size=1, max_size=8)


@given(
    st.sampled_from(["http", "https", "HTTPS", "s3", "sftp", "abfs"]),
    _PIECE,
    _PIECE,
    st.sampled_from([f"me:{SECRET}@", f"me:{SECRET}/x@", f"me:@{SECRET}@", f":{SECRET}@", ""]),
    st.sampled_from(["", f"?sig={SECRET}", f"?a=b&token={SECRET}&c", f"#t={SECRET}", f"?x#y={SECRET}"]),
)
def test_what_is_shown_has_no_secret_and_is_its_own_public_form(
    protocol: str, host: str, path: str, user: str, query: str
) -> None:
    url = f"{protocol}://{user}{host}/{path}{query}"
    for text in (
        redact(url),
        shown(url),
        shown(url.encode()),
        redact_text(f"it failed: {url}: why"),
        redact_text(SECRET, url),
    ):
        assert SECRET not in text or not (user or query), text
    assert redact(redact(url)) == redact(url)
    if not (user or query):
        assert redact(url) == url
