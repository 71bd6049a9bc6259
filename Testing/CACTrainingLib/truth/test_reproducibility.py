"""Reproducibility of scores and categories on records whose figures are known by hand, and limits on a model's card."""

from dataclasses import asdict, replace

import numpy as np
import pytest
from handmade_networks import untrained
from study_samples import cohort, pairs, record
from study_tables import cells, tables_of

from CACScoringLib.core.decoding import restore
from CACScoringLib.core.errors import CTError
from CACScoringLib.models.cards import read_card
from CACScoringLib.quality.calibration import Repeatability
from CACScoringLib.record.score_record import ModelRecord
from CACScoringLib.statistics.agreement import LIMIT_FACTOR
from CACTrainingLib.evaluation.parts import METHODS
from CACTrainingLib.truth import reproducibility
from CACTrainingLib.truth.records import ScoringFacts
from CACTrainingLib.truth.reproducibility import limits, repeatability_of, store_limits

MAP, READER = METHODS["map"], METHODS["reader"]


@pytest.fixture(scope="module")
def cohort_tables():
    return tables_of(reproducibility.sections(cohort(24), np.random.default_rng(0)))


def of_pairs(values):
    return tables_of(reproducibility.sections(pairs(values), np.random.default_rng(0)))


def test_relative_difference_of_known_pairs():
    """(1, 3): 1; (0, 4): 2; (0, 0): none; (5, 5): 0."""
    row = cells(of_pairs([(1, 3), (0, 4), (0, 0), (5, 5)])["relative_difference"], MAP)
    in_either, in_both = row[reproducibility.POSITIVE_IN_EITHER], row[reproducibility.POSITIVE_IN_BOTH]
    assert (in_either.value, in_either.n) == (1, 3)
    assert (in_both.value, in_both.n) == (0.5, 2)
    assert row[f"Published: {reproducibility.POSITIVE_IN_BOTH}"] == "0.47 / 0.44"


def test_published_differences_stand_beside_those_of_each_artery(cohort_tables):
    row = cells(cohort_tables["artery_differences"], MAP)
    published = {title: value for title, value in row.items() if title.startswith("Published")}
    assert len(published) == 6
    assert published["Published: RCA, both"] == 0.35


def test_limits_of_known_differences():
    level = np.linspace(1, 50, 30)
    size = 1 + 0.2 * level
    values = np.stack([level - size / 2, level + size / 2], axis=1)
    limits = reproducibility.limits(pairs([*values, (0, 0)]), "map", "mass")
    assert limits.factor == LIMIT_FACTOR
    assert limits.pairs == 30
    assert limits.highest == pytest.approx(50)
    assert (limits.intercept, limits.slope) == pytest.approx((1, 0.2), abs=0.02)


def test_limits_of_arteries_and_of_few_pairs():
    records = cohort(60)
    total, artery = (reproducibility.limits(records, "map", "mass", of) for of in ("total", "artery"))
    assert artery.pairs > total.pairs
    values = [(4, 5)] * (reproducibility.MIN_PAIRS - 1)
    assert reproducibility.limits(pairs(values), "map", "mass") is None


def test_bias_and_share_within_limits():
    """Differences of a tenth, but for one pair in thirty that differs by more than its own mean."""
    row = cells(of_pairs([(100 + n, 110 + n) for n in range(29)] + [(20, 90)])["limits_mass"], MAP)
    assert (row["Share within"].value, row["Share within"].n) == (pytest.approx(29 / 30), 30)
    assert row["Mean difference"].value == pytest.approx((29 * 10 + 70) / 30)


@pytest.mark.parametrize(("score", "place"), [(10.4, 0), (10.5, 1), (101, 2), (400, 2), (400.6, 3)])
def test_borders_of_categories(score, place):
    assert reproducibility.category(score) == place


def test_categories_of_known_pairs(cohort_tables):
    """Agatston is eight times the mass: categories (0, 0), (1, 1), (2, 1), (3, 3)."""
    study = of_pairs([(0, 1), (5, 12), (20, 8), (100, 60)])
    assert cells(study["categories"], MAP)["Same category"].value == 0.75
    counts = [row[1:] for row in study["category_counts"].rows[1:]]
    assert counts == [(1, 0, 0, 0), (0, 1, 0, 0), (0, 1, 0, 0), (0, 0, 0, 1)]
    kappas = [cells(cohort_tables["categories"], title)[reproducibility.KAPPA].value for title in (MAP, READER)]
    assert cells(cohort_tables["kappa_differences"], READER)["Difference"].value == pytest.approx(kappas[0] - kappas[1])


