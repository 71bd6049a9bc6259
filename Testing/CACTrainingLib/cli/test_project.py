"""The command `cac project`, on small scans in folders."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
from annotated_project import write_proposal
from training_scans import HEART_SLICES, write_cohort

from CACScoringLib.cli.main import BAD_INPUT
from CACScoringLib.core.errors import NoHeartError
from CACScoringLib.io.reading import read_ct
from CACTrainingLib.cli import main as cli
from CACTrainingLib.project import proposals
from CACTrainingLib.project.annotation_files import SliceLabel
from CACTrainingLib.project.annotations import slice_annotations
from CACTrainingLib.project.project import Project


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """Four patients; the two scans of the first are copies of each other."""
    return write_cohort(tmp_path_factory.mktemp("cohort"), 4)


@pytest.fixture(scope="module")
def filled(cohort, tmp_path_factory):
    folder = tmp_path_factory.mktemp("filled") / "project"
    Project.create(folder)
    assert cac("add", folder, cohort) == 0
    return folder


@pytest.fixture
def project(filled, tmp_path):
    """Copy of a project with the cohort's scans."""
    return Project.open(shutil.copytree(filled, tmp_path / "project"))


def cac(action, *arguments):
    return cli.main(["project", action, *map(str, arguments)])


def events(capsys):
    """Events of --progress json by kind."""
    by_kind = {}
    for line in capsys.readouterr().err.splitlines():
        event = json.loads(line)
        by_kind.setdefault(event.pop("event"), []).append(event)
    return by_kind


def test_a_project_is_made_filled_and_listed(cohort, tmp_path, capsys):
    folder = tmp_path / "project"
    assert cac("new", folder, "--name", "Trial") == 0
    assert cac("add", folder, cohort) == 0
    output = capsys.readouterr()
    assert "a new project, Trial" in output.out
    assert "4 scans added, 1 there already, 0 that cannot be used; 4 in all" in output.out
    assert "was not added: it is the same scan as 0001" in output.err
    project = Project.open(folder)
    slice_annotations(project, "0002", "Anna").set(3, SliceLabel.VISIBLE)
    for k in (3, 4):
        slice_annotations(project, "0002", "Ben").set(k, SliceLabel.VISIBLE)
    project.set_use({project.scan("0002").patient: "test"})
    assert cac("list", folder) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split() == ["id", "name", "patient", "use", "state"]
    assert [row.split()[0] for row in rows] == ["0001", "0002", "0003", "0004"]
    assert rows[0].split()[-2:] == ["–", "new"]
    assert rows[1].endswith("test  Anna: 1 slices; Ben: 2 slices")


class TestCheck:
    def test_errors_give_an_exit_code(self, tmp_path, capsys):
        Project.create(tmp_path / "project")
        assert cac("check", tmp_path / "project") == BAD_INPUT
        output = capsys.readouterr()
        assert output.out.startswith("error: The project has no scans.")
        assert "before training can start: 1." in output.err

    def test_control_characters_of_paths_do_not_reach_the_terminal(self, project, capsys):
        file = project.folder / "scans.csv"
        file.write_text(file.read_text(encoding="utf-8").replace("/ct.nii.gz", "/\x18.nii.gz"), encoding="utf-8")
        cac("check", project.folder)
        assert "/ .nii.gz" in (text := capsys.readouterr().out)
        assert all(c.isprintable() or c == "\n" for c in text)

    def test_each_finding_is_sent_to_the_panel(self, project, capsys):
        assert cac("check", project.folder, "--network", "territories", "--progress", "json") in (0, BAD_INPUT)
        sent = events(capsys)
        assert {"severity", "message", "scans", "remedy"} == set(sent["finding"][0])
        assert any("use" in finding["message"] for finding in sent["finding"])


class TestSplit:
    def test_a_part_without_calcium_is_reported(self, project, capsys):
        for scan in project.scans:
            coronary = json.loads(scan.truth.read_text(encoding="utf-8"))["mass_mg"] > 0
            assert cac("use", project.folder, scan.patient, "training" if coronary else "validation") == 0
        capsys.readouterr()
        assert cac("split", project.folder, "--progress", "json") == 0
        warnings = events(capsys)["warning"]
        assert [(warning["code"], "validation" in warning["message"]) for warning in warnings] == [
            ("split-without-calcium", True)
        ]


class TestAgreement:
    def test_a_table_and_rows_for_the_panel(self, project, capsys):
        truths = {s.id: json.loads(s.truth.read_text(encoding="utf-8")) for s in project.scans}
        coronary = next(scan_id for scan_id, truth in truths.items() if truth["mass_mg"] > 0)
        slices = slice_annotations(project, coronary, "Anna")
        for k in range(*HEART_SLICES.indices(10)):
            slices.set(k, SliceLabel.VISIBLE if k == 3 else SliceLabel.NOT_VISIBLE)
        assert cac("agreement", project.folder, "--scan", coronary) == 0
        head, row = capsys.readouterr().out.splitlines()
        assert head.split()[:3] == ["first", "second", "scans"]
        assert row.split()[:2] == ["Anna", "truth"]
        assert row.endswith("0.6 (n = 8)  0.875 (n = 8)  –        –")
        assert cac("agreement", project.folder, "--progress", "json") == 0
        (row,) = events(capsys)["agreement"]
        assert (row["first"], row["second"], row["slices"], row["unsure"]) == ("Anna", "truth", 8, 0)
        assert row["kappa"] == {"value": pytest.approx(0.6), "low": None, "high": None, "n": 8}
        assert row["heart"]["value"] is None


class TestPrepare:
    @pytest.fixture
    def proposed(self, monkeypatch):
        """IDs of the scans with a proposal; the second fails."""
        scan_ids = []

        def propose(project, scan_id, device, models):
            scan_ids.append(scan_id)
            if scan_id == "0002":
                raise NoHeartError("There is no heart.")
            write_proposal(project, scan_id, (1, 2))
            return replace(proposals.read_proposal(project, scan_id), warnings=("cut off",))

        monkeypatch.setattr(proposals, "propose", propose)
        return scan_ids

    def test_scans_without_a_proposal_get_one_and_one_that_fails_stops_no_other(self, project, proposed, capsys):
        write_proposal(project, "0003", (1, 2))
        assert cac("prepare", project.folder, "--device", "cpu", "--progress", "json") == 0
        assert proposed == ["0001", "0002", "0004"]
        output = capsys.readouterr()
        assert "2 scans prepared, 1 had been prepared before, 1 could not be" in output.out
        sent = [json.loads(line) for line in output.err.splitlines()]
        counted = [(e["done"], e["count"]) for e in sent if e["event"] == "counted"]
        assert counted == [(1, 3), (2, 3), (3, 3)]
        warnings = {event["code"]: event["message"] for event in sent if event["event"] == "warning"}
        assert "There is no heart." in warnings["scan-failed"]
        assert project.scan("0002").name in warnings["scan-failed"]
        assert "cut off" in warnings["proposal-doubt"]

    def test_the_ct_for_the_panel(self, project, proposed, tmp_path):
        target = tmp_path / "ct.nrrd"
        assert cac("prepare", project.folder, "--scan", "0001", "--image", target) == 0
        written, read = sitk.ReadImage(target), read_ct(project.scan("0001").ct).image
        assert (sitk.GetArrayFromImage(written) == sitk.GetArrayFromImage(read)).all()
        assert np.allclose(written.GetOrigin() + written.GetDirection(), read.GetOrigin() + read.GetDirection())
        assert [path.name for path in tmp_path.iterdir() if "nrrd" in path.name] == ["ct.nrrd"]
        assert proposed == ["0001"]
