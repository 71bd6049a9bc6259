"""Checks of a project before training: missing data, and remedies."""

from contextlib import nullcontext

import pytest
from annotated_project import NO, UNSURE, YES, label, mask, outline, write_proposal
from study_tables import csv_rows
from training_scans import write_scan

from CACScoringLib.core.errors import CTError
from CACScoringLib.core.tables import write_table
from CACTrainingLib.data.datasets import SliceDataset, find_scans, load_slices, prepare, split_by_patient
from CACTrainingLib.data.project_check import check_project
from CACTrainingLib.data.slice_batches import BalancedSampler, Sampling
from CACTrainingLib.project.annotations import slice_annotations, write_mask
from CACTrainingLib.project.files import SCANS_FILE
from CACTrainingLib.project.project import NewScan, Project
from CACTrainingLib.training.settings import LoopSettings, RunOptions
from CACTrainingLib.training.territories import outlined_scans


@pytest.fixture
def make(tmp_path):
    """Factory of projects with digital patients (a capital letter for one without calcium) and other scans."""

    def make(digital="", scans="", uses=None, with_map=True):
        project = Project.create(tmp_path / "project")
        new = []
        for name in digital + scans:
            folder = write_scan(tmp_path / "data" / name, name, name.islower(), False, with_map)
            truth = folder / "truth.json" if name in digital else None
            new.append(NewScan(name, name, folder / "ct.nii.gz", source="digital" if truth else "scan", truth=truth))
        project.add(new)
        project.set_use(uses or {})
        return project

    return make


def errors(findings):
    return [f.message for f in findings if f.severity == "error"]


def finding_with(findings, part):
    matches = [f for f in findings if part in f.message]
    assert len(matches) == 1, f"{part!r} in {findings}"
    return matches[0]


GOOD = {"a": "training", "B": "training", "c": "validation", "D": "validation", "e": "test"}


def test_whole_cohort_lacks_nothing(make):
    project = make("aBcDe", uses=GOOD)
    for network in ("slices", "decomposition"):
        assert not [f for f in check_project(project, network) if f.severity != "note"]
    assert not errors(check_project(project))


def test_missing_scans(make, tmp_path):
    project = make("aBcDe", uses=GOOD)
    (tmp_path / "data" / "a").rename(tmp_path / "elsewhere")
    finding = finding_with(check_project(project), "not where they were: 1,")
    assert (finding.severity, finding.scans) == ("warning", ("0001",))
    assert finding.remedy == "relocate"


def test_uses(make):
    project = make("aBcDe")
    assert finding_with(check_project(project), "No patient has a stored use").severity == "warning"
    project.set_use({"a": "training", "B": "training", "c": "training", "D": "test"})
    assert finding_with(check_project(project), "Patients without a stored use: 1.").scans == ("0005",)
    project.set_use({"e": "training"})
    assert "No patient is stored for validation" in errors(check_project(project, "slices"))[0]
    project.set_use({"D": "validation"})
    assert finding_with(check_project(project), "No patient is stored for test").severity == "warning"


def test_one_patient_in_two_uses(make):
    project = make("aBcDe", uses=GOOD)
    file = project.folder / SCANS_FILE
    rows = csv_rows(file)
    rows[2]["patient"] = "a"
    write_table(file, list(rows[0]), rows)
    findings = check_project(Project.open(project.folder))
    assert finding_with(findings, "patient a have different uses").scans == ("0001", "0003")


def test_annotations(make):
    project = make("aBcDe", scans="xy", uses=GOOD)
    label(project, "0006", "Ann", {3: NO, 4: UNSURE, 5: YES})
    write_mask(project, "0006", "Ann", "regions", mask((slice(3, 6), 16, 32), 2))
    findings = check_project(project)
    wrong = finding_with(findings, "Ann painted regions in slices of x")
    assert (wrong.severity, wrong.scans) == ("warning", ("0006",))
    assert wrong.message.split(": ")[1].startswith("3.")
    assert finding_with(findings, "left out for want of a heart: 1.").scans == ("0006",)
    assert finding_with(findings, "without labels and outlined heart: 1.").scans == ("0007",)
    assert not slice_annotations(project, "0006", "Bob").labels
    assert "Bob has annotated no scan. Annotators are Ann" in errors(check_project(project, annotator="Bob"))[0]


def test_scans_that_are_begun_are_told(make):
    project = make("aBcDe", scans="xy", uses=GOOD)
    for scan in ("0006", "0007"):
        write_proposal(project, scan, (3, 4))
    label(project, "0006", "Ann", {3: NO})
    label(project, "0007", "Ann", {3: NO, 4: YES})
    finding = finding_with(check_project(project), "begun and not finished")
    assert (finding.severity, finding.scans) == ("note", ("0006",))
    assert not [f for f in check_project(project) if "left out, without labels" in f.message]


