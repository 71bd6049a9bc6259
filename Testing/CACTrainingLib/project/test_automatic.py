"""Automatic scores of a project's scans, and their confident lesions as weak targets of training."""

import json

import numpy as np
import pytest
from annotated_project import NO, YES, label, outline
from training_scans import CALCIUM_HU, write_scan

from CACScoringLib.core.errors import UnreadableError
from CACScoringLib.core.files import OutputFolder
from CACScoringLib.core.progress import Progress
from CACScoringLib.io.reading import read_ct, read_mask
from CACScoringLib.pipeline import ScoreSettings, score_scan
from CACScoringLib.run import RunSettings, write_result
from CACScoringLib.scans.source import scan_digest
from CACScoringLib.scans.table import scans_of_table
from CACTrainingLib.data.datasets import load_slices, prepare
from CACTrainingLib.project.automatic import automatic_results
from CACTrainingLib.project.project import NewScan, Project
from CACTrainingLib.project.training import training_scans


@pytest.fixture
def project(tmp_path):
    """Project of one scan with calcium in slices 3 and 4, scored; Ann saw it in slice 3 only."""
    scan = write_scan(tmp_path / "a", "a", coronary=True, valve=False)
    project = Project.create(tmp_path / "project")
    project.add([NewScan("a", "patient-a", scan / "ct.nii.gz")])
    label(project, "0001", "Ann", {2: NO, 3: YES, 4: NO})
    outline(project, "0001", "Ann")
    root = project.folder / "results"
    heart = read_mask(scan / "heart.nii.gz")
    result = score_scan(read_ct(scan / "ct.nii.gz"), ScoreSettings(), heart, heart * 2)
    write_result(OutputFolder(root / "one", False), result, RunSettings(), Progress())
    (row,) = scans_of_table(project.folder / "scans.csv")[0]
    (root / "cohort.json").write_text(json.dumps({"scans": {"one": {"scan": scan_digest(row.key)}}}), encoding="utf-8")
    return project


def weak_map(project, cache):
    """HU of the weak target by slices of 1.5 mm."""
    scans = training_scans(project)
    (slices,) = (load_slices(folder) for folder in prepare(scans, "slices", cache))
    assert not slices.has_map
    return 1000 * slices.calcium(np.arange(len(slices.slices))), slices.visible


def test_lesions_where_a_person_saw_calcium(project, tmp_path):
    (scan,) = training_scans(project)
    assert (scan.automatic, scan.annotators) == (project.folder / "results" / "one", ("Ann",))
    target, visible = weak_map(project, tmp_path / "cache")
    assert visible.any()
    assert target[visible].max() == pytest.approx(CALCIUM_HU[3], abs=40)
    assert not target[~visible].any(), "also not in slice 4, which holds a lesion"


def test_doubtful_lesions_are_no_target(project, tmp_path):
    file = project.folder / "results" / "one" / "scores.json"
    record = json.loads(file.read_text("utf-8"))
    for lesion in record["methods"]["threshold"]["lesions"]:
        lesion |= {"suggested_artery": "LAD", "confidence": 0.9, "not_coronary_probability": 0.4}
    file.write_text(json.dumps(record), encoding="utf-8")
    assert not weak_map(project, tmp_path / "cache")[0].any()


def test_results_that_are_missing_or_damaged(project):
    (project.folder / "results" / "one" / "scores.json").unlink()
    assert automatic_results(project.folder) == {}, "a result that is not whole"
    (project.folder / "results" / "cohort.json").write_text("{", encoding="utf-8")
    with pytest.raises(UnreadableError, match="is damaged"):
        training_scans(project)
    (project.folder / "results" / "cohort.json").unlink()
    assert automatic_results(project.folder) == {}
