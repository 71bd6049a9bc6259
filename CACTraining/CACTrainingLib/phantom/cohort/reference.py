"""A digital patient's true Agatston score: that of a scan as the clinical rule was made for, without noise or motion.

Scores of real scans scatter around it with the scanner, the noise, the heart's phase and the slices' places; an
interval of a score says where it lies.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from CACScoringLib.scoring.lesions import ScoringRules, find_lesions
from CACScoringLib.scoring.scores import Score, score_sites

from ..anatomy.coronaries import ARTERIES
from ..anatomy.heart import posed_frame
from ..anatomy.patient import Patient, draw_patient
from ..anatomy.plaque import Plaque
from ..anatomy.points import PointCloud
from ..scanner.motion import ScanPose
from ..scanner.scanner import Scanner
from ..scanner.simulation import scan_grid, scan_patient
from .export import image_on
from .labels import annotate

REFERENCE_SCANNER = Scanner(
    kvp=120.0, slice_thickness_mm=3.0, slice_spacing_mm=1.5, field_of_view_mm=260.0, noise_hu=0.0, half_scan=True
)
"""A soft kernel at 120 kVp and slices of 3 mm; half of them overlap, so that two places of the slices are averaged."""

STILL = ScanPose(motion_scale=0.0)
_MARGIN_MM = 6.0


def patient_of(truth: dict) -> Patient | None:
    """The patient of a scan's `truth.json`; None when today's patient of that number is another, or it is none."""
    if "body" not in truth:
        return None  # calcium inserted into a real scan
    known = truth["lesions"]
    for sex in (None, truth["sex"]):  # asked for or not, it makes another body
        patient = draw_patient(truth["patient"], sex, 1.0 if known else 0.0)
        if patient.body.sex == truth["sex"] and _same(patient.plaques, known):
            return patient
    return None


def _same(plaques: Sequence[Plaque], known: Sequence[dict]) -> bool:
    return len(plaques) == len(known) and all(
        plaque.vessel == other["vessel"]
        and math.isclose(plaque.middle_mm, other["middle_mm"], rel_tol=1e-3, abs_tol=0.01)
        and math.isclose(plaque.mass_mg, other["mass_mg"], rel_tol=1e-3)
        for plaque, other in zip(plaques, known, strict=True)
    )


def reference_scores(patient: Patient, threads: int = 1) -> dict[str, Score]:
    """Scores of each of ARTERIES in a still, noise-free scan by REFERENCE_SCANNER, with mass in mg."""
    if not patient.plaques:
        return dict.fromkeys(ARTERIES, Score(mass_mg=0.0))
    # Lung vessels and the air's grain take most of the time, and lie elsewhere.
    nothing = PointCloud(np.zeros((0, 3)), np.zeros(0))
    patient = replace(patient, vessels=nothing, grain=nothing, distractors=())
    grid = scan_grid(patient, REFERENCE_SCANNER, STILL, _heights_mm(patient))
    scan = scan_patient(patient, REFERENCE_SCANNER, STILL, 1, grid, threads)
    per_mg = REFERENCE_SCANNER.calcium_hu_per_mg_cm3
    rules = replace(ScoringRules(), calibration_mg_per_mm3_hu=1 / (1000.0 * per_mg))
    arteries = annotate(scan, np.random.default_rng(0)).arteries
    found = find_lesions(image_on(grid, scan.hu), arteries, rules)
    scores = score_sites(found.lesions, grid.spacing_mm, rules)
    return {artery.key: score for artery, score in scores.items() if artery.key in ARTERIES}


def _heights_mm(patient: Patient) -> tuple[float, float]:
    """The heights that hold all coronary calcium, with a margin."""
    frame = posed_frame(patient.body, STILL)
    places = np.concatenate([frame.to_lps(patient.calcium(artery).positions_mm) for artery in ARTERIES])
    return float(places[:, 2].min()) - _MARGIN_MM, float(places[:, 2].max()) + _MARGIN_MM
