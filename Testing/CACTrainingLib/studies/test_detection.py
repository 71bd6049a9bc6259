"""Detection on records whose rates are known by hand."""

import numpy as np
import pytest
from study_samples import cohort, record, value

from CACTrainingLib.report.parts import METHODS
from CACTrainingLib.studies import detection
from CACTrainingLib.studies import heart as heart_study
from CACTrainingLib.studies.records import HeartAgreement, Truth, Value

MAP = METHODS["map"]


def truth(mass=0.0, distractors=()):
    return Truth(mass, {"LAD": mass}, distractors, ())


def sections(records):
    return detection.sections(records, np.random.default_rng(0))


def table(records, name):
    return next(t for section in sections(records) for t in section.tables if t.name == name)


def row(found, title, after=None):
    start = next(n for n, r in enumerate(found.rows) if r[0] == after) if after else 0
    return next(r for r in found.rows[start:] if str(r[0]).strip() == title)


@pytest.fixture
def scans():
    """3 of 4 visible found, 1 of 6 others above zero."""
    seen = [record(f"v{n}", 1, True, {"map": mass}) for n, mass in enumerate((1, 2, 3, 0))]
    return seen + [record(f"n{n}", 1, False, {"map": float(n == 0)}) for n in range(6)]


class TestScans:
    def test_rates(self, scans):
        cells = row(table(scans, "detection_scans"), MAP)
        sensitivity, false, accuracy, f1 = (cells[n] for n in (1, 3, 5, 6))
        assert (sensitivity.value, sensitivity.n) == (0.75, 4)
        assert (false.value, false.n) == (pytest.approx(1 / 6), 6)
        assert (accuracy.value, accuracy.n) == (0.8, 10)
        assert f1.value == pytest.approx(6 / 8)
        assert (cells[2], cells[4], cells[7]) == (0.83, 0.14, 0.80)

    def test_scans_without_reference_are_left_out_and_counted(self, scans):
        found = sections([*scans, record("u", 1, None, {"map": 9.0})])
        assert any("1 scan " in text for text in found[0].text)
        assert row(found[0].tables[0], MAP)[5].n == 10

    def test_no_reference_at_all(self):
        found = sections([record("u", 1, None, {"map": 9.0})])
        assert len(found) == 1
        assert not found[0].tables
        assert "cannot be evaluated" in found[0].text[0]

    def test_nothing_was_scored(self):
        assert not sections([])[0].tables

    def test_false_positives_by_what_the_scan_holds(self):
        made = [record(f"h{n}", 1, False, {"map": n % 2}, truth=truth(1.0)) for n in range(4)]
        made += [record(f"d{n}", 1, False, {"map": 0}, truth=truth(0, ("aortic wall",))) for n in range(5)]
        made += [record(f"c{n}", 1, False, {"map": n == 0}, truth=truth()) for n in range(10)]
        made += [record("v", 1, True, {"map": 9}, truth=truth(9.0, ("aortic wall",)))]
        cells = row(table(made, "false_positives"), MAP)
        assert [(c.value, c.n) for c in cells[1:]] == [(0.5, 4), (0, 5), (0.1, 10)]

    def test_zero_false_positives_keep_an_upper_limit(self):
        made = [record(f"c{n}", 1, False, {"map": 0}, truth=truth()) for n in range(10)]
        cell = row(table(made, "false_positives"), MAP)[3]
        assert cell.value == 0
        assert 0.3 < cell.high < 0.32

    def test_differences_are_on_the_same_scans(self):
        made = [record(f"v{n}", 1, True, {"map": 1, "reader": n % 2}) for n in range(20)]
        made += [record(f"only{n}", 1, True, {"map": 0}) for n in range(5)]
        cells = row(table(made, "detection_differences"), METHODS["reader"], after="Sensitivity")
        assert cells[1:4] == (20, 1.0, 0.5)
        assert cells[4].value == 0.5
        assert cells[5] == "< 0.001"


