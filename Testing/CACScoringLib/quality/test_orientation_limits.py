"""Findings on a scan's orientation at the limits of what contradicts its header."""

import pytest

from CACScoringLib.quality.orientation import _judge

USUAL = {
    "bone_behind_cm2": 12.0,
    "bone_in_front_cm2": 2.0,
    "heart_left_mm": 20.0,
    "aorta_left": 0.4,
    "lung_balance": 0.8,
    "lung_above": 0.1,
    "apex_left_mm": 10.0,
    "apex_front_mm": 5.0,
}


@pytest.mark.parametrize(
    ("measured", "against", "doubts"),
    [
        ({}, 0, 0),
        ({"heart_left_mm": None, "aorta_left": None, "lung_above": None}, 0, 0),
        ({"bone_behind_cm2": 4.5, "bone_in_front_cm2": 9.0, "heart_left_mm": -9.0}, 1, 0),
        ({"heart_left_mm": 0.0}, 0, 0),
        ({"heart_left_mm": -0.1}, 0, 1),
        ({"heart_left_mm": -5.0, "aorta_left": -0.2}, 0, 1),
        ({"heart_left_mm": -5.1, "aorta_left": -0.11}, 1, 0),
        ({"heart_left_mm": -5.1, "aorta_left": -0.1}, 0, 1),
        ({"heart_left_mm": -5.1, "aorta_left": None}, 0, 1),
        ({"heart_left_mm": -5.1, "aorta_left": -0.11, "lung_balance": 0.6}, 1, 0),
        ({"heart_left_mm": -5.1, "aorta_left": -0.11, "lung_balance": 0.59}, 0, 1),
        ({"heart_left_mm": -5.1, "aorta_left": -0.11, "lung_balance": None}, 1, 0),
        ({"lung_above": -0.21}, 1, 0),
        ({"lung_above": -0.2}, 0, 1),
        ({"lung_above": -0.04, "apex_left_mm": -8.0, "apex_front_mm": 2.0}, 1, 0),
        ({"lung_above": -0.03, "apex_left_mm": -8.0, "apex_front_mm": 2.0}, 0, 1),
        ({"lung_above": -0.04, "apex_left_mm": -7.0, "apex_front_mm": 2.0}, 0, 1),
        ({"lung_above": None, "apex_left_mm": -8.0, "apex_front_mm": 2.0}, 0, 1),
        ({"heart_left_mm": -9.0, "aorta_left": -0.3, "lung_above": -0.3}, 2, 0),
    ],
)
def test_findings_at_their_limits(measured, against, doubts):
    findings = _judge(**{**USUAL, **measured})
    assert tuple(map(len, findings)) == (against, doubts)
