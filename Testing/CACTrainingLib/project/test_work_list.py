"""Test the work list: an annotator's progress, and its orders."""

import pytest
from annotated_project import NO, UNSURE, YES, label, mask, outline, write_proposal
from training_scans import write_scan

from CACScoringLib.core.errors import ProjectError
from CACTrainingLib.project.annotations import write_mask
from CACTrainingLib.project.project import NewScan, Project
from CACTrainingLib.project.work_list import binary_entropy, work_list


@pytest.fixture
def project(tmp_path):
    project = Project.create(tmp_path / "project")
    folders = {name: write_scan(tmp_path / name, name, True, False) for name in "abcdef"}
    project.add([NewScan(f"scan {name}", name, folder / "ct.nii.gz") for name, folder in folders.items()])
    return project


def propose(project, scan, probabilities):
    write_proposal(project, scan, (3, 4, 5), probabilities)


def test_states(project, tmp_path):
    for scan in ("0001", "0002", "0003"):
        propose(project, scan, {})
    label(project, "0001", "Ann", {3: YES, 4: NO, 5: UNSURE})
    label(project, "0002", "Ann", {3: YES, 9: NO})
    outline(project, "0004", "Ann")
    label(project, "0005", "Ann", {1: YES, 2: YES})
    write_mask(project, "0005", "Ann", "regions", mask((3, 5, 5), 2))
    (tmp_path / "f" / "ct.nii.gz").unlink()
    items = work_list(project, "ann")
    progress = [(i.state, i.slices_done, i.slices, i.unsure, i.regions, i.heart) for i in items]
    assert progress == [
        ("done", 3, 3, 1, False, False),
        ("begun", 1, 3, 0, False, False),
        ("new", 0, 3, 0, False, False),
        ("begun", 0, None, 0, False, True),
        ("begun", 2, None, 0, True, False),
        ("missing", 0, None, 0, False, False),
    ]
    assert [item.scan.name for item in items] == [f"scan {name}" for name in "abcdef"]
    for nobody in ("", "Bob"):
        assert {item.state for item in work_list(project, nobody)} == {"new", "missing"}
    with pytest.raises(ProjectError, match="not an order"):
        work_list(project, "Ann", "best")


def test_most_uncertain_scans_come_first(project):
    propose(project, "0001", {3: 0.01, 4: 0.99, 5: 0.02})
    propose(project, "0002", {3: 0.5, 4: 0.4, 5: 0.02})
    propose(project, "0003", {3: 0.5, 4: 0.5, 5: 0.5})
    propose(project, "0005", {3: 0.5, 4: 0.5, 5: 0.01})
    label(project, "0003", "Ann", {3: YES, 4: NO, 5: UNSURE})
    label(project, "0005", "Ann", {3: YES, 4: NO})
    items = work_list(project, "Ann", "uncertain")
    assert [item.scan.id for item in items] == ["0002", "0001", "0005", "0004", "0006", "0003"]
    by_id = {item.scan.id: item.uncertainty for item in items}
    assert (by_id["0003"], by_id["0004"]) == (None, None)
    assert by_id["0005"] == pytest.approx(binary_entropy(0.01))
    assert by_id["0002"] == pytest.approx((1 + binary_entropy(0.4) + binary_entropy(0.02)) / 3)
    assert work_list(project, "Bob", "uncertain")[0].scan.id == "0003"


def test_blind_order_differs_by_annotator_and_stays(project):
    first = [item.scan.id for item in work_list(project, "Ann", "blind")]
    label(project, first[2], "Ann", {3: YES})
    assert [item.scan.id for item in work_list(Project.open(project.folder), "Ann", "blind")] == first
    orders = {tuple(item.scan.id for item in work_list(project, name, "blind")) for name in "ABCDEF"}
    assert len(orders) > 1
    assert all(sorted(order) == sorted(first) for order in orders)