class TestArteries:
    def records(self):
        """In both scans the RCA shows; the map finds it in the first, and gives it to the LCX in the second."""
        first, second = value({"RCA": 4.0}), value({"LCX": 4.0})
        return [
            record("p", number, True, {"map": found}, visible_arteries=("RCA",))
            for number, found in ((1, first), (2, second))
        ]

    def test_wrong_artery_is_missed_and_false(self):
        found = table(self.records(), "detection_arteries")
        assert row(found, "RCA", after=MAP)[1].value == 0.5
        assert row(found, "LCX", after=MAP)[2].value == 0.5
        everything = row(found, "All", after=MAP)
        assert (everything[1].value, everything[1].n) == (0.5, 2)
        assert (everything[2].value, everything[2].n) == (0.25, 4)

    def test_singly_and_in_pairs(self):
        cells = row(table(self.records(), "arteries_found"), "RCA", after=MAP)
        assert (cells[1].value, cells[1].n) == (0.5, 2)
        assert (cells[3].value, cells[3].n) == (0, 1)
        assert cells[2] == "57 %"

    def test_artery_that_shows_in_one_scan_only_is_no_pair(self):
        made = [
            record("p", number, True, {"map": value({"LAD": 4.0})}, visible_arteries=shown)
            for number, shown in ((1, ("LAD",)), (2, ("LAD", "RCA")))
        ]
        found = table(made, "arteries_found")
        assert row(found, "RCA", after=MAP)[1] is None
        assert (row(found, "All", after=MAP)[1].value, row(found, "All", after=MAP)[3].n) == (1, 1)

    def test_left_main_counts_with_the_descending(self):
        made = [record("p", 1, True, {"map": value({"LM": 2.0})}, visible_arteries=("LAD",))]
        assert row(table(made, "detection_arteries"), "LM and LAD", after=MAP)[1].value == 1

    def test_lesions_of_the_map(self):
        lesions = (
            ("LAD", 0.5, False),
            ("LAD", 2.0, True),
            ("RCA", 2.5, False),
            ("LCX", 40.0, True),
            ("LCX", 9.0, None),
        )
        made = [record("p", 1, True, {"map": 44.0}, map_lesions=lesions)]
        found = table(made, "map_lesions")
        assert (row(found, "All")[1].value, row(found, "All")[1].n) == (0.5, 4)
        assert row(found, "1–3 mg")[1].value == 0.5
        assert row(found, "≥ 30 mg")[1].value == 1
        assert row(found, "3–10 mg")[1] is None


class TestSlices:
    def test_rates_at_the_threshold(self):
        slices = ((True, 0.9), (True, 0.6), (True, 0.2), (False, 0.7), (False, 0.1), (False, 0.3))
        made = [record(f"p{n}", 1, True, {"map": 1.0}, slices=slices, slice_threshold=0.6) for n in range(6)]
        found = table(made, "slices")
        assert row(found, "Sensitivity")[1].value == pytest.approx(2 / 3)
        assert row(found, "Sensitivity")[1].n == 18
        assert row(found, "False positives")[1].value == pytest.approx(1 / 3)
        assert row(found, "Accuracy")[1].value == pytest.approx(2 / 3)
        assert row(found, "Area under the ROC curve")[1].value == pytest.approx(6 / 9)
        assert row(found, "Sensitivity")[2] == 0.78


class TestHeart:
    def test_medians_and_quartiles(self):
        made = [
            record(f"p{n}", 1, heart=HeartAgreement(dice, 10.0 + n, 1.0 + n / 10))
            for n, dice in enumerate((0.95, 0.9, 0.7, 0.96, 0.94))
        ]
        section = heart_study.sections(made, np.random.default_rng(0))[0]
        dice, hausdorff, surface = section.tables[0].rows
        assert (dice[1].value, dice[2], dice[3], dice[4]) == (0.94, 0.9, 0.95, 0.7)
        assert (hausdorff[1].value, hausdorff[4]) == (12, 14)
        assert surface[1].value == pytest.approx(1.2)
        assert any("p2-1 (0.70)" in text for text in section.text)

    def test_no_heart_is_known(self):
        section = heart_study.sections([record(values={"map": 1.0})], np.random.default_rng(0))[0]
        assert not section.tables
        assert "cannot be evaluated" in section.text[0]


def test_a_whole_cohort_gives_every_part():
    found = sections(cohort(20))
    assert [section.name for section in found] == ["detection", "detection_arteries", "detection_slices"]


def test_the_control_counts_slices():
    made = [record("p", 1, True, {"map": 1.0, "slices": Value(3.0, 3.0, {})})]
    assert row(table(made, "detection_scans"), METHODS["slices"])[1].value == 1
