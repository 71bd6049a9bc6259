"""Fits of networks for vessel scores on volumes with one bright voxel per ten points, and the true calcium in them."""

import json
from collections import Counter
from dataclasses import replace
from unittest.mock import Mock

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from images import image_of
from made_experiments import Warned
from whole_scan_studies import write_table

from CACScoringLib.anatomy.heart_region import HeartRegion
from CACScoringLib.core.acquisition import Acquisition
from CACScoringLib.core.ct import scan_from_image
from CACScoringLib.core.errors import CTError
from CACScoringLib.models.cards import load_model
from CACScoringLib.networks.configs import VesselNetConfig
from CACScoringLib.networks.vessels import VesselNet
from CACScoringLib.whole_scan.trust import NO_TEST, trust_in
from CACScoringLib.whole_scan.vessels import vessel_input
from CACTrainingLib.data.scan_table import held_out, read_cts
from CACTrainingLib.training.runs import RunOptions
from CACTrainingLib.training.settings import LoopSettings
from CACTrainingLib.whole_scan.sources import SourceSettings
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
from CACTrainingLib.whole_scan.vessels.study import VesselStudy
from CACTrainingLib.whole_scan.vessels.task import (
    VesselTask,
    VesselTraining,
    VolumeAugmentation,
    Volumes,
)

CONFIG = VesselNetConfig(kind="voxel-sum", slices=2, size=16, field="heart", field_mm=20.0, width=2)
STILL = VolumeAugmentation(0, 0, 0.0, 0.0)
LOOP = LoopSettings(30, validate_every=1, average=0.0, half_precision=False)
SETTINGS = VesselSettings(CONFIG, VesselTraining(LOOP, 4, 0.03, augmentation=STILL))
NAMES = [f"scan {n}" for n in range(10)]
TARGETS = {name: np.array([0.0, 10.0 * n, 0.0, 0.0]) for n, name in enumerate(NAMES)}


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
    assert np.median([70, 80, 90] / predicted[7:].sum(1)) == pytest.approx(1, abs=1e-3)
    assert np.corrcoef(predicted[:, 1], np.arange(10))[0, 1] > 0.85
    assert predicted[:, [0, 2, 3]].max() < 5
    assert fit.validation == pytest.approx(
        np.mean(((predicted[7:] - [[0, 10.0 * n, 0, 0] for n in (7, 8, 9)]) / 60) ** 2)
    )


@pytest.mark.parametrize(("certainty", "expected"), [(0.6, 0.6), (0.3, 0.5)])
def test_least_certainty_leaves_few_scores_without_calcium(certainty, expected):
    totals, calcified = np.array([0.1] * 20 + [3.0, 9.0] + [100.0] * 20 + [2.0]), np.arange(43) % 43 == 42
    certainties = np.concatenate([np.full(20, 0.9), [0.8, certainty], np.full(20, 0.1), [0.95]])
    limit = least_certainty(totals, certainties, calcified, 0.5)
    assert ((certainties >= limit) & (totals >= 0.5) & ~calcified).sum() == 1
    assert limit == pytest.approx(expected)
    assert least_certainty(0 * totals, certainties, calcified, 0.5) == 0.5


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


@pytest.fixture
def uniform_files(tmp_path):
    """Seven scans; scan n is (n + 1) / 8 everywhere."""
    for n in range(7):
        np.savez(tmp_path / f"{n}.npz", input=np.full((2, 16, 16), (n + 1) / 8, np.float16))
    return {f"scan {n}": tmp_path / f"{n}.npz" for n in range(7)}


def task_of(files, output="linear") -> VesselTask:
    network = VesselNet(replace(CONFIG, output=output))
    network.set_largest(100)
    settings = VesselTraining(LoopSettings(10, validate_every=2), batch_size=3, augmentation=STILL)
    names = list(files)
    scores = {name: np.full(4, 10.0 * n) for n, name in enumerate(names)}
    return VesselTask(settings, network, Volumes(files, names, CONFIG), Volumes(files, names[:2], CONFIG), scores)


