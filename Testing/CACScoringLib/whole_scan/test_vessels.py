"""Whole-scan estimate of vessel scores by small random models, and its input of synthetic objects."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from images import image_of

from CACScoringLib.anatomy.heart_region import HeartRegion
from CACScoringLib.core.acquisition import Acquisition
from CACScoringLib.core.ct import CTScan, scan_from_image
from CACScoringLib.models.cards import LoadedModel, Training, describe, load_model
from CACScoringLib.models.store import save_model
from CACScoringLib.networks.configs import TERRITORY_STEP, VesselNetConfig
from CACScoringLib.networks.vessels import VesselNet
from CACScoringLib.whole_scan.estimates import describe_estimate
from CACScoringLib.whole_scan.trust import NO_TEST
from CACScoringLib.whole_scan.vessels import (
    CERTAINTY,
    FACTOR,
    SCALE,
    normalised_scores,
    to_agatston,
    vessel_estimate,
    vessel_input,
)

CONFIG = VesselNetConfig(
    slices=16, size=32, field="heart", field_mm=48.0, width=4, reduction=4, patch=16, feed_forward=16, output="log"
)


def make_model(
    folder: Path, kind: str, scale: float | None = 200.0, least_certainty: float = 0.0, **changes: object
) -> tuple[VesselNet, LoadedModel]:
    """Return a random network, and its model after saving and loading."""
    torch.manual_seed(0)
    network = VesselNet(replace(CONFIG, kind=kind, **changes)).eval()
    network.set_largest(scale or 1.0)
    calibration = {} if scale is None else {SCALE: scale, CERTAINTY: least_certainty}
    training = Training("nothing", 0, {}, "none")
    card = describe(f"tiny-{kind}", network.config, "custom", training, {}, calibration, "none", "a test")
    return network, load_model(save_model(network, card, folder), "cpu")


@pytest.fixture
def scanned() -> tuple[CTScan, HeartRegion]:
    """Scan with two deposits of 3×3×3 mm in a ball of tissue in lung, and its heart."""
    hu = np.full((60, 64, 64), -800, np.int16)
    k, j, i = np.ogrid[:60, :64, :64]
    heart = (k - 30) ** 2 + (j - 32) ** 2 + (i - 30) ** 2 < 18**2
    hu[heart] = 40
    hu[30:33, 24:27, 24:27] = 700
    hu[24:27, 40:43, 36:39] = 500
    image = sitk.GetImageFromArray(hu)
    image.SetOrigin((-30, 20, 400))
    return scan_from_image(image, Acquisition("made up")), HeartRegion(heart, None, "given")


@pytest.mark.parametrize(
    "kind", ["voxel-sum", *(pytest.param(k, marks=pytest.mark.long) for k in ("cnn", "se-cnn", "vit"))]
)
def test_scores_are_those_of_the_network(kind, scanned, tmp_path):
    scan, region = scanned
    network, model = make_model(tmp_path, kind)
    estimate, warnings = vessel_estimate(scan, region, model)
    x = vessel_input(scan, region.mask, network.config)
    with torch.no_grad():
        expected = to_agatston(network(torch.from_numpy(x)[None])[0].numpy(), 200.0, "log")
    record = estimate.record
    assert list(record.agatston) == ["LM", "LAD", "LCX", "RCA"]
    np.testing.assert_allclose(list(record.agatston.values()), expected, rtol=0.02, atol=0.05)  # 16-bit weights
    assert record.total == pytest.approx(sum(record.agatston.values()))
    assert estimate.saliency is None
    assert (record.slice_weights is None) == (kind != "se-cnn")
    assert warnings == ()
    assert (estimate.network, record.model.sha256, record.trust) == ("vessels", model.card.sha256, NO_TEST)


def test_voxel_sum_shows_the_place_of_calcium(scanned, tmp_path):
    scan, region = scanned
    _, model = make_model(tmp_path, "voxel-sum")
    estimate, _ = vessel_estimate(scan, region, model, saliency=True)
    saliency = sitk.GetArrayFromImage(estimate.saliency)
    assert estimate.saliency.GetOrigin() == scan.image.GetOrigin()
    assert (saliency.shape, saliency.max()) == (scan.hu.shape, 1)
    assert scan.hu[np.unravel_index(saliency.argmax(), saliency.shape)] == 700
    assert saliency[25, 41, 37] > 0.2, "the fainter deposit"
    elsewhere = np.ones_like(saliency, bool)
    elsewhere[27:36, 21:30, 21:30] = elsewhere[21:30, 37:46, 33:42] = False
    assert saliency[elsewhere].max() < 0.01


def test_doubtful_calcium_is_undetermined(scanned, tmp_path):
    scan, region = scanned
    network, model = make_model(tmp_path, "voxel-sum", least_certainty=0.5)
    assert network.certainty(torch.from_numpy(vessel_input(scan, region.mask, network.config))[None]) < 0.5
    estimate, _ = vessel_estimate(scan, region, model)
    record = estimate.record
    assert (record.undetermined, record.agatston, record.total, record.calcium) == (True, None, None, None)
    assert estimate.prediction is None
    assert describe_estimate(estimate).startswith("undetermined")


def test_what_is_undetermined_travels_with_the_score(scanned, tmp_path):
    scan, region = scanned
    labels = np.where(region.mask, 4, 0).astype(np.uint8)  # all is territory of the RCA
    region_given = SimpleNamespace(mask=region.mask, territory_labels=labels)
    _, model = make_model(tmp_path, "voxel-sum", territories=True, least_probability=0.9)
    card = replace(model.card, calibration={**model.card.calibration, FACTOR: 0.5})
    full, half = (vessel_estimate(scan, region_given, m)[0] for m in (model, replace(model, card=card)))
    assert (full.record.total, full.record.undetermined) == (0, False)
    scores = full.record.undetermined_agatston
    assert scores["RCA"] > 1
    assert [scores[artery] for artery in ("LM", "LAD", "LCX")] == [0, 0, 0]
    assert half.record.undetermined_agatston["RCA"] == pytest.approx(scores["RCA"] / 2)
    assert "undetermined, most in the RCA" in describe_estimate(full)


def test_the_factor_of_the_card_scales_every_score(scanned, tmp_path):
    scan, region = scanned
    _, model = make_model(tmp_path, "voxel-sum")
    card = replace(model.card, calibration={**model.card.calibration, FACTOR: 0.5})
    before, after = (vessel_estimate(scan, region, m)[0].record for m in (model, replace(model, card=card)))
    assert after.agatston == pytest.approx({artery: score / 2 for artery, score in before.agatston.items()})
    assert after.total == pytest.approx(before.total / 2)
    assert before.total > 1


def test_warnings(scanned, tmp_path):
    scan, region = scanned
    _, model = make_model(tmp_path, "voxel-sum", field_mm=24.0, size=16)
    _, warnings = vessel_estimate(scan, region, model)
    assert [warning.code for warning in warnings] == ["vessels-heart-cut"]
    inside = np.zeros(scan.hu.shape, bool)
    inside[6:54, 20:44, 18:42] = True
    share = 1 - (region.mask & inside).sum() / region.mask.sum()
    percent = int(warnings[0].message.partition("%")[0])
    assert percent == pytest.approx(100 * share, abs=2.5), "a row more or less at the edge"
    _, model = make_model(tmp_path / "other", "voxel-sum", scale=0.001)
    assert [warning.code for warning in vessel_estimate(scan, region, model)[1]] == ["vessels-beyond-training"]


HEART = VesselNetConfig(slices=16, size=32, field="heart", field_mm=48.0, around_mm=4.0)


def scan_of(hu: np.ndarray, spacing: tuple[float, float, float]) -> CTScan:
    return CTScan(image_of(hu, spacing, (-20.0, 7.0, -100.0)), Acquisition("made up"))


def chest(spacing: tuple[float, float, float], lesion_hu: float = 500.0) -> tuple[CTScan, np.ndarray]:
    """Return a ball of tissue, radius 15 mm, in lung, with an off-centre box of calcium of 6×6×6 mm, and its mask."""
    sides = [round(60 / s) for s in spacing]
    x, y, z = np.meshgrid(*((np.arange(n) + 0.5) * s - 30 for n, s in zip(sides, spacing, strict=True)), indexing="ij")
    heart = (x**2 + y**2 + z**2 < 15**2).T
    lesion = ((abs(x - 4) < 3) & (abs(y + 5) < 3) & (abs(z) < 3)).T
    hu = np.where(lesion, lesion_hu, np.where(heart, 40, -800)).astype(np.float32)
    return scan_of(hu, spacing), heart


@pytest.mark.parametrize("spacing", [(0.5, 0.5, 3.0), (1.0, 0.6, 1.5), (1.2, 1.2, 0.6)])
def test_calcium_does_not_vanish(spacing):
    """The amount of calcium does not depend on the scan's voxels."""
    scan, heart = chest(spacing)
    bright = vessel_input(scan, heart, HEART)
    plain = vessel_input(*chest(spacing, lesion_hu=40.0), HEART)
    lesion_mm3 = np.count_nonzero(scan.hu == 500) * np.prod(spacing)
    assert lesion_mm3 == pytest.approx(6**3, rel=0.3)
    assert (bright - plain).sum() * 1000 * 1.5 * 1.5 * 3 == pytest.approx(460 * lesion_mm3, rel=0.01)


