"""Checks of a collection's scans, and their import: what is added, left out and split, and runs that are broken off."""

import base64
import errno
import io
import os

import numpy as np
import pytest
from collection_files import chest, labels, write_image, write_scan
from in_this_process import InThisProcess
from PIL import Image
from study_tables import csv_rows

from CACScoringLib.anatomy.heart_region import HeartRegion
from CACScoringLib.core.errors import CTError, ProjectWriteError
from CACScoringLib.core.grid import Grid
from CACScoringLib.io.reading import read_ct
from CACTrainingLib.collections import importing
from CACTrainingLib.collections.importing import check_scan, import_collection
from CACTrainingLib.evaluation import jobs
from CACTrainingLib.project import proposals
from CACTrainingLib.project.annotation_files import ImportedAnnotations
from CACTrainingLib.project.project import NewScan, Project
from CACTrainingLib.references.collection import collections


def new_scan(ct, values=None):
    """A scan, with regions as an array."""

    def annotations():
        return ImportedAnnotations("reader", {}, Grid.of(read_ct(ct).image).image(values))

    return NewScan("scan", "patient", ct, annotations=None if values is None else annotations)


def test_facts_and_picture(tmp_path):
    write_scan(tmp_path, "P1", ConvolutionKernel="B70f")
    check = check_scan(new_scan(tmp_path, labels(2)))
    assert (check.slices, check.spacing_mm, check.thickness_mm, check.kernel) == (8, 3.0, 3.0, "B70f")
    assert check.labelled_slices == 2
    assert {"heart-not-found", "kernel-sharp"} <= set(check.doubts)
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(check.picture))), int)
    assert np.ptp(picture, axis=2).max() > 60, "the label is outlined in colour"


@pytest.mark.parametrize(("kvp", "weights"), [(120, (4, 4)), (100, (3, 4)), (80, (3, 3))])
def test_labels_are_scored_at_the_tube_voltage(tmp_path, kvp, weights):
    """36 mm² in each of two slices, with peaks of 440 and 485 HU (weights of Gräni 2018)."""
    write_scan(tmp_path, "P1", KVP=kvp)
    assert check_scan(new_scan(tmp_path, labels(2))).scores["LAD"] == pytest.approx(36 * sum(weights))


def test_contrast_is_refused_by_blood(tmp_path, monkeypatch):
    values = np.random.default_rng(0).normal(250, 8, (20, 60, 60)).astype(np.int16)
    values[:, :9] -= 1250
    ct = write_image(tmp_path / "b.nii.gz", values)
    heart = np.ones(values.shape, bool)
    monkeypatch.setattr(importing, "heart_region", lambda scan: HeartRegion(heart, None, "lungs", ()))
    with pytest.raises(CTError, match=r"It has contrast: blood measures 2[45]\d HU"):
        check_scan(new_scan(ct))


def test_labels_of_another_scan_are_refused(tmp_path):
    ct = write_image(tmp_path / "ct.nii.gz", chest())
    assert check_scan(new_scan(ct, labels(2))).labelled_slices == 2
    with pytest.raises(CTError, match="Its labels are of another scan"):
        check_scan(new_scan(ct, labels(2, shift=6)))
    assert check_scan(new_scan(ct, labels(0))).labelled_slices == 0


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


def test_scans_with_doubts_are_added_and_unusable_ones_are_listed(download, tmp_path, monkeypatch):
    """Proposals in the same step are stopped by no scan without a heart."""
    proposed = []

    def propose(project, scan_id, device, models):
        proposed.append(scan_id)
        raise CTError("It shows no heart.")

    monkeypatch.setattr(proposals, "propose", propose)
    result = run("nlst", download, tmp_path / "project", prepare=True)
    assert proposed == [f"000{n}" for n in range(1, 6)]
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
