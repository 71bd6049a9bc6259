"""Series of an archive: their filter, their description, and the interface of an archive."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Protocol

from pydicom.dataset import Dataset

from ..core.errors import OutputError
from ..core.files import resource_rows
from ..io.dicom import value_of

CT_CLASSES = tuple(row["uid"] for row in resource_rows("sop_classes.csv") if row["kind"] == "CT")
"""SOP classes of a CT that can be scored; secondary captures have modality CT, too."""

_TEXT_LIMIT = 64
_UID = re.compile(r"(?=.{1,64}$)(?:0|[1-9]\d*)(?:\.(?:0|[1-9]\d*))*")
_SERIES_KEYWORDS = ("Modality", "PatientID", "StudyDate", "SeriesDescription", "SeriesNumber", "SeriesTime")


@dataclass(frozen=True, repr=False)
class DicomFile:
    """A DICOM file with the UIDs needed to send it."""

    path: Path
    sop_class: str
    uid: str
    study_uid: str
    series_uid: str
    transfer_syntax: str


@dataclass(frozen=True, repr=False)
class SeriesSummary:
    """Description of a series by an archive; empty text where the archive does not state a value.

    Attributes:
        study_uid: Study Instance UID.
        series_uid: Series Instance UID.
        images: Number of images.
        modality: Modality.
        patient_id: Patient ID.
        study_date: Study date, YYYYMMDD.
        description: Series description.
        number: Series number.
        time: Series time in DICOM's format.
    """

    study_uid: str
    series_uid: str
    images: int
    modality: str = ""
    patient_id: str = ""
    study_date: str = ""
    description: str = ""
    number: str = ""
    time: str = ""

    def __repr__(self) -> str:
        """Return a text that identifies no person."""
        return f"SeriesSummary({digest(self.series_uid)}, {self.images} images)"


@dataclass(frozen=True)
class ImageFacts:
    """Facts of one image of a series, as its archive states them.

    Attributes:
        sop_class: SOP class UID.
        image_type: Values of Image Type.
        slice_thickness_mm: Slice thickness; None if the archive does not state it.
    """

    sop_class: str
    image_type: tuple[str, ...] = ()
    slice_thickness_mm: float | None = None

    @property
    def is_ct_slice(self) -> bool:
        """True if the image may be a slice of a CT volume."""
        return self.sop_class in CT_CLASSES and "LOCALIZER" not in self.image_type


@dataclass(frozen=True, repr=False)
class SeriesFilter:
    """Filter of series; a field that is None accepts all.

    Attributes:
        patient_id: Patient ID.
        study_uid: Study Instance UID.
        series_uid: Series Instance UID.
        dates: First and last study date, inclusive, YYYYMMDD; either may be empty.
        days: Number of days until today, instead of dates.
        modality: Modality.
        description: Series description with * and ? as wildcards, case-insensitive.
        thickness_mm: Minimum and maximum slice thickness.

    Raises:
        OutputError: A UID is invalid, or days are below 1.
    """

    patient_id: str | None = None
    study_uid: str | None = None
    series_uid: str | None = None
    dates: tuple[str, str] | None = None
    days: int | None = None
    modality: str | None = "CT"
    description: str | None = None
    thickness_mm: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        for level, uid in (("study", self.study_uid), ("series", self.series_uid)):
            if uid is not None and not is_uid(uid):
                raise OutputError(f"{uid!r} is not a UID. Give that of the {level} as the archive shows it.")
        if self.days is not None and self.days < 1:
            raise OutputError(f"The number of days is {self.days}. Give 1 or more.")

    @property
    def is_narrow(self) -> bool:
        """True if the filter selects less than all series of a modality."""
        fields = (self.patient_id, self.study_uid, self.series_uid, self.dates, self.days, self.description)
        return any(field is not None for field in (*fields, self.thickness_mm))

    def date_range(self, today: date | None = None) -> tuple[str, str] | None:
        """Return the first and last study date, relative to a day."""
        if self.days is None:
            return self.dates
        return f"{(today or date.today()) - timedelta(days=self.days - 1):%Y%m%d}", ""

    @property
    def study_keys(self) -> dict[str, str | None]:
        """Keys of a query at the level of studies; None for those without a value."""
        first, last = self.date_range() or ("", "")
        dates = first if first == last else f"{first}-{last}"
        return {"PatientID": self.patient_id, "StudyInstanceUID": self.study_uid, "StudyDate": dates or None}

    def matches(self, series: SeriesSummary) -> bool:
        """Return True if a series matches, as far as it is described; archives ignore keys that they do not know."""
        exact = (
            (self.study_uid, series.study_uid),
            (self.series_uid, series.series_uid),
            (self.patient_id, series.patient_id),
            (self.modality, series.modality),
        )
        if any(required is not None and stated and stated != required for required, stated in exact):
            return False
        if (dates := self.date_range()) and series.study_date:
            first, last = dates
            if series.study_date < first or (last and series.study_date > last):
                return False
        return self.description is None or fnmatchcase(series.description.casefold(), self.description.casefold())

    def matches_image(self, facts: ImageFacts) -> bool:
        """Return True if the slice thickness matches; an unstated one does not."""
        if self.thickness_mm is None:
            return True
        low, high = self.thickness_mm
        return facts.slice_thickness_mm is not None and low <= facts.slice_thickness_mm <= high


def is_uid(text: str) -> bool:
    """True if a text is a UID (DICOM PS3.5, 9.1)."""
    return _UID.fullmatch(text) is not None


def digest(uid: str) -> str:
    """Return a reproducible name for a UID, which identifies a person: 16 hexadecimal digits."""
    return hashlib.sha256(uid.encode()).hexdigest()[:16]


class Archive(Protocol):
    """Interface of an archive, over either protocol. All methods raise ArchiveError."""

    def find_series(self, series_filter: SeriesFilter) -> list[SeriesSummary]:
        """Return the series that match except for slice thickness, ordered by date and UID."""

    def instance_uids(self, study_uid: str, series_uid: str) -> set[str]:
        """Return the instance UIDs of a series; empty if there is no such series."""

    def image_facts(self, series: SeriesSummary) -> ImageFacts:
        """Return facts of one image of a series."""

    def retrieve(self, series: SeriesSummary, receive: Callable[[bytes], None]) -> None:
        """Fetch all instances of a series. receive: called with each as the bytes of a DICOM file."""

    def store(self, files: Sequence[DicomFile]) -> dict[str, str]:
        """Store files. Returns reasons of refusal by instance UID."""


def text_of(dataset: Dataset, keyword: str) -> str:
    """Return an element of an answer as text; empty if it is missing or broken."""
    value = value_of(dataset, keyword)
    return "" if value is None else str(value).strip()[:_TEXT_LIMIT]


def series_summary(answer: Dataset, study: Dataset | None, count: Callable[[str, str], int]) -> SeriesSummary | None:
    """Return a series from an archive's answer; None if its UIDs are invalid.

    Args:
        answer: Answer to a search for series.
        study: Answer to the search for its study, for elements that the other lacks.
        count: Function that counts the images of a study's and series' UIDs, if the answer does not state them.
    """

    def text(keyword: str) -> str:
        return text_of(answer, keyword) or ("" if study is None else text_of(study, keyword))

    study_uid, series_uid = text("StudyInstanceUID"), text("SeriesInstanceUID")
    if not (is_uid(study_uid) and is_uid(series_uid)):
        return None
    number = text("NumberOfSeriesRelatedInstances")
    images = int(number) if number.isdecimal() else count(study_uid, series_uid)
    facts = (text(name) for name in _SERIES_KEYWORDS)
    return SeriesSummary(study_uid, series_uid, images, *facts)


def image_facts(answer: Dataset) -> ImageFacts:
    """Return the facts of an image from an archive's answer."""
    try:
        thickness = float(answer.get("SliceThickness"))
    except Exception:  # missing or broken
        thickness = math.nan
    image_type = answer.get("ImageType") or ()
    image_type = (image_type,) if isinstance(image_type, str) else tuple(map(str, image_type))
    return ImageFacts(text_of(answer, "SOPClassUID"), image_type, thickness if math.isfinite(thickness) else None)


def select(summaries: Sequence[SeriesSummary], series_filter: SeriesFilter) -> list[SeriesSummary]:
    """Return the distinct series that match, ordered by date and UID."""
    by_uid = {series.series_uid: series for series in summaries if series_filter.matches(series)}
    return sorted(by_uid.values(), key=lambda series: (series.study_date, series.series_uid))


def parse_dates(text: str) -> tuple[str, str]:
    """Parse `20260131`, `20260101-20260131`, `20260101-` or `-20260131`. Raises OutputError."""
    first, dash, last = text.partition("-")
    days = [first, last] if dash else [first, first]
    try:
        dates = [date(int(day[:4]), int(day[4:6]), int(day[6:])) for day in days if day]
    except ValueError:
        dates = []
    is_valid = all(re.fullmatch(r"(\d{8})?", day) for day in days) and dates and dates == sorted(dates)
    if not is_valid:
        raise OutputError(f"{text!r} is no date. Write YYYYMMDD, YYYYMMDD-YYYYMMDD, YYYYMMDD- or -YYYYMMDD.")
    return days[0], days[1]
