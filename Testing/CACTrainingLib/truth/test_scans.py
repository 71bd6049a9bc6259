"""Scans of a study: digital cohorts and tables of pairs, and their faults."""

import json
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
from annotated_project import label
from digital_pairs import CALCIFIED
from training_scans import HEART_SLICES, write_scan

from CACScoringLib.core.errors import CTError
from CACScoringLib.core.grid import Grid
from CACScoringLib.io.reading import read_ct
from CACTrainingLib.project import annotations
from CACTrainingLib.project.annotation_files import SliceLabel
from CACTrainingLib.project.project import NewScan, Project
from CACTrainingLib.project.proposals import Proposal
from CACTrainingLib.references.registry import read_reference
from CACTrainingLib.truth import scans as study_scans
from CACTrainingLib.truth.records import make_record
from CACTrainingLib.truth.scans import find_study_scans, lone_patients, write_reference


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
    scans, warnings = find_study_scans(cohort)
    assert [(s.patient, s.number) for s in scans] == [("9", 1), ("9", 2), ("10", 1), ("10", 2), ("11", 1)]
    assert scans[0].truth == cohort / "patient_9" / "scan_1" / "truth.json"
    assert scans[0].hu_mm3_per_mass() == 1400
    assert not warnings
    assert lone_patients(scans) == ["11"]


@pytest.mark.parametrize("text", ["{", '{"patient": 3}', '{"patient": 10, "scan": 2}', '{"patient": 3, "scan": 7}'])
def test_a_bad_truth_stops_nothing(cohort, text):
    digital_scan(cohort / "zz", 99, 1)
    (cohort / "zz" / "truth.json").write_text(text, encoding="utf-8")
    scans, warnings = find_study_scans(cohort)
    assert len(scans) == 5
    assert len(warnings) == 1
    assert "zz" in warnings[0]


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
    scans, warnings = find_study_scans(file)
    assert [(s.name, s.patient, s.number, s.ct.name) for s in scans] == [
        ("anna/1", "anna", 1, "a1.nrrd"),
        ("anna/2", "anna", 2, "a2.nrrd"),
    ]
    assert scans[0].lesions == tmp_path.resolve() / "a1-lesions.seg.nrrd"
    assert scans[0].heart is None
    assert scans[1].heart.name == "h.nrrd"
    assert scans[0].hu_mm3_per_mass() == 1
    assert ["4" in warnings[0], "5" in warnings[1], "6" in warnings[2]] == [True] * 3


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (("patient,ct", "a,x"), "no column scan"),
        (("patient,scan,ct",), "no rows"),
        (("patient,scan,ct", "a,7,x"), "Line 2"),
    ],
)
def test_tables_that_are_none(tmp_path, rows, message):
    with pytest.raises(CTError, match=message):
        find_study_scans(table(tmp_path / "pairs.csv", *rows))


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
    monkeypatch.setattr(study_scans, "read_proposal", lambda *_: proposal)


def named_scans(project, **options):
    return {scan.name: scan for scan in find_study_scans(project.folder, **options)[0]}


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
        scans, warnings = find_study_scans(project.folder)
        assert [scan.name for scan in scans] == ["chest (0001)", "chest (0002)"]
        assert len(warnings) == 1
        assert "ben is left out" in warnings[0]
        assert "is no longer where it was" in warnings[0]


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
        assert not scan.labelled_whole, "one of them is unsure"
        ben = named_scans(project)["ben"]
        assert (ben.heart, ben.lesions, ben.labels, ben.labelled_whole) == (None, None, None, False)

    def test_labels_of_all_slices_with_heart(self, project, monkeypatch):
        label(project, "0003", "eve", NONE)
        assert not named_scans(project)["ben"].labelled_whole, "nobody knows where the heart is"
        paint(project, "0003", HEART, kind="heart")
        assert named_scans(project)["ben"].labelled_whole
        propose(monkeypatch, range(10))
        assert not named_scans(project)["ben"].labelled_whole

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
    scans, warnings = find_study_scans(project.folder)
    assert {scan.patient for scan in scans} == {"anna", "ben"}
    assert [warning.split(" is left out")[0] for warning in warnings] == ["7", "8"]


