"""Every reference is read as published, for validation and as annotations, and its faults are reported."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from collection_files import CALCIUM, chest, labels, write_image, write_scan
from reference_files import (
    regions_of,
    write_coca_gated,
    write_coca_nongated,
    write_label_maps,
    write_orcascore,
)

from CACScoringLib.core.errors import BadReferenceError, CTError, OutputError, TableError
from CACScoringLib.core.labels import Artery, NonCoronary
from CACScoringLib.io.reading import read_ct
from CACScoringLib.scans.source import ScanSource
from CACTrainingLib.cli.main import make_parser
from CACTrainingLib.project.annotation_files import SliceLabel
from CACTrainingLib.references.collection import collections
from CACTrainingLib.references.label_maps import declared
from CACTrainingLib.references.reference import scan_of
from CACTrainingLib.references.registry import find_scans, read_reference, read_study


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    """A scan with coronary calcium in all arteries and one without."""
    folder, calcium = tmp_path_factory.mktemp("scans"), labels()
    calcium[CALCIUM] = 1 + np.arange(18).reshape(2, 3, 3) % 4
    for name, hu, values in (("one", chest(), calcium), ("two", chest(1, hu=50.0), labels(0))):
        write_image(folder / name / "ct.nii.gz", hu)
        write_image(folder / name / "regions.nii.gz", values)
    return [folder / "one", folder / "two"]


@pytest.fixture(scope="module")
def gated(scans, tmp_path_factory):
    return write_coca_gated(tmp_path_factory.mktemp("gated"), {0: scans[0], 7: scans[1]})


@pytest.fixture(scope="module")
def nongated(scans, tmp_path_factory):
    scores = {"1A": (0, 12.5, 0, 30, 42.5), "2A": (0, 0, 0, 0, 0), "3A": (0, 0, 0, 0, 0), "4A": (0, 1, 0, 0, None)}
    return write_coca_nongated(tmp_path_factory.mktemp("nongated"), {1: scans[0], 2: scans[1], 4: scans[1]}, scores)


@pytest.fixture(scope="module")
def orcascore(scans, tmp_path_factory):
    return write_orcascore(tmp_path_factory.mktemp("orcascore"), {"TRV1P1": scans[0], "TRV2P10": scans[1]})


@pytest.fixture
def copied(tmp_path):
    """Function that copies a reference, so that a test can damage it."""
    return lambda folder: shutil.copytree(folder, tmp_path / "own")


def outlined(scan):
    """Labels [k, j, i] of a scan's reference."""
    return sitk.GetArrayFromImage(scan.outlines(read_ct(scan.ct, scan.series)))


def scans_in(name, folder, images=None):
    return find_scans(collections()[name], folder, images)


def labelled(scan):
    return sitk.GetArrayFromImage(regions_of(scan))


def test_contours_of_coca(gated, scans):
    reference = read_reference(gated)
    assert [scan.name for scan in reference.scans] == ["0", "7"]
    assert not reference.refused
    assert labelled(scans[0]).any()
    for scan, digital in zip(reference.scans, scans, strict=True):
        np.testing.assert_array_equal(outlined(scan), labelled(digital))
    assert read_reference(gated.parent).scans[0].ct == reference.scans[0].ct, "the folder above will do"


def test_contours_of_coca_with_faults(copied, gated):
    folder = copied(gated)
    text = (folder / "calcium_xml" / "0.xml").read_text("utf-8")
    (folder / "calcium_xml" / "0.xml").write_text(text.replace("Left Anterior Descending Artery", "1"), "utf-8")
    (folder / "calcium_xml" / "12.xml").write_text(text, "utf-8")
    shutil.copytree(folder / "patient" / "7", folder / "patient" / "8")
    reference = read_reference(folder)
    why = dict(reference.refused)
    assert [scan.name for scan in reference.scans] == ["7"]
    assert "the artery '1' is unknown" in why["0"]
    assert "no folder patient/12" in why["12"]
    assert "no calcium_xml/8.xml" in why["8"]


