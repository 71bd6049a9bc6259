"""Scans of each collection's layout, with labels in the right voxels."""

import json

import numpy as np
import pytest
import SimpleITK as sitk
from collection_files import CALCIUM, chest, labels, write_image, write_scan

from CACScoringLib.core.ct import CTError
from CACTrainingLib.collections.collection import collections
from CACTrainingLib.collections.scans import CollectionError, find_scans
from CACTrainingLib.project.annotation_files import SliceLabel


def scans_in(name, folder, images=None):
    return find_scans(collections()[name], folder, images)


def test_orcascore(tmp_path):
    write_image(tmp_path / "TRV1P1CTI.mhd", chest())
    write_image(tmp_path / "TRV1P1CTAI.mhd", chest(1))
    write_image(tmp_path / "TRV1P1R.mhd", labels(2))
    write_image(tmp_path / "TRV1P2R.mhd", labels(2))
    (scan,), warnings = scans_in("orcascore", tmp_path)
    assert (scan.name, scan.ct.name) == ("orcascore-TRV1P1", "TRV1P1CTI.mhd")
    imported = scan.annotations()
    assert imported.annotator == "orcascore"
    np.testing.assert_array_equal(sitk.GetArrayFromImage(imported.regions), labels(3), "2 is the circumflex")
    assert [k for k, label in imported.slices.items() if label is SliceLabel.VISIBLE] == [2, 3]
    assert warnings == ["TRV1P2 is left out. Its CT TRV1P2CTI.mhd does not lie beside TRV1P2R.mhd."]


NAMES = {"background": 0, "Left Anterior Descending": 1, "Posterior Descending": 2, "Mitral Valve": 3}


@pytest.mark.parametrize(
    "names", [NAMES, {str(label): name for name, label in NAMES.items()}], ids=["by name", "by label"]
)
def test_coca_nongated_with_named_labels(tmp_path, names):
    """Arteries are kept in a project, valves are not."""
    write_scan(tmp_path / "deidentified_nongated" / "7" / "7", "anonymous")
    values = labels(2)
    values[6, 5, 5] = 3
    write_image(tmp_path / "labels" / "labelsTr" / "coca_007.nii.gz", values)
    write_image(tmp_path / "labels" / "labelsTr" / "coca_008.nii.gz", values)
    (tmp_path / "labels" / "dataset.json").write_text(json.dumps({"labels": names}))
    (scan,), warnings = scans_in("coca-nongated", tmp_path / "labels", tmp_path / "deidentified_nongated")
    assert "coca_008 is left out. 0 scans match this id" in warnings[0]
    regions = sitk.GetArrayFromImage(scan.annotations().regions)
    np.testing.assert_array_equal(np.unique(regions[CALCIUM]), [4], "the posterior descending counts for the RCA")
    assert np.count_nonzero(regions) == np.count_nonzero(labels())


def test_coca_nongated_as_segmentations_of_slicer(tmp_path):
    write_scan(tmp_path / "scans" / "7", "anonymous")
    segment = {"Segment0_ID": "s", "Segment0_Name": "Left Anterior Descending", "Segment0_LabelValue": "1"}
    write_image(tmp_path / "labels" / "7.seg.nrrd", labels(), **segment, Segment0_Layer="0")
    (scan,), _ = scans_in("coca-nongated", tmp_path / "labels", tmp_path / "scans")
    np.testing.assert_array_equal(sitk.GetArrayFromImage(scan.annotations().regions), labels(2))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"labels": {"Spleen": 1}}', "names Spleen, which is no site"),
        ('{"labels": 3}', "does not name labels"),
        ("{", "does not name labels"),
    ],
)
def test_names_that_are_no_sites(tmp_path, content, message):
    write_image(tmp_path / "7.nii.gz", labels())
    (tmp_path / "dataset.json").write_text(content)
    with pytest.raises(CollectionError, match=message):
        scans_in("coca-nongated", tmp_path, tmp_path)


def test_a_label_for_another_grid_is_refused(tmp_path):
    write_scan(tmp_path / "scans" / "7", "anonymous")
    (tmp_path / "labels").mkdir()
    write_image(tmp_path / "labels" / "7.nii.gz", labels()[:4])
    (tmp_path / "labels" / "dataset.json").write_text(json.dumps({"labels": NAMES}))
    (scan,), _ = scans_in("coca-nongated", tmp_path / "labels", tmp_path / "scans")
    with pytest.raises(CTError, match="does not cover the scan"):
        scan.annotations()


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252"])
def test_ct_rate(tmp_path, encoding):
    """Reconstructions of a patient share the patient; a German spreadsheet's table is read."""
    for name in ("train_1_a_1", "train_1_a_2", "train_2_a_1", "train_3_a_1"):
        write_image(tmp_path / "train_fixed" / name[:7] / f"{name}.nii.gz", chest())
    table = (
        "VolumeName;Größe;Coronary artery wall calcification\n"
        "train_1_a_1.nii.gz;1,5;1\ntrain_1_a_2.nii.gz;2,5;1,0\ntrain_2_a_1.nii.gz;2,5;0\n"
    )
    (tmp_path / "labels.csv").write_text(table, encoding)
    scans, warnings = scans_in("ct-rate", tmp_path)
    notes = {scan.name: (scan.patient, scan.note) for scan in scans}
    assert notes["train_1_a_1"] == ("train_1", "calcification reported")
    assert notes["train_1_a_2"] == ("train_1", "calcification reported")
    assert notes["train_2_a_1"] == ("train_2", "no calcification reported")
    assert all(scan.annotations is None for scan in scans)
    assert warnings == ["Volumes without a label are left out: train_3_a_1.nii.gz."]


@pytest.mark.parametrize("name", ["coca", "orcascore", "ct-rate", "nlst"])
def test_another_folder_is_refused_with_the_layout(tmp_path, name):
    with pytest.raises(CollectionError, match=r"The layout of .+ is: "):
        scans_in(name, tmp_path)
    with pytest.raises(CollectionError, match="is no folder"):
        scans_in(name, tmp_path / "absent")


@pytest.mark.parametrize(
    ("name", "path", "patient"),
    [
        ("lidc", "LIDC-IDRI-0002_nc_1p25mm_heart.nii.gz", "LIDC-IDRI-0002"),
        ("lidc", "LIDC-IDRI-0002/3000522.nii.gz", "LIDC-IDRI-0002"),
        ("nlst", "101287_T0_FC51_2mm.nii.gz", "101287"),
        ("nlst", "a/20010203/scan.nii.gz", "a/20010203/scan"),
    ],
)
def test_the_patient_of_an_image_file_is_in_its_path(tmp_path, name, path, patient):
    write_image(tmp_path / path, chest())
    assert [scan.patient for scan in scans_in(name, tmp_path)[0]] == [patient]
