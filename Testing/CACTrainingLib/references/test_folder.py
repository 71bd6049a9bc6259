"""Test the search for new scans of all kinds, their segmentations, and warnings about skipped files."""

import shutil

import numpy as np
import pytest
import SimpleITK as sitk
from coca_files import ORIGIN_MM, region, write_gated
from dicom_files import chest_hu, write_series
from images import image_of
from training_scans import write_scan

from CACScoringLib.core.errors import CTError
from CACTrainingLib.project.annotation_files import SliceLabel
from CACTrainingLib.project.project import Project
from CACTrainingLib.references.folder import find_new_scans


def _image(path, array=None, origin_mm=(0.0, 0.0, 0.0)):
    path.parent.mkdir(parents=True, exist_ok=True)
    array = chest_hu().astype(np.int16) if array is None else array
    sitk.WriteImage(image_of(array, (0.7, 0.8, 3.0), origin_mm), path)
    return path


def _lesions(path, origin_mm=(0.0, 0.0, 0.0)):
    lesions = np.zeros(chest_hu().shape, np.uint8)
    lesions[2, 5, 5] = 2
    return _image(path, lesions, origin_mm)


def test_all_kinds_of_scans_below_one_folder(tmp_path):
    write_series(tmp_path / "dicom" / "one", chest_hu())
    write_series(tmp_path / "dicom" / "two", chest_hu(seed=1), tags={"PatientID": "Anonymous", "SeriesNumber": 4})
    write_series(tmp_path / "dicom" / "two", chest_hu(seed=2), tags={"PatientID": "P2"}, name="b{}.dcm".format)
    _image(tmp_path / "images" / "scan.nrrd")
    _image(tmp_path / "ct.mha")
    write_scan(tmp_path / "cohort" / "patient_5" / "scan_1", 5, True, False)
    write_gated(tmp_path / "coca", 9, [region(0, 30.0, [(3.5, 3.5)])])
    (tmp_path / "images" / "notes.txt").write_text("no scan", encoding="utf-8")
    steps = []
    scans, warnings = find_new_scans(tmp_path / "dicom", lambda *state: steps.append(state))
    assert steps == [(1, 2), (2, 2)]
    assert [(s.name, s.patient) for s in scans] == [("one", "P1"), ("two-3", "P2"), ("two-4", "two-4")]
    assert all(s.source == "scan" and s.series and s.annotations is None for s in scans)
    shutil.copytree(tmp_path / "images", tmp_path / "all" / "images")
    shutil.copytree(tmp_path / "cohort", tmp_path / "all" / "cohort")
    shutil.copytree(tmp_path / "coca", tmp_path / "all" / "coca")
    scans, warnings = find_new_scans(tmp_path / "all")
    kinds = {s.name: (s.source, s.patient, s.truth) for s in scans}
    digital = tmp_path / "all" / "cohort" / "patient_5" / "scan_1"
    assert kinds == {
        "coca-gated-9": ("coca", "coca-gated-9", None),
        "cohort/patient_5/scan_1": ("digital", "5", digital / "truth.json"),
        "images/scan": ("scan", "images/scan", None),
    }
    assert not warnings
    project = Project.create(tmp_path / "project")
    assert len(project.add(scans).added) == 3


def test_table_assigns_patients_and_segmentations(tmp_path):
    for name in ("one", "two", "three"):
        _image(tmp_path / "scans" / f"{name}.nrrd")
    _lesions(tmp_path / "masks" / "two.nrrd")
    rows = [
        "ct,patient,lesions,colour",
        "scans/one.nrrd,P7,,",
        "scans/two.nrrd,P7,masks/two.nrrd,",
        "scans/three.nrrd,,,red",
    ]
    table = tmp_path / "scans.csv"
    table.write_text("\n".join(rows), encoding="utf-8")
    scans, warnings = find_new_scans(table)
    assert [(scan.name, scan.patient) for scan in scans] == [("one", "P7"), ("two", "P7"), ("three", "three")]
    assert [scan.annotations is not None for scan in scans] == [False, True, False]
    assert scans[1].annotations().slices[2] is SliceLabel.VISIBLE
    assert "colour" in warnings[0]
    table.write_text("name\none", encoding="utf-8")
    with pytest.raises(CTError, match="no column ct"):
        find_new_scans(table)


