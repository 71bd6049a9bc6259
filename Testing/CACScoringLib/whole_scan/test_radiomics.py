"""Radiomic features and estimates of synthetic hearts: an ellipsoid of blood in fat, with blocks of calcium.

Textures are compared with the digital phantom of the Image Biomarker Standardisation Initiative.
"""

import dataclasses
import math
import sys

import numpy as np
import pytest
import torch
from images import image_of

from CACScoringLib.anatomy.heart_region import HeartRegion
from CACScoringLib.core.acquisition import Acquisition
from CACScoringLib.core.ct import CTScan, scan_from_image
from CACScoringLib.core.errors import CTError
from CACScoringLib.models.cards import LoadedModel, Training, describe
from CACScoringLib.networks.configs import RadiomicsConfig
from CACScoringLib.networks.radiomics import RadiomicsNet
from CACScoringLib.whole_scan import radiomic_texture, radiomics
from CACScoringLib.whole_scan.radiomic_texture import FEATURES, ibsi_features

pytest.importorskip("mirp")

SHAPE = (24, 64, 64)
SPACING = (1.5, 1.5, 3.0)
COARSE = RadiomicsConfig(heart_mm=6.0)
"""Coarse settings for fast tests."""


def make_scan(blocks=(), blood_hu=40.0, noise_hu=8.0) -> tuple[CTScan, HeartRegion]:
    """Return a scan and its heart. blocks: (k, j, i slices, HU)."""
    k, j, i = np.ogrid[tuple(slice(-1, 1, n * 1j) for n in SHAPE)]
    heart = k**2 + j**2 + i**2 < 0.7
    generator = np.random.default_rng(0)
    hu = np.where(heart, blood_hu, -90) + generator.normal(0, noise_hu, SHAPE).clip(-3 * noise_hu, 3 * noise_hu)
    hu[:, :3] = -1000  # a CT shows air
    for *places, value in blocks:
        hu[tuple(places)] = value
    image = image_of(hu.round().astype(np.int16), SPACING)
    return scan_from_image(image, Acquisition("made")), HeartRegion(heart, None, "given")


PLAQUE = (slice(10, 12), slice(18, 22), slice(30, 35), 350)
AGATSTON = 2 * 4 * 5 * 1.5 * 1.5 * 3
"""Agatston score of PLAQUE: two slices, weight 3."""


