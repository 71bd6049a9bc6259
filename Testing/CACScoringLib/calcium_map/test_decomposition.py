"""Scan into map and healthy image, with generators whose map is known."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from handmade_networks import loaded, scan_of
from torch import nn

from CACScoringLib.calcium_map import decomposition
from CACScoringLib.models.cards import find_model
from CACScoringLib.models.preprocessing import HIGH_HU, heart_slices
from CACScoringLib.networks.configs import GeneratorConfig

BLOOD_HU = 40
REST_HU = 2.0


class AboveBlood(nn.Module):
    """The map is what exceeds blood, on top of a sigmoid's rest of REST_HU everywhere."""

    def __init__(self):
        super().__init__()
        self.seen = 0

    def forward(self, x):
        self.seen += len(x)
        return (x[:, :1] - (BLOOD_HU + 50) / 1000).clamp(min=REST_HU / 1000)


class Constant(nn.Module):
    def __init__(self, hu):
        super().__init__()
        self.value = hu / 1000

    def forward(self, x):
        return torch.full_like(x[:, :1], self.value)


def lesion_scan(spacing_mm=(0.8, 0.8, 2.5), peak_hu=300.0, dtype=np.float32):
    """A smooth lesion of σ 2.5 mm in blood, in a ball-shaped heart; its excess over blood; its mass in HU·mm³."""
    size = [round(90 / s) for s in spacing_mm]
    k, j, i = np.indices(size[::-1])
    x, y, z = (n * s - 45 for n, s in zip((i, j, k), spacing_mm, strict=True))
    excess = peak_hu * np.exp(-((x - 8) ** 2 + (y + 6) ** 2 + (z - 3) ** 2) / (2 * 2.5**2))
    hu = (BLOOD_HU + excess).astype(dtype)
    heart = x**2 + y**2 + z**2 < 35**2
    scan, _ = scan_of(hu, spacing_mm, heart)
    return scan, heart, excess, (2 * math.pi) ** 1.5 * 2.5**3 * peak_hu


def decompose(scan, mask, network, probabilities=1.0, **settings):
    slices = heart_slices(scan, mask)
    probabilities = np.full(len(slices), probabilities) if np.isscalar(probabilities) else probabilities(slices)
    model = loaded(network, GeneratorConfig())
    return decomposition.calcium_map(
        scan, mask, slices, probabilities, model, decomposition.DecompositionSettings(**settings)
    )


def mass(result) -> float:
    return float(result.hu.sum()) * math.prod(result.image().GetSpacing())


@pytest.mark.parametrize("spacing_mm", [(0.8, 0.8, 1.0), (0.7, 0.9, 5.0)])
def test_map_has_the_lesions_mass_and_place(spacing_mm):
    scan, mask, excess, true_mass = lesion_scan(spacing_mm)
    result = decompose(scan, mask, AboveBlood(), floor_hu=REST_HU + 0.5)
    assert (result.image().GetSize(), result.image().GetOrigin()) == (scan.image.GetSize(), scan.image.GetOrigin())
    assert result.image().GetSpacing() == scan.image.GetSpacing()
    assert mass(result) == pytest.approx(true_mass, rel=0.06)  # the floor cuts the tails: 4 % are below 2.5 of 300 HU
    calcium = result.hu
    assert np.unravel_index(calcium.argmax(), calcium.shape) == np.unravel_index(excess.argmax(), excess.shape)
    assert np.corrcoef(calcium.ravel(), excess.ravel())[0, 1] > 0.99


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_healthy_image_is_scan_less_map(dtype):
    scan, mask, _, _ = lesion_scan(dtype=dtype)
    result = decompose(scan, mask, AboveBlood())
    image = decomposition.healthy_image(scan.image, result.image())
    assert image.GetPixelID() == scan.image.GetPixelID()
    healthy = sitk.GetArrayFromImage(image).astype(float)
    total = healthy + result.hu
    np.testing.assert_allclose(total, scan.hu, atol=0.51 if dtype == np.int16 else 1e-3)
    assert healthy.max() < BLOOD_HU + 0.2 * 300  # what resampling there and back blurs away


@pytest.mark.parametrize(
    ("tissue_hu", "map_hu", "rule", "is_left"),
    [
        *((60, 69, -10.0, True), (60, 71, -10.0, False), (0, 40, -45.0, True)),
        (-80, 30, -10.0, False),  # fat
        (-80, 30, None, True),
    ],
)
def test_rule_for_implausible_healthy_tissue(tissue_hu, map_hu, rule, is_left):
    hu = np.full((30, 60, 60), tissue_hu, np.int16)
    heart = np.zeros(hu.shape, bool)
    heart[5:25, 10:50, 10:50] = True
    scan, _ = scan_of(hu, (1.0, 1.0, 3.0), heart)
    result = decompose(scan, heart, Constant(map_hu), min_healthy_hu=rule, floor_hu=1.0)
    middle = result.hu[15, 30, 30]
    assert middle == (pytest.approx(map_hu, abs=0.01) if is_left else 0)


