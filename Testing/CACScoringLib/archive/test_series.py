from datetime import date

import pytest
from pydicom.dataset import Dataset

from CACScoringLib.archive.series import (
    ImageFacts,
    SeriesFilter,
    SeriesSummary,
    image_facts,
    parse_dates,
    series_summary,
)
from CACScoringLib.core.errors import OutputError

SUMMARY = SeriesSummary("1.2", "1.2.3", 4, "CT", "P1", "20240131", "CaSc 3.0")


@pytest.mark.parametrize(
    ("fields", "matches"),
    [
        ({}, True),
        ({"modality": "MR"}, False),
        ({"patient_id": "P1"}, True),
        ({"patient_id": "P*"}, False),
        ({"series_uid": "1.2.3"}, True),
        ({"dates": ("20240131", "20240131")}, True),
        ({"dates": ("20240201", "")}, False),
        ({"description": "casc*"}, True),
        ({"description": "*3.?"}, True),
        ({"days": 1}, False),
    ],
)
def test_filter(fields, matches):
    assert SeriesFilter(**fields).matches(SUMMARY) is matches


@pytest.mark.parametrize(("days", "first"), [(1, "20260301"), (2, "20260228")])
def test_days_include_today(days, first):
    assert SeriesFilter(days=days).date_range(date(2026, 3, 1)) == (first, "")


def answer(**elements):
    dataset = Dataset()
    for keyword, value in {"StudyInstanceUID": "1.2", "SeriesInstanceUID": "1.2.3", **elements}.items():
        setattr(dataset, keyword, value)
    return dataset


class TestAnswers:
    def test_missing_elements_come_from_the_study(self):
        study = answer(PatientID="P1", StudyDate="20240131")
        series = series_summary(answer(Modality="CT"), study, lambda *uids: 9)
        assert series == SeriesSummary("1.2", "1.2.3", 9, "CT", "P1", "20240131")

    @pytest.mark.filterwarnings("ignore")
    def test_uids_that_are_paths_are_left_out(self):
        assert series_summary(answer(SeriesInstanceUID="../../x"), None, lambda *uids: 9) is None

    def test_facts_of_an_image_may_be_missing_or_broken(self):
        assert image_facts(Dataset()) == ImageFacts("", (), None)
        facts = image_facts(answer(SOPClassUID="1.5", ImageType=["ORIGINAL", "LOCALIZER"], SliceThickness="2.5"))
        assert facts == ImageFacts("1.5", ("ORIGINAL", "LOCALIZER"), 2.5)
        assert image_facts(answer(ImageType="AXIAL")).image_type == ("AXIAL",)


@pytest.mark.parametrize(
    ("text", "dates"),
    [
        ("20260131", ("20260131", "20260131")),
        ("20260101-20260131", ("20260101", "20260131")),
        ("20260101-", ("20260101", "")),
        ("-20260131", ("", "20260131")),
    ],
)
def test_dates(text, dates):
    assert parse_dates(text) == dates


@pytest.mark.parametrize("text", ["", "-", "20261301", "20260131-20260101", "20260101-20260102-20260103"])
def test_invalid_dates(text):
    with pytest.raises(OutputError, match="no date"):
        parse_dates(text)
