"""Reproducibility of scores and categories, on records whose figures are known by hand."""

import math

import numpy as np
import pytest
from study_samples import cohort, pairs, record

from CACTrainingLib.report.parts import METHODS
from CACTrainingLib.statistics.agreement import LIMIT_FACTOR
from CACTrainingLib.statistics.bootstrap import Difference, Estimate
from CACTrainingLib.studies import categories, reproducibility
from CACTrainingLib.studies.sample import MixedUnitsError, Sample, compared

MAP, READER = METHODS["map"], METHODS["reader"]


@pytest.fixture(scope="module")
def found():
    return reproducibility.sections(cohort(24), np.random.default_rng(0))


def tables(sections):
    return {table.name: table for section in sections for table in section.tables}


def row(table, title, after=None):
    """Cells of the row of that title; after: below the heading of that title."""
    start = next(n for n, r in enumerate(table.rows) if r[0] == after) if after else 0
    return next(r for r in table.rows[start:] if str(r[0]).strip() == title)


def of_pairs(values, **more):
    return tables(reproducibility.sections(pairs(values, **more), np.random.default_rng(0)))


class TestRelativeDifference:
    def test_known_pairs(self):
        """(1, 3): 1; (0, 4): 2; (0, 0): none; (5, 5): 0."""
        values = row(of_pairs([(1, 3), (0, 4), (0, 0), (5, 5)])["relative_difference"], MAP)
        assert (values[1].value, values[1].n) == (1, 3)
        assert (values[3].value, values[3].n) == (0.5, 2)

    def test_published_figures_stand_beside_their_own_method(self, found):
        table = tables(found)["relative_difference"]
        assert row(table, MAP)[4] == "0.47 / 0.44"
        assert row(table, READER)[4] == "0.89 / –"
        assert row(table, METHODS["slices"])[4] is None

    def test_control_and_ceiling_are_in_the_table(self, found):
        titles = [r[0] for r in tables(found)["relative_difference"].rows]
        assert titles == list(METHODS.values())


class TestIdenticalPairs:
    def records(self, n=30):
        """The map repeats within a tenth; the reader finds only the second half, and repeats worse."""
        made = []
        g = np.random.default_rng(0)
        for k in range(n):
            mass = 5 + k
            for number in (1, 2):
                reader = mass * g.lognormal(0, 0.6) if k >= n // 2 else 0.0
                made.append(record(f"p{k}", number, values={"map": mass * g.lognormal(0, 0.1), "reader": reader}))
        return made

    def test_only_pairs_that_both_find(self):
        n, own, other, change = reproducibility.on_identical(Sample(self.records(), np.random.default_rng(0)), "reader")
        assert n == change.estimate.n == 15
        assert change.estimate.value == pytest.approx(own - other)
        assert change.estimate.high < 0
        assert change.p < 0.05

    def test_a_method_against_itself_differs_by_nothing(self):
        made = [record(f"p{k}", n, values={"map": k + n, "reader": k + n}) for k in range(8) for n in (1, 2)]
        _, _, _, change = reproducibility.on_identical(Sample(made, np.random.default_rng(0)), "reader")
        assert (change.estimate.value, change.p) == (0, 1)

    def test_said_in_words_with_n(self):
        text = " ".join(reproducibility.sections(self.records(), np.random.default_rng(0))[0].text)
        assert "On the 15 pairs" in text
        assert "lower for the map (−" in text

    @pytest.mark.parametrize(
        ("interval", "said"),
        [
            ((-0.3, -0.5, -0.1), "lower (−0.30, 95 % interval −0.50 to −0.10, p = 0.02)"),
            ((-0.3, -0.7, 0.1), "no difference shown by this sample (−0.30"),
            ((0.3, -0.1, 0.7), "no difference shown by this sample (+0.30"),
            ((0.3, 0.1, 0.5), "higher (+0.30"),
            ((0.3, math.nan, math.nan), "too few to compare"),
        ],
    )
    def test_claimed_only_where_the_interval_leaves_zero_out(self, interval, said):
        assert compared(Difference(Estimate(*interval, 20), 0.02), "lower", "higher").startswith(said)


class TestLimits:
    def test_of_known_differences(self):
        level = np.linspace(1, 50, 30)
        size = 1 + 0.2 * level
        values = np.stack([level - size / 2, level + size / 2], axis=1)
        made = pairs([*values, (0, 0)])
        kept = reproducibility.limits(made, "map", "mass")
        assert kept.factor == LIMIT_FACTOR
        assert kept.pairs == 30
        assert kept.highest == pytest.approx(50)
        assert (kept.intercept, kept.slope) == pytest.approx((1, 0.2), abs=0.02)

    def test_most_pairs_keep_to_it_whatever_their_distribution(self):
        """Scores of zero in one scan differ by twice their mean, more than normal differences would."""
        values = [(100 + n, 1.1 * (100 + n)) for n in range(26)] + [(0, 40), (60, 0), (0, 50), (30, 0)]
        kept = reproducibility.limits(pairs(values), "map", "mass")
        assert kept.factor > LIMIT_FACTOR
        limit = [kept.at((a + b) / 2) for a, b in values]
        within = [abs(a - b) <= most + 1e-9 for (a, b), most in zip(values, limit, strict=True)]
        assert np.mean(within) >= 0.95

    def test_agatston_is_eightfold_here(self):
        made = cohort(60)
        mass, agatston = (reproducibility.limits(made, "map", q) for q in ("mass", "agatston"))
        assert agatston.intercept == pytest.approx(8 * mass.intercept)
        assert agatston.slope == pytest.approx(mass.slope)

    def test_of_arteries_pools_their_pairs(self):
        made = cohort(60)
        total, artery = (reproducibility.limits(made, "map", "mass", of) for of in ("total", "artery"))
        assert artery.pairs > total.pairs
        assert artery.highest <= total.highest

    def test_none_from_few_pairs(self):
        zeros, some = [(0, 0)] * 50, [(4, 5)] * (reproducibility.LEAST_PAIRS - 1)
        assert reproducibility.limits(pairs(zeros + some), "map", "mass") is None
        assert reproducibility.limits(pairs([*zeros, *some, (3, 3)]), "map", "mass").pairs == 20

    def test_table_says_how_many_lie_within(self):
        """Differences of a tenth, but for one pair in thirty that differs by more than its own mean."""
        cells = row(of_pairs([(100 + n, 110 + n) for n in range(29)] + [(20, 90)])["limits_mass"], MAP)
        assert (cells[-1].value, cells[-1].n) == (pytest.approx(29 / 30), 30)
        assert cells[1].value == pytest.approx((29 * 10 + 70) / 30)

    def test_table_names_too_few_pairs(self):
        assert row(of_pairs([(1, 2)] * 5)["limits_mass"], MAP)[1] == "only 5 pairs"