def test_map_stays_within_the_heart():
    scan, mask, _, _ = lesion_scan()
    for within_heart in (True, False):
        result = decompose(scan, mask, Constant(50.0), within_heart=within_heart)
        assert result.hu[~mask].any() != within_heart


def test_only_chosen_slices_are_decomposed():
    scan, mask, _, true_mass = lesion_scan()
    network = AboveBlood()
    none = decompose(scan, mask, network, probabilities=0.49)
    assert network.seen == 0
    assert mass(none) == 0
    assert not none.decomposed.any()
    assert (sitk.GetArrayFromImage(decomposition.healthy_image(scan.image, none.image())) == scan.hu).all()
    assert decompose(scan, mask, AboveBlood(), probabilities=0.5).decomposed.all()

    def lower_half(slices):
        centres = slices.grid.first[2] + slices.grid.step[2] * np.arange(len(slices))
        return np.where(centres * 2.5 < 45 + 3, 0.9, 0.1)

    half = decompose(scan, mask, AboveBlood(), probabilities=lower_half)
    assert mass(half) == pytest.approx(true_mass / 2, rel=0.12)
    strict = decompose(scan, mask, AboveBlood(), probabilities=lower_half, slice_threshold=0.95)
    assert not strict.decomposed.any()


@pytest.mark.parametrize(
    ("hu", "map_hu", "codes"),
    [
        (HIGH_HU, 150, []),
        (HIGH_HU + 1, 150, ["map-saturated"]),
        (HIGH_HU + 1, 95, []),
        (HIGH_HU + 1, 105, ["map-saturated"]),
    ],
)
def test_only_values_above_the_window_are_cut(hu, map_hu, codes):
    scan, mask, *_ = lesion_scan()
    scan, _ = scan_of(np.full_like(scan.hu, hu), (0.8, 0.8, 2.5), mask)
    result = decompose(scan, mask, Constant(map_hu), min_healthy_hu=None)
    assert [warning.code for warning in result.warnings] == codes


@pytest.mark.parametrize(("map_hu", "is_left"), [(9.9, False), (10.1, True), (49.9, True), (50.1, False)])
def test_limits_of_the_map_without_other_settings(map_hu, is_left):
    """A map from 10 HU on, and a healthy image of blood of 40 HU down to −10 HU."""
    scan, mask, *_ = lesion_scan(peak_hu=0.0)
    assert (mass(decompose(scan, mask, Constant(map_hu))) > 0) == is_left


def model_of(name, sha256, calibration=None, **whole_method):
    card = SimpleNamespace(name=name, sha256=sha256, calibration=calibration or {}, lacks_calibration=not calibration)
    card.validation = {"whole_method": whole_method}
    return SimpleNamespace(card=card)


FITTED = {"decomposition": "m", "slices": "s", "heart": "h", "territories": "t", "lesions": "l"}


@pytest.mark.parametrize(
    ("present", "sha256", "foreign"),
    [
        ({"slices": "s", "heart": None}, "m", ""),
        ({"slices": "other", "heart": "h"}, "m", "slices"),
        ({"territories": "new", "lesions": "new"}, "m", "territories, lesions"),
        ({"slices": "s"}, "new", "map"),
    ],
)
def test_calibration_holds_for_the_networks_that_were_used_together(present, sha256, foreign):
    model = model_of("map", sha256, {"evidence_weights": {}}, models=FITTED)
    companions = {name: None if sha256 is None else model_of(name, sha256) for name, sha256 in present.items()}
    warnings = decomposition.calibration_warnings(model, companions)
    assert [warning.code for warning in warnings] == (["map-calibrated-for-others"] if foreign else [])
    assert all(f"the present {foreign}," in warning.message for warning in warnings)


def test_a_model_that_was_never_calibrated_is_warned_of():
    (warning,) = decomposition.calibration_warnings(model_of("map", "m"), {"slices": model_of("slices", "s")})
    assert warning.code == "map-not-calibrated"


def test_bundled_models_state_the_fit_of_their_evidence():
    kinds = ("territories", "slices", "decomposition", "lesions")
    models = {kind: SimpleNamespace(card=find_model(kind).card) for kind in kinds}
    fitted = models["decomposition"].card.validation["whole_method"]
    present = {kind: model.card.sha256 for kind, model in models.items()}
    assert fitted["models"] == present
    assert decomposition.calibration_warnings(models.pop("decomposition"), models) == []


@pytest.mark.parametrize(
    ("rows", "columns", "expected"),
    [
        ((100, 120), (101, 121), (slice(84, 136), slice(84, 140))),  # 84 to 136, 85 to 137, in steps of 4
        ((104, 119), (15, 210), (slice(88, 136), slice(0, 224))),
        ((16, 17), (0, 224), (slice(0, 36), slice(0, 224))),
        ((24, 200), (23, 201), (slice(8, 216), slice(4, 220))),
    ],
)
def test_the_generator_looks_16_mm_around_the_heart(rows, columns, expected):
    heart = np.zeros((3, 224, 224), bool)
    heart[1, slice(*rows), slice(*columns)] = True
    assert decomposition._around_heart(heart) == expected