def test_refused_scans_and_single_scans_are_in_no_pair():
    records = [*pairs([(1, 2)] * 6), record("bad", 1, None, refused="No heart."), record("bad", 2, values={"map": 3})]
    section = reproducibility.sections(records, np.random.default_rng(0))[0]
    assert "13 scans of 7 patients were scored, among them 6 complete pairs" in section.text[0]
    assert "bad-1: No heart." in section.text[0]
    assert not reproducibility.sections(records[-1:], np.random.default_rng(0))[0].tables
    assert len(reproducibility.sections([], np.random.default_rng(0))) == 1


def test_units_are_not_mixed():
    records = [record(values={"map": 1.0}), record("q", unit="HU·mm³", values={"map": 1.0})]
    with pytest.raises(CTError, match="HU·mm³ and in mg"):
        reproducibility.sections(records, np.random.default_rng(0))


FACTS = ScoringFacts(
    models=(ModelRecord("m", "decomposition", "abc"),),
    decomposition_settings={"floor_hu": 20.0},
    hu_mm3_per_mass=1400.0,
    kvp=120.0,
    slice_spacing_mm=3.0,
)


def records(count=80, changed=None, **changes):
    """Records with FACTS; `changed` gives other facts by index of a record."""
    study = [replace(record, facts=replace(FACTS, **changes)) for record in cohort(count)]
    for n, facts in (changed or {}).items():
        study[n] = replace(study[n], facts=replace(FACTS, **facts))
    return study


@pytest.fixture(scope="module")
def study():
    return records()


@pytest.fixture(scope="module")
def repeatability(study):
    return repeatability_of(study)


def test_limits_are_in_the_units_of_scores(study, repeatability):
    expected = limits(study, "map", "mass", "total")
    mass = repeatability["limits"]["decomposition"]["pseudo_mass_hu_mm3"]["total"]
    assert mass["intercept"] == pytest.approx(1400 * expected.intercept)
    assert mass["highest"] == pytest.approx(1400 * expected.highest)
    assert (mass["slope"], mass["factor"]) == (expected.slope, expected.factor)
    reader = asdict(limits(study, "reader", "agatston", "total"))
    assert repeatability["limits"]["threshold"]["agatston"]["total"] == reader
    assert repeatability["acquisition"] == {"kvp": [120.0, 120.0], "slice_spacing_mm": [3.0, 3.0]}
    assert repeatability["models"] == {"decomposition": "abc"}
    assert repeatability["digital"]
    assert set(repeatability["limits"]) == {"decomposition", "threshold"}, "candidates without evidence are no scores"
    other_mass = repeatability_of(records(changed={0: {"hu_mm3_per_mass": 1500.0}}))
    assert set(other_mass["limits"]["decomposition"]) == {"agatston"}, "masses of two calibrations"


def test_automatic_scores_have_limits_of_their_own(study):
    calibration = {"counts_from": 0.5}
    repeatability = repeatability_of(records(candidate_evidence=calibration))
    stored = restore(repeatability, Repeatability)
    assert repeatability["candidate_evidence"] == stored.candidate_evidence == calibration
    automatic = repeatability["limits"]["automatic"]["agatston"]["total"]
    assert automatic == asdict(limits(study, "automatic", "agatston", "total"))
    assert automatic != repeatability["limits"]["threshold"]["agatston"]["total"]


def test_patients_with_a_scan_beyond_the_calibration_are_left_out(study, repeatability):
    n = max(
        (n for n, record in enumerate(study) if record.refused is None),
        key=lambda n: study[n].values["map"]["total"][0],
    )
    without = repeatability_of(records(changed={n: {"warnings": ("beyond-calibration",)}}))
    in_range = [record for record in study if record.patient != study[n].patient]
    assert without["limits"] == repeatability_of(in_range)["limits"] != repeatability["limits"]
    assert without["data"].startswith("79 digital patients")
    assert without["data"].endswith("1 whose scans are beyond the calibration are left out")


def test_they_are_stored_with_the_model(study, tmp_path):
    card = untrained("decomposition", "map", tmp_path)
    assert store_limits(study, card) == card
    stored = read_card(card).repeatability_as(Repeatability)
    assert stored.data == f"80 digital patients ({study[0].patient} to {study[-1].patient}), two scans each"
    assert np.isfinite(stored.limits["decomposition"]["agatston"]["artery"].at(100.0))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({3: {"decomposition_settings": {"floor_hu": 10.0}}}, "--overwrite"),
        ({3: {"candidate_evidence": {"counts_from": 0.5}}}, "--overwrite"),
        ({}, "too few"),
    ],
)
def test_what_cannot_be_stored(changed, message):
    with pytest.raises(CTError, match=message):
        store_limits(records(8, changed))


def test_limits_are_not_stored_without_the_model_that_scored(study):
    with pytest.raises(CTError, match="Name its card"):
        store_limits(study)


def test_no_pair_in_the_calibration_range_gives_no_limit():
    with pytest.raises(CTError, match="out of the calibration range"):
        repeatability_of([])