def test_scores_of_coca(nongated, scans):
    reference = read_reference(nongated)
    assert {scan.name: scan.total for scan in reference.scans} == {"1A": 42.5, "2A": 0.0}
    assert reference.scans[0].vessels == {"LM": 0.0, "LAD": 12.5, "LCX": 0.0, "RCA": 30.0}
    assert reference.scans[0].ct == nongated / "1" / "1"
    why = dict(reference.refused)
    assert "0 scans match this id" in why["3A"]
    assert "no total" in why["4A"]
    assert len(read_reference(nongated / "scores.xlsx").scans) == 2


@pytest.mark.parametrize(
    ("row", "why"),
    [("1A,-1,0,0,0,0", "LCA in line 2 .* '-1'"), ("1A,x,0,0,0,0", "'x'")],
)
def test_scores_of_coca_that_are_none(tmp_path, nongated, row, why):
    (tmp_path / "scores.csv").write_text(f"filename,LCA,LAD,LCX,RCA,total\n{row}\n", "utf-8")
    (tmp_path / "1").mkdir()
    shutil.copytree(nongated / "1" / "1", tmp_path / "1" / "1")
    with pytest.raises(BadReferenceError, match=why):
        read_reference(tmp_path)


def test_label_maps_of_orcascore_with_faults(copied, orcascore):
    folder = copied(orcascore)
    image = sitk.ReadImage(str(folder / "TRV1P1R.mhd"))
    sitk.WriteImage(sitk.ChangeLabel(image, {1: 5, 2: 5, 3: 5}), str(folder / "TRV1P1R.mhd"))
    (folder / "TRV2P10CTI.mhd").unlink()
    with pytest.raises(BadReferenceError) as error:
        read_reference(folder)
    assert "TRV1P1R.mhd holds the label 5. Its labels can be 1 LAD, 2 LCX, 3 RCA." in str(error.value)
    assert "TRV2P10CTI.mhd does not lie beside" in str(error.value)


def test_label_maps(scans, tmp_path):
    folder = write_label_maps(tmp_path, {"anna": scans[0], "bert": scans[1]})
    reference = read_reference(folder)
    assert [scan.name for scan in reference.scans] == ["anna", "bert"]
    np.testing.assert_array_equal(outlined(reference.scans[0]), labelled(scans[0]))
    sitk.WriteImage(regions_of(scans[0]) * 0 + 7, str(folder / "anna-lesions.nii.gz"))
    (folder / "bert.nii.gz").unlink()
    with pytest.raises(BadReferenceError) as error:
        read_reference(folder)
    assert "holds the label 7" in str(error.value)
    assert "0 CTs called bert" in str(error.value)


def test_a_users_table(scans, tmp_path):
    rows = f"ct,name,patient,LCA,LAD,cx,RCA\n{scans[0]}/ct.nii.gz,a,p,1,2,3,4\n{scans[1]}/ct.nii.gz,b,p,0,,0,0\n"
    (tmp_path / "own.csv").write_text(rows, "utf-8")
    reference = read_reference(tmp_path / "own.csv")
    (scan,) = reference.scans
    assert (scan.name, scan.patient, scan.total) == ("a", "p", 10.0)
    assert scan.vessels == {"LM": 1.0, "LAD": 2.0, "LCX": 3.0, "RCA": 4.0}
    assert "no total in line 3" in dict(reference.refused)["b"]


def test_scores_in_another_unit_are_left_out(scans, tmp_path):
    rows = "".join(f"{name},{scans[0]}/ct.nii.gz,40,{name}\n" for name in ("mg", "Agatston", "AU", "mm3"))
    (tmp_path / "own.csv").write_text(f"name,ct,total,Units\n{rows}", "utf-8")
    reference = read_reference(tmp_path / "own.csv")
    assert {scan.name for scan in reference.scans} == {"Agatston", "AU"}
    assert "The unit in line 2" in dict(reference.refused)["mg"]


