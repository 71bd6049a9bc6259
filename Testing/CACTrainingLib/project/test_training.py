"""Test the conversion of a project's scans, annotations and automatic results to training scans."""

import json

import numpy as np
import pytest
from annotated_project import NO, UNSURE, YES, label, outline
from training_scans import CALCIUM_HU, write_scan

from CACScoringLib.core.errors import DataError, UnreadableError
from CACScoringLib.core.files import OutputFolder
from CACScoringLib.core.progress import Progress
from CACScoringLib.io.reading import read_ct, read_mask
from CACScoringLib.pipeline import ScoreSettings, score_scan
from CACScoringLib.run import RunSettings, write_result
from CACScoringLib.scans.source import scan_digest
from CACScoringLib.scans.table import scans_of_table
from CACTrainingLib.data.datasets import find_scans, load_slices, prepare, split_by_patient
from CACTrainingLib.project.project import NewScan, Project
from CACTrainingLib.project.training import automatic_results, consensus, training_scans


@pytest.fixture
def project(tmp_path):
    """Project with a digital patient (0001) and two other scans; all CTs hold calcium in slices 3 and 4."""
    project = Project.create(tmp_path / "project")
    new_scans = []
    for name, source in (("d", "digital"), ("a", "scan"), ("b", "scan")):
        folder = write_scan(tmp_path / name, name, True, False)
        truth = folder / "truth.json" if source == "digital" else None
        new_scans.append(NewScan(name, f"patient-{name}", folder / "ct.nii.gz", source=source, truth=truth))
    assert len(project.add(new_scans).added) == 3
    return project


def truth_of(scan):
    return {s["k"]: s["visible"] for s in json.loads(scan.truth.read_text(encoding="utf-8"))["slices"]}


def by_patient(scans):
    return {scan.patient[-1]: scan for scan in scans}


def test_labels_and_heart_of_an_annotator(project):
    label(project, "0002", "Ann", {3: YES, 4: UNSURE, 5: NO})
    outline(project, "0002", "Ann")
    scans = by_patient(training_scans(project, "ann"))
    assert set(scans) == {"d", "a"}
    scan = scans["a"]
    assert truth_of(scan) == {**dict.fromkeys(range(10)), 3: True, 5: False}
    assert (scan.kind, scan.heart_known, scan.calcium_map) == ("coronary", True, None)
    assert scan.heart.parent.name == "Ann"


def test_labels_of_an_annotator_replace_the_truth_of_a_digital_patient(project, tmp_path):
    label(project, "0001", "Ann", {3: NO})
    scan = by_patient(training_scans(project, "Ann"))["d"]
    assert truth_of(scan)[3] is False
    assert scan.calcium_map is None
    assert (scan.heart, scan.heart_known) == (tmp_path / "d" / "heart.nii.gz", True)
    assert truth_of(by_patient(training_scans(project))["d"])[3] is True


def test_consensus_is_the_majority():
    readings = [{1: YES, 2: YES, 3: NO, 4: YES, 5: UNSURE}, {1: YES, 2: NO, 3: NO, 4: UNSURE}, {1: NO, 3: UNSURE}]
    assert consensus(readings) == {1: True, 3: False}


def test_scans_without_labels_and_heart_are_left_out(project, tmp_path):
    label(project, "0002", "Ann", {3: YES})  # without a heart
    outline(project, "0003", "Ann")  # without labels, but usable for the heart network
    scans = by_patient(training_scans(project))
    assert (set(scans), set(truth_of(scans["b"]).values())) == ({"d", "b"}, {None})
    (tmp_path / "d" / "ct.nii.gz").rename(tmp_path / "moved.nii.gz")
    assert set(by_patient(training_scans(project))) == {"b"}
    (tmp_path / "b" / "ct.nii.gz").unlink()
    with pytest.raises(DataError, match="None of the 3 scans"):
        training_scans(project)


