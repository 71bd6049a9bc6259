"""An archive from its address."""

from __future__ import annotations

import logging

from .address import Access, parse_address
from .series import Archive

_TALKATIVE = ("dicomweb_client", "pydicom", "pynetdicom", "retrying", "urllib3")


def connect(address: str, access: Access) -> Archive:
    """The archive at an address. Nothing is asked of it yet. Raises OutputError where address and access do not fit."""
    where = parse_address(address)
    access.check(where)
    for name in _TALKATIVE:  # they would write addresses asked for and values read, which name patients
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    if where.protocol == "dicomweb":
        from .dicomweb import DicomWebArchive

        return DicomWebArchive(where, access)
    from .dimse import DimseArchive

    return DimseArchive(where, access)