def test_scores_that_contradict_each_other_are_left_out(scans, tmp_path):
    rows = [
        "less,100,100,0,300,0,0",  # total 100 beside LAD 300
        "differs,100,120,0,90,0,0",
        "rounded,101,100,0,33,33,36",  # 100.6 of 33.4, 33.4 and 35.6, say
        "branches,400,,0,100,100,100",
    ]
    lines = [f"{row.replace(',', f',{scans[0]}/ct.nii.gz,', 1)}\n" for row in rows]
    text = f"name,ct,total,agatston,Left Main,LAD,Cx,RCA\n{''.join(lines)}"
    (tmp_path / "own.csv").write_text(text, "utf-8")
    reference = read_reference(tmp_path / "own.csv")
    assert {scan.name: scan.total for scan in reference.scans} == {"rounded": 101.0, "branches": 400.0}
    why = dict(reference.refused)
    assert "contradict each other: total 100, but LAD 300" in why["less"]
    assert "contradict each other: total 100 and agatston 120" in why["differs"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ct,LM,LAD\na,1,1\n", "no column holds the score .* LCX, RCA are missing"),
        ("total\n1\n", "no column names the scan"),
        ("ct,total\nnowhere.nii.gz,1\n", "'nowhere.nii.gz' in line 2 .* is not there"),
        ("ct,total\n.,-4\n", "total in line 2 .* is '-4'"),
        ("ct;total\n.;1.234\n", "such as 1.234, which may be 1234 or"),
        ("ct,total,LM,LCA\n.,1,1,1\n", "two columns for LM"),
        ("id,total\n1,1\n", "names scans by id only"),
        ("ct,total\n.,1\n.,1\n", "have the same scan"),
    ],
)
def test_faulty_tables_are_refused(tmp_path, text, message):
    (tmp_path / "own.csv").write_text(text, "utf-8")
    with pytest.raises((BadReferenceError, TableError), match=message):
        read_reference(tmp_path / "own.csv")


NAMES = {"background": 0, "Left Anterior Descending": 1, "Posterior Descending": 2, "Mitral Valve": 3}


@pytest.mark.parametrize(
    "names", [NAMES, {str(label): name for name, label in NAMES.items()}], ids=["by name", "by label"]
)
def test_label_maps_with_named_labels(tmp_path, names):
    """Valves are read beside the arteries, and left out of annotations; the scans lie elsewhere."""
    folder, scans = tmp_path / "labels", tmp_path / "deidentified_nongated"
    write_scan(scans / "7" / "7", "anonymous")
    values = labels(2)
    values[6, 5, 5] = 3
    for name in ("coca_007", "coca_008"):
        write_image(folder / "labelsTr" / f"{name}.nii.gz", values)
    (folder / "dataset.json").write_text(json.dumps({"labels": names}), encoding="utf-8")
    reference = read_reference(folder, scans)
    (scan,) = reference.scans
    assert (scan.name, scan.patient) == ("coca_007", "7")
    read = outlined(scan)
    assert (np.unique(read[CALCIUM]).tolist(), read[6, 5, 5]) == ([Artery.RCA], NonCoronary.MITRAL_ANNULUS)
    (new_scan,), warnings = scans_in("coca-nongated", folder, scans)
    assert "coca_008. 0 scans match this id" in warnings[0]
    np.testing.assert_array_equal(sitk.GetArrayFromImage(new_scan.annotations().regions), labels(4))
    values[5, 6, 9] = 9
    write_image(folder / "labelsTr" / "coca_007.nii.gz", values)
    with pytest.raises(BadReferenceError, match="holds the label 9"):
        read_reference(folder, scans)
    write_image(folder / "labelsTr" / "coca_007.nii.gz", labels()[:4])
    (new_scan,), _ = scans_in("coca-nongated", folder, scans)
    with pytest.raises(CTError, match="does not cover the scan"):
        new_scan.annotations()


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
    (tmp_path / "dataset.json").write_text(content, encoding="utf-8")
    with pytest.raises(CTError, match=message):
        scans_in("coca-nongated", tmp_path, tmp_path)


