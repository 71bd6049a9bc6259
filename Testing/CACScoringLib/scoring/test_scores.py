"""Scores of objects known on paper, of real phantom scans, and against a slow reference."""

import csv
import dataclasses

import numpy as np
import phantoms
import pytest
import SimpleITK as sitk
from images import image_of

from CACScoringLib.core.ct import Acquisition, mask_on_scan_grid, scan_from_image
from CACScoringLib.core.labels import Artery
from CACScoringLib.quality.mass_calibration import usual_calibration
from CACScoringLib.record.rules import ScoringRules
from CACScoringLib.scoring.lesions import find_lesions, score_labels
from CACScoringLib.scoring.scores import equivalent_agatston, score_of, scores_by_site

RULES = ScoringRules()
ACQUISITION = Acquisition("test", slice_thickness_mm=5.0)


def score(phantom, rules=RULES):
    """The whole way: image -> CT in axial order -> lesions -> score."""
    scan = scan_from_image(phantom.image, ACQUISITION)
    labels, _ = mask_on_scan_grid(phantom.arteries, scan, "lesions")
    lesions = find_lesions(scan.image, labels, rules)
    return score_of(lesions.lesions)


# --- on paper


@pytest.mark.parametrize(
    ("rules", "agatston"),
    [
        ({"connectivity": 4}, 11.0),
        ({"minimum_pixels": 2}, 12.0),
        ({"minimum_pixels": 4}, 8.0),
        ({"connectivity": 4, "minimum_pixels": 2}, 4.0),
    ],
)
def test_rules_that_differ_between_clinics(rules, agatston):
    """A square of four pixels of 1 mm², four in a diagonal, and two in a diagonal, of which one weighs double."""
    phantom = phantoms.tissue((20, 20, 4), (1.0, 1.0, 3.0))
    phantoms.paint_voxels(phantom, [(2, 2, 2), (2, 2, 3), (2, 3, 2), (2, 3, 3)], 150, Artery.LAD)
    phantoms.paint_voxels(phantom, [(2, n, n) for n in range(8, 12)], 150, Artery.LCX)
    phantoms.paint_voxels(phantom, [(2, 15, 15)], 150, Artery.RCA)
    phantoms.paint_voxels(phantom, [(2, 16, 16)], 250, Artery.RCA)
    assert score(phantom, ScoringRules(**rules)).agatston == pytest.approx(agatston)


@pytest.mark.parametrize(
    ("kvp", "hu", "weight"), [(None, 140, 1), (120, 140, 1), (100, 140, 0), (100, 230, 2), (80, 275, 2)]
)
def test_labels_are_scored_at_the_tube_voltage(kvp, hu, weight):
    """Four voxels of 1 mm²; rules that are given, and images, are taken as they are."""
    phantom = phantoms.tissue((10, 10, 4), (1.0, 1.0, 3.0))
    phantoms.paint_voxels(phantom, [(1, 4, 4), (1, 4, 5), (1, 5, 4), (1, 5, 5)], hu, Artery.LAD)
    scan = scan_from_image(phantom.image, Acquisition("test", kvp=kvp))
    labels, _ = mask_on_scan_grid(phantom.arteries, scan, "lesions")
    assert score_labels(scan, labels).total.agatston == pytest.approx(4 * weight)
    at_120 = 4 * RULES.weight(hu)
    assert score_labels(scan, labels, RULES).total.agatston == pytest.approx(at_120)
    assert score_labels(scan.image, labels).total.agatston == pytest.approx(at_120)


def test_volume_and_pseudo_mass():
    """4 voxels of 0.5 × 0.5 × 2 mm = 2 mm³ with 200 HU on average: 400 HU·mm³."""
    phantom = phantoms.tissue((10, 10, 4), (0.5, 0.5, 2.0))
    phantoms.paint_voxels(phantom, [(1, 4, 4), (1, 4, 5)], 150, Artery.LAD)
    phantoms.paint_voxels(phantom, [(1, 5, 4), (1, 5, 5)], 250, Artery.LAD)
    result = score(phantom)
    assert result.volume_mm3 == pytest.approx(2.0)
    assert result.pseudo_mass_hu_mm3 == pytest.approx(400.0)
    assert result.agatston == pytest.approx(1.0 * 2 * 2 / 3)
    assert (result.lesions, result.peak_hu) == (1, 250)


# --- slice spacing


