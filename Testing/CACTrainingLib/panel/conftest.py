"""The training panel on the stand-in of the desktop, with a project of three small scans."""

import shutil
import tempfile

import pytest
import SimpleITK as sitk
from annotated_project import write_proposal
from training_driver import TrainingDriver, load_training
from training_scans import HEART_SLICES, write_scan

import desktop_host
from CACTrainingLib.project.files import SCANS_FILE
from CACTrainingLib.project.project import NewScan, Project

SLICES = tuple(range(*HEART_SLICES.indices(10)))


@pytest.fixture
def main_window(request):
    """True if the stand-in draws views, as the marker says; most tests need none and are faster without."""
    return request.node.get_closest_marker("main_window") is not None


@pytest.fixture
def effect():
    """True if the brush for regions is loaded."""
    return False


@pytest.fixture(scope="session")
def prepared_project(tmp_path_factory):
    """Folder of `scans` and `project`, to be copied."""
    folder = tmp_path_factory.mktemp("prepared-project")
    project = Project.create(folder / "project")
    for n in range(3):
        scan = write_scan(folder / "scans" / f"patient_{n}" / "scan_1", n, n < 2, n == 1)
        facts = {"source": "digital", "truth": scan / "truth.json"}
        project.add([NewScan(f"scan {n}", f"patient {n}", scan / "ct.nii.gz", **facts)])
    for scan in project.scans:
        heart = sitk.ReadImage(str(scan.ct.parent / "heart.nii.gz"))
        write_proposal(project, scan.id, SLICES, {k: k / 10 for k in SLICES}, heart)
    return folder


@pytest.fixture
def scans(prepared_project, tmp_path):
    """Folder of three scans of three patients; calcium is in slices 3 and 4 of the first two."""
    return shutil.copytree(prepared_project / "scans", tmp_path / "scans")


@pytest.fixture
def project(prepared_project, scans, tmp_path):
    """Project of the three scans with proposed hearts, slices 1 to 8 of 10."""
    folder = shutil.copytree(prepared_project / "project", tmp_path / "project")
    text = (folder / SCANS_FILE).read_text(encoding="utf-8").replace(str(prepared_project), str(tmp_path))
    (folder / SCANS_FILE).write_text(text, encoding="utf-8")
    return Project.open(folder)


@pytest.fixture
def modules(monkeypatch, tmp_path, main_window, effect):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    load_training(monkeypatch, main_window, effect)


@pytest.fixture
def driver(modules):
    """The opened panel without a project."""
    driver = TrainingDriver()
    yield driver
    desktop_host.close_panel("CACTraining")


@pytest.fixture
def empty_project(tmp_path, monkeypatch):
    """Project without scans, opened where no model of the user is installed."""
    monkeypatch.setenv("CAC_MODEL_DIR", str(tmp_path / "installed"))
    return Project.create(tmp_path / "project")


@pytest.fixture
def annotating(driver, project):
    """The panel with the first scan of the project open, for the annotator AB."""
    driver.open_project(project.folder)
    driver.annotator("AB")
    driver.open_scan(0)
    assert driver.opened is not None, driver.ui.workStatusLabel.text
    return driver
