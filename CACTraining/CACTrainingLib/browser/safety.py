"""Control access to the server by login tokens, signed session cookies, CSRF tokens, and security headers.

Tokens and sessions are signed with a key in the user's data folder, so that they remain valid after a restart. They are
limited to one folder of results.
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
"""Policy that runs only scripts from the server; niivue needs textures and fonts from data within its file."""

HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""Headers of every response."""


def stored_key() -> bytes:
    """Return the key of this user's servers, made on first use, readable by the user alone. Raises OSError."""
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


class Gate:
    """Authentication of readers.

    Args:
        key: Key of all signatures.
        scope: Scope of all signatures: the folder of results.
        readers: Names of readers with a token.
    """

    def __init__(self, key: bytes, scope: str, readers: Iterable[str]) -> None:
        self._key = hmac.digest(key, scope.encode(), "sha256")
        self.readers = tuple(readers)

    def token(self, reader: str) -> str:
        """Return a reader's login token."""
        return self._signature("token", reader)[:32]

    def opens(self, reader: str, token: str) -> bool:
        """True if a token belongs to a reader."""
        right = hmac.compare_digest(self.token(reader).encode(), token.encode("utf-8", "replace"))
        return right and reader in self.readers

    def cookie(self, reader: str) -> str:
        """Return the cookie's value for a new session of a reader."""
        content = {"reader": reader, "nonce": secrets.token_hex(16), "until": int(time.time()) + SESSION_SECONDS}
        text = base64.urlsafe_b64encode(json.dumps(content).encode()).decode()
        return f"{text}.{self._signature('session', text)}"

    def session(self, cookie: str) -> tuple[str, str] | None:
        """Return the reader of a cookie's session and its CSRF token, or None if it is forged or expired."""
        text, _, signature = cookie.partition(".")
        if not hmac.compare_digest(self._signature("session", text).encode(), signature.encode("utf-8", "replace")):
            return None
        content = json.loads(base64.urlsafe_b64decode(text))
        if content["until"] < time.time() or content["reader"] not in self.readers:
            return None
        return content["reader"], self._csrf(content["reader"], content["nonce"])

    def session_by_header(self, reader: str) -> tuple[str, str]:
        """Return `session` of a reader who was authenticated by the proxy."""
        return reader, self._csrf(reader, hashlib.sha256(reader.encode()).hexdigest())

    def _csrf(self, reader: str, nonce: str) -> str:
        """Return the token that a page must send with every change. nonce: Random value of the session."""
        return self._signature("csrf", f"{reader}:{nonce}")

    def _signature(self, purpose: str, text: str) -> str:
        signature = hmac.digest(self._key, f"{purpose}:{text}".encode("utf-8", "replace"), "sha256")
        return base64.urlsafe_b64encode(signature).decode().rstrip("=")