def test_a_collection_declares_its_label_maps(tmp_path):
    """A collection of label maps beside scans needs its file of facts alone."""
    places = {"labels": r"case(\d+)_calcium\.nrrd", "scan": "case{}.nrrd"}
    collection = replace(collections()["orcascore"], places=places, labels={"circumflex": "7"}, vessels={})
    write_image(tmp_path / "case5.nrrd", chest())
    write_image(tmp_path / "case5_calcium.nrrd", labels(7))
    (scan,) = declared(collection).read(tmp_path, None, None).scans
    np.testing.assert_array_equal(outlined(scan), labels(Artery.LCX))


def test_what_is_no_reference(tmp_path, gated, nongated):
    with pytest.raises(BadReferenceError, match="There is no reference"):
        read_reference(tmp_path / "nothing")
    with pytest.raises(BadReferenceError, match="no reference of a known format"):
        read_reference(tmp_path)
    for folder in (gated, nongated):
        (tmp_path / folder.name).symlink_to(folder)
    with pytest.raises(BadReferenceError, match=r"holds COCA, gated .* and COCA, scans that are not gated"):
        read_reference(tmp_path)
    with pytest.raises(CTError, match="Leave --scans out"):
        read_reference(gated, nongated)


def test_orcascore_as_annotations(tmp_path):
    write_image(tmp_path / "TRV1P1CTI.mhd", chest())
    write_image(tmp_path / "TRV1P1CTAI.mhd", chest(1))
    for case in ("TRV1P1", "TRV1P2"):
        write_image(tmp_path / f"{case}R.mhd", labels(2))
    (scan,), warnings = scans_in("orcascore", tmp_path)
    assert (scan.name, scan.ct.name) == ("orcascore-TRV1P1", "TRV1P1CTI.mhd")
    imported = scan.annotations()
    assert imported.annotator == "orcascore"
    np.testing.assert_array_equal(sitk.GetArrayFromImage(imported.regions), labels(3), "2 is the circumflex")
    assert [k for k, label in imported.slices.items() if label is SliceLabel.VISIBLE] == [2, 3]
    assert warnings == [
        "Left out of orCaScore, MICCAI 2014: TRV1P2. Its CT TRV1P2CTI.mhd does not lie beside TRV1P2R.mhd."
    ]


def test_ct_rate(tmp_path):
    """Reconstructions of a patient share the patient; a German spreadsheet's table is read."""
    for name in ("train_1_a_1", "train_1_a_2", "train_2_a_1", "train_3_a_1"):
        write_image(tmp_path / "train_fixed" / name[:7] / f"{name}.nii.gz", chest())
    table = (
        "VolumeName;Größe;Coronary artery wall calcification\n"
        "train_1_a_1.nii.gz;1,5;1\ntrain_1_a_2.nii.gz;2,5;1,0\ntrain_2_a_1.nii.gz;2,5;0\n"
    )
    (tmp_path / "labels.csv").write_text(table, "cp1252")
    scans, warnings = scans_in("ct-rate", tmp_path)
    notes = {scan.name: (scan.patient, scan.note) for scan in scans}
    assert notes["train_1_a_1"] == ("train_1", "calcification reported")
    assert notes["train_1_a_2"] == ("train_1", "calcification reported")
    assert notes["train_2_a_1"] == ("train_2", "no calcification reported")
    assert all(scan.annotations is None for scan in scans)
    assert warnings == ["Volumes without a label are left out: train_3_a_1.nii.gz."]


@pytest.mark.parametrize("name", ["coca", "coca-nongated", "orcascore", "ct-rate"])
def test_another_folder_is_refused_with_the_layout(tmp_path, name):
    with pytest.raises(CTError, match=r"The layout of .+ is: "):
        scans_in(name, tmp_path)
    with pytest.raises(CTError, match="is no folder"):
        scans_in(name, tmp_path / "absent")


@pytest.mark.parametrize(
    ("name", "path", "patient"),
    [
        ("lidc", "LIDC-IDRI-0002_nc_1p25mm_heart.nii.gz", "LIDC-IDRI-0002"),
        ("lidc", "LIDC-IDRI-0002/3000522.nii.gz", "LIDC-IDRI-0002"),
        ("nlst", "a/20010203/scan.nii.gz", "a/20010203/scan"),
    ],
)
def test_the_patient_of_an_image_file_is_in_its_path(tmp_path, name, path, patient):
    write_image(tmp_path / path, chest())
    assert [scan.patient for scan in scans_in(name, tmp_path)[0]] == [patient]