class TestAgreement:
    def test_value_and_both_intervals(self, found):
        cells = row(tables(found)["icc"], MAP, after="Mass, all pairs")
        low, high = map(float, cells[2].split(" to "))
        assert cells[1].low <= cells[1].value <= cells[1].high + 0.005
        assert low <= cells[1].value <= high + 0.005
        assert cells[3] == "0.97 (0.96–0.97)"

    def test_no_agatston_score_of_what_only_counts_or_weighs(self, found):
        table = tables(found)["icc"]
        start = next(n for n, r in enumerate(table.rows) if r[0] == "Agatston score, all pairs")
        below = {str(r[0]).strip() for r in table.rows[start:]}
        assert MAP in below
        assert METHODS["slices"] not in below
        assert METHODS["noise_free"] not in below


class TestCategories:
    @pytest.mark.parametrize(
        ("score", "wanted"), [(0, 0), (0.2, 0), (10.4, 0), (10.5, 1), (100, 1), (101, 2), (400, 2), (400.6, 3)]
    )
    def test_borders(self, score, wanted):
        assert categories.category(score) == wanted

    def test_agreement_of_known_pairs(self):
        """Agatston is eight times the mass: categories (0, 0), (1, 1), (2, 1), (3, 3)."""
        table = of_pairs([(0, 1), (5, 12), (20, 8), (100, 60)])
        assert row(table["categories"], MAP)[3].value == 0.75
        assert [r[1:] for r in table["categories_map"].rows] == [(1, 0, 0, 0), (0, 1, 0, 0), (0, 1, 0, 0), (0, 0, 0, 1)]

    def test_difference_of_kappa_is_paired(self, found):
        cells = row(tables(found)["kappa_differences"], READER)
        shown = tables(found)["categories"]
        both = [row(shown, title, after="All pairs")[1].value for title in (MAP, READER)]
        assert cells[2].value == pytest.approx(both[0] - both[1])


class TestWhatIsMissing:
    def test_refused_scans_are_named_and_left_out(self):
        made = [*pairs([(1, 2)] * 6), record("bad", 1, None, refused="No heart."), record("bad", 2, values={"map": 3})]
        section = reproducibility.sections(made, np.random.default_rng(0))[0]
        assert "13 scans of 7 patients were scored, among them 6 complete pairs" in section.text[0]
        assert "bad-1: No heart." in section.text[0]
        assert row(tables([section])["relative_difference"], MAP)[1].n == 6

    def test_a_single_scan_is_no_pair(self):
        section = reproducibility.sections([record(values={"map": 3})], np.random.default_rng(0))[0]
        assert "1 scan of 1 patient" in section.text[0]
        assert not section.tables

    @pytest.mark.parametrize("records", [[], [record(refused="No heart.")]])
    def test_nothing_was_scored(self, records):
        assert len(reproducibility.sections(records, np.random.default_rng(0))) == 1

    def test_a_single_pair_has_values_without_intervals(self):
        cells = row(of_pairs([(1, 3)])["relative_difference"], MAP)
        assert cells[1].value == 1
        assert math.isnan(cells[1].low)

    def test_without_truth_nothing_is_held_against_it(self):
        found = reproducibility.sections(pairs([(1, 3)] * 8), np.random.default_rng(0))
        assert {section.name for section in found} == {"between_scans", "categories"}
        assert any("true mass of no scan is known" in text for text in found[0].text)

    def test_units_are_not_mixed(self):
        made = [record(values={"map": 1.0}), record("q", unit="HU·mm³", values={"map": 1.0})]
        with pytest.raises(MixedUnitsError, match="HU·mm³ and in mg"):
            reproducibility.sections(made, np.random.default_rng(0))


def test_the_same_seed_gives_the_same_figures():
    made = pairs(np.random.default_rng(0).lognormal(1, 1, (10, 2)))
    first, again = (reproducibility.sections(made, np.random.default_rng(0)) for _ in range(2))
    assert str(tables(first)) == str(tables(again))


def test_no_word_of_use_to_patients(found):
    words = " ".join([*(text for s in found for text in s.text), *(t.title + t.note for t in tables(found).values())])
    assert "clinical" not in words.lower()
