"""Radiographs compared with analytical line integrals, independent of axes and rotation, and read back from DICOM."""

import math
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
from images import image_of
from phantoms import tilted_direction

from CACScoringLib.core.acquisition import Acquisition
from CACScoringLib.core.errors import ProjectionError
from CACScoringLib.core.grid import Grid
from CACScoringLib.drr import projection
from CACScoringLib.drr.files import write_dicom_radiograph
from CACScoringLib.drr.geometry import pose_of, rays_through, view_named
from CACScoringLib.drr.projection import Film, add_planes_by_scipy, add_planes_compiled

VIEWS = ["PA", "AP", "lateral", "37"]
SPACING_MM = (2.5, 2.5, 3.0)
SIZE = (72, 64, 56)
BLOBS = [  # centre (LPS mm), width mm, height: smooth, and 0 at the rim of the CT
    ((-25.0, 10.0, 24.0), 13.0, 1.0),
    ((20.0, -18.0, -20.0), 14.0, 0.6),
    ((5.0, 20.0, 0.0), 12.0, 0.8),
]


def grid(size=SIZE, spacing=SPACING_MM):
    image = sitk.Image(size, sitk.sitkFloat32)
    image.SetSpacing(spacing)
    image.SetOrigin([-(n - 1) / 2 * s for n, s in zip(size, spacing, strict=True)])
    return image


def points(image):
    """Return LPS positions of all voxels [k, j, i, 3] of an image in LPS order."""
    axes = [
        o + s * np.arange(n) for o, s, n in zip(image.GetOrigin(), image.GetSpacing(), image.GetSize(), strict=True)
    ]
    k, j, i = np.meshgrid(*axes[::-1], indexing="ij")
    return np.stack([i, j, k], -1)


def image_like(values, reference):
    return Grid.of(reference).image(values)


@pytest.fixture(scope="module")
def blobs():
    """HU of Gaussian blobs of water in air, float32 without rounding."""
    where = grid()
    return image_like((1000 * water(where) - 1000).astype(np.float32), where)


def water(image):
    """Return the blobs at an image's voxels, float32 [k, j, i]."""
    axes = [
        o + s * np.arange(n) for o, s, n in zip(image.GetOrigin(), image.GetSpacing(), image.GetSize(), strict=True)
    ]
    total = 0
    for centre, width, height in BLOBS:
        x, y, z = (np.exp(-((a - c) ** 2) / (2 * width**2)) for a, c in zip(axes, centre, strict=True))
        total = total + np.float32(height) * np.einsum("k,j,i->kji", *(a.astype(np.float32) for a in (z, y, x)))
    return total


def ends(geometry, image):
    """Return start and unit direction of each ray [row, column, 3]."""
    pose = pose_of(geometry, image)
    columns, rows = geometry.pixels
    pixels = (
        pose.corner + np.arange(columns)[:, None] * pose.column_step + np.arange(rows)[:, None, None] * pose.row_step
    )
    run = np.broadcast_to(pose.source, pixels.shape) if pose.parallel else pixels - pose.source
    return pixels, run / np.linalg.norm(run, axis=-1, keepdims=True)


def exact_blobs(geometry, image):
    """Return the Gaussians' analytical integrals along rays."""
    start, direction = ends(geometry, image)
    total = 0
    for centre, width, height in BLOBS:
        to_centre = np.asarray(centre) - start
        squared = (to_centre**2).sum(-1) - (to_centre * direction).sum(-1) ** 2
        total = total + height * width * math.sqrt(2 * math.pi) * np.exp(-squared / (2 * width**2))
    return total


def error(computed, expected):
    return np.abs(computed - expected).max() / np.abs(expected).max()


def geometry(view, parallel=False, **fields):
    small = {"pixels": (50, 44), "detector_mm": (210.0, 190.0), "parallel": parallel}
    return replace(view_named(view), **(small | fields))


@pytest.mark.parametrize("parallel", [False, True], ids=["cone", "parallel"])
@pytest.mark.parametrize("view", VIEWS)
def test_smooth_objects_have_their_exact_integrals(blobs, view, parallel):
    where = geometry(view, parallel)
    path = projection.water_equivalent_mm(blobs, where)
    # Linear interpolation is below a Gaussian's top by up to h²/8w² for each of the two axes across the rays.
    assert error(path, exact_blobs(where, blobs)) < (2.5**2 + 3.0**2) / (8 * 12.0**2)


