"""Masses of objects whose calcium is known on paper: blurred spheres, neighbours, bone beside them, known voxels."""

import math

import numpy as np
import pytest
from images import image_of
from scipy import ndimage

from CACScoringLib.core.labels import Artery
from CACScoringLib.record.findings import MassCalibration
from CACScoringLib.record.rules import ScoringRules
from CACScoringLib.record.scores import LesionSet, LesionVoxels, Score
from CACScoringLib.scoring.lesions import find_lesions
from CACScoringLib.scoring.mass import _Area, _Sums, _usual, lesion_masses, mass_columns
from CACScoringLib.scoring.scores import score_of

CALIBRATION = MassCalibration("given", 0.72)
SPACING = (0.5, 0.5, 2.0)
TISSUE_HU = 40.0


def sphere_mg(volume: np.ndarray, centre_mm: tuple, radius_mm: float, density: float, lobe: float = 0.0) -> float:
    """Add a sphere to HU [k, j, i] as a scanner with a Gaussian blur shows it; returns its mass in mg.

    lobe: strength of a wider negative lobe about it, as sharp kernels make; the sum stays.
    """
    fine = 5
    spacing = np.array(SPACING[::-1])
    axes = [(np.arange(n * fine) + 0.5) / fine * s - s / 2 for n, s in zip(volume.shape, spacing, strict=True)]
    offsets = zip(np.meshgrid(*axes, indexing="ij", sparse=True), centre_mm[::-1], strict=True)
    inside = (sum((axis - middle) ** 2 for axis, middle in offsets) <= radius_mm**2).astype(np.float32)
    part = inside.reshape(*(m for n in volume.shape for m in (n, fine))).mean((1, 3, 5))

    def blurred(sigma_mm: float) -> np.ndarray:
        return ndimage.gaussian_filter(part, (0.3, sigma_mm / spacing[1], sigma_mm / spacing[2]))

    profile = (1 + lobe) * blurred(0.6) - lobe * blurred(0.8)
    volume += density / CALIBRATION.mg_per_cm3_per_hu * profile
    return float(part.sum()) * math.prod(SPACING) * density / 1000


def tissue(shape: tuple, hu: float = TISSUE_HU) -> np.ndarray:
    return np.full(shape, hu, np.float32)


def noisy(shape: tuple, seed: int, sd: float) -> np.ndarray:
    """Tissue with correlated noise."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(shape), (0, 1, 1))
    return TISSUE_HU + (sd / noise.std() * noise).astype(np.float32)


def found_in(volume: np.ndarray, threshold: float = 130.0) -> LesionSet:
    image = image_of(volume, SPACING)
    rules = ScoringRules(threshold_hu=threshold, minimum_pixels=3)
    return find_lesions(image, np.full(volume.shape, Artery.LAD, np.uint8), rules)


def mass_in(volume: np.ndarray, lesions: LesionSet | None = None, **more: object) -> Score:
    """Measure all lesions together, found in the volume unless given."""
    lesions = lesions or found_in(volume)
    masses = lesion_masses(volume, SPACING, lesions, CALIBRATION, **more)
    return score_of(lesions.with_columns(**mass_columns(masses.values())).lesions, has_masses=True)


@pytest.mark.parametrize(("density", "lobe"), [(250, 0.8), (800, 0.0)])
def test_a_blurred_sphere_has_its_mass(density, lobe):
    volume = tissue((12, 60, 60))
    mass = sphere_mg(volume, (15.1, 14.8, 11.3), 2.2, density, lobe)
    assert mass_in(volume).integrated_mass_mg == pytest.approx(mass, rel=0.02)


@pytest.mark.long
def test_the_standard_error_holds_the_truth():
    """Two thirds of 30 noisy spheres lie within one standard error, and nearly all within two."""
    off = []
    for seed in range(30):
        volume = noisy((10, 70, 70), seed, 20.0)
        mass = sphere_mg(volume, (17.3, 17.6, 9.0), 1.8, 400)
        measured = mass_in(volume)
        off.append((measured.integrated_mass_mg - mass) / measured.mass_standard_error_mg)
    assert 0.4 < np.mean(np.abs(off) < 1) < 0.95
    assert np.mean(np.abs(off) < 2.5) > 0.85
    assert abs(np.mean(off)) < 0.7


def test_neighbours_do_not_count_twice():
    """Two spheres so near that each lies in the other's reach: together they have the mass of both."""
    volume = tissue((12, 60, 70))
    mass = sphere_mg(volume, (13.0, 15.0, 11.0), 1.5, 600) + sphere_mg(volume, (18.3, 15.0, 11.0), 1.5, 600)
    lesions = found_in(volume)
    assert len(lesions.lesions) == 2
    assert mass_in(volume, lesions).integrated_mass_mg == pytest.approx(mass, rel=0.04)


