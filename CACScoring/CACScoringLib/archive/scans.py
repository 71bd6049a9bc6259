"""Series of an archive as scans of a cohort: listed by a query, fetched by the worker that scores them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ..cohort import remote
from ..cohort.memory import SLICE_PIXELS
from ..cohort.scans import CohortScan
from ..core.ct import NotCTError
from ..core.uids import digest
from ..io.dicom import printable
from .address import Access
from .connection import connect
from .files import pull
from .retry import patiently
from .series import FoundSeries, SeriesFilter
from .transfer import wanted_of


def scans_of_archive(archive: str, found: Sequence[FoundSeries], identify: bool) -> list[CohortScan]:
    """Scans at the address of an archive, called by a digest of their UID; with identify by patient, date and number.

    found: what the archive answered.
    """
    return [_scan(archive.rstrip("/"), series, identify) for series in found]


def _scan(archive: str, series: FoundSeries, identify: bool) -> CohortScan:
    address = f"{archive}/studies/{series.study_uid}/series/{series.series_uid}"
    name = digest(series.series_uid)
    told = "-".join(filter(None, map(printable, (series.patient_id, series.study_date, series.number))))
    return CohortScan(
        (identify and told) or name,
        Path(name),
        remote.shown(address),
        patient=printable(series.patient_id) if identify else "",
        voxels=SLICE_PIXELS * series.images,
        address=address,
    )


@contextmanager
def fetched(access: Access, address: str) -> Iterator[Path]:
    """As `cohort.remote.fetched`, and of an archive the folder with a series, removed at the end.

    Raises RemoteError, ArchiveError, OutputError, and NotCTError where it is a localizer or no CT.
    """
    series = remote.series_of(address)
    if series is None:
        with remote.fetched(address) as scan:
            yield scan
        return
    archive = connect(series.archive, access)
    wanted = SeriesFilter(study_uid=series.study_uid, series_uid=series.series_uid, modality=None)
    [found] = wanted_of(archive, wanted)
    if not patiently(lambda: archive.image_facts(found)).is_ct_slice:
        raise NotCTError(f"{remote.shown(address)} is a localizer, or no CT, and was not fetched.")
    with tempfile.TemporaryDirectory(prefix="cac-fetched-", dir=remote.own_folder()) as place:
        folder = Path(place) / "series"
        patiently(lambda: pull(archive, found, folder))
        yield folder