@pytest.mark.parametrize("spacing_mm", [1.25, 3.0, 5.0])
def test_score_does_not_depend_on_slice_spacing(spacing_mm):
    """Guards: slice thickness used for spacing (the header says 5 mm throughout)."""
    phantom = phantoms.tissue((14, 14, round(60 / spacing_mm)), (1.0, 1.0, spacing_mm))
    phantoms.paint_cylinder(phantom, (6.0, 6.0, 15.0), 2.1, 30.0, 450, Artery.LAD)
    disc_mm2 = 13.0  # pixel centres within 2.1 mm
    result = score(phantom)
    assert result.agatston == pytest.approx(disc_mm2 * 4 * 30 / 3)
    assert result.volume_mm3 == pytest.approx(disc_mm2 * 30)


# --- the same object however it is stored


def irregular_phantom(direction=phantoms.AXIAL, pixel_type=sitk.sitkInt16):
    phantom = phantoms.tissue((24, 20, 11), (0.7, 0.9, 2.5), direction, (-20.0, 31.0, -160.0), pixel_type)
    voxels = [(2, 5, 6), (2, 6, 6), (2, 7, 7), (3, 7, 8), (3, 8, 8), (3, 8, 9), (4, 9, 9), (4, 9, 10), (6, 5, 5)]
    for n, at in enumerate(voxels):
        phantoms.paint_voxels(phantom, [at], 130 + 55 * n, Artery.LAD)
    phantoms.paint_voxels(phantom, [(8, 12, 15), (8, 12, 16), (9, 13, 15), (9, 13, 16), (9, 14, 16)], 231, Artery.RCA)
    return phantom


def described(phantom):
    """All that must not depend on how a scan is stored: scores, and each lesion with its place in the body."""
    scan = scan_from_image(phantom.image, ACQUISITION)
    labels, warnings = mask_on_scan_grid(phantom.arteries, scan, "lesions")
    assert not warnings
    lesions = find_lesions(scan.image, labels, RULES)
    rows = [(x.id, x.site, x.voxels, x.peak_hu, x.agatston, x.volume_mm3) for x in lesions.lesions]
    places = [x.centroid_ras_mm for x in lesions.lesions]
    total = score_of(lesions.lesions)
    return rows, places, (total.agatston, total.volume_mm3, total.pseudo_mass_hu_mm3)


def assert_same(phantom, expected):
    rows, places, total = described(phantom)
    expected_rows, expected_places, expected_total = expected
    assert [row[:4] for row in rows] == [row[:4] for row in expected_rows]
    assert np.array(rows, float) == pytest.approx(np.array(expected_rows, float), rel=1e-6)
    assert np.array(places) == pytest.approx(np.array(expected_places), abs=1e-3)
    assert total == pytest.approx(expected_total, rel=1e-6)


def test_score_of_the_irregular_phantom():
    """The comparisons below do not compare zeros. Single pixels (0.63 mm²) are dropped."""
    phantom = irregular_phantom()
    (_, _, total) = described(phantom)
    # slice 2: 3 px peak 240; 3: 3 px peak 405; 4: 2 px peak 515; 8: 2 px; 9: 3 px, both 231
    assert total[0] == pytest.approx(0.63 * (3 * 2 + 3 * 4 + 2 * 4 + 2 * 2 + 3 * 2) * 2.5 / 3)
    assert total[1] == pytest.approx(13 * 0.63 * 2.5)


@pytest.mark.parametrize(
    ("axes", "flipped"),
    [((0, 1, 2), (False, False, True)), ((2, 0, 1), (True, False, True)), ((1, 0, 2), (True, True, True))],
)
def test_score_does_not_depend_on_axis_order(axes, flipped):
    """Guards: a score that changes with the image's axis order; slices in the wrong order.

    Every order and flip gives the same scan: see core/test_ct.py.
    """
    expected = described(irregular_phantom())
    phantom = irregular_phantom()
    phantom.image, phantom.arteries = (
        sitk.Flip(sitk.PermuteAxes(image, axes), flipped, flipAboutOrigin=False)
        for image in (phantom.image, phantom.arteries)
    )
    assert_same(phantom, expected)


def test_score_does_not_depend_on_a_slightly_oblique_direction():
    direction = phantoms.tilted_direction(12.0, -5.0)
    rows, places, total = described(irregular_phantom(direction))
    expected_rows, expected_places, expected_total = described(irregular_phantom())
    assert (rows, total) == (expected_rows, pytest.approx(expected_total))
    origin_ras = np.array([20.0, -31.0, -160.0])
    to_ras = np.diag([-1.0, -1.0, 1.0])
    turn = to_ras @ np.reshape(direction, (3, 3)) @ to_ras
    assert np.array(places) - origin_ras == pytest.approx((np.array(expected_places) - origin_ras) @ turn.T)


# --- equal to the slow reference

# Plain scoring: voxels are visited one by one. Nothing here is shared with the library but its settings.
Voxel = tuple[int, int, int]


