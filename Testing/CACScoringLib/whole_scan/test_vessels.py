"""Whole-scan estimate of vessel scores by small random models, saved and loaded."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from CACScoringLib.anatomy.heart_region import HeartRegion
from CACScoringLib.core.acquisition import Acquisition
from CACScoringLib.core.ct import CTScan, scan_from_image
from CACScoringLib.models.cards import LoadedModel, Training, describe, load_model
from CACScoringLib.models.store import save_model
from CACScoringLib.networks.configs import VesselNetConfig
from CACScoringLib.networks.vessels import VesselNet
from CACScoringLib.whole_scan.estimates import describe_estimate
from CACScoringLib.whole_scan.trust import NO_TEST
from CACScoringLib.whole_scan.vessels import CERTAINTY, SCALE, to_agatston, vessel_estimate, vessel_input

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
    assert saliency.shape == scan.hu.shape
    assert saliency.max() == 1
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
