"""Repeatability limits, from a study's records to a model's card."""

from dataclasses import asdict, replace

import numpy as np
import pytest
from handmade_networks import untrained
from study_samples import cohort

from CACScoringLib.core.errors import CTError
from CACScoringLib.models.cards import read_card
from CACScoringLib.quality.calibration import Repeatability
from CACScoringLib.record.score_record import ModelRecord
from CACTrainingLib.studies.records import ScoringFacts
from CACTrainingLib.studies.reproducibility import limits, repeatability_of, store_limits

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


def test_limits_are_in_the_units_of_scores():
    study = records()
    repeatability = repeatability_of(study)
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
    other_mass = repeatability_of(records(changed={0: {"hu_mm3_per_mass": 1500.0}}))
    assert set(other_mass["limits"]["decomposition"]) == {"agatston"}, "masses of two calibrations"


def test_automatic_scores_have_limits_of_their_own():
    assert set(repeatability_of(records())["limits"]) == {"decomposition", "threshold"}
    evidence = {"most_not_coronary": 0.5}
    repeatability = repeatability_of(records(candidate_evidence=evidence))
    assert repeatability["candidate_evidence"] == Repeatability.of(repeatability).candidate_evidence == evidence
    automatic = repeatability["limits"]["automatic"]["agatston"]["total"]
    assert automatic == asdict(limits(records(), "automatic", "agatston", "total"))
    assert automatic != repeatability["limits"]["threshold"]["agatston"]["total"]


def test_patients_with_a_scan_beyond_the_calibration_are_left_out():
    study = records()
    n = max((n for n, record in enumerate(study) if record.refused is None), key=lambda n: study[n].values["map"].mass)
    repeatability = repeatability_of(records(changed={n: {"warnings": ("beyond-calibration",)}}))
    in_range = [record for record in study if record.patient != study[n].patient]
    assert repeatability["limits"] == repeatability_of(in_range)["limits"] != repeatability_of(study)["limits"]
    assert repeatability["data"].startswith("79 digital patients")
    assert repeatability["data"].endswith("1 whose scans are beyond the calibration are left out")


def test_they_are_stored_with_the_model(tmp_path):
    card = untrained("decomposition", "map", tmp_path)
    assert store_limits(records(), card) == card
    stored = Repeatability.of(read_card(card).repeatability)
    assert stored.data == f"80 digital patients ({cohort(80)[0].patient} to {cohort(80)[-1].patient}), two scans each"
    assert np.isfinite(stored.limits["decomposition"]["agatston"]["artery"].at(100.0))


@pytest.mark.parametrize(
    ("study", "message"),
    [
        (records(changed={3: {"decomposition_settings": {"floor_hu": 10.0}}}), "2 sets"),
        (records(changed={3: {"candidate_evidence": {"most_not_coronary": 0.5}}}), "2 sets"),
        (records(8), "too few"),
        (records(), "not installed"),
    ],
)
def test_what_cannot_be_stored(study, message):
    with pytest.raises(CTError, match=message):
        store_limits(study)
