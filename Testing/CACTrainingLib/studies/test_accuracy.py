"""Scores against true mass, plaques found, and goals, on records whose figures are known by hand."""

import math

import numpy as np
import pytest
from study_samples import cohort, record

from CACTrainingLib.report.parts import METHODS
from CACTrainingLib.studies import accuracy as against_truth
from CACTrainingLib.studies import goals, lesion_finding
from CACTrainingLib.studies.records import TrueLesion, Truth
from CACTrainingLib.studies.sample import Sample

MAP = METHODS["map"]


def scan(name, true, values, number=1, distractors=(), lesions=(), visible=None, **more):
    truth = Truth(float(true), {"LAD": float(true)}, distractors, lesions)
    return record(name, number, true > 0 if visible is None else visible, values, truth=truth, **more)


def tables(module, records):
    found = module.sections(Sample(records, np.random.default_rng(0)))
    return {table.name: table for section in found for table in section.tables}


def row(table, title, after=None):
    start = next(n for n, r in enumerate(table.rows) if r[0] == after) if after else 0
    return next(r for r in table.rows[start:] if str(r[0]).strip() == title)


class TestRankCorrelation:
    def records(self):
        """The map is a monotone curve of the truth; the automatic method is that but for scans with aortic calcium."""
        made = []
        for n in range(24):
            other = ("aortic wall",) if n % 2 else ()
            wrong = 1000.0 - 2 * n if other else 0.0
            made.append(scan(f"p{n}", n, {"map": n**2, "automatic": n + wrong}, distractors=other))
        return made

    def test_is_of_order_alone(self):
        cells = row(tables(against_truth, self.records())["rank_correlation"], MAP)
        assert [cell.value for cell in cells[1:]] == pytest.approx([1, 1, 1, 1])
        assert [cell.n for cell in cells[1:]] == [24, 23, 12, 12]

    def test_other_calcium_spoils_it_where_it_is_counted(self):
        cells = row(tables(against_truth, self.records())["rank_correlation"], METHODS["automatic"])
        assert cells[4].value == pytest.approx(1)
        assert cells[1].value < 0.6
        assert cells[3].value < -0.9

    def test_difference_of_the_map_is_paired(self):
        cells = row(tables(against_truth, self.records())["rank_differences"], METHODS["automatic"], after="All scans")
        assert cells[4].value == pytest.approx(cells[2] - cells[3])
        assert cells[4].low > 0
        assert cells[5] == "< 0.001"

    def test_said_in_words(self):
        (section,) = against_truth.sections(Sample(self.records(), np.random.default_rng(0)))
        assert "n = 24" in section.text[1]
        assert "higher for the map" in section.text[1]


class TestErrors:
    def test_half_of_the_mass_and_one_more(self):
        made = [scan(f"p{n}", n, {"map": 0.5 * n + 1}) for n in range(1, 21)]
        cells = row(tables(against_truth, made)["mass_errors"], MAP)
        assert cells[1].value == pytest.approx((0.5 * 210 + 20) / 210)
        assert cells[2].value == pytest.approx(1 - 0.5 * 10.5)
        assert (cells[3].value, cells[4].value, cells[5].value) == pytest.approx((0.5, 1, 1))

    def test_mass_where_there_is_none(self):
        made = [scan(f"d{n}", 0, {"map": 2.0 * (n % 2)}, distractors=("valve",)) for n in range(6)]
        made += [scan(f"c{n}", 0, {"map": 0.0}) for n in range(6)]
        cells = row(tables(against_truth, made)["wrong_mass"], MAP)
        assert [(c.value, c.n) for c in cells[1:]] == [(1, 6), (0, 6)]

    def test_masses_in_hu_are_ranked_but_have_no_error_in_mg(self):
        made = [scan(f"p{n}", n, {"map": 900.0 * n}, unit="HU·mm³") for n in range(9)]
        found = tables(against_truth, made)
        assert "rank_correlation" in found
        assert "mass_errors" not in found

    def test_nothing_without_truth(self):
        assert against_truth.sections(Sample([record(values={"map": 1.0})], np.random.default_rng(0))) == ()


