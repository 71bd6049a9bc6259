"""Scans of people in a folder: crops as files, and crops made of DICOM series."""

from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
from dicom_files import chest_hu, write_series

from CACScoringLib.core.grid import Grid
from CACScoringLib.io.reading import read_ct
from CACTrainingLib.references.people import DOUBTFUL, Person, crop_of, find_people, people

GRID = Grid((4, 3, 2), (1.4, 1.6, 6.0), (-98.25, -117.2, 34.5))
"""Means of 2 × 2 × 2 voxels, from voxel 2, 3, 1 of the series that `write_series` writes."""


@pytest.fixture
def person():
    return Person("P", "p.nii.gz", "C", "", "77", "", "", "CC BY", "", GRID, 10.0, True, (), "")


@pytest.fixture
def series(tmp_path):
    """Folder of a series, and its HU."""
    hu = chest_hu()
    write_series(tmp_path / "dicom" / "s1", hu, tags={"PatientID": "X-77", "SeriesDescription": "Gated, 40.0%"})
    return tmp_path / "dicom", hu


def test_each_scan_has_its_grid_and_the_positive_ones_labels_on_it():
    known = people()
    assert len({person.name for person in known}) == len(known) == 17
    for person in known:
        labels = np.unique(person.labels())
        assert bool(labels.any()) == (person.reading > 0), person.name
        assert set(labels) <= {0, 1, 2, 3, 4, 8, 9, 10, 11, 12, DOUBTFUL, 15}
        assert person.licence


def test_a_crop_is_made_of_the_means_of_a_series(series, tmp_path, person):
    folder, hu = series
    found, refused = find_people(folder, [person], tmp_path / "crops")
    ((_, source),) = found
    assert refused == []
    image = sitk.ReadImage(str(source.ct))
    crop = sitk.GetArrayFromImage(image)
    expected = hu[1:5, 3:9, 2:10].reshape(2, 2, 3, 2, 4, 2).mean((1, 3, 5))
    assert np.array_equal(crop, np.rint(expected))
    assert np.allclose(image.GetOrigin(), GRID.origin_mm)
    assert np.allclose(image.GetSpacing(), GRID.spacing_mm)


def test_a_crop_that_lies_between_voxels_or_beyond_the_scan_is_none_of_it(series):
    folder, _ = series
    ct = read_ct(folder / "s1")
    assert crop_of(GRID, ct) is not None
    assert crop_of(replace(GRID, origin_mm=(-98.0, -117.2, 34.5)), ct) is None
    assert crop_of(replace(GRID, size=(4, 3, 3)), ct) is None
    assert crop_of(replace(GRID, spacing_mm=(1.5, 1.6, 6.0)), ct) is None


def test_a_series_of_another_description_or_kernel_is_refused(series, tmp_path, person):
    named = replace(person, series="40.0%")
    assert len(find_people(series[0], [named], tmp_path)[0]) == 1
    for other in (replace(person, series="50.0%"), replace(person, grid=replace(GRID, size=(9, 9, 9)))):
        found, refused = find_people(series[0], [other], tmp_path)
        assert (found, [name for name, _ in refused]) == ([], [other])


def test_two_series_that_fit_are_refused(series, tmp_path, person):
    folder, hu = series
    write_series(folder / "s2", hu, tags={"PatientID": "X-77"})
    found, refused = find_people(folder, [person], tmp_path / "crops")
    assert found == []
    assert "2 of 2 series" in refused[0][1]


def test_others_are_neither_found_nor_refused(series, tmp_path, person):
    assert find_people(series[0], [replace(person, patient="78")], tmp_path) == ([], [])


def test_a_file_of_the_name_on_another_grid_is_refused(tmp_path, person):
    grid = replace(GRID, size=(14, 12, 6))
    image = grid.image(chest_hu().astype(np.int16))
    person = replace(person, grid=grid)
    sitk.WriteImage(image, str(tmp_path / person.file))
    found, refused = find_people(tmp_path, [person], tmp_path)
    assert (len(found), refused) == (1, [])
    sitk.WriteImage(image[1:], str(tmp_path / person.file))
    found, refused = find_people(tmp_path, [person], tmp_path)
    assert (found, len(refused)) == ([], 1)
    assert "another crop" in refused[0][1]
