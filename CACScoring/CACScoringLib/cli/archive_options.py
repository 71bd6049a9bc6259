"""Options that the archive commands share, and their conversion to settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..core.options import argument, settings_from
from .options import from_file, settings_option

if TYPE_CHECKING:
    from ..archive.address import Access
    from ..archive.series import SeriesFilter


@dataclass(frozen=True, kw_only=True)
class ArchiveOptions:
    """Options of commands that use a DICOM archive.

    Attributes:
        archive: https://HOST[:PORT]/PATH for DICOMweb, dimse://TITLE@HOST:PORT for DIMSE, dimses:// for DIMSE with TLS;
            a bearer token is taken from the environment variable CAC_ARCHIVE_TOKEN.
    """

    archive: str = argument(metavar="ARCHIVE")
    settings: tuple[str, ...] = settings_option()

    def access(self) -> Access:
        """Read the credentials for the archive. Raises OutputError."""
        from ..archive.address import Access

        return from_file(self.settings, "access", Access())

    def criteria(self, *names: str) -> SeriesFilter:
        """Read the filter of series and change it by options. Raises OutputError."""
        from ..archive.series import SeriesFilter

        return settings_from(self, from_file(self.settings, "series", SeriesFilter()), names)