@pytest.mark.parametrize("output", ["linear", "log"])
def test_each_scan_once_an_epoch_with_its_scores(uniform_files, output):
    task = task_of(uniform_files, output)
    generator = np.random.default_rng(0)
    epochs = []
    for _ in range(2):
        counts = Counter()
        for size in (3, 3, 2):  # the last is filled up: a single scan has no variance
            batch = task.batch(generator)
            task.batch_number += 1
            assert batch["x"].shape == (size, 2, 16, 16)
            for x, y in zip(batch["x"], batch["y"], strict=True):
                n = round(float(x.max()) * 8) - 1
                expected = 0.1 * n if output == "linear" else np.log1p(10 * n) / np.log1p(100)
                np.testing.assert_allclose(y, expected, rtol=1e-5)
                counts[n] += 1
        epochs.append(list(counts))
        assert set(counts) == set(range(7))
        assert sum(counts.values()) == 8
    assert epochs[0] != epochs[1], "in another order"
    assert task.loop.validate_every == 6, "two epochs"


@pytest.fixture
def calcified(tmp_path):
    """Six scans with calcium of one artery at one place each."""
    places = {}
    for n in range(6):
        x = np.full((2, 16, 16), 0.14, np.float32)
        place = n % 2, 5 + n, 8
        x[place] = 0.9
        at = np.ravel_multi_index(place, x.shape)
        calcium = {"calcium": np.array([0.7], np.float16), "calcium_artery": np.array([n % 4], np.uint8)}
        np.savez(tmp_path / f"{n}.npz", input=x.astype(np.float16), calcium_at=np.array([at], np.int32), **calcium)
        places[f"scan {n}"] = place
    return {f"scan {n}": tmp_path / f"{n}.npz" for n in range(6)}, places


def test_calcium_is_shown_where_it_was_moved_to(calcified):
    files, _ = calcified
    names = list(files)
    assert not Volumes(files, names, CONFIG).calcium("unknown", (0, 0, 0), exists=False)[0].any()
    network = VesselNet(CONFIG)
    network.set_largest(100)
    settings = VesselTraining(LoopSettings(10), 6, augmentation=VolumeAugmentation(3, 1, 0.0, 0.0), supervised=True)
    scores = dict.fromkeys(names, np.full(4, 10.0))
    task = VesselTask(settings, network, Volumes(files, names, CONFIG), Volumes(files, names, CONFIG), scores)
    generator = np.random.default_rng(0)
    n_lost = 0
    for _ in range(5):
        batch = task.batch(generator)
        assert batch["amount"].dtype == torch.float32
        torch.testing.assert_close(batch["amount"] > 0.5, batch["x"] > 0.5)
        is_calcified = batch["amount"] > 0
        n_lost += 6 - int(is_calcified.sum())
        assert set(batch["artery"][is_calcified].tolist()) <= set(range(4))
    assert 0 < n_lost < 20, "some move out, with their calcium"
    step = task.step(batch, type("Alone", (), {"backward": lambda _, loss: loss.backward()})(), 0)
    assert torch.isfinite(step["loss"])


TRAINING = VesselTraining(LoopSettings(4, half_precision=False, validate_every=1), 8)
COUNT = 30
SCORES = tuple(10.0 * (n % 3) * (n % 10) for n in range(COUNT))
"""Agatston scores of the patients' bright voxels; every third patient has none."""