@pytest.mark.long
def test_chords_of_an_ellipsoid():
    where, radii = grid((120, 110, 100), (1.5, 1.5, 1.5)), np.array([60.0, 45.0, 50.0])
    mask = image_like((((points(where) / radii) ** 2).sum(-1) <= 1).astype(np.uint8), where)
    view = geometry("25", parallel=True)
    start, direction = ends(view, mask)
    p, d = start / radii, direction / radii
    a, b, c = (d * d).sum(-1), (p * d).sum(-1), (p * p).sum(-1) - 1
    chords = 2 * np.sqrt(np.maximum(b * b - a * c, 0)) / a
    lengths = projection.path_length_mm(mask, view)
    assert np.sqrt(((lengths - chords) ** 2).mean()) < 1.0
    volume = lengths.sum() * math.prod(view.pixel_mm)
    assert volume == pytest.approx(4 / 3 * math.pi * radii.prod(), rel=5e-3)


@pytest.mark.parametrize("view", ["PA", "lateral", "tilted"])
def test_scipy_projects_as_the_compiled_loops(blobs, view):
    pytest.importorskip("numba")
    where = geometry("20", tilt_degrees=15.0) if view == "tilted" else geometry(view)
    volume, limits = sitk.GetArrayViewFromImage(blobs), (np.float32(-900), np.float32(-100))
    rays = rays_through(blobs, where)
    fast, slow = (add(volume, rays, *limits) for add in (add_planes_compiled, add_planes_by_scipy))
    assert fast.max() > 1000
    np.testing.assert_allclose(fast, slow, atol=1e-5 * slow.max())


def centre_of(view, position):
    """Return row and column of a small dense ball, as fractions of the picture from its top left."""
    where = grid()
    in_ball = ((points(where) - position) ** 2).sum(-1) < 36
    path = projection.water_equivalent_mm(
        image_like(np.where(in_ball, 1000, -1000).astype(np.int16), where), geometry(view)
    )
    rows, columns = np.indices(path.shape)
    return (rows * path).sum() / path.sum() / 43, (columns * path).sum() / path.sum() / 49


@pytest.mark.parametrize(
    ("view", "position", "row", "column"),
    [
        ("PA", (-40, 0, 0), None, "left"),  # the patient's right is on the left of a PA film
        ("AP", (-40, 0, 0), None, "left"),
        ("lateral", (0, -40, 0), None, "left"),  # the breastbone
        ("PA", (0, 0, 40), "top", None),
        ("45", (0, 0, -40), "bottom", None),
    ],
)
def test_pictures_are_hung_as_a_radiologist_does(view, position, row, column):
    down, across = centre_of(view, position)
    assert {None: 0.45 < down < 0.55, "top": down < 0.4, "bottom": down > 0.6}[row]
    assert {None: 0.45 < across < 0.55, "left": across < 0.4}[column]


def test_attenuation_at_a_single_energy_and_of_calcium(blobs):
    view = geometry("PA")
    path = projection.water_equivalent_mm(blobs, view)
    assert projection.attenuation_per_mm("water", 60) == pytest.approx(0.02059, rel=1e-5)
    calcium = image_like(sitk.GetArrayFromImage(blobs) + 1000, blobs)
    expected = path * projection.attenuation_per_mm("water", 70)
    np.testing.assert_allclose(projection.calcium_path(calcium, view, 70.0), expected, rtol=1e-4, atol=1e-5)
    assert projection.calcium_per_mm(40) / projection.calcium_per_mm(100) > projection.attenuation_per_mm(
        "water", 40
    ) / projection.attenuation_per_mm("water", 100)


def test_noise_is_poisson_and_the_same_each_time():
    flat = np.full((200, 200), 0.25, np.float32)
    first, again = (projection.detect(flat, Film(photons=1000), (1, 1)) for _ in range(2))
    assert (first == again).all()
    assert (first.mean(), first.var()) == (pytest.approx(0.25, rel=5e-3), pytest.approx(0.25 / 1000, rel=0.05))