def test_features_do_not_depend_on_itk(monkeypatch):
    scan, region = make_scan([PLAQUE])
    features = ibsi_features(scan.hu, region.mask, (-150.0, 1000.0), 25.0)
    for name in [name for name in sys.modules if name.partition(".")[0] in ("itk", "mirp")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(radiomic_texture, "find_spec", lambda name: None)
    assert ibsi_features(scan.hu, region.mask, (-150.0, 1000.0), 25.0) == features
    assert features["stat_median"] > 0
    assert "itk" not in sys.modules, "no other package must find the empty one"


def test_without_mirp_its_installation_without_itk_is_advised(monkeypatch):
    monkeypatch.setitem(sys.modules, "mirp", None)
    scan, region = make_scan()
    with pytest.raises(CTError, match=r"mirp is missing\. Install it \(pip install --no-deps mirp"):
        ibsi_features(scan.hu, region.mask, (-150.0, 1000.0), 25.0)


def candidates(features: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in features.items() if name.startswith("candidate_")}


@pytest.mark.long
def test_heart_without_calcium_has_no_candidates():
    features = radiomics.radiomic_features(*make_scan(), COARSE)
    assert not any(candidates(features).values())
    assert not radiomics.calcium_by_threshold(features)
    assert np.isfinite(list(features.values())).all()
    volume = (
        4 / 3 * math.pi * 0.7**1.5 * np.prod([(n - 1) * mm / 2 for n, mm in zip(SHAPE[::-1], SPACING, strict=True)])
    )
    assert features["heart_volume_ml"] == pytest.approx(volume / 1000, rel=0.05)
    assert features["heart_stat_median"] == pytest.approx(40, abs=3)


def test_plaque_is_scored_and_placed():
    features = radiomics.radiomic_features(*make_scan([PLAQUE]), COARSE)
    assert features["candidate_count"] == features["candidate_solid_count"] == 1
    for name in ("log_agatston", "largest_log_agatston", "solid_log_agatston"):
        assert features[f"candidate_{name}"] == pytest.approx(math.log1p(AGATSTON))
    assert features["candidate_log_volume_mm3"] == pytest.approx(math.log1p(AGATSTON / 3 * 3))
    assert features["candidate_highest_hu"] == features["candidate_stat_mean"] == 350
    # Places by hand, in radii of the ellipsoid: centres 10.5, 19.5, 32 against 11.5, 31.5, 31.5.
    radii = [math.sqrt(0.7) * (n - 1) / 2 for n in SHAPE]
    for axis, centre, middle, radius in zip(
        ("superior", "posterior", "left"), (10.5, 19.5, 32), (11.5, 31.5, 31.5), radii, strict=True
    ):
        assert features[f"candidate_place_{axis}"] == pytest.approx((centre - middle) / radius, abs=0.02)
    assert radiomics.calcium_by_threshold(features)


def test_enhanced_blood_is_no_candidate():
    # The fainter of these peaks is below the raised bounds of weights, but above the usual ones.
    peaks_hu = (420, 900)
    scan, region = make_scan([(*PLAQUE[:3], peaks_hu[1]), (slice(14, 16), *PLAQUE[1:3], peaks_hu[0])], blood_hu=350)
    from CACScoringLib.quality.examination import measure_blood

    blood = measure_blood(scan, region.mask)
    assert blood.enhanced
    lesions, verdicts, threshold_hu = radiomics.find_candidates(scan, region, blood)
    assert [lesion.voxels for lesion in lesions.lesions] == [40, 40]
    assert len(verdicts) == 2
    assert 370 < threshold_hu < peaks_hu[0]
    weights = {lesion.peak_hu: {part.weight for part in lesion.components} for lesion in lesions.lesions}
    assert weights == {peaks_hu[0]: {1}, peaks_hu[1]: {4}}


NAMES = (
    radiomics.THRESHOLD_FEATURE,
    "candidate_highest_hu",
    "heart_volume_ml",
    *(f"candidate_stat_{n}" for n in ("mean", "max", "p10", "p90", "min", "rms")),
)


def model(limit: float | None = 0.4, names: tuple[str, ...] = NAMES, bias: float = -1.0) -> LoadedModel:
    config = dataclasses.replace(COARSE, features=names)
    network = RadiomicsNet(config).eval()
    with torch.no_grad():
        network.weight.copy_(torch.linspace(2, 0.1, len(names)))
        network.mean.fill_(1.0)
        network.sd.fill_(2.0)
        network.lowest.fill_(-1000.0)
        network.highest.fill_(1000.0)
        network.bias.fill_(bias)
    calibration = {} if limit is None else {"probability_limit": limit}
    card = describe("r", config, "custom", Training("made", 0, {}, ""), {}, calibration, "", "")
    return LoadedModel(card, network)


@pytest.mark.long
def test_estimate_adds_up():
    scan, region = make_scan([PLAQUE])
    estimate, warnings = radiomics.radiomics_estimate(scan, region, model())
    first = 2 * (math.log1p(AGATSTON) - 1) / 2
    assert estimate.record.contributions[radiomics.THRESHOLD_FEATURE] == pytest.approx(first, rel=1e-5)
    sizes = [abs(share) for share in estimate.record.contributions.values()]
    assert sizes == sorted(sizes, reverse=True)
    assert len(sizes) == radiomics.MAX_CONTRIBUTIONS < len(NAMES)
    assert estimate.record.probability > 0.99
    assert estimate.record.limit == 0.4
    assert warnings == ()


@pytest.mark.long
def test_scan_unlike_training_is_warned_of():
    loaded = model()
    with torch.no_grad():
        loaded.network.lowest.zero_()
        loaded.network.highest.fill_(100.0)
    _, (warning,) = radiomics.radiomics_estimate(*make_scan([PLAQUE]), loaded)
    assert warning.code == "unlike-training"
    assert "candidate_highest_hu 350 (seen: 0 to 100)" in warning.message


@pytest.mark.long
def test_metal_is_left_out():
    metal = (slice(5, 6), slice(30, 34), slice(30, 34), 2500)
    assert candidates(radiomics.radiomic_features(*make_scan([PLAQUE, metal]), COARSE)) == pytest.approx(
        candidates(radiomics.radiomic_features(*make_scan([PLAQUE]), COARSE))
    )


OUT = -500
PHANTOM = np.array(
    [
        [[1, 4, 4, 1, 1], [1, 4, 6, 1, 1], [4, 1, 6, 4, 1], [4, 4, 6, 4, 1]],
        [[1, 4, 4, 1, 1], [1, 1, 6, 1, 1], [OUT, 1, 3, 1, 1], [4, 4, 6, 1, 1]],
        [[1, 4, 4, OUT, OUT], [1, 1, 1, 1, 1], [1, 1, OUT, 1, 1], [1, 1, 6, 1, 1]],
        [[1, 4, 4, OUT, OUT], [1, 1, 1, 1, 1], [1, 1, 1, 1, 1], [1, 1, 6, 1, 1]],
    ],
    np.float32,
)
"""Digital phantom of Zwanenburg et al., arXiv:1612.07003, chapter 5, with 74 voxels inside."""


def test_statistics_are_those_of_the_published_phantom():
    features = ibsi_features(PHANTOM, PHANTOM != OUT, (1.0, 6.0), 1.0, families=["statistics"])
    published = {"mean": 2.15, "var": 3.05, "skew": 1.08, "kurt": -0.355, "median": 1, "max": 6, "energy": 567}
    for name, value in published.items():
        assert features[f"stat_{name}"] == pytest.approx(value, rel=0.005), name


@pytest.mark.parametrize("voxels", [0, 1])
def test_all_features_of_little_tissue_are_there_and_finite(voxels):
    inside = np.zeros(PHANTOM.shape, bool)
    inside[0, 0, :voxels] = True
    features = ibsi_features(PHANTOM, inside, (1.0, 6.0), 25.0, by_slice=True)
    assert list(features) == [name for names in FEATURES.values() for name in names]
    assert np.isfinite(list(features.values())).all()
    assert bool(features["stat_mean"]) == bool(voxels)