def test_lesions_are_learned_from_what_annotators_judged(make):
    """In real scans of two patients at least: one is validated on."""
    project = make("aBcDe", scans="xyz", uses=GOOD)
    assert len(errors(check_project(project, "lesions"))) == 1
    for scan, labels in (("0006", {3: NO, 4: YES}), ("0007", {3: NO, 4: YES})):
        assert errors(check_project(project, "lesions"))
        write_proposal(project, scan, (3, 4))
        label(project, scan, "Ann", labels)
    project.set_use({"x": "training", "y": "validation"})
    assert not errors(check_project(project, "lesions"))
    label(project, "0006", "Ann", {3: YES, 4: YES})
    assert len(errors(check_project(project, "lesions"))) == 1


def begin_training(folders, network, method, annotator, cache):
    """Do what a training does with its scans before the first step. Raises CTError."""
    if network == "territories":
        outlined_scans(RunOptions(tuple(folders), cache, annotator=annotator), LoopSettings())
        return
    for scans in split_by_patient(find_scans(folders, annotator), 0.2, 0):
        data = SliceDataset([load_slices(folder) for folder in prepare(scans, "slices", cache, 1)])
        is_supervised = (network, method) == ("decomposition", "supervised")
        BalancedSampler(data, Sampling(), known_maps=is_supervised, labels_only=method == "labels")


def annotated(project, ids, labels):
    for scan in ids:
        write_proposal(project, scan, (3, 4))
        label(project, scan, "Ann", labels)


def outlined(project, ids):
    for scan in ids:
        outline(project, scan, "Ann")


def without(folder):
    folder.rename(folder.parent.parent / f"former {folder.name}")


STATES = {
    "whole": lambda make, data: make("aBcDe", uses=GOOD),
    "no uses": lambda make, data: make("aBcDe"),
    "no maps": lambda make, data: make("aBcDe", uses=GOOD, with_map=False),
    "one patient": lambda make, data: make("a"),
    "no calcium to train on": lambda make, data: make(
        "aBcD", uses={"a": "validation", "B": "training", "c": "validation", "D": "training"}
    ),
    "no use for validation": lambda make, data: make("aBcD", uses=dict.fromkeys("aBcD", "training")),
    "one outline": lambda make, data: outlined(make(scans="ab"), ("0001",)),
    "outlines": lambda make, data: outlined(make(scans="ab"), ("0001", "0002")),
    "nothing annotated": lambda make, data: make(scans="xy"),
    "labels": lambda make, data: annotated(make(scans="xyz"), ("0001", "0002"), {3: NO, 4: YES}),
    "labels outside the heart": lambda make, data: annotated(make(scans="xy"), ("0001", "0002"), {0: YES, 3: NO}),
    "no labelled calcium": lambda make, data: annotated(make(scans="xy"), ("0001", "0002"), {3: NO, 4: NO}),
    "missing validation": lambda make, data: make("aBcDe", uses=GOOD) and [without(data / name) for name in "cD"],
}


@pytest.mark.long
@pytest.mark.parametrize("annotator", [None, "Ann", "Bob"])
@pytest.mark.parametrize(
    ("network", "method"),
    [(network, "supervised") for network in ("territories", "slices", "decomposition")] + [("decomposition", "labels")],
)
@pytest.mark.parametrize("state", STATES)
def test_the_check_agrees_with_the_training(make, tmp_path, state, network, method, annotator):
    STATES[state](make, tmp_path / "data")
    project = Project.open(tmp_path / "project")
    is_refused = bool(errors(check_project(project, network, method, annotator)))
    with pytest.raises(CTError) if is_refused else nullcontext():
        begin_training([project.folder], network, method, annotator, tmp_path / "cache")


def test_real_scans_beside_digital_patients(make, tmp_path):
    project = make(scans="xy", uses={"x": "training", "y": "training"})
    annotated(project, ("0001", "0002"), {3: NO, 4: YES})
    assert errors(check_project(project, "decomposition"))
    digital = tmp_path / "digital"
    for name in "abCD":
        write_scan(digital / name, name, name.islower(), False, True)
    folders = [project.folder, digital]
    begin_training(folders, "decomposition", "supervised", None, tmp_path / "cache")
    assert errors(check_project(project, "decomposition", further_data=[digital])) == []


def test_damaged_truth_is_told(make):
    project = make("aBcDe", uses=GOOD)
    project.scan("0001").truth.write_text("{}", encoding="utf-8")
    finding = finding_with(check_project(project), "a cannot be used")
    assert (finding.severity, finding.scans) == ("error", ("0001",))
