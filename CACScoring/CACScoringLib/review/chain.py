"""Chained lines of JSON in a file that only grows.

Each line holds the hash of the one before (`previous`) and of its own content (`sha256`), which shows a later change of
any line, and a signature of this hash (Ed25519) by the key of the user who runs the review: the site's key, if all use
one. Without the package cryptography nothing is signed, and no signature is checked. What a killed process left of its
last line is overwritten by the next one.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import os
import secrets
import sys
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime, timezone
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import JournalError
from ..core.files import parse_json, read_file, sync_folder, user_data_folder, write_once

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

Line = dict[str, Any]

IS_AVAILABLE = importlib.util.find_spec("cryptography") is not None
"""True if lines are signed."""


def read_lines(file: Path) -> tuple[list[Line], int]:
    """Return the whole lines of a file, and its size; none without a file.

    Raises JournalError if the file cannot be read, is damaged, or a line was changed.
    """
    try:
        content = read_file(file)
    except FileNotFoundError:
        return [], 0
    except OSError as error:
        raise JournalError(f"{file} cannot be read: {error.strerror}. Check its permissions.") from error
    try:
        lines = [parse_json(line) for line in content[: content.rfind(b"\n") + 1].decode().splitlines()]
        _check(file, lines)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise damaged(file, error) from error
    return lines, len(content)


def damaged(file: Path, error: Exception) -> JournalError:
    """Return the error of a damaged file."""
    return JournalError(f"{file} is damaged ({error}). Restore it from a copy, or move it away.")


def _check(file: Path, lines: list[Line]) -> None:
    """Check the hashes of all lines. Raises JournalError with the first line that was changed."""
    previous = ""
    for number, line in enumerate(lines, 1):
        content = {name: value for name, value in line.items() if name not in ("sha256", "signature")}
        fault = ""
        if line["sha256"] != _hash_of(content):
            fault = f"line {number} was changed after it was written"
        elif line["previous"] != previous:
            fault = f"line {number - 1} was replaced, or lines before line {number} were removed"
        if fault:
            message = f"{file}: {fault}. Restore the file from a copy, or move it away to begin a new review."
            raise JournalError(message)
        previous = line["sha256"]


def append_lines(file: Path, contents: Iterable[Line], size: int | None = None) -> tuple[list[Line], int]:
    """Write lines to the disk; return them with their hashes, and the file's new size.

    size: Size that the file must have; None if other programs may have written to it. Raises JournalError if another
    program has, OSError if the disk refuses.
    """
    is_new = not file.exists()
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a+b", buffering=0) as stream:
        _lock(stream)
        stream.seek(0)
        present = stream.readall()
        if size not in (None, len(present)):
            message = f"The change was not saved: another program has changed {file}. Open the scan again."
            raise JournalError(message)
        end = present.rfind(b"\n") + 1
        last, lines = _last_line(present), []
        for content in contents:
            last = _sealed(content, last)
            lines.append(last)
        text = "".join(json.dumps(line) + "\n" for line in lines).encode()
        stream.truncate(end)
        try:
            written = 0
            while written < len(text):
                written += stream.write(text[written:])
            os.fsync(stream.fileno())
        except OSError:
            stream.truncate(end)
            raise
    if is_new:
        sync_folder(file.parent)
    return lines, end + len(text)


def register(register_file: Path, kind: str, **facts: object) -> None:
    """Append an event with its time to the register of a folder of results. Raises JournalError."""
    time = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
    try:
        append_lines(register_file, [{"time": time, "kind": kind, **facts}])
    except (OSError, ValueError, KeyError) as error:
        reason = getattr(error, "strerror", None) or error
        message = f"The change was saved, but not noted in {register_file} ({reason}). Make room there."
        raise JournalError(message) from error


def last_hash(file: Path) -> str:
    """Return the hash of the last line of a file; "" without one. Raises JournalError."""
    try:
        return str(_last_line(read_file(file)).get("sha256", ""))
    except FileNotFoundError:
        return ""
    except (OSError, ValueError, AttributeError) as error:
        raise damaged(file, error) from error


def _last_line(content: bytes) -> Line:
    lines = content[: content.rfind(b"\n") + 1].splitlines()
    line: Line = parse_json(lines[-1]) if lines else {}
    return line


def _sealed(content: Line, last: Line) -> Line:
    """Return a line with hashes and signature that follows the last line of a file; {} for none."""
    content = content | {"previous": last.get("sha256", ""), "key": public_key()}
    sha256 = _hash_of(content)
    return content | {"sha256": sha256, "signature": signature_of(sha256)}


def _hash_of(content: Line) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _lock(stream: io.FileIO) -> None:
    """Wait until no other program writes, if the system can lock the file; closing it ends the lock."""
    with suppress(OSError):
        if sys.platform == "win32":
            import msvcrt

            stream.seek(1 << 40)  # far beyond the content, which stays readable
            msvcrt.locking(stream.fileno(), msvcrt.LK_LOCK, 1)
        else:
            import fcntl

            fcntl.flock(stream, fcntl.LOCK_EX)


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
