"""Test the import of segmentations: regions, slice labels and hearts on the scan's grid, and refusals."""

from contextlib import nullcontext

import numpy as np
import pytest
import SimpleITK as sitk
from dicom_files import chest_hu, write_series

from CACScoringLib.core.errors import MaskError
from CACScoringLib.io.reading import read_ct
from CACTrainingLib.project.annotation_files import SliceLabel
from CACTrainingLib.references.segmentations import segmentation_annotations

SHAPE = (6, 10, 12)
SPACING_MM = (1.0, 1.0, 3.0)


@pytest.fixture
def ct(tmp_path):
    hu = np.full(SHAPE, -900, np.int16)
    hu[:, 2:8, 2:10] = 40
    hu[0, 0, 0] = 1200
    return _write(hu, tmp_path / "scan.nii.gz")


def _write(array, path, origin=(5.0, -7.0, 100.0), spacing=SPACING_MM, facts=None):
    vector = array.ndim == 4
    image = sitk.GetImageFromArray(array, isVector=vector)
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    for key, value in (facts or {}).items():
        image.SetMetaData(key, value)
    sitk.WriteImage(image, path)
    return path


def _segments(*segments):
    """Return the header fields of a .seg.nrrd for segments (name, label, layer)."""
    facts = {}
    for n, (name, label, layer) in enumerate(segments):
        keys = {"ID": f"S{n}", "Name": name, "LabelValue": str(label), "Layer": str(layer)}
        facts |= {f"Segment{n}_{key}": value for key, value in keys.items()}
    return facts


def _lesions(dtype=np.uint8):
    lesions = np.zeros(SHAPE, dtype)
    lesions[2, 4, 5:7] = 2
    lesions[3, 4, 5] = 4
    return lesions


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_label_map_of_arteries(ct, tmp_path, dtype):
    imported = segmentation_annotations(ct, None, _write(_lesions(dtype), tmp_path / "l.nrrd"))
    assert imported.annotator == "segmentation"
    assert (sitk.GetArrayFromImage(imported.regions) == _lesions()).all()
    assert [imported.slices[k].value for k in range(6)] == ["not visible"] * 2 + ["visible"] * 2 + ["not visible"] * 2
    assert imported.heart is None


def test_an_empty_label_map_labels_all_slices_as_not_visible(ct, tmp_path):
    imported = segmentation_annotations(ct, None, _write(np.zeros(SHAPE, np.uint8), tmp_path / "l.nrrd"))
    assert set(imported.slices.values()) == {SliceLabel.NOT_VISIBLE}
    assert not sitk.GetArrayFromImage(imported.regions).any()
    assert imported.regions.GetOrigin() == pytest.approx((5.0, -7.0, 100.0))


def test_label_map_on_a_finer_grid_is_resampled(ct, tmp_path):
    fine = np.repeat(np.repeat(_lesions(), 2, 1), 2, 2)
    path = _write(fine, tmp_path / "l.nrrd", (4.75, -7.25, 100.0), (0.5, 0.5, 3.0))
    assert (sitk.GetArrayFromImage(segmentation_annotations(ct, None, path).regions) > 0).tolist() == (
        _lesions() > 0
    ).tolist()


def test_segments_of_slicer_are_identified_by_their_names(ct, tmp_path):
    """Values are arbitrary, layers overlap, and the image ends with its segments."""
    values = np.zeros((3, 5, 8, 2), np.uint8)
    values[0, 0, 0, 0], values[1, 0, 1, 0], values[2, 0, 2, 0], values[..., 1] = 7, 3, 5, 1
    facts = _segments(("RCA", 7, 0), ("LM: left main", 3, 0), ("not-coronary", 5, 0), ("Heart", 1, 1))
    path = _write(values, tmp_path / "l.seg.nrrd", (7.0, -5.0, 103.0), facts=facts)
    imported = segmentation_annotations(ct, None, path)
    regions = sitk.GetArrayFromImage(imported.regions)
    assert np.argwhere(regions).tolist() == [[1, 2, 2], [2, 2, 3]]
    assert (regions[1, 2, 2], regions[2, 2, 3]) == (4, 1)
    assert sitk.GetArrayFromImage(imported.heart)[1:4, 2:7, 2:10].all()
    assert sitk.GetArrayFromImage(imported.heart).sum() == 3 * 5 * 8
    assert imported.slices[3] is SliceLabel.NOT_VISIBLE


