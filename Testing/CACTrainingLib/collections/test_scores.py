"""From a downloaded collection to the tables of papers: scores of imported scans, and the studies that read them."""

import json
from dataclasses import replace

import numpy as np
import pytest
from collection_files import CALCIUM, chest, labels, write_image
from in_this_process import InThisProcess
from made_experiments import Warned
from reference_files import write_coca_gated, write_coca_nongated, write_orcascore
from study_tables import csv_rows

from CACScoringLib.anatomy.heart_region import HeartRegion
from CACScoringLib.core.errors import TableError
from CACTrainingLib.cli import main as cli
from CACTrainingLib.collections.importing import write_scores
from CACTrainingLib.data.scan_table import PROJECT_TABLE, TOTAL, held_out, read_cts
from CACTrainingLib.evaluation import jobs
from CACTrainingLib.evaluation.study import PREDICTIONS
from CACTrainingLib.project.project import NewScan, Project
from CACTrainingLib.radiograph import cohort
from CACTrainingLib.radiograph.settings import PRESETS

PATIENTS = 12
HU = (0, 400)
"""HU of the lesion by patient; every second one has none."""
AGATSTON = {0: 0.0, 400: 288.0}
"""Two slices of 9 pixels of 4 mm², with the weight of the peak."""


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Work in this process, without most resamples and pictures; any middle of a scan is its heart."""

    def find_heart(scan, heart, network):
        mask = np.zeros(scan.hu.shape, bool)
        mask[1:7, 3:13, 3:15] = True
        return HeartRegion(mask, None, "network")

    monkeypatch.setattr(jobs, "Workers", InThisProcess)
    monkeypatch.setattr("CACScoringLib.cohort.workers.Workers", InThisProcess)
    monkeypatch.setattr("CACScoringLib.anatomy.heart_search.find_heart", find_heart)
    monkeypatch.setattr(cohort, "find_heart", find_heart)
    monkeypatch.setattr("torch.set_num_threads", lambda count: None)
    monkeypatch.setattr("CACTrainingLib.evaluation.page.rendered", lambda figure: {"png": b"", "svg": b"<svg/>"})
    monkeypatch.setattr("CACScoringLib.statistics.bootstrap.RESAMPLES", 20)


@pytest.fixture
def scans(tmp_path):
    """Scans of patients by number. Every second one has a lesion in the LAD."""
    folders = {}
    for number in range(PATIENTS):
        hu = HU[number % len(HU)]
        folder = folders[number] = tmp_path / "scans" / str(number)
        values = chest(number)
        values[CALCIUM] = (hu or 40) + np.arange(18).reshape(2, 3, 3)
        values[0, 4, 4] = 1500  # without bone, the scan would look clipped
        write_image(folder / "ct.nii.gz", values)
        write_image(folder / "regions.nii.gz", labels(2 if hu else 0))
    return folders


def run(*words, **settings):
    file = ["--settings", json.dumps({"study": settings})] if settings else []
    return cli.main([*map(str, words), *file, "--workers", "1"])


def imported(collection, folder, tmp_path):
    assert run("data", "import", collection, folder, "--output", tmp_path / "project") == 0
    return tmp_path / "project"


def test_a_gated_collection_gives_the_table_of_radiographs(scans, tmp_path, monkeypatch):
    preset = PRESETS["light"]
    short = replace(preset, training=replace(preset.training, finder_steps=2))
    monkeypatch.setitem(PRESETS, "light", short)
    project = imported("coca", write_coca_gated(tmp_path / "coca", scans).parent, tmp_path)
    rows = csv_rows(project / PROJECT_TABLE)
    expected = [AGATSTON[HU[n % len(HU)]] for n in range(PATIENTS)]
    assert [float(row["agatston"]) for row in rows] == [float(row["agatston_LAD"]) for row in rows] == expected
    assert {row["gated"] for row in rows} == {"1"}
    budget = {"folds": 2, "steps": 1}
    output = ("--data", project, "--output", tmp_path / "study", "--device", "cpu")
    about = {"names": ["base", "learned-none"], "projection": {"views": ["PA"]}, "budget": budget}
    assert run("evaluate", "radiograph", *output, **about) == 0
    predicted = csv_rows(tmp_path / "study" / PREDICTIONS)
    assert {row["model"] for row in predicted} == {"base", "learned-none"}
    tested = {scan.name for scan in Project.open(project).scans if scan.use == "test"}
    assert {row["scan"] for row in predicted if row["use"] == "test"} == tested


def test_a_collection_without_gating_gives_the_table_of_vessels(scans, tmp_path):
    scans = dict(list(scans.items())[:8])
    scores = {f"{n}A": (0, score, 0, 0, score) for n in scans for score in [10 * HU[n % len(HU)]]}
    project = imported("coca", write_coca_nongated(tmp_path / "coca", scans, scores).parent, tmp_path)
    assert [float(row["agatston_LAD"]) for row in csv_rows(project / PROJECT_TABLE)] == [s[1] for s in scores.values()]
    uses = {scan.patient.removeprefix("coca-nongated-"): scan.use for scan in Project.open(project).scans}
    assert {uses[str(n)] for n in scans if HU[n % len(HU)]} == {*uses.values()}, "calcium in each part of the split"
    budget = {"folds": 2, "steps": 1}
    output = ("--data", project, "--output", tmp_path / "study", "--device", "cpu")
    assert run("evaluate", "vessels", *output, names=["cnn-log"], budget=budget, gated=False) == 0
    predicted = csv_rows(tmp_path / "study" / PREDICTIONS)
    assert "CNN, logarithm" in {row["model"] for row in predicted}
    tested = {scan.name for scan in Project.open(project).scans if scan.use == "test"}
    assert {row["scan"] for row in predicted if row["use"] == "test"} == tested
    validated = csv_rows(tmp_path / "study" / "tables" / "validation.csv")
    assert next(row["Model"] for row in validated) == "CNN, logarithm"


def project_of(scans, folder, cells):
    """Make a project of scans with cells of its table of scores by number."""
    project = Project.create(folder)
    added = project.add([NewScan(f"s{n}", f"p{n}", scans[n] / "ct.nii.gz") for n in cells]).added
    project.split()
    write_scores(project, {scan.id: row for scan, row in zip(added, cells.values(), strict=True)})
    return project


ARTERIES = {f"agatston_{artery}": 5 for artery in ("LM", "LAD", "LCX", "RCA")}


def test_the_projects_places_and_uses_count(scans, tmp_path):
    project = project_of(scans, tmp_path / "project", {n: {**ARTERIES, "gated": 1} for n in range(5)})
    patient = next(scan.patient for scan in project.scans if scan.use == "training")
    project.set_use({patient: "test"})
    project.remove(project.scans[-1].id)
    places = {scan.ct.rename(scan.ct.with_name("moved.nii.gz")).parent for scan in project.scans}
    for place in places:
        project.relocate(place / "ct.nii.gz", place / "moved.nii.gz")
    listed = read_cts(project.folder)
    assert [scan.ct for scan in listed] == [scan.ct for scan in project.scans]
    assert patient in {scan.patient for scan in listed if scan.name in held_out(listed)}
    with pytest.raises(TableError, match="no not gated scan"):
        read_cts(project.folder, gated=False)


def test_scans_without_the_needed_scores_are_left_out(scans, tmp_path):
    """Two have totals alone."""
    progress = Warned()
    cells = {0: ARTERIES, 1: {"agatston": 20}, 2: {"agatston": 0}}
    project = project_of(scans, tmp_path / "project", cells).folder
    assert [scan.total for scan in read_cts(project, TOTAL)] == [20, 20, 0]
    assert [scan.name for scan in read_cts(project, progress=progress)] == ["s0"]
    assert "2 rows of" in progress.warnings[0].message
    sources, warnings = cohort.list_scans(project)
    assert [scan.name for scan in sources] == ["s1", "s2"]
    assert "1 scans of" in warnings[0].message
    with pytest.raises(TableError, match="cac data import writes them"):
        read_cts(Project.create(tmp_path / "empty").folder)


def test_the_left_main_of_orcascore_has_no_score_of_its_own(scans, tmp_path):
    folder = write_orcascore(tmp_path / "orcascore", {f"TRV1P{n}": scans[n] for n in range(2)})
    rows = csv_rows(imported("orcascore", folder, tmp_path) / PROJECT_TABLE)
    assert [(row["agatston"], row["agatston_LM"], row["agatston_LAD"]) for row in rows] == [
        ("0.0", "", ""),
        ("288.0", "", ""),
    ]
    with pytest.raises(TableError, match=r"2 rows of .*scores.csv lack agatston_LM"):
        read_cts(tmp_path / "project")
