"""Scans of a study: digital cohorts and tables of pairs, and their faults."""

import json

import numpy as np
import pytest
import SimpleITK as sitk
from annotated_project import label
from training_scans import HEART_SLICES, write_scan

from CACScoringLib.core.errors import CTError
from CACScoringLib.core.grid import Grid
from CACScoringLib.io.reading import read_ct
from CACTrainingLib.project import annotations
from CACTrainingLib.project.annotation_files import SliceLabel
from CACTrainingLib.project.project import NewScan, Project
from CACTrainingLib.project.proposals import Proposal
from CACTrainingLib.references import annotated
from CACTrainingLib.references.annotated import lone_patients
from CACTrainingLib.references.registry import read_reference, read_study


def digital_scan(folder, patient, number, **more):
    folder.mkdir(parents=True)
    (folder / "ct.nii.gz").write_bytes(b"")
    truth = {"patient": patient, "scan": number, "calcium_hu_per_mg_cm3": 1.4, **more}
    (folder / "truth.json").write_text(json.dumps(truth), encoding="utf-8")


@pytest.fixture
def cohort(tmp_path):
    """Patients 9 and 10 with both scans, 11 with one."""
    for patient, number in ((10, 1), (10, 2), (9, 2), (9, 1), (11, 1)):
        digital_scan(tmp_path / f"patient_{patient}" / f"scan_{number}", patient, number)
    return tmp_path


def test_a_digital_cohort_in_the_order_of_its_numbers(cohort):
    reference = read_study(cohort)
    scans, refused = reference.scans, reference.refused
    assert [(s.patient, s.number) for s in scans] == [("9", 1), ("9", 2), ("10", 1), ("10", 2), ("11", 1)]
    assert scans[0].truth == cohort / "patient_9" / "scan_1" / "truth.json"
    assert scans[0].hu_mm3_per_mass() == 1400
    assert not refused
    assert lone_patients(scans) == ["11"]


@pytest.mark.parametrize("text", ["{", '{"patient": 3}', '{"patient": 10, "scan": 2}', '{"patient": 3, "scan": 7}'])
def test_a_bad_truth_stops_nothing(cohort, text):
    digital_scan(cohort / "zz", 99, 1)
    (cohort / "zz" / "truth.json").write_text(text, encoding="utf-8")
    reference = read_study(cohort)
    assert len(reference.scans) == 5
    assert [name for name, _ in reference.refused] == ["zz"]


def table(path, *rows):
    path.write_text("\n".join(rows), encoding="utf-8")
    return path


def test_a_table_of_pairs(tmp_path):
    file = table(
        tmp_path / "pairs.csv",
        "patient;scan;ct;lesions;heart",
        "anna;1;a1.nrrd;a1-lesions.seg.nrrd;",
        "anna;2;a2.nrrd;;h.nrrd",
        "anna;2;a3.nrrd;;",
        ";1;b.nrrd;;",
        "ben;3;b.nrrd;;",
    )
    reference = read_study(file)
    scans = reference.scans
    assert [(s.name, s.patient, s.number, s.ct.name) for s in scans] == [
        ("anna/1", "anna", 1, "a1.nrrd"),
        ("anna/2", "anna", 2, "a2.nrrd"),
    ]
    assert scans[0].lesions == tmp_path.resolve() / "a1-lesions.seg.nrrd"
    assert scans[0].heart is None
    assert scans[1].heart.name == "h.nrrd"
    assert scans[0].hu_mm3_per_mass() == 1
    assert [name for name, _ in reference.refused] == ["Line 4", "Line 5", "Line 6"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (("patient,ct", "a,x"), "no column holds the score"),
        (("patient,scan,ct",), "no rows"),
        (("patient,scan,ct", "a,7,x"), "Line 2"),
    ],
)
def test_tables_that_are_none(tmp_path, rows, message):
    with pytest.raises(CTError, match=message):
        read_study(table(tmp_path / "pairs.csv", *rows))


def test_a_study_takes_any_reference(tmp_path):
    (tmp_path / "a.nrrd").write_bytes(b"")
    file = table(tmp_path / "own.csv", "ct,total", "a.nrrd,7")
    assert [scan.total for scan in read_study(file).scans] == [7]
    with pytest.raises(CTError, match="two scans"):
        read_study(file, pairs=1)
    with pytest.raises(CTError, match="not a project"):
        read_study(file, use="test")


HEART = range(*HEART_SLICES.indices(10))


@pytest.fixture
def project(tmp_path) -> Project:
    """Scans 0001 and 0002 of patient anna, 0003 of ben: for test; 0004 of cleo: for training."""
    project = Project.create(tmp_path / "project", "hearts")
    new = []
    for number, patient in enumerate(("anna", "anna", "ben", "cleo")):
        folder = write_scan(tmp_path / "data" / str(number), number, patient != "ben", valve=False)
        new.append(NewScan("chest" if patient == "anna" else patient, patient, folder / "ct.nii.gz"))
    assert len(project.add(new).added) == 4
    project.set_use({"anna": "test", "ben": "test", "cleo": "training"})
    return project