def test_table_is_taken_away_and_the_body_stays():
    where = grid((100, 100, 20), (3.0, 3.0, 5.0))
    x, y, _ = np.moveaxis(points(where), -1, 0)
    body = (x / 110) ** 2 + (y / 80) ** 2 < 1
    hu = np.where(body, 40, -1000)
    hu[(x / 50) ** 2 + (y / 40) ** 2 < 1] = -850
    hu[(abs(y - 110) < 6) & (abs(x) < 130)] = 200
    cleaned = sitk.GetArrayFromImage(projection.body_only(image_like(hu.astype(np.int16), where)))
    assert (cleaned[body] == hu[body]).all()
    assert (cleaned[y > 95] < -900).all()


@pytest.mark.parametrize(
    "change",
    [{"source_isocentre_mm": 50.0}, {"pixels": (0, 5)}, {"detector_mm": (-3.0, 4.0)}, {"tilt_degrees": math.nan}],
)
def test_impossible_geometry_is_refused(blobs, change):
    with pytest.raises(ProjectionError):
        projection.water_equivalent_mm(blobs, geometry("PA", **change))


@pytest.mark.parametrize("name", ["PAA", "nan"])
def test_unknown_view_is_refused(name):
    with pytest.raises(ProjectionError):
        view_named(name)


def geometry_off_centre(view, **fields):
    fields = {"pixels": (46, 40), "detector_mm": (200.0, 180.0), "isocentre_mm": (3.0, -5.0, 8.0)} | fields
    base = replace(view_named("20"), tilt_degrees=15.0) if view == "tilted" else view_named(view)
    return replace(base, **fields)


def image_centred(values, oblique_degrees=0.0):
    image = image_of(values, (4.0, 3.5, 5.0), direction=tilted_direction(0, oblique_degrees))
    centre = image.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in image.GetSize()])
    image.SetOrigin([-c for c in centre])
    return image


def bumps(seed=0):
    """Return smooth bumps without symmetry, float32 [k, j, i], 0 to about 1, and 0 at the rim."""
    rng = np.random.default_rng(seed)
    k, j, i = np.indices((26, 32, 30), dtype=np.float32)
    total = np.zeros(k.shape, np.float32)
    for _ in range(4):
        z, y, x = rng.uniform(9, 17, 3)
        total += np.exp(-((k - z) ** 2 + (j - y) ** 2 + (i - x) ** 2) / 12).astype(np.float32)
    return total


@pytest.fixture(scope="module")
def patient():
    return image_centred((1000 * bumps() - 1000).astype(np.float32))


@pytest.mark.parametrize("view", ["lateral", "tilted"])
@pytest.mark.parametrize("order", ["RAS", "PIR", "SAL", "ILA"])
def test_order_and_flips_of_axes_do_not_matter(patient, order, view):
    path = projection.water_equivalent_mm(sitk.DICOMOrient(patient, order), geometry_off_centre(view))
    assert error(path, projection.water_equivalent_mm(patient, geometry_off_centre(view))) < 1e-5


@pytest.mark.parametrize("degrees", [-25.0, 40.0])
def test_patient_and_stand_turned_together_give_the_same(degrees):
    """Rotating patient and stand about the same axis leaves the radiograph unchanged."""
    values = (1000 * bumps() - 1000).astype(np.float32)
    straight = projection.water_equivalent_mm(
        image_centred(values), geometry_off_centre("37", isocentre_mm=(0.0, 0.0, 0.0))
    )
    turned = geometry_off_centre(str(37 + degrees), isocentre_mm=(0.0, 0.0, 0.0))
    assert error(projection.water_equivalent_mm(image_centred(values, degrees), turned), straight) < 1e-4


def test_radiograph_in_dicom_is_read_back_unchanged(patient, tmp_path):
    from CACScoringLib.radiograph.reading import read_radiograph

    picture = projection.radiograph(patient, replace(view_named("PA"), pixels=(256, 240)))
    write_dicom_radiograph(tmp_path / "x.dcm", picture, Acquisition("NIfTI"))
    loaded = read_radiograph(tmp_path / "x.dcm")
    assert (loaded.view, loaded.pixel_mm) == ("PA", pytest.approx(picture.geometry.pixel_mm))
    np.testing.assert_allclose(loaded.picture / 65535, picture.grey, atol=1e-4)
