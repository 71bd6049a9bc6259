"""Access control of the server: tokens that open sessions, signed cookies, a proxy's user header, origins, and headers
that keep the page from anything else.

Tokens and sessions are signed with a key in the reader's own folder, so that they outlive a server that is killed. They
hold for one folder of results.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
import os
import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass

from CACScoringLib.core.files import user_data_folder

SESSION_SECONDS = 12 * 3600
COOKIE = "cac_review"
CSRF_HEADER = "X-CSRF-Token"

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data: blob:",
        "connect-src 'self' data: blob:",
        "frame-ancestors 'none'",
        "base-uri 'none'",
        "form-action 'self'",
    )
)
"""Only what the server itself sends is run; niivue makes textures and fonts from data that its file holds."""

HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""Of every answer."""


def stored_key() -> bytes:
    """The key of this user's servers, made when there is none; only the user can read it. Raises OSError."""
    file = user_data_folder() / "review.key"
    with contextlib.suppress(FileNotFoundError):
        if len(key := file.read_bytes()) == 32:
            return key
    file.parent.mkdir(parents=True, exist_ok=True)
    key = secrets.token_bytes(32)
    with contextlib.suppress(FileNotFoundError):
        file.unlink()
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(key)
    return key


@dataclass(frozen=True)
class Session:
    """A reader who is let in. nonce: of the session, from which its CSRF token is made."""

    reader: str
    nonce: str


class Gate:
    """Tells who a request comes from.

    key: that everything is signed with. scope: what the signatures hold for. readers: who may come in with a token.
    """

    def __init__(self, key: bytes, scope: str, readers: Iterable[str]) -> None:
        self._key = hmac.digest(key, scope.encode(), "sha256")
        self.readers = tuple(readers)

    def token(self, reader: str) -> str:
        """By which a reader comes in."""
        return self._signed("token", reader)[:32]

    def opens(self, reader: str, token: str) -> bool:
        """True if it is the token of one of the readers."""
        right = hmac.compare_digest(self.token(reader).encode(), token.encode("utf-8", "replace"))
        return right and reader in self.readers

    def cookie(self, reader: str) -> str:
        """A new session of a reader, as the value of the cookie."""
        content = {"reader": reader, "nonce": secrets.token_hex(16), "until": int(time.time()) + SESSION_SECONDS}
        text = base64.urlsafe_b64encode(json.dumps(content).encode()).decode()
        return f"{text}.{self._signed('session', text)}"

    def session(self, cookie: str) -> Session | None:
        """Session of a cookie; None if it is forged or too old."""
        text, _, signature = cookie.partition(".")
        if not hmac.compare_digest(self._signed("session", text).encode(), signature.encode("utf-8", "replace")):
            return None
        content = json.loads(base64.urlsafe_b64decode(text))
        if content["until"] < time.time() or content["reader"] not in self.readers:
            return None
        return Session(content["reader"], content["nonce"])

    def session_by_header(self, reader: str) -> Session:
        """Session of a reader whom the proxy has let in."""
        return Session(reader, hashlib.sha256(reader.encode()).hexdigest())

    def csrf(self, session: Session) -> str:
        """Token that a page must send with every change."""
        return self._signed("csrf", f"{session.reader}:{session.nonce}")

    def is_csrf(self, session: Session, token: str) -> bool:
        """True if a page of the session has sent this."""
        return hmac.compare_digest(self.csrf(session).encode(), token.encode("utf-8", "replace"))

    def _signed(self, purpose: str, text: str) -> str:
        signature = hmac.digest(self._key, f"{purpose}:{text}".encode("utf-8", "replace"), "sha256")
        return base64.urlsafe_b64encode(signature).decode().rstrip("=")