def test_a_heart_alone_labels_no_slices(ct, tmp_path):
    heart = np.zeros(SHAPE, np.int16)
    heart[1:5, 2:8, 2:10] = 300
    imported = segmentation_annotations(ct, None, heart=_write((heart > 0).astype(np.uint8) * 9, tmp_path / "h.nrrd"))
    assert (sitk.GetArrayFromImage(imported.heart) == (heart > 0)).all()
    assert (imported.slices, imported.regions) == ({}, None)
    facts = _segments(("heart", 2, 0))
    imported = segmentation_annotations(ct, None, _write(_lesions(), tmp_path / "h.seg.nrrd", facts=facts))
    assert (imported.slices, imported.regions) == ({}, None)
    assert (sitk.GetArrayFromImage(imported.heart) == (_lesions() == 2)).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"array": _lesions() * 3}, "holds the label 12"),
        ({"origin": (5.0, -7.0, 400.0)}, "does not cover the scan"),
        ({"name": "l.seg.nrrd", "facts": _segments(("Spleen", 2, 0))}, "segment Spleen is no site"),
        ({"name": "l.seg.nrrd", "facts": _segments(("LAD", 2, 0)), "origin": (5.0, -7.0, 400.0)}, "outside the scan"),
        (
            {
                "name": "l.seg.nrrd",
                "array": np.ones((*SHAPE, 2), np.uint8),
                "facts": _segments(("LAD", 1, 0), ("RCA", 1, 1)),
            },
            "overlap",
        ),
        ({"array": np.ones((*SHAPE, 2), np.uint8)}, "one label per voxel"),
        ({"array": _lesions(np.float32) / 3}, "holds the label 1.33"),
    ],
)
def test_unsuitable_segmentation_is_refused(ct, tmp_path, change, message):
    settings = {"array": _lesions(), "name": "l.nrrd", **change}
    path = _write(settings.pop("array"), tmp_path / settings.pop("name"), **settings)
    with pytest.raises(MaskError, match=message):
        segmentation_annotations(ct, None, path)


def test_candidates_that_were_left_out_are_no_calcium(ct, tmp_path):
    """CAC's lesions.nii.gz labels them 6; without a lesion of an artery nobody has reviewed them."""
    lesions = _lesions()
    lesions[4, 5, 5] = 6
    imported = segmentation_annotations(ct, None, _write(lesions, tmp_path / "l.nii.gz"))
    assert (sitk.GetArrayFromImage(imported.regions) == _lesions()).all()
    assert imported.slices[4].value == "not visible"
    lesions[(lesions > 0) & (lesions < 6)] = 0
    with pytest.raises(MaskError, match="nobody has reviewed"):
        segmentation_annotations(ct, None, _write(lesions, tmp_path / "m.nii.gz"))
    lesions[2, 4, 5] = 8
    with pytest.raises(MaskError, match="nobody has reviewed"):
        segmentation_annotations(ct, None, _write(lesions, tmp_path / "n.nii.gz"))


def test_unassigned_segments_are_no_calcium(ct, tmp_path):
    lesions = _lesions()
    lesions[4, 5, 5] = 6
    facts = _segments(("LAD", 2, 0), ("RCA", 4, 0), ("unassigned", 6, 0))
    imported = segmentation_annotations(ct, None, _write(lesions, tmp_path / "l.seg.nrrd", facts=facts))
    assert set(np.unique(sitk.GetArrayFromImage(imported.regions))) == {0, 2, 4}


@pytest.mark.parametrize("role", ["lesions", "heart"])
def test_files_that_state_another_patient_are_refused(tmp_path, role):
    """Elements of DICOM that ITK keeps: the ID of the CT's patient, then of another."""
    hu = chest_hu()
    write_series(tmp_path / "ct", hu)
    for patient, outcome in (("P1", nullcontext()), ("P2", pytest.raises(MaskError))):
        labels = sitk.ReadImage(_write(np.full(hu.shape, 2, np.uint8), tmp_path / "ones.nrrd"))
        labels.CopyInformation(read_ct(tmp_path / "ct").image)
        labels.SetMetaData("0010|0020", patient)
        sitk.WriteImage(labels, tmp_path / "labels.nrrd")
        with outcome:
            segmentation_annotations(tmp_path / "ct", None, **{role: tmp_path / "labels.nrrd"})