@dataclasses.dataclass(frozen=True)
class ReferenceLesion:
    """One lesion: artery label, its voxels (k, j, i), Agatston, volume in mm³ and pseudo-mass in HU·mm³."""

    artery: int
    voxels: frozenset[Voxel]
    agatston: float
    volume_mm3: float
    pseudo_mass_hu_mm3: float


def score_by_flood_fill(image: sitk.Image, arteries: np.ndarray, rules: ScoringRules) -> list[ReferenceLesion]:
    """Every lesion of an image, in no particular order.

    image: HU on axial slices. arteries: [k, j, i] artery labels, 0 where none can lie.
    """
    hu = sitk.GetArrayFromImage(image).astype(float)
    spacing_i, spacing_j, spacing_k = image.GetSpacing()
    in_slice = [(0, dj, di) for dj in (-1, 0, 1) for di in (-1, 0, 1) if (dj, di) != (0, 0)]
    if rules.connectivity == 4:
        in_slice = [(0, -1, 0), (0, 1, 0), (0, 0, -1), (0, 0, 1)]
    anywhere = [(dk, dj, di) for dk in (-1, 0, 1) for dj in (-1, 0, 1) for di in (-1, 0, 1)]

    lesions = []
    for artery in np.unique(arteries[arteries > 0]):
        dense = {tuple(map(int, at)) for at in np.argwhere((arteries == artery) & (hu >= rules.threshold_hu))}
        component_at: dict[Voxel, frozenset[Voxel]] = {}
        for component in _flood(dense, in_slice):
            area_mm2 = len(component) * spacing_i * spacing_j
            if area_mm2 >= rules.minimum_area_mm2 - 1e-6 and len(component) >= rules.minimum_pixels:
                component_at.update(dict.fromkeys(component, component))
        for voxels in _flood(set(component_at), anywhere):
            agatston = 0.0
            for component in {component_at[at] for at in voxels}:
                weight = _weight(max(hu[at] for at in component), rules)
                agatston += len(component) * spacing_i * spacing_j * weight * spacing_k / rules.reference_spacing_mm
            voxel_mm3 = spacing_i * spacing_j * spacing_k
            total_hu = sum(hu[at] for at in voxels)
            volume_mm3 = len(voxels) * voxel_mm3
            lesions.append(ReferenceLesion(int(artery), voxels, agatston, volume_mm3, float(total_hu * voxel_mm3)))
    return lesions


def _flood(places: set[Voxel], steps: list[Voxel]) -> list[frozenset[Voxel]]:
    waiting = set(places)
    groups = []
    while waiting:
        group, front = set(), [waiting.pop()]
        while front:
            k, j, i = front.pop()
            group.add((k, j, i))
            for dk, dj, di in steps:
                neighbour = (k + dk, j + dj, i + di)
                if neighbour in waiting:
                    waiting.remove(neighbour)
                    front.append(neighbour)
        groups.append(frozenset(group))
    return groups


def _weight(peak_hu: float, rules: ScoringRules) -> int:
    second, third, fourth = rules.weight_bounds_hu
    if peak_hu < second:
        return 1
    if peak_hu < third:
        return 2
    return 3 if peak_hu < fourth else 4


def random_rules(rng):
    return ScoringRules(
        threshold_hu=float(rng.choice([1.0, 119.0, 130.0, 177.5])),
        weight_bounds_hu=((200.0, 300.0, 400.0), (183.0, 274.0, 364.0))[rng.integers(2)],
        connectivity=int(rng.choice([4, 8])),
        minimum_area_mm2=float(rng.choice([0.0, 0.5, 1.0, 3.0])),
        minimum_pixels=int(rng.choice([1, 2, 3])),
        reference_spacing_mm=float(rng.choice([2.5, 3.0])),
    )