def test_skipped_files_are_reported(tmp_path):
    _image(tmp_path / "a.nii.gz")
    _lesions(tmp_path / "somewhat.nii.gz")
    Project.create(tmp_path / "project")
    _lesions(tmp_path / "project" / "scans" / "0001" / "heart.nii.gz")
    write_series(tmp_path / "d1", chest_hu(), tags={"SeriesInstanceUID": "1.2.3"})
    write_series(tmp_path / "d2", chest_hu(), tags={"SeriesInstanceUID": "1.2.3"})
    write_scan(tmp_path / "patient_1", 1, True, False)
    (tmp_path / "patient_1" / "truth.json").write_text("{}", encoding="utf-8")
    scans, warnings = find_new_scans(tmp_path)
    assert [s.name for s in scans] == ["a"]
    text = "\n".join(warnings)
    for part in (
        "somewhat.nii.gz is a label map",
        "d1 was passed over. Files of this series lie in 2 folders",
        "patient_1/truth.json is not the truth",
    ):
        assert part in text


class TestSegmentations:
    def test_beside_the_scans(self, tmp_path):
        _image(tmp_path / "a.nii.gz")
        _lesions(tmp_path / "a-lesions.nii.gz")
        _lesions(tmp_path / "a-heart.nrrd")
        _image(tmp_path / "b.nii.gz")
        write_series(tmp_path / "c", chest_hu())
        _lesions(tmp_path / "c-lesions.nrrd", ORIGIN_MM)
        scans, warnings = find_new_scans(tmp_path)
        assert not warnings
        annotations = {scan.name: scan.annotations for scan in scans}
        assert (set(annotations), annotations["b"]) == ({"a", "b", "c"}, None)
        imported = annotations["a"]()
        assert imported.slices[2] is SliceLabel.VISIBLE
        assert sitk.GetArrayFromImage(imported.heart).sum() == 1
        assert sitk.GetArrayFromImage(annotations["c"]().regions)[2, 5, 5] == 2

    @pytest.mark.parametrize(("name", "labels"), [("a-heart", None), ("a", "labels")])
    def test_two_versions_are_not_chosen_between(self, tmp_path, name, labels):
        _image(tmp_path / "a.nii.gz")
        folder = None if labels is None else tmp_path / labels
        for ending in (".nii", ".nii.gz"):
            _lesions((folder or tmp_path) / f"{name}{ending}")
        (scan,), warnings = find_new_scans(tmp_path / "a.nii.gz", labels=folder)
        assert scan.annotations is None
        assert any(f"{name}.nii, {name}.nii.gz have one name" in warning for warning in warnings)

    def test_in_a_separate_folder(self, tmp_path):
        _image(tmp_path / "scans" / "x" / "a.nii.gz")
        _image(tmp_path / "scans" / "y" / "b.nii.gz")
        _image(tmp_path / "scans" / "z" / "b.nii.gz")
        _image(tmp_path / "scans" / "p7" / "ct.nii.gz")
        for name in ("a", "b", "p7", "q"):
            _lesions(tmp_path / "scans" / "labels" / f"{name}.nrrd")
        scans, warnings = find_new_scans(tmp_path / "scans", labels=tmp_path / "scans" / "labels")
        has_annotations = {scan.name: scan.annotations is not None for scan in scans}
        assert has_annotations == {"x/a": True, "y/b": False, "z/b": False, "p7": True}
        text = "\n".join(warnings)
        assert "several scans are called b" in text
        assert "1 files of" in text
        assert "q.nrrd" in text