def paint(project, scan_id, slices, annotator="eve", kind="regions"):
    scan = sitk.ReadImage(str(project.scan(scan_id).ct))
    array = np.zeros(scan.GetSize()[::-1], np.uint8)
    for k in slices:
        array[k, 14:20, 30:36] = 2 if kind == "regions" else 1
    annotations.write_mask(project, scan_id, annotator, kind, Grid.of(scan).image(array))


def propose(monkeypatch, slices=HEART):
    proposal = Proposal(None, "lungs", tuple(slices), {}, (), ())
    monkeypatch.setattr(annotated, "read_proposal", lambda *_: proposal)


def named_scans(project, **options):
    return {scan.name: scan for scan in read_study(project.folder, **options).scans}


NONE = dict.fromkeys(HEART, SliceLabel.NOT_VISIBLE)


class TestWhich:
    def test_those_of_one_use_numbered_by_patient(self, project):
        scans = named_scans(project)
        assert {name: (scan.patient, scan.number) for name, scan in scans.items()} == {
            "chest (0001)": ("anna", 1),
            "chest (0002)": ("anna", 2),
            "ben": ("ben", 1),
        }
        assert lone_patients(scans.values()) == ["ben"]
        assert list(named_scans(project, use="training")) == ["cleo"]
        assert len(named_scans(project, pairs=1)) == 2

    def test_a_moved_scan_is_left_out_with_a_warning(self, project):
        project.scan("0003").ct.unlink()
        reference = read_study(project.folder)
        assert [scan.name for scan in reference.scans] == ["chest (0001)", "chest (0002)"]
        ((name, why),) = reference.refused
        assert name == "ben"
        assert "is no longer where it was" in why


class TestAnnotated:
    def test_the_only_annotators_masks_and_labels(self, project, monkeypatch):
        propose(monkeypatch)
        paint(project, "0001", (3, 4))
        paint(project, "0001", HEART, kind="heart")
        label(project, "0001", "eve", {**NONE, 3: SliceLabel.VISIBLE, 5: SliceLabel.UNSURE})
        scan = named_scans(project)["chest (0001)"]
        assert scan.lesions == project.scan_folder("0001") / "annotators" / "eve" / "regions.nii.gz"
        assert scan.heart == scan.lesions.with_name("heart.nii.gz")
        assert dict(scan.labels) == {k: k == 3 for k in HEART if k != 5}, "a label counts before what is painted"
        ben = named_scans(project)["ben"]
        assert (ben.heart, ben.lesions, ben.outlines, ben.labels, ben.total) == (None,) * 5

    def test_labels_of_all_slices_with_heart(self, project, monkeypatch):
        label(project, "0003", "eve", NONE)
        assert named_scans(project)["ben"].total is None, "nobody knows where the heart is"
        paint(project, "0003", HEART, kind="heart")
        assert named_scans(project)["ben"].total == 0
        propose(monkeypatch, range(10))
        assert named_scans(project)["ben"].total is None

    def test_a_region_in_a_slice_without_label_shows_calcium(self, project):
        paint(project, "0001", (4,))
        label(project, "0001", "eve", {2: SliceLabel.NOT_VISIBLE})
        assert dict(named_scans(project)["chest (0001)"].labels) == {2: False, 4: True}

    def test_an_annotator_must_be_named_if_there_are_two(self, project):
        label(project, "0001", "eve", {3: SliceLabel.VISIBLE})
        label(project, "0001", "Zoe", {3: SliceLabel.NOT_VISIBLE})
        with pytest.raises(CTError, match=r"annotated by eve, Zoe\. Name with --annotator"):
            named_scans(project)
        assert dict(named_scans(project, annotator="zoe")["chest (0001)"].labels) == {3: False}
        assert named_scans(project, annotator="nobody")["chest (0001)"].labels is None


def test_digital_scans_among_clinical_ones_are_left_out(project, tmp_path):
    folders = [write_scan(tmp_path / "digital" / str(n), n, True, valve=False) for n in (7, 8)]
    project.add([NewScan(f.name, f.name, f / "ct.nii.gz", source="digital", truth=f / "truth.json") for f in folders])
    project.set_use({"7": "test", "8": "test"})
    reference = read_study(project.folder)
    assert {scan.patient for scan in reference.scans} == {"anna", "ben"}
    assert [name for name, _ in reference.refused] == ["7", "8"]


def test_a_scan_scores_zero_only_if_its_labels_exclude_calcium(project, monkeypatch):
    propose(monkeypatch)
    paint(project, "0001", (3, 4))
    paint(project, "0002", ())  # nothing is painted, but a slice shows calcium
    label(project, "0002", "eve", {3: SliceLabel.VISIBLE})
    label(project, "0003", "eve", NONE)
    scans = {scan.name: scan for scan in read_reference(project.folder).scans}
    assert {name: scan.total for name, scan in scans.items()} == {
        "chest (0001)": None,
        "chest (0002)": None,
        "ben": 0,
    }
    painted = scans["chest (0001)"]
    assert sitk.GetArrayFromImage(painted.outlines(read_ct(painted.ct))).any((1, 2)).sum() == 2
    assert scans["chest (0002)"].has_positive_label