def test_an_id_of_a_scan_that_cannot_be_read_is_refused():
    with pytest.raises(BadReferenceError, match="It has a gap"):
        scan_of("A", {"a": [ScanSource("a", "", Path("a"), fault="It has a gap.")]})


OWN_COLUMNS = 'Date;Patient;"Manual Agatston";CT;LAD\n1.2.2024;One;212,5;yes;a\n3.2.2024;two;0;no;b\n'
"""A reader's spreadsheet. Columns that are called as CAC's hold other things."""


def test_a_table_with_columns_of_other_names(scans, tmp_path):
    (tmp_path / "own.csv").write_text(OWN_COLUMNS, "utf-8")
    columns = "id=patient, total=Manual Agatston"
    reference = read_reference(tmp_path / "own.csv", scans[0].parent, columns=columns)
    assert [(scan.name, scan.total) for scan in reference.scans] == [("One", 212.5), ("two", 0.0)]
    assert reference.scans[0].ct.parent == scans[0]
    assert not reference.refused


@pytest.mark.parametrize(
    ("columns", "error", "message"),
    [
        ("", TableError, "no column names the scan .* Its columns are Case, Score; understood are ct, id, total,"),
        ("id=Case", TableError, "no column named by --columns holds the score"),
        ("id=Case,total=Points", TableError, "no column Points; it has Case, Score"),
        ("patient id=Case,total=Score", OutputError, "'patient id=Case' is no MEANING=COLUMN. The meanings are ct,"),
        ("id=Case,id=Score", OutputError, "'id=Score' appears twice"),
        ("id=Case,total=", OutputError, "'total=' is no MEANING=COLUMN"),
        ("id=Case,total=Score", BadReferenceError, "Name the folder they lie in with --scans"),
    ],
)
def test_columns_that_are_not_understood(tmp_path, columns, error, message):
    """They are refused without a look at scans, before packages of the command are required."""
    (tmp_path / "own.csv").write_text("Case,Score\na,1\n", "utf-8")
    words = [
        "evaluate",
        "accuracy",
        "--data",
        str(tmp_path / "own.csv"),
        "--output",
        str(tmp_path / "out"),
        "--columns",
        columns,
    ]
    options = make_parser().parse_args(words)
    with pytest.raises(error, match=message):
        options.extras(options)
    with pytest.raises(error, match=message):
        read_reference(tmp_path / "own.csv", columns=columns)


def test_a_study_of_an_unknown_table_is_refused_before_packages_are_required(tmp_path):
    file = tmp_path / "own.csv"
    options = make_parser().parse_args(["evaluate", "detection", "--data", str(file), "--output", "out"])
    for text in ("patient,scan,ct\np,1,a.nii.gz\n", "ct,total\na.nii.gz,3\n"):
        file.write_text(text, "utf-8")
        assert options.extras(options) == ("statistics", "cohort")
    file.write_text("Case,Score\na,1\n", "utf-8")
    with pytest.raises(TableError, match=r"no column names the scan .* Its columns are Case, Score"):
        options.extras(options)


def test_a_table_of_scores_may_number_the_scans_of_pairs(tmp_path):
    """With scores it is one reference for accuracy and for pairs; of other names in the column scan all are first."""
    for name in "abc":
        write_image(tmp_path / f"{name}.nii.gz", chest())
    table = tmp_path / "own.csv"
    table.write_text("patient,scan,ct,total\np,1,a.nii.gz,3\np,2,b.nii.gz,5\nq,left,c.nii.gz,0\n", "utf-8")
    reference = read_study(table)
    numbered = [(scan.patient, scan.number, scan.total) for scan in reference.scans]
    assert numbered == [("p", 1, 3), ("p", 2, 5), ("q", 1, 0)]
    assert len(read_study(table, pairs=1).scans) == 2


def test_only_a_table_has_columns(gated):
    with pytest.raises(BadReferenceError, match="Leave --columns out"):
        read_reference(gated, columns="id=Patient")
