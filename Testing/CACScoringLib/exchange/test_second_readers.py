"""The DICOM objects as others read them: equal voxels, and numbers equal to the last digit."""

from dataclasses import replace

import dicom_results
import panel_results
import pytest
import SimpleITK as sitk
from second_readers import assert_same, check_objects, measurements_by_dcmtk, segments_by_dcmqi

from CACScoringLib.core.labels import Artery
from CACScoringLib.exchange.images import counted_labels
from CACScoringLib.exchange.write import write_objects


@pytest.mark.long
def test_every_object_is_read_by_dcmqi_dcmtk_and_gdcm(tmp_path):
    series = dicom_results.chest_series(tmp_path, dicom_results.PRONE)
    # A third of a milligram has no end in decimals.
    result = dicom_results.score(series, 1 / 3, panel_results.known_networks())
    (tmp_path / "objects").mkdir()
    (tmp_path / "scratch").mkdir()
    write_objects(tmp_path / "objects", result)
    check_objects(tmp_path / "objects", result, tmp_path / "scratch")


@pytest.mark.long
def test_calcium_of_a_single_artery(tmp_path):
    """highdicom states the identity of a single segment in another place."""
    series = dicom_results.chest_series(tmp_path)
    labels = sitk.ReadImage(series.lesions)
    sitk.WriteImage(labels * (labels == int(Artery.LAD)), tmp_path / "one.nrrd")
    result = dicom_results.score(replace(series, lesions=tmp_path / "one.nrrd"))
    (tmp_path / "objects").mkdir()
    write_objects(tmp_path / "objects", result)
    segmentation = tmp_path / "objects" / "segmentation.dcm"
    again = dicom_results.score(replace(series, lesions=segmentation))
    assert again.methods["threshold"].total == result.methods["threshold"].total
    measured = measurements_by_dcmtk(tmp_path / "objects" / "measurements.dcm")
    assert measured["Coronary calcium: LAD", "450360000"] == result.methods["threshold"].total.agatston
    assert_same(counted_labels(result), segments_by_dcmqi(segmentation, tmp_path / "scratch"))
