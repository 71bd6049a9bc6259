"""Intervals, withheld categories, groups by the header, and false zeros with the largest candidate left out."""

from dataclasses import replace

import numpy as np
import pytest
from collection_files import write_scan
from compared_scans import TOTALS, compared_scan

from CACScoringLib.core.acquisition import Acquisition
from CACScoringLib.core.labels import Artery, SiteMap
from CACScoringLib.record.findings import Categories
from CACScoringLib.record.rules import ScoringRules
from CACScoringLib.record.score_record import HeartRecord, InputRecord, ScoreRecord
from CACScoringLib.record.scores import Lesion, MethodScore, SumScore
from CACTrainingLib.references.collection import collections
from CACTrainingLib.references.reference import ReferenceScan
from CACTrainingLib.validation import groups
from CACTrainingLib.validation.agreement import ComparedScans, Raters


def scores(agatston):
    others = {"volume_mm3": 0.0, "pseudo_mass_hu_mm3": 0.0, "lesions": 0}
    return {"agatston": agatston, "clinical_agatston": agatston, **others}


def record(interval, kernel, thickness_mm=2.5, withheld=False, left_out=()):
    """Result of a scan with one interval for both methods."""
    total = SumScore(**scores(0.0), interval_90=interval)
    parts = {"rules": ScoringRules(), "total": total, "arteries": SiteMap(), "left_out": left_out}
    methods = dict.fromkeys(("threshold", "decomposition"), MethodScore(status="automatic", **parts))
    return ScoreRecord(
        input=InputRecord("scan", (18, 16, 8), (2.0, 2.0, thickness_mm), ""),
        acquisition=Acquisition("DICOM", kernel=kernel, slice_thickness_mm=thickness_mm),
        heart=HeartRecord("given"),
        warnings=(),
        models=(),
        methods=methods,
        categories=Categories("threshold", "automatic", "", "A0", None, probabilities_withheld=withheld),
    )


CANDIDATE = Lesion(
    id=1,
    site=Artery.LAD,
    voxels=9,
    peak_hu=250.0,
    mean_hu=180.0,
    centroid_ras_mm=(-12.0, -12.0, 9.0),
    components=(),
    **scores(12.5),
)


@pytest.fixture
def sections(tmp_path, monkeypatch):
    """Function of the scans' records: the sections of scans with TOTALS, of which the last scores 0 automatically."""
    write_scan(tmp_path / "ct", "p")

    def sections_of(records, comparator_scores):
        scans = [compared_scan(n, TOTALS[n]) for n in range(len(records))]
        scans[-1] = replace(scans[-1], measured={"automatic": 0.0, "map": 5.0})
        monkeypatch.setattr(groups, "read_result", lambda folder: records[int(folder.name[1:])])
        compared = ComparedScans(scans, np.random.default_rng(0), {})
        sources = {scan.name: ReferenceScan(scan.name, scan.patient, tmp_path / "ct") for scan in scans}
        raters = Raters(compared, comparator_scores, collections()["nlst"].tables[0], np.random.default_rng(0))
        return groups.sections(compared, raters, sources, tmp_path / "scans")

    return sections_of


def test_coverage_is_of_the_intervals_that_exist(sections):
    records = [record((0.0, 10.0), "B30f")] * 3 + [record(None, "B30f", withheld=True)] * 2
    records += [record((1.0, 150.0), "B30f")] * 2
    rows = {row[0]: row for row in sections(records, {})[0].tables[0].rows}
    assert [rows["all"][column].n for column in (2, 3)] == [7, 5]
    assert (rows["0"][3].value, rows["0"][1]) == (1, 3)
    assert rows["1–99"][3] is None
    assert rows["1–99"][2].value == 1
    assert rows["100–399"][3].value == 0.5, "the total of 300 lies above 150"


def test_groups_hold_the_other_program(sections):
    records = [record(None, kernel, mm) for kernel, mm in [("B30f", 2.0), ("B70f", 2.5), (None, 1.0)] * 4]
    table = sections(records, {f"s{n}": TOTALS[n] for n in range(12)})[1].tables[0]
    assert table.columns[-1] == "Mean difference, DeepCAC"
    assert [(str(row[0]).strip(), row[1]) for row in table.rows] == [
        *(("Kernel", ""), ("sharp", 4), ("soft", 4), ("unknown", 4)),
        *(("Slice thickness", ""), ("below 1.5 mm", 4), ("from 1.5 mm", 4), ("from 2.25 mm", 4)),
    ]
    alike = sections([record(None, "B30f")] * 8, {})[1]
    assert (alike.tables, len(alike.text)) == ((), 1)


def test_false_zeros_show_the_largest_candidate_left_out(sections):
    small = replace(CANDIDATE, clinical_agatston=1.0)
    zeros = sections([record(None, "B30f", left_out=(small, CANDIDATE))] * 5, {})[2]
    assert zeros.tables[0].rows == (("s4", 50.0, 5.0, 12.5, None),)
    (picture,) = zeros.galleries[0].pictures
    assert picture.jpeg[:2] == b"\xff\xd8"
    assert picture.caption == "s4: reference 50, found 0. Largest candidate left out: Agatston 12."
    without = sections([record(None, "B30f")] * 5, {})[2]
    assert without.galleries == ()
    assert len(sections([record(None, "B30f")] * 3, {})) == 2
