"""Ed25519 signatures of journals by the key of the user who runs the review: the site's key, if all use one.

Without the package cryptography nothing is signed, and no signature is checked.
"""

from __future__ import annotations

import importlib.util
import secrets
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.errors import JournalError
from ..core.files import read_file, user_data_folder, write_once

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

IS_AVAILABLE = importlib.util.find_spec("cryptography") is not None


def public_key() -> str:
    """Return the user's public key in hexadecimal; "" if nothing can be signed. Raises JournalError."""
    return _key(user_data_folder() / "signing.key").public_key().public_bytes_raw().hex() if IS_AVAILABLE else ""


def signature_of(sha256: str) -> str:
    """Return the user's signature of a hash; "" if nothing can be signed. Raises JournalError."""
    return _key(user_data_folder() / "signing.key").sign(sha256.encode()).hex() if IS_AVAILABLE else ""


def is_signed(sha256: str, signature: object, key: str) -> bool:
    """Return True if a signature is that of a hash by a public key in hexadecimal. Needs cryptography."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(key)).verify(bytes.fromhex(str(signature)), sha256.encode())
    except (InvalidSignature, ValueError):
        return False
    return True


@lru_cache
def _key(file: Path) -> Ed25519PrivateKey:
    """Return the key in a file, made on first use. Raises JournalError."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    try:
        write_once(file, secrets.token_bytes(32))
        return Ed25519PrivateKey.from_private_bytes(read_file(file))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        message = f"Reviews cannot be signed: {file} is no key ({reason}). Restore it; moved away, a new one is made."
        raise JournalError(message) from error
