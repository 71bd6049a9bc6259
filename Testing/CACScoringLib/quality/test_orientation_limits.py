"""Findings on a scan's orientation at the limits of what contradicts its header."""

import math

import pytest

from CACScoringLib.quality.orientation import contrary_findings

USUAL = {
    "bone_behind_cm2": 12.0,
    "bone_in_front_cm2": 2.0,
    "spine_behind_mm": 45.0,
    "heart_left_mm": 20.0,
    "aorta_left": 0.4,
    "tissue_left": 0.3,
    "lung_balance": 0.8,
    "lung_above": 0.1,
    "airway_above": 3.0,
    "airway_below": 0.0,
    "apex_left_mm": 10.0,
    "apex_front_mm": 5.0,
}

NAMES = ("spine_behind_mm", "heart_left_mm", "aorta_left", "tissue_left", "lung_balance", "lung_above")
UNKNOWN = dict.fromkeys((*NAMES, "airway_above", "airway_below"), math.nan)


@pytest.mark.parametrize(
    ("measured", "counts"),
    [
        ({}, (0, 0, 0)),
        (UNKNOWN, (0, 0, 0)),
        ({"bone_behind_cm2": 4.5, "bone_in_front_cm2": 9.0}, (1, 0, 0)),
        ({"bone_behind_cm2": 4.6, "bone_in_front_cm2": 9.0}, (0, 0, 0)),
        ({"bone_behind_cm2": 4.5, "bone_in_front_cm2": 9.0, "spine_behind_mm": -23.0}, (2, 0, 0)),
        ({"spine_behind_mm": -22.0}, (0, 0, 0)),
        ({"apex_front_mm": -11.0, "apex_left_mm": 20.0, "spine_behind_mm": -23.0}, (2, 0, 0)),
        ({"heart_left_mm": -10.0}, (0, 0, 0)),
        ({"heart_left_mm": -10.1}, (0, 1, 0)),
        ({"heart_left_mm": -6.0, "aorta_left": -0.2}, (0, 1, 0)),
        ({"heart_left_mm": -10.1, "aorta_left": -0.16}, (0, 2, 0)),
        ({"heart_left_mm": -10.1, "aorta_left": -0.15}, (0, 1, 0)),
        ({"aorta_left": -0.16, "tissue_left": -0.16}, (0, 2, 0)),
        ({"aorta_left": -0.16, "tissue_left": -0.15}, (0, 1, 0)),
        ({"heart_left_mm": -10.1, "aorta_left": math.nan, "tissue_left": -0.16}, (0, 2, 0)),
        ({"heart_left_mm": -10.1, "aorta_left": -0.16, "lung_balance": 0.6}, (0, 2, 0)),
        ({"heart_left_mm": -10.1, "aorta_left": -0.16, "tissue_left": -0.5, "lung_balance": 0.59}, (0, 1, 0)),
        ({"lung_balance": 0.59}, (0, 0, 0)),
        ({"heart_left_mm": -10.1, "aorta_left": -0.16, "lung_balance": math.nan}, (0, 2, 0)),
        ({"lung_above": -0.5}, (0, 0, 1)),
        ({"lung_above": -0.04, "apex_left_mm": -8.0, "apex_front_mm": 2.0}, (0, 0, 2)),
        ({"lung_above": -0.03, "apex_left_mm": -8.0, "apex_front_mm": 2.0}, (0, 0, 1)),
        ({"lung_above": -0.04, "apex_left_mm": -7.0, "apex_front_mm": 2.0}, (0, 0, 1)),
        ({"lung_above": -0.04, "airway_above": 0.09, "airway_below": 1.0}, (0, 0, 2)),
        ({"lung_above": -0.04, "airway_above": 0.1, "airway_below": 1.0}, (0, 0, 1)),
        ({"airway_above": 0.0, "airway_below": 0.9}, (0, 0, 0)),
        ({"airway_above": 0.0, "airway_below": 5.0, "lung_above": math.nan}, (0, 0, 1)),
        (
            {"heart_left_mm": -20.0, "aorta_left": -0.3, "lung_above": -0.3, "airway_above": 0.0, "airway_below": 5.0},
            (0, 2, 2),
        ),
    ],
)
def test_findings_at_their_limits(measured, counts):
    """Findings about back, left and up; two of a kind refuse a scan."""
    assert tuple(map(len, contrary_findings({**USUAL, **measured}))) == counts