def test_window_and_surroundings():
    scan, heart = chest((0.5, 0.5, 1.5), lesion_hu=2000.0)
    x = vessel_input(scan, heart, HEART)
    assert (x.dtype, x.shape, x.max(), x[8, 16, 14]) == (np.float32, (16, 32, 32), 1, pytest.approx(0.14))
    assert x[8, 16, 3] == 0, "lung"
    bone = scan.hu.copy()
    bone[:, :, :20] = 1000  # as near as 20 mm to the middle, 5 mm to the heart
    with_bone = scan_of(bone, (0.5, 0.5, 1.5))
    x = vessel_input(with_bone, heart, HEART)
    assert not x[:, :, :3].any()
    wide = vessel_input(with_bone, heart, replace(HEART, around_mm=12.0))
    assert wide[8, 16, 1] == 1


def test_territories_follow_the_slices():
    scan, heart = chest((0.5, 0.5, 1.5))
    labels = heart * np.uint8(4)
    labels[:, :60] *= 2
    x = vessel_input(scan, heart, replace(HEART, kind="voxel-sum", territories=True), labels)
    assert x.shape == (32, 32, 32)
    np.testing.assert_array_equal(x[:16], vessel_input(scan, heart, HEART))
    np.testing.assert_array_equal(x[24, :, 16] / TERRITORY_STEP, [0] * 6 + [8] * 10 + [4] * 10 + [0] * 6)


@pytest.mark.parametrize("output", ["linear", "log"])
def test_scores_and_back(output):
    scores = np.array([[0.0, 1.0, 12.5, 800.0]])
    shares = normalised_scores(scores, 800.0, output)
    assert (shares[0, 0], shares[0, 3]) == (0, 1)
    np.testing.assert_allclose(to_agatston(shares, 800.0, output), scores, atol=1e-9)
    assert to_agatston(np.array([-0.2]), 800.0, output) == 0
    assert to_agatston(np.array([40.0]), 800.0, output) <= 40 * 800
