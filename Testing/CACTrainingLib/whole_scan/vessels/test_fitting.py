"""Fits of networks for vessel scores: on volumes in which calcium is a bright voxel for each point of the score."""

from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from CACScoringLib.anatomy.heart_region import HeartRegion
from CACScoringLib.core.ct import Acquisition, scan_from_image
from CACScoringLib.networks.vessels import KINDS, VesselNetConfig, preset
from CACScoringLib.whole_scan.vessel_input import vessel_input
from CACTrainingLib.data.datasets import DataError
from CACTrainingLib.data.scan_table import TableScan
from CACTrainingLib.training.loop import LoopSettings
from CACTrainingLib.training.run_folder import TrainingError
from CACTrainingLib.whole_scan.prepared import Prepared
from CACTrainingLib.whole_scan.vessels import fitting as vessel_fitting
from CACTrainingLib.whole_scan.vessels.fitting import (
    FitSettings,
    fit_settings,
    fit_vessels,
    heart_ml,
    predictions_of,
    prepare_vessels,
    targets_of,
    vessel_work,
)
from CACTrainingLib.whole_scan.vessels.task import VesselTraining, VolumeAugmentation

CONFIG = VesselNetConfig(kind="voxel-sum", slices=2, size=16, field="heart", field_mm=20.0, width=2)
STILL = VolumeAugmentation(0, 0, 0.0, 0.0)
LOOP = LoopSettings(30, validate_every=1, average=0.0, half_precision=False)
SETTINGS = FitSettings(CONFIG, VesselTraining(LOOP, 4, 0.03, augmentation=STILL), "cpu")
NAMES = [f"scan {n}" for n in range(10)]


@pytest.fixture
def files(tmp_path):
    """Scan n has n bright voxels; all calcium is the LAD's."""
    generator = np.random.default_rng(0)
    for n in range(10):
        x = np.full(512, 0.14)
        x[generator.choice(512, n, replace=False)] = 0.8
        np.savez(tmp_path / f"{n}.npz", input=x.reshape(2, 16, 16).astype(np.float16), heart_ml=np.array(500.0 + n))
    return {name: tmp_path / f"{n}.npz" for n, name in enumerate(NAMES)}


TARGETS = {name: np.array([0.0, 10.0 * n, 0.0, 0.0]) for n, name in enumerate(NAMES)}


def test_learns_and_tells_how(files, tmp_path):
    fit = fit_vessels(files, TARGETS, NAMES[1:9], [NAMES[0], NAMES[9]], SETTINGS, tmp_path / "fit")
    assert fit.largest == float(fit.network.largest) == 80, "of those learned from alone"
    found = predictions_of(fit.network, files, NAMES)
    assert found.shape == (10, 4)
    assert found.min() >= 0
    assert np.corrcoef(found[:, 1], np.arange(10))[0, 1] > 0.9
    wanted = np.stack([TARGETS[name] for name in NAMES])
    assert fit.validation == pytest.approx(np.mean(((found - wanted)[[0, 9]] / 80) ** 2))
    assert fit.training == pytest.approx(np.mean(((found - wanted)[1:9] / 80) ** 2))
    assert 0 < fit.best_step <= fit.steps == 30


def test_shown_amounts_become_scores(tmp_path):
    """By a factor that is chosen on patients who were not learned from: here ten points for a voxel of 700 HU."""
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
    found = predictions_of(fit.network, files, NAMES)
    slope = (found[7:, 1] * [70, 80, 90]).sum() / (found[7:, 1] ** 2).sum()
    assert slope == pytest.approx(1, abs=1e-3)
    assert np.corrcoef(found[:, 1], np.arange(10))[0, 1] > 0.85
    assert found[:, [0, 2, 3]].max() < 5
    assert fit.validation == pytest.approx(np.mean(((found[7:] - [[0, 10.0 * n, 0, 0] for n in (7, 8, 9)]) / 60) ** 2))


