"""Which results of a method have intervals and categories."""

from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk

from CACScoringLib.models import choice
from CACScoringLib.models.cards import StoredModel
from CACScoringLib.quality import calibration
from CACScoringLib.record.rules import ScoringRules
from CACScoringLib.record.score_record import ModelRecord
from CACScoringLib.scoring.judge import candidate_evidence, recorded_errors, stored_errors
from CACScoringLib.scoring.lesions import find_lesions
from CACScoringLib.scoring.scores import categories_of, method_score
from CACScoringLib.scoring.uncertainty import with_intervals

automatic_patient = pytest.importorskip("automatic_patient", reason="PyTorch, which writes its networks, is missing")
RULES = ScoringRules()


@pytest.mark.parametrize("status", ["reviewed", "automatic"])
@pytest.mark.parametrize(
    ("rules", "is_clinical"),
    [
        (RULES, True),
        (ScoringRules(minimum_pixels=3, connectivity=4), True),
        (ScoringRules(threshold_hu=145.0, weight_bounds_hu=(222.0, 334.0, 446.0)), True),
        (ScoringRules(threshold_hu=145.0), False),
        (ScoringRules(weight_bounds_hu=(200.0, 300.0, 500.0)), False),
        (ScoringRules(reference_spacing_mm=2.5), False),
    ],
)
def test_only_the_clinical_rule_has_intervals_and_categories(rules, is_clinical, status):
    lesions = automatic_patient.scored().methods["threshold"].lesion_set
    errors = stored_errors(automatic_patient.map_card())
    assert with_intervals(method_score(status, rules, lesions), errors).has_intervals == is_clinical
    empty = find_lesions(sitk.Image(4, 4, 2, sitk.sitkInt16), np.zeros((2, 4, 4), np.uint8), RULES)
    assert (categories_of(method_score(status, rules, empty)) is not None) == is_clinical


@pytest.mark.parametrize("judge", ["judge", "another judge"])
def test_a_reopened_score_has_the_errors_of_its_verdicts(judge, monkeypatch, tmp_path):
    """A map without a calibration of verdicts takes the bundled map's, if the same networks give the verdicts."""
    card = automatic_patient.map_card()
    bundled = replace(card, validation={"automatic_score": {"models": {"lesions": "judge"}}})
    errors = {"decomposition": card.calibration["uncertainty"]["decomposition"]}
    users_map = replace(card, name="own", sha256="own", calibration={"uncertainty": errors})
    stored = [StoredModel(bundled, tmp_path, "bundled"), StoredModel(users_map, tmp_path, "user")]
    for module in (calibration, choice):
        monkeypatch.setattr(module, "list_models", lambda _network: stored)
    record = replace(
        automatic_patient.scored().record,
        models=(ModelRecord("own", "decomposition", "own"), ModelRecord("lesions", "lesions", judge)),
        candidate_evidence=candidate_evidence(card),
    )
    kinds = {"automatic", "decomposition"} if judge == "judge" else {"decomposition"}
    assert set(recorded_errors(record).by_kind) == kinds
