"""Single plaques of a digital scan, imaged again from its truth."""

import json

import numpy as np
import pytest
import SimpleITK as sitk
from digital_pairs import CALCIFIED, CLEAN

from CACTrainingLib.phantom.anatomy.plaque import Plaque
from CACTrainingLib.phantom.scanner.scanner import Grid
from CACTrainingLib.studies.plaques import SeenPlaque, seen_plaques, shared_masses, window_of


def truth_of(cohort, number=CALCIFIED, scan=1):
    folder = cohort / f"patient_{number}" / f"scan_{scan}"
    truth = json.loads((folder / "truth.json").read_text(encoding="utf-8"))
    image = sitk.ReadImage(folder / "calcium_map.nii.gz")
    calcium = sitk.GetArrayFromImage(image) * truth["calcium_hu_per_mg_cm3"]
    return truth, Grid(calcium.shape, image.GetSpacing(), image.GetOrigin()), calcium


@pytest.mark.parametrize("scan", [1, 2])
def test_all_plaques_together_are_the_scans_calcium(digital_pairs, scan):
    truth, grid, calcium = truth_of(digital_pairs, scan=scan)
    plaques = seen_plaques(truth, grid)
    together = np.zeros(grid.shape)
    for seen in plaques:
        together[seen.box] += seen.hu
    assert calcium.max() > 100
    assert np.abs(together - calcium).max() < 0.05 * calcium.max()
    assert [p.plaque.mass_mg for p in plaques] == pytest.approx([p["mass_mg"] for p in truth["lesions"]])


def test_what_all_calcium_adds_is_shared_out_without_loss(digital_pairs):
    truth, grid, calcium = truth_of(digital_pairs)
    plaques = seen_plaques(truth, grid)
    near = np.zeros(grid.shape, bool)
    for seen in plaques:
        near[seen.box] |= seen.near
    window = window_of(plaques)
    found = shared_masses(plaques, window, np.maximum(calcium, 0)[window])
    assert sum(found) == pytest.approx(np.maximum(calcium, 0)[near].sum(), rel=1e-4)


def test_speed_is_that_of_heart_and_breath(digital_pairs):
    truth, grid, _ = truth_of(digital_pairs)
    moving = seen_plaques(truth, grid)
    still = {**truth, "pose": {**truth["pose"], "motion_scale": 0.0, "breathing_mm": 0.0}}
    assert [seen.speed_mm_s for seen in seen_plaques(still, grid)] == [0.0] * len(moving)
    breath = {**truth, "pose": {**truth["pose"], "motion_scale": 0.0, "breathing_mm": 8.0, "breathing_s": 4.0}}
    fastest = 0.5 * 8.0 * 2 * np.pi / 4.0
    for seen in seen_plaques(breath, grid):
        assert 0 < seen.speed_mm_s <= fastest * 1.001
    of = {a: [s.speed_mm_s for s in moving if s.plaque.artery == a] for a in ("LAD", "RCA")}
    assert np.mean(of["RCA"]) > 1.3 * np.mean(of["LAD"])


def test_another_patient_is_noticed(digital_pairs):
    truth, grid, _ = truth_of(digital_pairs)
    assert seen_plaques({**truth, "patient": CALCIFIED + 1}, grid) is None
    first = {**truth["lesions"][0], "mass_mg": truth["lesions"][0]["mass_mg"] * 1.01}
    assert seen_plaques({**truth, "lesions": [first, *truth["lesions"][1:]]}, grid) is None
    assert seen_plaques(truth_of(digital_pairs, CLEAN)[0], grid) == []


def seen(first, hu):
    plaque = Plaque(1, "LAD", "LAD", 10.0, 3.0, 90.0, 0.0, 1.0, 480.0, 1.5)
    hu = np.array(hu, np.float32)
    return SeenPlaque(plaque, first, hu, hu > 0, 0.0)


def test_where_two_are_near_each_takes_its_share():
    one, other = seen((0, 0, 0), [[[100, 30, 0]]]), seen((0, 0, 1), [[[10, 50, 0]]])
    window = window_of([one, other])
    assert window == (slice(0, 1), slice(0, 1), slice(0, 4))
    counted = np.array([[[1.0, 8.0, 2.0, 4.0]]])
    # The voxel that both reach goes by 30 to 10; the last one is near none.
    assert shared_masses([one, other], window, counted) == pytest.approx([1 + 6, 2 + 2])
