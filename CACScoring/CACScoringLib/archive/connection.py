"""Connection to an archive over the protocol of its address."""

from __future__ import annotations

import logging

from .address import Access, parse_address
from .series import Archive

_VERBOSE_LOGGERS = ("dicomweb_client", "pydicom", "pynetdicom", "retrying", "urllib3")


def connect(address: str, access: Access) -> Archive:
    """Return the archive at an address, without contacting it. Raises OutputError if access does not suit it."""
    target = parse_address(address)
    access.check(target)
    for name in _VERBOSE_LOGGERS:  # they would log URLs and values that name patients
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    if target.protocol == "dicomweb":
        from .dicomweb import DicomWebArchive

        return DicomWebArchive(target, access)
    from .dimse import DimseArchive

    return DimseArchive(target, access)
