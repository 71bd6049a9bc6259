"""Fits of networks for vessel scores on volumes with one bright voxel per ten points, and the true calcium in them."""

import json
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from images import image_of
from interruption import interrupted_at

from CACScoringLib.anatomy.heart_region import HeartRegion
from CACScoringLib.core.acquisition import Acquisition
from CACScoringLib.core.ct import scan_from_image
from CACScoringLib.core.errors import CTError
from CACScoringLib.networks.configs import VesselNetConfig
from CACScoringLib.whole_scan.vessels import vessel_input
from CACTrainingLib.training.loop import LoopSettings
from CACTrainingLib.whole_scan.vessels import fitting as vessel_fitting
from CACTrainingLib.whole_scan.vessels.fitting import (
    MAP,
    REGIONS,
    TRUTH,
    VesselSettings,
    fit_vessels,
    least_certainty,
    predictions_of,
    true_calcium,
)
from CACTrainingLib.whole_scan.vessels.task import VesselTraining, VolumeAugmentation

CONFIG = VesselNetConfig(kind="voxel-sum", slices=2, size=16, field="heart", field_mm=20.0, width=2)
STILL = VolumeAugmentation(0, 0, 0.0, 0.0)
LOOP = LoopSettings(30, validate_every=1, average=0.0, half_precision=False)
SETTINGS = VesselSettings(CONFIG, VesselTraining(LOOP, 4, 0.03, augmentation=STILL))
NAMES = [f"scan {n}" for n in range(10)]


@pytest.fixture
def files(tmp_path):
    """Scans with n bright voxels in scan n; all calcium is the LAD's."""
    generator = np.random.default_rng(0)
    for n in range(10):
        x = np.full(512, 0.14)
        x[generator.choice(512, n, replace=False)] = 0.8
        np.savez(tmp_path / f"{n}.npz", input=x.reshape(2, 16, 16).astype(np.float16), heart_ml=np.array(500.0 + n))
    return {name: tmp_path / f"{n}.npz" for n, name in enumerate(NAMES)}


TARGETS = {name: np.array([0.0, 10.0 * n, 0.0, 0.0]) for n, name in enumerate(NAMES)}


@pytest.mark.long
def test_learns_and_tells_how(files, tmp_path):
    fit = fit_vessels(files, TARGETS, NAMES[1:9], [NAMES[0], NAMES[9]], SETTINGS, tmp_path / "fit")
    assert fit.largest == float(fit.network.largest) == 80, "of those learned from alone"
    predicted = predictions_of(fit.network, files, NAMES)
    assert predicted.shape == (10, 4)
    assert predicted.min() >= 0
    assert np.corrcoef(predicted[:, 1], np.arange(10))[0, 1] > 0.9
    true = np.stack([TARGETS[name] for name in NAMES])
    assert fit.validation == pytest.approx(np.mean(((predicted - true)[[0, 9]] / 80) ** 2))
    assert fit.training == pytest.approx(np.mean(((predicted - true)[1:9] / 80) ** 2))
    assert 0 < fit.outcome.best_step <= fit.outcome.steps == 30


@pytest.mark.long
def test_shown_amounts_become_scores(tmp_path):
    """Validation patients fit the factor: here ten points for a voxel of 700 HU."""
    generator = np.random.default_rng(0)
    files = {}
    for n, name in enumerate(NAMES):
        at = generator.choice(512, n, replace=False)
        x = np.full(512, 0.14)
        x[at] = 0.84
        calcium = {"calcium_at": at.astype(np.int32), "calcium": np.full(n, 0.7, np.float16)}
        calcium["calcium_artery"] = np.ones(n, np.uint8)
        files[name] = tmp_path / f"{n}.npz"
        np.savez(files[name], input=x.reshape(2, 16, 16).astype(np.float16), **calcium)
    training = replace(SETTINGS.training, supervised=True, learning_rate=0.01, loop=replace(LOOP, steps=60))
    settings = replace(SETTINGS, training=training)
    fit = fit_vessels(files, TARGETS, NAMES[:7], NAMES[7:], settings, tmp_path / "fit")
    predicted = predictions_of(fit.network, files, NAMES)
    slope = (predicted[7:, 1] * [70, 80, 90]).sum() / (predicted[7:, 1] ** 2).sum()
    assert slope == pytest.approx(1, abs=1e-3)
    assert np.corrcoef(predicted[:, 1], np.arange(10))[0, 1] > 0.85
    assert predicted[:, [0, 2, 3]].max() < 5
    assert fit.validation == pytest.approx(
        np.mean(((predicted[7:] - [[0, 10.0 * n, 0, 0] for n in (7, 8, 9)]) / 60) ** 2)
    )