def test_bone_beside_a_lesion_is_no_background():
    volume = tissue((12, 60, 60))
    mass = sphere_mg(volume, (15.0, 15.0, 11.0), 1.8, 400)
    lesions = found_in(volume)
    volume[:, :, 41:44] = 700
    assert mass_in(volume, lesions).integrated_mass_mg == pytest.approx(mass, rel=0.03)


def test_calcium_of_no_lesion_does_not_count():
    volume = tissue((12, 60, 70))
    mass = sphere_mg(volume, (13.0, 15.0, 11.0), 1.5, 600)
    lesions = found_in(volume)
    sphere_mg(volume, (18.3, 15.0, 11.0), 1.5, 600)
    elsewhere = np.flatnonzero((volume >= 130) & (lesions.id_map == 0))
    assert mass_in(volume, lesions, elsewhere=elsewhere).integrated_mass_mg == pytest.approx(mass, rel=0.06)


def ring_error(volume: np.ndarray, ring: np.ndarray) -> float:
    everywhere = tuple(slice(0, size) for size in volume.shape)
    sums = _Sums(volume, LesionVoxels(volume.shape, np.zeros(0, int), np.zeros(0, np.uint16)), None, SPACING)
    return sums._ring_error(_Area(everywhere, np.zeros_like(ring), ring))


def test_the_error_of_an_uneven_background():
    """Tissue of 40 HU to the left of a lesion and of 60 HU to its right: four eighths of the ring have 40, four 60.
    Their standard deviation is √(8 · 10² / 7) = 10.69 HU; that of their mean is √8 times less."""
    volume = tissue((3, 41, 41))
    volume[:, :, 21:] = 60.0
    _, rows, columns = np.indices(volume.shape)
    radius = np.hypot(rows - 20, columns - 20.5)
    error = ring_error(volume, (radius > 6) & (radius < 12))
    assert error == pytest.approx(math.sqrt(800 / 7) / math.sqrt(8), rel=1e-3)


def test_without_a_ring_there_is_no_mass():
    """All about the lesion is lung."""
    volume = tissue((8, 40, 40), -800.0)
    volume[4, 19:22, 19:22] = 300
    assert mass_in(volume).mass_mg is None


def test_sums():
    volume = tissue((12, 60, 70))
    sphere_mg(volume, (13.0, 15.0, 11.0), 1.5, 600)
    dense = found_in(volume)
    (lesion,), (measured,) = dense.lesions, dense.with_columns(**mass_columns([(1.0, 3.0)])).lesions
    total = score_of([measured, measured], has_masses=True)
    assert (total.mass_mg, total.mass_standard_error_mg) == (2.0, pytest.approx(3 * math.sqrt(2)))
    assert score_of([], has_masses=True).mass_mg == 0.0
    assert score_of([]).mass_mg is None
    assert score_of([measured, lesion], has_masses=True).mass_mg is None


def test_of_a_calcium_map_the_map_itself_is_the_excess():
    """A map of 3 × 3 voxels of 60 HU on tissue of 40 HU: 9 · 60 HU · 0.5 mm³ · 0.72 mg/cm³ per HU."""
    calcium = tissue((7, 50, 50), 0.0)
    calcium[3, 20:23, 20:23] = 60
    measured = mass_in(TISSUE_HU + calcium, found_in(calcium, 10.0), of_map=True)
    assert measured.integrated_mass_mg == pytest.approx(9 * 60 * math.prod(SPACING) * 0.72 / 1000)


def test_values_at_three_spreads_of_the_median_are_usual():
    assert _usual(np.array([0, 0, 0, 0, 3, -3, 4])).tolist() == [True] * 6 + [False]
    spread = 1.4826 * 10
    values = np.array([-10, -10, 0, 10, 10, 3 * spread, -3 * spread - 0.01])
    assert _usual(values).tolist() == [True] * 6 + [False]


def test_known_masses_are_taken_and_left_as_they_are():
    volume = tissue((12, 60, 60))
    sphere_mg(volume, (15.1, 14.8, 11.3), 2.2, 800)
    lesions = found_in(volume)
    measured = lesion_masses(volume, SPACING, lesions, CALIBRATION)
    known = dict.fromkeys(measured, (1.5, 0.5))
    assert lesion_masses(volume, SPACING, lesions, CALIBRATION, known=known) == known
    nothing = {}
    assert lesion_masses(volume, SPACING, lesions, CALIBRATION, known=nothing) == measured
    assert nothing == {}