@pytest.fixture
def prepared(monkeypatch):
    """Prepare scans without reading them, one of them with a failure."""
    names = []

    def prepare(scans, folder, config, workers, progress):
        folder.mkdir(parents=True, exist_ok=True)
        names.extend(scan.name for scan in scans)
        files = {}
        for scan in scans:
            x = np.full(512, 0.14, np.float16)
            x[: int(scan.total // 10)] = 0.8
            files[scan.name] = folder / f"{scan.name}.npz"
            np.savez(files[scan.name], input=x.reshape(2, 16, 16), heart_ml=np.array(600.0))
        failed = {"p7": "it is no CT"} if "p7" in files else {}
        return {name: file for name, file in files.items() if name not in failed}, failed

    monkeypatch.setattr(vessel_fitting, "prepare_vessels", prepare)
    return names


def test_model_and_its_card(tmp_path, prepared, monkeypatch):
    table = write_table(tmp_path / "scans" / "table.csv", COUNT, digital=False, totals=SCORES)
    controls = write_table(tmp_path / "controls" / "table.csv", COUNT, 100, totals=(0.0,))
    progress, fit = Warned(), Mock(wraps=vessel_fitting.fit_vessels)
    monkeypatch.setattr(vessel_fitting, "fit_vessels", fit)
    options = RunOptions((table,), tmp_path / "model", device="cpu")
    sources = SourceSettings(None, controls, tmp_path / "cache")
    path = VesselStudy.train(options, vessel_fitting.VesselSettings(CONFIG, TRAINING, sources), progress)
    assert [warning.message for warning in progress.warnings] == ["p7 was left out: it is no CT"]
    assert len(prepared) == 2 * COUNT
    model = load_model(path, "cpu")
    card = model.card
    scans = read_cts(table)
    test_names = set(held_out(scans)) - {"p7"}
    training_names = {scan.name for scan in scans} - test_names - {"p7"}
    training, validation = map(set, fit.call_args.args[2:4])
    assert training | validation == training_names
    assert not training & validation
    largest = max(scan.total for scan in scans if scan.name in training_names)
    assert 0 < card.calibration["agatston_scale"] == float(model.network.largest) <= largest
    assert f"test {len(test_names)} scans" in card.training.data
    assert "user's table" in card.training.data
    test = card.validation["test"]
    assert test["patients"] == len(test_names)
    assert test["non_coronary_only"] == {"patients": COUNT, "called_coronary": 0}
    assert test["mse_normalised"] >= 0
    for name in ("rank_correlation", "rank_correlation_age_and_heart_size", "kappa_categories"):
        assert set(test[name]) == {"estimate", "low", "high"}
    assert test["rank_correlation"]["estimate"] > 0.9, "brightness is all there is to learn"
    assert trust_in("vessels", card.validation) != NO_TEST
    json.dumps(test, allow_nan=False)


def test_begun_from_a_model_with_given_validation_patients(tmp_path, prepared, monkeypatch):
    uses = ("", "validation", "", "", "test")
    table = write_table(tmp_path / "scans" / "table.csv", COUNT, digital=False, totals=SCORES, uses=uses)
    fit = Mock(wraps=vessel_fitting.fit_vessels)
    monkeypatch.setattr(vessel_fitting, "fit_vessels", fit)

    def trained(name, start, share):
        settings = vessel_fitting.VesselSettings(CONFIG, replace(TRAINING, learning_rate=0.1, start_share=share))
        options = RunOptions((table,), tmp_path / name, start=start, device="cpu")
        return load_model(VesselStudy.train(options, settings, Warned()), "cpu")

    with pytest.raises(CTError, match="--start"):
        trained("none", None, 0.5)
    first = trained("first", None, 0.0)
    start = tmp_path / "first.json"
    continued, mixed = trained("continued", start, 0.0), trained("mixed", start, 0.75)
    assert continued.card.training.settings["start"] == first.card.sha256
    training, validation = (set(names) for names in fit.call_args.args[2:4])
    assert validation == {f"p{n}" for n in range(1, COUNT, 5)}
    assert training == {f"p{n}" for n in range(COUNT) if uses[n % 5] == ""} - {"p7"}
    initial, final, mean = (model.network.body.last.weight for model in (first, continued, mixed))
    assert (final - initial).abs().max() > 0.01
    torch.testing.assert_close(mean, 0.75 * initial + 0.25 * final, atol=1e-3, rtol=0)