def test_goes_on_as_if_nothing_had_happened(files, tmp_path):
    settings = replace(SETTINGS, training=replace(SETTINGS.training, loop=replace(LOOP, steps=8)))
    one = fit_vessels(files, TARGETS, NAMES[:8], NAMES[8:], settings, tmp_path / "one")
    stop = vessel_fitting.VesselTask.validate
    calls = []

    def ended(task, network):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return stop(task, network)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vessel_fitting.VesselTask, "validate", ended)
        with pytest.raises(KeyboardInterrupt):
            fit_vessels(files, TARGETS, NAMES[:8], NAMES[8:], settings, tmp_path / "two")
    two = fit_vessels(files, TARGETS, NAMES[:8], NAMES[8:], settings, tmp_path / "two")
    assert two.steps == one.steps == 8
    for name, tensor in one.network.state_dict().items():
        assert torch.equal(two.network.state_dict()[name], tensor), name
    with pytest.raises(TrainingError, match="other settings"):
        fit_vessels(files, TARGETS, NAMES[1:8], NAMES[8:], settings, tmp_path / "two")


@pytest.mark.parametrize(
    ("training", "validation", "targets", "message"),
    [
        (NAMES[:1], NAMES[4:], TARGETS, "too few"),
        (NAMES[:4], [], TARGETS, "too few"),
        (NAMES[:4], NAMES[4:], dict.fromkeys(NAMES, np.zeros(4)), "No scan to train on has any calcium"),
    ],
)
def test_what_cannot_be_learned(files, tmp_path, training, validation, targets, message):
    with pytest.raises(DataError, match=message):
        fit_vessels(files, targets, training, validation, SETTINGS, tmp_path / "fit")


def test_what_is_kept_of_a_scan():
    hu = np.full((20, 24, 24), -800, np.int16)
    hu[5:15, 6:18, 6:18] = 40
    hu[8, 9, 9] = 700
    image = sitk.GetImageFromArray(hu)
    image.SetSpacing((1.0, 1.0, 2.0))
    scan = scan_from_image(image, Acquisition("made up"))
    mask = sitk.Cast(scan.image > 0, sitk.sitkUInt8)
    kept = vessel_work(scan, HeartRegion(mask, None, "given"), CONFIG)
    assert kept["heart_ml"] == pytest.approx(10 * 12 * 12 * 2 / 1000)
    assert kept["input"].dtype == np.float16
    np.testing.assert_allclose(kept["input"], vessel_input(scan.image, mask, CONFIG), atol=1e-3)


def test_kinds_that_see_alike_share_what_is_prepared(monkeypatch, tmp_path):
    asked = []

    def prepare(scans, folder, kind, work, key, workers, progress):
        asked.append((key, work.keywords["config"].kind))
        return Prepared({}, {})

    monkeypatch.setattr(vessel_fitting, "prepare", prepare)
    for kind in KINDS:
        prepare_vessels([], tmp_path, preset("compact", kind))
    prepare_vessels([], tmp_path, replace(preset("compact", "cnn"), field_mm=150.0))
    keys = [key for key, _ in asked]
    assert len(set(keys[:4])) == 1
    assert keys[4] != keys[0]
    assert [kind for _, kind in asked[:4]] == list(KINDS)


def test_scores_by_name(tmp_path):
    scan = TableScan("a", "p", {"ct": tmp_path}, {"RCA": 4.0, "LM": 1.0, "LCX": 3.0, "LAD": 2.0})
    np.testing.assert_array_equal(targets_of([scan])["a"], [1, 2, 3, 4])


def test_settings_of_each_kind(files):
    for name in ("compact", "paper"):
        for kind in KINDS:
            assert fit_settings(name, kind).config == preset(name, kind)
    assert fit_settings("paper", "vit").training.batch_size == 32, "as published"
    assert fit_settings("compact", "cnn", "linear").config.output == "linear"
    assert heart_ml(files["scan 3"]) == 503
