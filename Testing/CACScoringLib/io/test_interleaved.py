"""Two reconstructions of one scan under one series: one overlapping stack that scores as their mean, or a refusal."""

import numpy as np
import pytest
from dicom_files import write_series

import CACScoringLib as cac
from CACScoringLib.core.grid import Grid

THICKNESS_MM, PLAQUE_MM, PLAQUE_HU, TISSUE_HU = 3.0, (40.2, 46.6), 600, 40
AREA_MM2 = 4 * 4 * 0.7 * 0.8
PLAQUE = slice(8, 12), slice(9, 13)


def share_in_slice(z):
    """Share of the plaque in the slice around z."""
    low, high = PLAQUE_MM
    half = THICKNESS_MM / 2
    return np.clip(np.minimum(z + half, high) - np.maximum(z - half, low), 0, None) / THICKNESS_MM


def reconstruction(folder, first_mm, **tags):
    """Write 12 slices of 3 mm, of the kernel and series of all; return the Agatston score on paper."""
    z = first_mm + THICKNESS_MM * np.arange(12)
    hu = np.random.default_rng(int(10 * first_mm)).normal(TISSUE_HU, 10, (12, 20, 24)).round()
    hu[:, :, :3] -= 1000
    hu[0, 0, 20], hu[1, 0, 20] = 1200, 1300  # bone, so that the plaque is not where the image is clipped
    plaque_hu = np.rint(TISSUE_HU + share_in_slice(z) * (PLAQUE_HU - TISSUE_HU))
    hu[(slice(None), *PLAQUE)] = plaque_hu[:, None, None]
    kernel = {"ConvolutionKernel": "B35f", "SeriesInstanceUID": "1.2.3", "StudyInstanceUID": "1.2", **tags}
    write_series(folder, hu, origin_mm=(0, 0, first_mm), tags=kernel, name=f"{first_mm:g}-{{:03d}}".format)
    return AREA_MM2 * sum((np.array([130, 200, 300, 400]) <= value).sum() for value in plaque_hu)


def agatston(folder):
    scan = cac.read_ct(folder)
    labels = np.zeros(scan.hu.shape, np.uint8)
    labels[(slice(None), *PLAQUE)] = 1
    image = Grid.of(scan.image).image(labels)
    return scan, cac.agatston(scan, image).total.agatston


@pytest.mark.long
def test_halfway_slices_score_as_the_mean_of_both(tmp_path):
    scores = [reconstruction(tmp_path / str(n), first) for n, first in enumerate((30.0, 31.5))]
    assert scores[0] != scores[1]
    assert [agatston(tmp_path / str(n))[1] for n in range(2)] == pytest.approx(scores)
    scan, score = agatston(tmp_path)
    assert scan.slice_spacing_mm == pytest.approx(1.5)
    assert scan.acquisition.slice_thickness_mm == 3
    assert score == pytest.approx(np.mean(scores))


def test_another_thickness_by_turns_is_reported(tmp_path):
    reconstruction(tmp_path / "0", 30.0)
    reconstruction(tmp_path / "1", 31.5, SliceThickness=1.5)
    assert "mixed-acquisition" in [warning.code for warning in cac.read_ct(tmp_path).warnings]


@pytest.mark.long
@pytest.mark.parametrize(("first_mm", "reason"), [(30.0, "several reconstructions"), (31.0, "11 slices are missing")])
def test_slices_at_the_same_or_uneven_places_are_refused(tmp_path, first_mm, reason):
    reconstruction(tmp_path / "0", 30.0)
    reconstruction(tmp_path / "1", first_mm, RescaleIntercept=-1023)
    with pytest.raises(cac.CTError, match=reason):
        cac.read_ct(tmp_path)
