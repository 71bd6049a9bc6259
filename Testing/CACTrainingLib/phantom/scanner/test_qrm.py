"""The QRM insert: published masses, and the published scores of a real scan of it."""

import numpy as np
import pytest
import SimpleITK as sitk

from CACScoringLib.scoring.lesions import ScoringRules, find_lesions
from CACScoringLib.scoring.scores import score_lesions
from CACTrainingLib.phantom.scanner.qrm import Insert, scan_of_inserts
from CACTrainingLib.phantom.scanner.scanner import Grid, Scanner

PUBLISHED_MG = {
    ("large", "HD"): 78.5,
    ("large", "MD"): 39.3,
    ("large", "LD"): 19.6,
    ("medium", "HD"): 17.0,
    ("medium", "MD"): 8.5,
    ("medium", "LD"): 4.2,
    ("small", "HD"): 0.6,
    ("small", "MD"): 0.3,
    ("small", "LD"): 0.2,
}


@pytest.mark.parametrize(("size", "density"), sorted(PUBLISHED_MG))
def test_inserts_weigh_what_is_published(size, density):
    mass = Insert(size, density, (0, 0, 0)).cloud().total
    assert mass == pytest.approx(PUBLISHED_MG[size, density], abs=0.06)


@pytest.mark.parametrize(
    ("size", "density", "agatston", "mass_mg"),
    [
        ("large", "HD", 402.94, 94.77),
        ("medium", "HD", 88.11, 20.90),
        ("large", "LD", 138.60, 25.37),
        ("small", "LD", 0.0, 0.0),
    ],
)
def test_scores_are_those_of_the_real_canon_scan(size, density, agatston, mass_mg):
    """Heights against the slices as measured in the real scan; twelve noise realisations."""
    height = {"HD": -0.19, "LD": -0.6}[density]
    scanner = Scanner(field_of_view_mm=512 * 0.488, noise_hu=22.1)
    grid = Grid((5, 64, 64), (0.488, 0.488, 3.0), (-15.6, -15.6, -6.0))
    rules = ScoringRules(calibration_mg_per_mm3_hu=0.000722048)
    scores = []
    for seed in range(12):
        hu = scan_of_inserts([Insert(size, density, (0.1, -0.2, height))], grid, scanner, 73.0, seed)
        image = sitk.GetImageFromArray(np.rint(hu))
        image.SetSpacing(grid.spacing_mm)
        near = np.hypot(*np.meshgrid(grid.x_mm(), grid.y_mm())) < {"large": 6.8, "medium": 4.4, "small": 2.9}[size]
        found = find_lesions(image, np.broadcast_to(near, hu.shape).astype(np.uint8), rules)
        score = score_lesions(found.lesions, grid.spacing_mm, rules)
        scores.append((score.agatston, score.mass_mg))
    mean = np.mean(scores, axis=0)
    if agatston == 0:
        assert np.mean([a > 0 for a, _ in scores]) < 0.5
        assert mean[0] < 1
    else:
        assert mean[0] == pytest.approx(agatston, rel=0.1)
        assert mean[1] == pytest.approx(mass_mg, rel=0.1)
