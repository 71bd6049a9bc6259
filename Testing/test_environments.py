"""Scoring with other package versions than constraints.txt: in a new 3D Slicer, and at every lower bound."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import desktop_host

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    tomllib = pytest.importorskip("tomli")

ROOT = Path(__file__).parents[1]
SLICER_PACKAGES = Path(__file__).parent / "support" / "slicer-5.12.3-packages.txt"
MRML = ("slicer-core==5.12.4.0", "vtk==9.6.0", "PySide6-Essentials==6.9.3", "shiboken6==6.9.3")
"""Wheels in place of the application itself, installed without their requirements."""
PYTEST = ("pytest==9.2.0", "pluggy==1.7.0", "iniconfig==2.3.1", "pygments==2.21.0")
WITH_TORCH = {"torch", "studies", "radiomics"}
"""Extras that require an exact version of PyTorch."""
UV = shutil.which("uv", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(os.name == "nt", reason="Slicer's Python is imitated by a shell script"),
    pytest.mark.skipif(UV is None, reason="uv is not installed"),
]


def uv(*words: object) -> str:
    """Run uv and return its output; skip the test without a network, or without this Python."""
    done = subprocess.run([UV, *map(str, words)], capture_output=True, encoding="utf-8")
    if done.returncode and re.search("No interpreter found|error sending request|dns error", done.stderr):
        pytest.skip(done.stderr)
    assert done.returncode == 0, done.stderr
    return done.stdout


class Environment:
    """A virtual environment in a folder, by a version or path of Python."""

    def __init__(self, folder: Path, version: str) -> None:
        self.python = folder / "bin" / "python"
        uv("venv", "--python", version, "--no-python-downloads", folder)

    def install(self, *words: object) -> None:
        uv("pip", "install", "--python", self.python, *words)

    def versions(self) -> dict[str, str]:
        return dict(line.split("==") for line in uv("pip", "freeze", "--python", self.python).splitlines())

    def test(self, *words: str) -> None:
        """Run tests in the environment; fail if one fails."""
        variables = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "CACScoring"), str(ROOT / "CACTraining")])}
        # SWIG's types of SimpleITK 2.4 warn when they are imported.
        command = [self.python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "default", *words]
        done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, encoding="utf-8")
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


@pytest.fixture
def packages(monkeypatch):
    desktop_host.load_panel(monkeypatch, "CACScoring", main_window=False)
    from CACScoringLib.panel import packages

    return packages


def test_a_new_slicer_scores_with_the_panels_packages(packages, tmp_path):
    slicer = Environment(tmp_path / "slicer", "3.12")
    slicer.install("--no-deps", "--requirements", SLICER_PACKAGES, *MRML, *PYTEST)
    brought = slicer.versions()
    slicer.test("Testing/test_slicer_smoke.py", "-k", "without_further_packages")
    slicer.install(*packages.REQUIREMENTS)
    slicer.test("Testing/test_walk.py::test_a_scan")
    slicer.install(*packages.DICOM_REQUIREMENTS)
    slicer.test("Testing/test_walk.py::test_a_series")
    slicer.install(*packages.COHORT_REQUIREMENTS)
    slicer.test("Testing/test_walk.py::test_many_scans")
    present = slicer.versions()
    assert {name for name, version in brought.items() if present[name] != version} == {"highdicom"}


def test_lower_bounds_score(tmp_path):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = {name: texts for name, texts in project["optional-dependencies"].items() if name not in WITH_TORCH}
    tools = [text for text in extras.pop("test") if text.startswith(("pytest>", "hypothesis", "PySide6"))]
    del extras["docs"]
    requirements = {*project["dependencies"], *tools, *(text for texts in extras.values() for text in texts)}
    lowest = Environment(tmp_path / "lowest", sys.executable)
    lowest.install("--only-binary", ":all:", "--resolution", "lowest-direct", *requirements)
    folders = [f"Testing/CACScoringLib/{name}" for name in ("core", "io", "quality", "scoring")]
    lowest.test(*folders, "Testing/test_walk.py")
