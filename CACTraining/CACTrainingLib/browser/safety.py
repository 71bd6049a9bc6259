"""Control access to the server by login tokens, signed session cookies, CSRF tokens, and security headers.

Tokens and sessions end with the server, whose key is never stored; a reader can end them before.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Iterable

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


class Gate:
    """Authentication of readers.

    Args:
        readers: Names of readers with a token.
    """

    def __init__(self, readers: Iterable[str]) -> None:
        self._keys = {reader: secrets.token_bytes(32) for reader in readers}
        self.readers = tuple(self._keys)

    def revoke(self, reader: str) -> None:
        """End a reader's token and sessions."""
        self._keys[reader] = secrets.token_bytes(32)

    def token(self, reader: str) -> str:
        """Return a reader's login token."""
        return self._signature(reader, "token")[:32]

    def opens(self, reader: str, token: str) -> bool:
        """True if a token belongs to a reader."""
        return reader in self.readers and _is_same(self.token(reader), token)

    def cookie(self, reader: str) -> str:
        """Return the cookie's value for a new session of a reader."""
        content = {"nonce": secrets.token_hex(16), "until": int(time.time()) + SESSION_SECONDS}
        text = base64.urlsafe_b64encode(json.dumps(content).encode()).decode()
        return f"{text}.{self._signature(reader, f'session:{text}')}"

    def session(self, cookie: str) -> tuple[str, str] | None:
        """Return the reader of a cookie's session and its CSRF token, or None if it is forged or expired."""
        text, _, signature = cookie.partition(".")
        if reader := next(
            (r for r in self.readers if _is_same(self._signature(r, f"session:{text}"), signature)), None
        ):
            content = json.loads(base64.urlsafe_b64decode(text))
            return None if content["until"] < time.time() else (reader, self._csrf(reader, content["nonce"]))
        return None

    def session_by_header(self, reader: str) -> tuple[str, str]:
        """Return `session` of a reader who was authenticated by the proxy."""
        return reader, self._csrf(reader, hashlib.sha256(reader.encode()).hexdigest())

    def _csrf(self, reader: str, nonce: str) -> str:
        """Return the token that a page must send with every change. nonce: Random value of the session."""
        return self._signature(reader, f"csrf:{nonce}")

    def _signature(self, reader: str, text: str) -> str:
        signature = hmac.digest(self._keys[reader], text.encode("utf-8", "replace"), "sha256")
        return base64.urlsafe_b64encode(signature).decode().rstrip("=")


def _is_same(right: str, text: str) -> bool:
    return hmac.compare_digest(right.encode(), text.encode("utf-8", "replace"))