@pytest.mark.parametrize("seed", range(20))
def test_equal_to_the_slow_reference_on_noise(seed):
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(2, 14, 3))
    hu = rng.normal(rng.choice([40, 110, 160]), 80, shape)
    spacing_mm = *rng.choice([0.4, 0.7, 1.0, 1.6], 2), rng.choice([0.6, 2.5, 5.0])
    image = image_of(hu.astype(np.float32) if seed % 2 else np.rint(hu).astype(np.int16), spacing_mm)
    # Blocks of one artery, some of them empty, so that arteries touch.
    coarse = rng.choice(7, [n // 3 + 1 for n in shape], p=[0.3, 0.1, 0.2, 0.1, 0.1, 0.1, 0.1])
    arteries = np.kron(coarse, np.ones((3, 3, 3)))[tuple(slice(n) for n in shape)].astype(np.uint8)
    rules = random_rules(rng)

    lesions = find_lesions(image, arteries, rules)
    expected = score_by_flood_fill(image, arteries, rules)
    by_voxels = {x.voxels: x for x in expected}
    assert len(lesions.lesions) == len(expected)
    for lesion in lesions.lesions:
        voxels = frozenset(tuple(map(int, at)) for at in np.argwhere(lesions.id_map == lesion.id))
        expected_lesion = by_voxels[voxels]
        assert lesion.site == expected_lesion.artery
        assert lesion.agatston == pytest.approx(expected_lesion.agatston)
        assert lesion.volume_mm3 == pytest.approx(expected_lesion.volume_mm3)
        assert lesion.pseudo_mass_hu_mm3 == pytest.approx(expected_lesion.pseudo_mass_hu_mm3, rel=1e-5)
    per_artery = scores_by_site(lesions.lesions, Artery)
    for artery, score in per_artery.items():
        assert score.agatston == pytest.approx(sum(x.agatston for x in expected if x.artery == artery))
    total = score_of(lesions.lesions)
    for name in ("agatston", "volume_mm3", "pseudo_mass_hu_mm3", "lesions"):
        assert getattr(total, name) == pytest.approx(sum(getattr(score, name) for score in per_artery.values()))


# --- the QRM phantom: a real scan with a published reference

QRM = "qrm_phantom/canon_large_rep1_120kVp_3mm.nii.gz"
QRM_INSERTS = {  # centre i, j and radius in pixels; the small inserts' places follow from the other two of their row
    "Large_HD": (180, 220, 14),
    "Medium_HD": (206, 221, 9),
    "Small_HD": (231, 220, 6),
    "Large_MD": (291, 151, 14),
    "Medium_MD": (280, 173, 9),
    "Small_MD": (269, 195, 6),
    "Large_LD": (299, 281, 14),
    "Medium_LD": (285, 260, 9),
    "Small_LD": (271, 239, 6),
}


@pytest.fixture(scope="module")
def qrm(real_ct):
    return scan_from_image(sitk.ReadImage(real_ct(QRM)), Acquisition("NIfTI"))


def qrm_score(scan, insert):
    centre_i, centre_j, radius = QRM_INSERTS[insert]
    _, j, i = np.indices(scan.hu.shape, sparse=True)
    arteries = np.zeros(scan.hu.shape, np.uint8)
    arteries[3:8] = ((i - centre_i) ** 2 + (j - centre_j) ** 2 <= radius**2) * np.uint8(Artery.OTHER)
    lesions = find_lesions(scan.image, arteries, RULES)
    return score_of(lesions.lesions)


@pytest.mark.parametrize("insert", QRM_INSERTS)
def test_all_inserts_of_the_qrm_phantom_equal_the_published_reference(real_ct, qrm, insert):
    with real_ct("qrm_phantom/fqm_reference_scores.csv").open(newline="", encoding="utf-8") as stream:
        rows = {row["Calcification"]: row for row in csv.DictReader(stream)}
    row = rows[insert]
    calibration = float(row["Mass calibration factor"]) / 1000
    result = qrm_score(qrm, insert)
    assert f"{result.agatston:.2f}" == f"{float(row['Agatston score']):.2f}"
    assert f"{result.volume_mm3:.2f}" == f"{float(row['Volume score']):.2f}"
    assert f"{calibration * result.pseudo_mass_hu_mm3:.2f}" == f"{float(row['Mass score']):.2f}"


# --- clinical scores of the calcium map


@pytest.mark.parametrize(
    ("mass_mg", "agatston"),
    [
        (0.0, 0.0),
        (2.675, 9.4695 / (1 + 2**2.06)),
        (10.7, 37.878 / (1 + 2**-2.06)),
    ],
)
def test_the_clinical_score_of_a_lesion_by_hand(mass_mg, agatston):
    """3.54 per mg, of which 5.35 mg lose half, and with mass to the power of 2.06 smaller ones more."""
    assert equivalent_agatston(mass_mg) == pytest.approx(agatston)


def test_large_plaques_score_in_proportion_to_mass_and_small_ones_less():
    assert equivalent_agatston(-3.0) == 0
    assert np.all(np.diff(equivalent_agatston(np.linspace(0, 50, 200))) > 0)
    assert equivalent_agatston(1.0) < 0.12, "what never reaches 130 HU scores next to nothing"


@pytest.mark.parametrize(("kvp", "hu"), [(120.0, 1.385), (80.0, 1.385 * 177 / 130), (None, 1.385), (60.0, 1.385)])
def test_usual_calibration(kvp, hu):
    assert usual_calibration(kvp) == pytest.approx(1 / (1000 * hu))
