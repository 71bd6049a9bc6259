"""Address of an archive, credentials, and errors."""

from __future__ import annotations

import os
import re
import ssl
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from ..core.errors import OutputError
from ..core.files import read_file

TOKEN_VARIABLE = "CAC_ARCHIVE_TOKEN"
"""Environment variable that holds a bearer token."""

AE_TITLE = re.compile(r"[\x21-\x5b\x5d-\x7e](?:[\x20-\x5b\x5d-\x7e]{0,14}[\x21-\x5b\x5d-\x7e])?")
"""AE title: at most 16 printable characters, no backslash (DICOM PS3.5, table 6.2-1)."""

CONNECT_SECONDS, ANSWER_SECONDS = 4.0, 60.0
"""Timeout of connecting, and longest silence of an archive."""

_EXAMPLES = "https://pacs.example.org/dicom-web, or dimse://TITLE@pacs.example.org:11112 (dimses:// with TLS)"
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Address:
    """Address of an archive.

    Attributes:
        protocol: "dicomweb" or "dimse".
        host: Name or number of the host.
        port: TCP port.
        secure: True with TLS.
        ae_title: The archive's AE title (DIMSE only).
        path: Path of the URL (DICOMweb only).
    """

    protocol: str
    host: str
    port: int
    secure: bool
    ae_title: str = ""
    path: str = ""

    @property
    def url(self) -> str:
        """DICOMweb URL."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http{'s' if self.secure else ''}://{host}:{self.port}{self.path}"

    @property
    def is_loopback(self) -> bool:
        """True if the archive is on this machine."""
        return self.host in _LOOPBACK

    def __str__(self) -> str:
        """Return the address for messages."""
        return self.url if self.protocol == "dicomweb" else f"{self.ae_title} at {self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """Parse the address of an archive: `https://HOST[:PORT]/PATH` or `dimse[s]://TITLE@HOST:PORT`.

    Raises OutputError if it is invalid, or contains a password, which other users of the machine could see.
    """
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise OutputError(f"{text} is not the address of an archive. Write for example {_EXAMPLES}.") from error
    if parts.password is not None or (parts.username and parts.scheme in ("http", "https")):
        raise OutputError(
            "The address holds a user or a password, which everybody on this machine can see. Leave it out; a token is "
            f"taken from the variable {TOKEN_VARIABLE} or from token_file of --settings."
        )
    if parts.hostname and not parts.query and not parts.fragment:
        if parts.scheme in ("http", "https"):
            secure = parts.scheme == "https"
            return Address(
                "dicomweb", parts.hostname, port or (443 if secure else 80), secure, "", parts.path.rstrip("/")
            )
        title = parts.netloc.rpartition("@")[0]
        if parts.scheme in ("dimse", "dimses") and port and AE_TITLE.fullmatch(title) and parts.path in ("", "/"):
            return Address("dimse", parts.hostname, port, parts.scheme == "dimses", title)
    raise OutputError(f"{text} is not the address of an archive. Write for example {_EXAMPLES}.")


@dataclass(frozen=True)
class Access:
    """Credentials and certificates of a client.

    Attributes:
        token_file: File with a bearer token, instead of TOKEN_VARIABLE.
        authorities: PEM file with certificates that verify the archive's, instead of the system's.
        certificate: PEM file with the client's certificate, if the archive requires one.
        key: PEM file with the client's key.
        ae_title: AE title of this client (DIMSE only).
    """

    token_file: Path | None = None
    authorities: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    ae_title: str = "CAC"

    def token(self) -> str | None:
        """Return the current bearer token, or None. Raises OutputError.

        The file is read at every call, because tokens are renewed.
        """
        text = os.environ.get(TOKEN_VARIABLE, "")
        if self.token_file is not None:
            try:
                text = read_file(self.token_file).decode("ascii")
            except (OSError, UnicodeDecodeError) as error:
                raise OutputError(f"{self.token_file} cannot be read as a token. Check token_file.") from error
        text = text.strip()
        # RFC 6750, 2.1; a line break in it would add lines to the request.
        if text and not re.fullmatch(r"[A-Za-z0-9._~+/-]+=*", text):
            raise OutputError("The bearer token has characters that no token has. Check where it comes from.")
        if not text and self.token_file is not None:
            raise OutputError(f"{self.token_file} is empty. Write the token into it.")
        return text or None

    def check(self, address: Address) -> None:
        """Raise OutputError if this access does not suit an archive."""
        if not AE_TITLE.fullmatch(self.ae_title):
            raise OutputError(f"{self.ae_title!r} is not an AE title: at most 16 characters, no backslash.")
        for file in (self.authorities, self.certificate, self.key):
            if file is not None and not file.is_file():
                raise OutputError(f"{file} is not a file. Give a certificate or key in PEM format.")
        if self.key is not None and self.certificate is None:
            raise OutputError("A key is given without its certificate. Add certificate to --settings.")
        if self.token_file is not None and address.protocol == "dimse":
            raise OutputError("DIMSE has no tokens. Leave token_file out, or use the archive's DICOMweb address.")
        token = self.token() if address.protocol == "dicomweb" else None
        if token and not address.secure and not address.is_loopback:
            raise OutputError(f"A token sent to {address} can be read on the way. Use https.")

    def tls(self) -> ssl.SSLContext:
        """Return TLS settings, which always verify certificates. Raises OutputError."""
        try:
            context = ssl.create_default_context(cafile=None if self.authorities is None else str(self.authorities))
            if self.certificate is not None:
                context.load_cert_chain(self.certificate, self.key)
        except (OSError, ssl.SSLError) as error:
            raise OutputError("The certificates or the key cannot be used. Give them in PEM format.") from error
        return context