@pytest.fixture(scope="module")
def calcified(digital_results):
    scan, folder = next(result for result in zip(*digital_results, strict=True) if result[0].patient == str(CALCIFIED))
    truth = json.loads(scan.truth.read_text(encoding="utf-8"))
    slices = {int(s["k"]): bool(s["visible"]) for s in truth["slices"]}
    regions = scan.truth.with_name("regions.nii.gz")
    return replace(scan, truth=None), folder, slices, regions


@pytest.mark.long
class TestRecords:
    """Records of clinical scans from slice labels and regions."""

    def record(self, calcified, labels, **more):
        scan = replace(calcified[0], labels=None if labels is None else tuple(labels.items()), **more)
        return make_record(scan, calcified[1])

    def test_no_slice_with_heart_shows_any(self, calcified):
        none = dict.fromkeys(calcified[2], False)
        record = self.record(calcified, none, labelled_whole=True)
        assert (record.visible, record.visible_arteries) == (False, ())
        assert record.values["reader"]["total"][0] == 0
        assert not any(is_visible for is_visible, _ in record.slices)
        assert len(record.slices) > 5

    def test_a_slice_shows_calcium_that_nobody_painted(self, calcified, tmp_path):
        record = self.record(calcified, calcified[2], labelled_whole=True)
        assert record.visible
        assert record.visible_arteries is None, "nobody said in which artery"
        empty = sitk.ReadImage(str(calcified[3])) * 0
        sitk.WriteImage(empty, str(tmp_path / "empty.nii.gz"))
        assert self.record(calcified, calcified[2], lesions=tmp_path / "empty.nii.gz") == record
        seen_none = self.record(calcified, None, lesions=tmp_path / "empty.nii.gz")
        assert (seen_none.visible, seen_none.values["reader"]["total"][0]) == (False, 0)

    def test_voxels_below_the_clinical_threshold_do_not_count(self, calcified, tmp_path):
        """A region that covers all of a slice below 130 HU."""
        regions = sitk.ReadImage(str(calcified[3]))
        array = sitk.GetArrayFromImage(regions)
        ct = sitk.GetArrayFromImage(sitk.ReadImage(str(calcified[0].ct)))
        faint = np.where(ct < 130, np.uint8(2), np.uint8(0))
        assert array.any()
        assert faint.any()
        sitk.WriteImage(Grid.of(regions).image(faint), str(tmp_path / "faint.nii.gz"))
        record = self.record(calcified, None, lesions=tmp_path / "faint.nii.gz")
        assert record.values["reader"]["total"][0] == 0
        assert record.visible, "the reader says that something is there"


def test_reference_holds_regions_and_scans_without_calcium(project, monkeypatch, tmp_path):
    propose(monkeypatch)
    paint(project, "0001", (3, 4))
    paint(project, "0002", ())  # nothing is painted, but a slice shows calcium
    label(project, "0002", "eve", {3: SliceLabel.VISIBLE})
    label(project, "0003", "eve", NONE)
    count, warnings = write_reference(project.folder, tmp_path / "reference.csv")
    reference = read_reference(tmp_path / "reference.csv")
    assert count == len(reference.scans) == 2
    assert {scan.name: (scan.patient, scan.total) for scan in reference.scans} == {
        "chest (0001)": ("anna", None),
        "ben": ("ben", 0),
    }
    assert sitk.GetArrayFromImage(reference.scans[0].outlines(read_ct(reference.scans[0].ct))).any((1, 2)).sum() == 2
    assert [warning.split(" is left out")[0] for warning in warnings] == ["chest (0002)"]
