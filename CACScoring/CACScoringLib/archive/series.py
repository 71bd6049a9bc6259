"""Series of an archive: which are wanted, how the archive describes them, and what an archive can do."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Protocol

from pydicom.dataset import Dataset

from ..core.files import OutputError
from ..core.options import option
from ..core.uids import digest, is_uid

if TYPE_CHECKING:
    from .files import DicomFile

CT_CLASSES = (
    "1.2.840.10008.5.1.4.1.1.2",  # CT Image Storage
    "1.2.840.10008.5.1.4.1.1.2.1",  # Enhanced CT Image Storage
    "1.2.840.10008.5.1.4.1.1.2.2",  # Legacy Converted Enhanced CT Image Storage
)
"""SOP classes that a CT can be scored from. Secondary captures of a CT call themselves CT too."""

_TEXT_LIMIT = 64
_FACTS = ("Modality", "PatientID", "StudyDate", "SeriesDescription", "SeriesNumber", "SeriesTime")


@dataclass(frozen=True, repr=False)
class FoundSeries:
    """A series as an archive describes it. images: how many it has. time: when it began, as DICOM writes it. Empty text
    where the archive does not state it."""

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
        """Without what identifies a person."""
        return f"FoundSeries({digest(self.series_uid)}, {self.images} images)"


@dataclass(frozen=True)
class ImageFacts:
    """Facts of one image of a series, as its archive states them. slice_thickness_mm: None where it does not state
    it."""

    sop_class: str
    image_type: tuple[str, ...] = ()
    slice_thickness_mm: float | None = None

    @property
    def is_ct_slice(self) -> bool:
        """True if a volume may be made of such images."""
        return self.sop_class in CT_CLASSES and "LOCALIZER" not in self.image_type


@dataclass(frozen=True, repr=False)
class SeriesFilter:
    """Filter of series; a field that is None or empty accepts all.

    dates: first and last study date, both included, YYYYMMDD, either may be empty. days: studies of so many days until
    today, in place of dates. description: with * and ? for any characters, in any case. thickness_mm: lowest and
    highest.

    Raises OutputError where a UID is none or days are below 1.
    """

    patient_id: str | None = option(None, "patient ID", metavar="ID")
    study_uid: str | None = option(None, "Study Instance UID", metavar="UID", flag="--study")
    series_uid: str | None = option(None, "Series Instance UID", metavar="UID", flag="--series")
    dates: tuple[str, str] | None = None
    days: int | None = option(None, "studies of the last N days only, today included", metavar="N")
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
        """True if it wants less than all series of a modality."""
        fields = (self.patient_id, self.study_uid, self.series_uid, self.dates, self.days, self.description)
        return any(field is not None for field in (*fields, self.thickness_mm))

    def date_range(self, today: date | None = None) -> tuple[str, str] | None:
        """First and last study date as of a day."""
        if self.days is None:
            return self.dates
        return f"{(today or date.today()) - timedelta(days=self.days - 1):%Y%m%d}", ""

    def matches(self, found: FoundSeries) -> bool:
        """True if a found series is wanted, as far as it is described: archives ignore keys that they do not know."""
        exact = (
            (self.study_uid, found.study_uid),
            (self.series_uid, found.series_uid),
            (self.patient_id, found.patient_id),
            (self.modality, found.modality),
        )
        if any(wanted is not None and stated and stated != wanted for wanted, stated in exact):
            return False
        if (dates := self.date_range()) and found.study_date:
            first, last = dates
            if found.study_date < first or (last and found.study_date > last):
                return False
        return self.description is None or fnmatchcase(found.description.casefold(), self.description.casefold())

    def matches_image(self, facts: ImageFacts) -> bool:
        """True if the slice thickness is wanted; one that the archive does not state is not."""
        if self.thickness_mm is None:
            return True
        low, high = self.thickness_mm
        return facts.slice_thickness_mm is not None and low <= facts.slice_thickness_mm <= high


class Archive(Protocol):
    """Operations of an archive, over either protocol. All raise ArchiveError."""

    def find_series(self, wanted: SeriesFilter) -> list[FoundSeries]:
        """The series that match, but for the slice thickness, ordered by date and UID."""

    def instance_uids(self, study_uid: str, series_uid: str) -> set[str]:
        """Instance UIDs of a series; empty if there is no such series."""

    def image_facts(self, series: FoundSeries) -> ImageFacts:
        """The description of one image of a series."""

    def retrieve(self, series: FoundSeries, receive: Callable[[bytes], None]) -> None:
        """Fetch all instances of a series. receive: is given each, as the bytes of a DICOM file."""

    def store(self, files: Sequence[DicomFile]) -> dict[str, str]:
        """Store files. Returns why instances were refused, by their UID."""


def text_of(dataset: Dataset, keyword: str) -> str:
    """An element of an answer as text; empty where it is not there or broken."""
    try:
        value = dataset.get(keyword)
    except Exception:  # pydicom converts on access, and broken values raise whatever its converters meet
        return ""
    return "" if value is None else str(value).strip()[:_TEXT_LIMIT]


def found_series(answer: Dataset, study: Dataset | None, count: Callable[[str, str], int]) -> FoundSeries | None:
    """A series from an archive's answer; None where its UIDs are none.

    Args:
        answer: Of a search for series.
        study: Of the search for its study, for what the other lacks.
        count: Counts the images of a series, by the UIDs of study and series, where the answer does not state it.
    """

    def stated(keyword: str) -> str:
        return text_of(answer, keyword) or ("" if study is None else text_of(study, keyword))

    study_uid, series_uid = stated("StudyInstanceUID"), stated("SeriesInstanceUID")
    if not (is_uid(study_uid) and is_uid(series_uid)):
        return None
    number = stated("NumberOfSeriesRelatedInstances")
    images = int(number) if number.isdecimal() else count(study_uid, series_uid)
    facts = (stated(name) for name in _FACTS)
    return FoundSeries(study_uid, series_uid, images, *facts)


def image_facts(answer: Dataset) -> ImageFacts:
    """The facts of an image from an archive's answer."""
    try:
        thickness = float(answer.get("SliceThickness"))
    except Exception:  # not there, or broken
        thickness = math.nan
    kinds = answer.get("ImageType") or ()
    kinds = (kinds,) if isinstance(kinds, str) else tuple(map(str, kinds))
    return ImageFacts(text_of(answer, "SOPClassUID"), kinds, thickness if math.isfinite(thickness) else None)


def in_order(found: Sequence[FoundSeries], wanted: SeriesFilter) -> list[FoundSeries]:
    """The series that are wanted, each once, by date and UID."""
    by_uid = {series.series_uid: series for series in found if wanted.matches(series)}
    return sorted(by_uid.values(), key=lambda series: (series.study_date, series.series_uid))


def parse_dates(text: str) -> tuple[str, str]:
    """`20260131`, `20260101-20260131`, `20260101-` or `-20260131`. Raises OutputError."""
    first, dash, last = text.partition("-")
    days = [first, last] if dash else [first, first]
    try:
        known = [date(int(day[:4]), int(day[4:6]), int(day[6:])) for day in days if day]
    except ValueError:
        known = []
    right = all(re.fullmatch(r"(\d{8})?", day) for day in days) and known and known == sorted(known)
    if not right:
        raise OutputError(f"{text!r} is no date. Write YYYYMMDD, YYYYMMDD-YYYYMMDD, YYYYMMDD- or -YYYYMMDD.")
    return days[0], days[1]