class TestPlaques:
    def records(self):
        """Each patient has one plaque; the map finds those from 4 mg on, the reader those from 16 mg on."""
        made = []
        for n in range(32):
            mass = 2.0 ** (n % 8)
            found = {"map": mass if mass >= 4 else 0.0, "reader": mass if mass >= 16 else 0.0}
            lesion = TrueLesion(
                "RCA" if n % 2 else "LAD", mass, 100.0 + 25 * n, 3.0, None if n == 0 else 10.0 * (n % 8), found
            )
            made.append(scan(f"p{n}", mass, {"map": mass}, lesions=(lesion,)))
        return made

    def test_shares_by_mass(self):
        table = tables(lesion_finding, self.records())["plaques_found"]
        assert [(c.value, c.n) for c in row(table, "1–3", after="Mass, mg")[1:]] == [(0, 8), (0, 8)]
        assert [(c.value, c.n) for c in row(table, "3–10", after="Mass, mg")[1:]] == [(1, 8), (0, 8)]
        assert [c.value for c in row(table, "10–30", after="Mass, mg")[1:]] == [1, 1]

    def test_unknown_speed_is_left_out(self):
        table = tables(lesion_finding, self.records())["plaques_found"]
        start = next(n for n, r in enumerate(table.rows) if r[0] == "Speed, mm/s")
        assert sum(r[1].n for r in table.rows[start + 1 : start + 5]) == 31

    def test_mass_of_which_half_are_found(self):
        cells = row(tables(lesion_finding, self.records())["smallest_plaque"], "All")
        assert cells[1].value == pytest.approx(math.sqrt(8), rel=0.05)
        assert cells[2].value == pytest.approx(math.sqrt(128), rel=0.05)
        assert cells[1].n == 32

    def test_nothing_without_plaques(self):
        assert lesion_finding.sections(Sample([scan("p", 0, {"map": 0.0})], np.random.default_rng(0))) == ()


class TestGoals:
    @staticmethod
    def rows(records):
        (section,) = goals.sections(records, np.random.default_rng(0))
        return section, {str(r[0]).strip(): r for r in section.tables[0].rows}

    def test_a_good_method_meets_them(self):
        section, rows = self.rows(cohort(60))
        assert rows["Rank correlation with true mass, all scans: at least 0.90"][-1] == "yes"
        assert rows["κ of risk categories: at least 0.85"][-1] == "yes"
        assert rows["Rank correlation with true mass, all scans"][-1] == "yes"
        assert "goals were met" in section.text[1]

    def test_a_method_that_counts_everything_misses_them(self):
        made = [
            scan(f"p{n}", n % 2, {"map": 5.0 + n % 3, "reader": float(n % 2), "automatic": 5.0}, number)
            for n in range(40)
            for number in (1, 2)
        ]
        section, rows = self.rows(made)
        assert rows["Rank correlation with true mass, all scans: at least 0.90"][-1] == "no"
        assert rows[f"… and above “{METHODS['reader']}”: difference above zero"][-1] == "no"
        assert rows["Scans with no calcium that score above zero: at most 0.10"][-1] == "no"
        assert "Missed: Rank correlation" in section.text[1]

    def test_being_equal_is_not_being_better(self):
        made = [
            scan(f"p{n}", n % 5, dict.fromkeys(("map", "reader", "automatic"), n % 5 + 0.1 * number), number)
            for n in range(20)
            for number in (1, 2)
        ]
        section, rows = self.rows(made)
        assert rows[f"… and above “{METHODS['reader']}”: difference above zero"][1].value == 0
        assert [r[0] for r in section.tables[0].rows if r[-1] == "yes" and "“" in str(r[0])] == []

    def test_none_without_truth(self):
        assert goals.sections([record(values={"map": 1.0})], np.random.default_rng(0)) == ()
