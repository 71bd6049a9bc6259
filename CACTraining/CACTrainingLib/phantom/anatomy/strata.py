"""Digital patients chosen by their true calcium: as it is in people, too little is severe for a study of few."""

from __future__ import annotations

from .body import draw_body
from .demographics import AGATSTON_PER_MG
from .hearts.models import HeartModels
from .patient import HEART_SHAPES, draw_heart, stream
from .plaque import PREVALENCE, draw_plaques

STRATA = ((0.0, 0.40), (1.0, 0.25), (100.0, 0.20), (400.0, 0.15))
"""Least Agatston score of a stratum and its share of the patients: 0, 1 to 99, 100 to 399, from 400."""


def chosen_patients(
    first_number: int, patients: int, heart_shape: str = HEART_SHAPES[0], models: HeartModels | None = None
) -> list[int]:
    """Numbers of patients, rising, of which each of STRATA has its share (the first takes what rounding leaves)."""
    wanted = [round(share * patients) for _, share in STRATA]
    wanted[0] += patients - sum(wanted)
    chosen, number = [], first_number
    while any(wanted):
        stratum = _stratum(AGATSTON_PER_MG * _mass_mg(number, heart_shape, models))
        if wanted[stratum]:
            wanted[stratum] -= 1
            chosen.append(number)
        number += 1
    return chosen


def _mass_mg(number: int, heart_shape: str, models: HeartModels | None = None) -> float:
    """A patient's true calcium, without drawing all else."""
    body = draw_body(stream(number, 1), None)
    # What decides whether there is calcium is drawn before the arteries are looked at.
    if stream(number, 3).random() >= PREVALENCE[body.sex]:
        return 0.0
    _, tree = draw_heart(number, body, heart_shape, models)
    return sum(plaque.mass_mg for plaque in draw_plaques(tree, body.sex, stream(number, 3)))


def _stratum(agatston: float) -> int:
    return 0 if agatston <= 0 else max(1, sum(agatston >= least for least, _ in STRATA[1:]))