def test_cache_is_renewed_by_another_label_alone(project):
    label(project, "0002", "Ann", {3: YES})
    outline(project, "0002", "Ann")
    first = by_patient(training_scans(project))["a"]
    written = first.truth.stat().st_mtime_ns
    again = by_patient(training_scans(project))["a"]
    assert (again.truth.stat().st_mtime_ns, again.fingerprint()) == (written, first.fingerprint())
    before = first.fingerprint()
    label(project, "0002", "Ann", {6: NO})
    assert by_patient(training_scans(project))["a"].fingerprint() != before


def test_project_is_trained_on_with_its_uses(project, tmp_path):
    label(project, "0002", "Ann", {3: YES, 6: NO})
    outline(project, "0002", "Ann")
    outline(project, "0003", "Ann")
    project.set_use({"patient-d": "training", "patient-a": "validation", "patient-b": "test"})
    scans = find_scans([project.folder])
    training, validation = split_by_patient(scans, 0.2, 0)
    assert [s.patient for s in training] == ["patient-d"]
    assert [s.patient for s in validation] == ["patient-a"]
    # Uses stay the same if a cohort with the same scans is added.
    scans_of_both = find_scans([project.folder, tmp_path / "d"])
    assert {s.patient: s.use for s in scans_of_both} == {s.patient: s.use for s in scans}


def weak_map(project, cache):
    """HU of the weak target by slices of 1.5 mm."""
    scans = training_scans(project)
    (slices,) = (load_slices(folder) for folder in prepare(scans, "slices", cache))
    assert not slices.has_map
    return 1000 * slices.calcium(np.arange(len(slices.slices))), slices.visible


class TestAutomaticResults:
    @pytest.fixture
    def project(self, tmp_path):
        """Project of one scan with calcium in slices 3 and 4, scored; Ann saw it in slice 3 only."""
        scan = write_scan(tmp_path / "a", "a", coronary=True, valve=False)
        project = Project.create(tmp_path / "project")
        project.add([NewScan("a", "patient-a", scan / "ct.nii.gz")])
        label(project, "0001", "Ann", {2: NO, 3: YES, 4: NO})
        outline(project, "0001", "Ann")
        root = project.folder / "results"
        heart = read_mask(scan / "heart.nii.gz")
        ct = read_ct(scan / "ct.nii.gz")
        result = score_scan(ct, ScoreSettings(), heart, heart * 2 * (ct.image >= 130))
        write_result(OutputFolder(root / "one", False), result, RunSettings(), Progress())
        (row,) = scans_of_table(project.folder / "scans.csv")[0]
        record = {"scans": {"one": {"scan": scan_digest(row.key)}}}
        (root / "cohort.json").write_text(json.dumps(record), encoding="utf-8")
        return project

    def test_lesions_where_a_person_saw_calcium(self, project, tmp_path):
        (scan,) = training_scans(project)
        assert (scan.automatic, scan.annotators) == (project.folder / "results" / "one", ("Ann",))
        target, visible = weak_map(project, tmp_path / "cache")
        assert visible.any()
        assert target[visible].max() == pytest.approx(CALCIUM_HU[3], abs=40)
        assert not target[~visible].any(), "also not in slice 4, which holds a lesion"

    def test_doubtful_lesions_are_no_target(self, project, tmp_path):
        file = project.folder / "results" / "one" / "scores.json"
        record = json.loads(file.read_text("utf-8"))
        for lesion in record["methods"]["threshold"]["lesions"]:
            lesion |= {"suggested_artery": "LAD", "confidence": 0.9, "not_coronary_probability": 0.4}
        file.write_text(json.dumps(record), encoding="utf-8")
        assert not weak_map(project, tmp_path / "cache")[0].any()

    def test_results_that_are_missing_or_damaged(self, project):
        (project.folder / "results" / "one" / "scores.json").unlink()
        assert automatic_results(project.folder) == {}, "a result that is not whole"
        (project.folder / "results" / "cohort.json").write_text("{", encoding="utf-8")
        with pytest.raises(UnreadableError, match="is damaged"):
            training_scans(project)
        (project.folder / "results" / "cohort.json").unlink()
        assert automatic_results(project.folder) == {}
