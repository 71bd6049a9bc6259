"""Import into a project: what is added, left out and split, the inventory, and runs that are broken off."""

import errno
import os

import pytest
from collection_files import chest, labels, write_image, write_scan
from in_this_process import InThisProcess
from study_tables import csv_rows

from CACScoringLib.core.errors import CTError, ProjectWriteError
from CACTrainingLib.collections import importing
from CACTrainingLib.collections.importing import import_collection
from CACTrainingLib.evaluation import jobs
from CACTrainingLib.project import proposals
from CACTrainingLib.project.project import Project
from CACTrainingLib.references.collection import collections


@pytest.fixture(autouse=True)
def checked(monkeypatch):
    """Names of the scans that are checked, in this process."""
    names = []
    check = importing.check_scan
    monkeypatch.setattr(jobs, "Workers", InThisProcess)
    monkeypatch.setattr(importing, "check_scan", lambda scan: names.append(scan.name) or check(scan))
    return names


@pytest.fixture
def download(tmp_path):
    """Scans of NLST: two of each of three patients, one with contrast, one with a gap, one twice."""
    folder = tmp_path / "nlst"
    for n, patient in enumerate("abc"):
        for thickness in (1, 2):
            write_scan(folder / patient / str(thickness), patient, seed=10 * n + thickness)
    write_scan(folder / "d" / "1", "d", seed=77, ContrastBolusAgent="yes")
    for path in write_scan(folder / "e" / "1", "e", seed=78)[2:4]:
        path.unlink()
    copy = folder / "f"
    copy.mkdir()
    for path in (folder / "c" / "2").iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    return folder


def run(name, folder, project, **settings):
    return import_collection(collections()[name], folder, project, workers=1, **settings)


def rows(result):
    return {row["name"]: row for row in csv_rows(result.page.with_suffix(".csv"))}


def test_scans_with_doubts_are_added_and_unusable_ones_are_listed(download, tmp_path):
    result = run("nlst", download, tmp_path / "project")
    project = Project.open(tmp_path / "project")
    patients = [scan.patient for scan in project.scans]
    assert sorted(patients) == ["a", "a", "b", "b", "c"], "a series in two folders is left out"
    assert all(len({scan.use for scan in project.scans if scan.patient == patient}) == 1 for patient in patients)
    assert all(scan.use for scan in project.scans)
    table = rows(result)
    assert "names a contrast agent (yes)" in table["d/1"]["left_out"]
    assert "slices" in table["e/1"]["left_out"]
    assert "heart-not-found" in table["a/1"]["doubts"]
    assert any("c/2" in warning for warning in result.warnings)
    assert (tmp_path / "project" / "TERMS-nlst.txt").is_file()


def test_proposals_in_the_same_step(download, tmp_path, monkeypatch):
    """Scans without a heart are reported, and stop nothing."""
    proposed = []

    def propose(project, scan_id, device, models):
        proposed.append(scan_id)
        raise CTError("It shows no heart.")

    monkeypatch.setattr(proposals, "propose", propose)
    assert len(run("nlst", download, tmp_path / "project", prepare=True).project.scans) == 5
    assert proposed == [f"000{n}" for n in range(1, 6)]


@pytest.mark.long
def test_a_second_run_checks_and_adds_nothing_again(download, tmp_path, checked):
    run("nlst", download, tmp_path / "project")
    first, checked[:] = len(checked), []
    ids = [scan.id for scan in Project.open(tmp_path / "project").scans]
    write_scan(download / "g", "g", seed=99)
    result = run("nlst", download, tmp_path / "project")
    assert first == 7
    assert sorted(checked) == ["d/1", "e/1", "g"], "what failed is tried again"
    assert [scan.id for scan in Project.open(tmp_path / "project").scans] == [*ids, f"{len(ids) + 1:04d}"]
    assert rows(result)["a/1"]["left_out"] == ""


def test_the_same_scan_of_two_collections_is_added_once(tmp_path):
    for folder in ("a", "b"):
        write_image(tmp_path / folder / "TRV1P1CTI.mhd", chest())
        write_image(tmp_path / folder / "TRV1P1R.mhd", labels())
    run("orcascore", tmp_path / "a", tmp_path / "project")
    with pytest.raises(CTError, match=r"No scan of .+ can be used"):
        run("orcascore", tmp_path / "b", tmp_path / "project")
    assert len(Project.open(tmp_path / "project").scans) == 1
    page = tmp_path / "project" / "inventory" / "orcascore.html"
    assert "It is the same scan as 0001." in page.read_text("utf-8")


def test_a_full_disk_leaves_a_usable_project_and_the_next_run_goes_on(download, tmp_path, monkeypatch):
    write_scans = importing.Project._add
    calls = []

    def add(project, scan):
        calls.append(scan.name)
        if len(calls) == 3:
            raise ProjectWriteError(f"scans.csv cannot be written: {os.strerror(errno.ENOSPC)}.")
        return write_scans(project, scan)

    monkeypatch.setattr(importing.Project, "_add", add)
    with pytest.raises(ProjectWriteError):
        run("nlst", download, tmp_path / "project")
    assert len(Project.open(tmp_path / "project").scans) == 2
    run("nlst", download, tmp_path / "project")
    assert len(Project.open(tmp_path / "project").scans) == 5
