"""Tables of readings, of their lesions, and of the agreement of readers."""

from functools import partial

import pytest
from review_server import write_cohort
from study_tables import csv_rows

from CACScoringLib.core.errors import OutputError
from CACScoringLib.core.labels import Artery
from CACScoringLib.readings.agreement import lesions_of, write_tables
from CACScoringLib.readings.cases import cases_in
from CACScoringLib.readings.journals import AGAIN, FIRST, labels_of_reading, reading_by
from CACScoringLib.readings.recorded_review import RecordedReview
from CACScoringLib.readings.work_list import WorkList, plan_of
from CACScoringLib.review.output import IN_PANEL
from CACScoringLib.review.scan_review import ScanReview
from CACScoringLib.review.state import ReviewFolder

READERS = ("Ann", "Bob")


def read(case, reader, kind):
    """Let a reader assign two lesions, of which Bob calls one LCX, and confirm; return the review."""
    make = partial(ScanReview, ReviewFolder(case.folder, case.scan()), IN_PANEL)
    review = RecordedReview(case, reading_by(reader, kind), make, lambda: (reader, "edit", 1.0)).review
    review.reader = reader
    ids = [lesion.id for lesion in review.lesions("threshold")]
    for lesion, site in zip(ids, (Artery.LCX if reader == "Bob" else Artery.LAD, Artery.LAD), strict=False):
        review.assign("threshold", [lesion], site)
    review.accept("threshold")
    return review


def test_readings_lesions_and_agreement_have_rows(tmp_path):
    results = write_cohort(tmp_path / "cohort", ("one", "two", "three"))
    cases = cases_in(results)
    plan = plan_of(results, cases, READERS, 1 / 3)
    for case in cases:
        read(case, "Ann", FIRST)
        read(case, "Bob", FIRST)
    again = next(case for case in cases if case.folder.name == plan[-1].scan)
    read(again, "Ann", AGAIN)
    with pytest.raises(OutputError, match="Not all planned readings are reviewed"):
        write_tables(tmp_path / "tables", WorkList(cases, READERS, double=True, plan=plan))
    review = read(again, "Bob", AGAIN)
    write_tables(tmp_path / "tables", WorkList(cases, READERS, double=True, plan=plan))

    listed = csv_rows(tmp_path / "tables" / "readings.csv")
    repeated = [(row["reader"], row["repetition"]) for row in listed if row["scan"] == again.folder.name]
    assert repeated == [("Ann", "1"), ("Ann", "2"), ("Bob", "1"), ("Bob", "2")]
    assert len(listed) == 8
    assert all(row["agatston"] for row in listed)
    lesions, sites = csv_rows(tmp_path / "tables" / "reading_lesions.csv"), {}
    for row in lesions:
        sites.setdefault((row["scan"], row["lesion"]), {})[row["reader"], row["repetition"]] = row["lesion_site"]
    disputed = [read for read in sites.values() if len(set(read.values())) > 1]
    assert {(read["Ann", "1"], read["Bob", "1"]) for read in disputed} == {("LAD", "LCX")}
    assert len(disputed) == 3
    assert all(row["cac_version"] and row["created"] for row in (*listed, *lesions))

    rows = csv_rows(tmp_path / "tables" / "agreement.csv")
    listed = {(row["first"], row["second"], row["measure"]): row for row in rows}
    measures = ("kappa", "icc", "dice", "lesion_kappa")
    assert [key for key in listed if key[0] == "Ann"] == [
        *(("Ann", "Bob", measure) for measure in measures),
        *(("Ann", "Ann again", measure) for measure in measures),
    ]
    assert listed["Ann", "Bob", "dice"]["estimate"] == "1.0"
    assert float(listed["Ann", "Bob", "lesion_kappa"]["estimate"]) < 1
    assert listed["Ann", "Bob", "icc"]["scans"] == "3"
    row = listed["Ann", "Bob", "dice"]
    assert row["interval"] == "binomial, patients"
    assert float(row["low"]) < float(row["estimate"]) <= float(row["high"])
    for measure in ("kappa", "lesion_kappa"):
        row = listed["Ann", "Bob", measure]
        assert (row["low"], row["high"], row["interval"]) == ("", "", ""), "of three patients"
    of_three = 0.025 ** (1 / 3)
    assert float(listed["Ann", "Bob", "dice"]["low"]) == pytest.approx(of_three, abs=1e-3)
    dice, kappa = (listed["Ann", "Ann again", measure] for measure in ("dice", "kappa"))
    assert (dice["scans"], kappa["estimate"]) == ("1", "")

    # Lesions are parts with a single label in each reading.
    labels = [labels_of_reading(again, reading_by(reader))["threshold"] for reader in READERS]
    lesions = list(lesions_of(again.folder, labels))
    assert ["LAD", "LCX"] in [[site for *_, site in lesion] for lesion in lesions]
    voxels = sum(lesion.voxels for lesion in review.lesions("threshold"))
    assert sum(count for ((_, count, *_), _) in lesions) == voxels
