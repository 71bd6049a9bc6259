"""Test proposals: made from the CT alone, written atomically, with their source."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from digital_pairs import CALCIFIED, write_coarse
from handmade_networks import untrained
from training_scans import write_scan

from CACScoringLib.core.errors import CTError, ModelError, NoHeartError, ProjectWriteError
from CACScoringLib.models.cards import find_model, read_card
from CACTrainingLib.project import proposals
from CACTrainingLib.project.project import NewScan, Project
from CACTrainingLib.project.proposals import propose, read_proposal
from CACTrainingLib.references.folder import find_new_scans


@pytest.fixture(scope="module")
def project_and_proposal(tmp_path_factory):
    """Project with one digital scan, and its proposal by the bundled networks."""
    folder = tmp_path_factory.mktemp("proposals")
    write_coarse(CALCIFIED, folder / "scan")
    project = Project.create(folder / "project")
    project.add(find_new_scans(folder / "scan")[0])
    return project, propose(project, "0001", "cpu")


@pytest.fixture
def project(project_and_proposal, tmp_path):
    """Copy of the project, to be changed."""
    shutil.copytree(project_and_proposal[0].folder, tmp_path / "project")
    return Project.open(tmp_path / "project")


def _without_openvino(monkeypatch):
    monkeypatch.setattr(proposals.importlib.util, "find_spec", lambda name: None)


@pytest.mark.long
def test_bundled_networks_propose_heart_and_slices(project_and_proposal):
    project, proposal = project_and_proposal
    assert proposal.heart_source == "territories-compact"
    assert set(proposal.models) == {"territories-compact", "slices-compact"}
    heart = sitk.ReadImage(proposal.heart_file)
    ct = sitk.ReadImage(project.scan("0001").ct)
    assert (heart.GetPixelID(), heart.GetSize(), heart.GetOrigin()) == (sitk.sitkUInt8, ct.GetSize(), ct.GetOrigin())
    true = sitk.GetArrayFromImage(sitk.ReadImage(project.scan("0001").truth.parent / "heart.nii.gz")) > 0
    inside = sitk.GetArrayFromImage(heart) > 0
    assert 2 * (true & inside).sum() / (true.sum() + inside.sum()) > 0.8
    assert proposal.heart_slices == tuple(np.nonzero(inside.any((1, 2)))[0])
    assert set(proposal.probabilities) == set(proposal.heart_slices)
    assert all(0 <= p <= 1 for p in proposal.probabilities.values())
    assert read_proposal(project, "0001") == proposal
    assert sorted(p.name for p in proposal.heart_file.parent.iterdir()) == ["heart.nii.gz", "proposal.json"]


@pytest.mark.long
def test_without_openvino_the_lungs_show_the_heart(project, monkeypatch):
    _without_openvino(monkeypatch)
    proposal = propose(project, "0001")
    assert (proposal.heart_source, proposal.models, proposal.probabilities) == ("lungs", (), {})
    assert any("openvino and safetensors, which are not installed" in warning for warning in proposal.warnings)
    assert proposal.heart_slices
    with pytest.raises(ModelError, match="give no model"):
        propose(project, "0001", models=[find_model("slices").path])


@pytest.mark.long
def test_a_user_model_replaces_the_bundled_one(project, tmp_path):
    card = untrained("slices", "mine", tmp_path / "models")
    proposal = propose(project, "0001", "cpu", [card])
    assert set(proposal.models) == {"territories-compact", "mine"}
    facts = json.loads((proposal.heart_file.parent / "proposal.json").read_text(encoding="utf-8"))
    assert {"name": "mine", "sha256": read_card(card).sha256} in facts["models"]
    with pytest.raises(ModelError, match="territories, slices"):
        propose(project, "0001", "cpu", [untrained("decomposition", "map", tmp_path / "models")])


@pytest.mark.long
def test_scan_without_a_heart_is_refused(tmp_path, monkeypatch):
    project = Project.create(tmp_path / "project")
    project.add([NewScan("a", "a", write_scan(tmp_path / "a", 1, True, False) / "ct.nii.gz")])
    for _ in range(2):
        with pytest.raises(NoHeartError):
            propose(project, "0001", "cpu")
        _without_openvino(monkeypatch)
    assert read_proposal(project, "0001") is None
    (tmp_path / "a" / "ct.nii.gz").unlink()
    with pytest.raises(CTError, match="does not exist"):
        propose(project, "0001", "cpu")


@pytest.mark.long
def test_full_disk_leaves_the_earlier_proposal(project, monkeypatch):
    _without_openvino(monkeypatch)
    before = read_proposal(project, "0001")

    def full(image, path, **options):
        Path(path).touch()

    monkeypatch.setattr(sitk, "WriteImage", full)
    with pytest.raises(ProjectWriteError, match="could not be written"):
        propose(project, "0001")
    assert read_proposal(project, "0001") == before
    assert [p.name for p in project.scan_folder("0001").iterdir()] == ["proposal"]