@pytest.mark.long
def test_goes_on_as_if_nothing_had_happened(files, tmp_path):
    settings = replace(SETTINGS, training=replace(SETTINGS.training, loop=replace(LOOP, steps=8)))
    complete = fit_vessels(files, TARGETS, NAMES[:8], NAMES[8:], settings, tmp_path / "one")
    with interrupted_at(vessel_fitting.VesselTask, "validate", 3), pytest.raises(KeyboardInterrupt):
        fit_vessels(files, TARGETS, NAMES[:8], NAMES[8:], settings, tmp_path / "two")
    resumed = fit_vessels(files, TARGETS, NAMES[:8], NAMES[8:], settings, tmp_path / "two")
    assert resumed.outcome.steps == complete.outcome.steps == 8
    for name, tensor in complete.network.state_dict().items():
        assert torch.equal(resumed.network.state_dict()[name], tensor), name
    with pytest.raises(CTError, match="other settings"):
        fit_vessels(files, TARGETS, NAMES[1:8], NAMES[8:], settings, tmp_path / "two")


def test_least_certainty_leaves_few_scores_without_calcium():
    totals, calcified = np.array([0.1] * 20 + [3.0, 9.0] + [100.0] * 20 + [2.0]), np.arange(43) % 43 == 42
    certainties = np.concatenate([np.full(20, 0.9), [0.8, 0.6], np.full(20, 0.5), [0.95]])
    limit = least_certainty(totals, certainties, calcified)
    assert ((certainties >= limit) & (totals >= 0.5) & ~calcified).sum() == 1
    assert limit == pytest.approx(0.6)
    assert least_certainty(totals * calcified, certainties, calcified) == 0


TRUTH_CONFIG = VesselNetConfig(kind="voxel-sum", slices=10, size=32, field="heart", field_mm=32.0, slice_mm=2.0)
SPACING = (1.0, 1.0, 2.0)
PER_MG = 1.5


def write(folder, calcium, regions, mass=None):
    """Write a heart of 40 HU with calcium, and its truth. Returns the scan and the heart."""
    hu = np.full(calcium.shape, -800, np.float32)
    hu[5:15, 14:26, 14:26] = 40
    heart = hu > 0
    hu[:, 0, 0] = 1500 - np.arange(len(hu))  # or it would look cut off, with lost slices
    arrays = {"ct.nii.gz": (hu + PER_MG * calcium).astype(np.int16), MAP: calcium, REGIONS: regions}
    for name, array in arrays.items():
        sitk.WriteImage(image_of(array, SPACING), folder / name)
    truth = {"patient": "1", "slices": [], "calcium_hu_per_mg_cm3": PER_MG, "mass_mg_by_artery": mass or {}}
    (folder / TRUTH).write_text(json.dumps(truth), encoding="utf-8")
    path, region = folder / "ct.nii.gz", HeartRegion(heart, None, "given")
    return scan_from_image(sitk.ReadImage(path), Acquisition("made up"), path), region


def test_calcium_as_the_network_sees_it(tmp_path):
    calcium, regions = np.zeros((20, 40, 40), np.float32), np.zeros((20, 40, 40), np.uint8)
    calcium[8, 16:18, 16:18], regions[8, 16, 16] = 400, 2
    calcium[12, 24, 20], regions[12, 24, 20] = 200, 4
    scan, region = write(tmp_path, calcium, regions)
    truth = true_calcium(scan, region, TRUTH_CONFIG)
    x = vessel_input(scan, region.mask, TRUTH_CONFIG)
    without = scan.image - sitk.Cast(sitk.ReadImage(tmp_path / MAP) * PER_MG, sitk.sitkInt16)
    plain = vessel_input(replace(scan, image=without), region.mask, TRUTH_CONFIG)
    amount, artery = np.zeros(x.shape), np.zeros(x.shape)
    amount.ravel()[truth["calcium_at"]] = truth["calcium"]
    artery.ravel()[truth["calcium_at"]] = truth["calcium_artery"]
    np.testing.assert_allclose(amount, x - plain, atol=5e-3)  # less than MIN_HU is not stored
    is_bright = amount > 0.1
    assert sorted(artery[is_bright].tolist()) == [1, 1, 1, 1, 3], "also where the region does not reach"
