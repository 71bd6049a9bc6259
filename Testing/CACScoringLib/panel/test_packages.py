"""Tests of installing packages that 3D Slicer lacks, on doubles of its packaging."""

import importlib.metadata
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import slicer

import desktop_host
import desktop_host.packaging

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    tomllib = pytest.importorskip("tomli")

ROOT = Path(__file__).parents[3]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture
def packages(shared_panel):
    from CACScoringLib.panel import packages

    return packages


class Desk:
    """Double of pip and of the user: installed versions, questions, and requirements passed to pip."""

    def __init__(self) -> None:
        self.installed = {"packaging": "26.2"}
        self.questions: list[str] = []
        self.pip_requirements: list[str] = []
        self.accepts = True

    def version(self, name: str) -> str:
        if name not in self.installed:
            raise importlib.metadata.PackageNotFoundError(name)
        return self.installed[name]

    def confirm(self, text: str, **_options) -> bool:
        self.questions.append(text)
        return self.accepts

    def install(self, requirements, *_arguments, **_options) -> None:
        texts = requirements if isinstance(requirements, list) else [requirements]
        self.pip_requirements += texts
        self.installed |= {re.split("[>= ]", text)[0]: text.split(">=")[1].split()[0] for text in texts}


@pytest.fixture
def desk(packages, monkeypatch):
    desk = Desk()
    monkeypatch.setattr(importlib.metadata, "version", desk.version)
    for module in (slicer.packaging, desktop_host.packaging):
        monkeypatch.setattr(module, "pip_install", desk.install)
    monkeypatch.setattr(slicer.app, "_testing", False)
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", desk.confirm)
    monkeypatch.setattr(packages, "hasGraphicsCard", lambda: False)
    return desk


class TestEnsurePackages:
    def test_a_single_question_names_packages_and_size(self, packages, desk):
        assert packages.ensurePackages() == ""
        assert len(desk.questions) == 1
        assert "openvino, safetensors, jinja2, psutil. About 60 MB" in desk.questions[0]
        assert desk.pip_requirements == list(packages.REQUIREMENTS)
        assert packages.ensurePackages() == ""
        assert len(desk.questions) == 1

    def test_an_old_version_is_missing(self, packages, desk):
        """Test with the highdicom 0.27 of 3D Slicer 5.12."""
        desk.installed |= {"highdicom": "0.27.0", "scikit-image": "0.26.0"}
        assert packages.missingPackages(packages.DICOM_REQUIREMENTS) == ["highdicom>=0.28"]
        assert packages.ensurePackages(packages.DICOM_REQUIREMENTS) == ""
        assert "replace versions that this Slicer has: highdicom 0.27.0." in desk.questions[0]

    def test_nothing_is_installed_if_declined_or_while_testing(self, packages, desk, monkeypatch):
        desk.accepts = False
        answer = packages.ensurePackages(("bokeh>=3.6",), purpose="A cohort")
        assert answer == "A cohort needs bokeh. Install them to go on."
        monkeypatch.setattr(slicer.app, "_testing", True)
        assert "openvino" in packages.ensurePackages()
        assert (len(desk.questions), desk.pip_requirements) == (1, [])

    def test_pytorch_without_a_graphics_card(self, packages, desk):
        """Choose the CPU build on Linux, where PyPI's build includes gigabytes of CUDA."""
        from CACTrainingLib.panel.parameters import TRAINING_REQUIREMENTS

        assert packages.ensurePackages(TRAINING_REQUIREMENTS, "CAC Training", "Training") == ""
        (torch,) = (text for text in desk.pip_requirements if text.startswith("torch"))
        assert (packages.CPU_BUILDS in torch) == (sys.platform == "linux")
        assert len(desk.questions) == 1
        assert packages.downloadMb(TRAINING_REQUIREMENTS) < 500

    @pytest.mark.skipif(sys.platform != "linux", reason="elsewhere PyPI's build has no CUDA")
    def test_pytorch_behind_a_proxy_that_allows_pypi_alone(self, packages, desk, monkeypatch):
        """Name the host that fails, and ask before the gigabytes of PyPI's build."""

        def install(requirements, *arguments, **options):
            if packages.CPU_BUILDS in requirements:
                raise subprocess.CalledProcessError(1, "pip")
            desk.install(requirements)

        monkeypatch.setattr(slicer.packaging, "pip_install", install)
        answers = [True, False, True, True]
        monkeypatch.setattr(
            slicer.util, "confirmOkCancelDisplay", lambda text, **_: desk.questions.append(text) or answers.pop(0)
        )
        assert packages.CPU_BUILDS in packages.ensurePackages((packages.TORCH,))
        assert desk.pip_requirements == []
        assert "several GB" in desk.questions[-1]
        assert packages.ensurePackages((packages.TORCH,)) == ""
        assert desk.pip_requirements == [packages.TORCH]

    def test_the_pytorch_extension_knows_the_graphics_card(self, packages, desk, monkeypatch):
        versions = []

        class PyTorchUtilsLogic:
            def installTorch(self, askConfirmation, torchVersionRequirement):  # noqa: N802, N803
                versions.append((askConfirmation, torchVersionRequirement))
                desk.installed["torch"] = "2.13.0"

        module = type(sys)("PyTorchUtils")
        module.PyTorchUtilsLogic = PyTorchUtilsLogic
        monkeypatch.setitem(sys.modules, "PyTorchUtils", module)
        monkeypatch.setattr(slicer.modules, "pytorchutils", object(), raising=False)
        monkeypatch.setattr(packages, "hasGraphicsCard", lambda: True)
        assert packages.ensurePackages((packages.TORCH,)) == ""
        assert versions == [(False, ">=2.13")]
        assert "several GB" in desk.questions[0]


@pytest.fixture
def lists(packages):
    """Requirements of both panels by the name of the list."""
    from CACTrainingLib.panel import parameters as training

    lists = {name: value for name, value in {**vars(packages), **vars(training)}.items() if "REQUIREMENTS" in name}
    return lists | {"RADIOMICS_REQUIREMENTS": (*packages.TORCH_REQUIREMENTS, *packages.EXTRAS["radiomics"])}


def names_of(requirements) -> set[str]:
    return {re.split("[>=]", text)[0] for text in requirements}


class TestLists:
    """The panels' requirements agree with pyproject.toml."""

    def test_panels_ask_for_the_versions_of_pyproject(self, lists):
        extras = PYPROJECT["optional-dependencies"].values()
        texts = {*PYPROJECT["dependencies"], *(text for extra in extras for text in extra)}
        bounds = {re.split("[>=]", text)[0]: re.search(r"[\d.]+", text.partition("=")[2])[0] for text in texts}
        for requirement in {requirement for value in lists.values() for requirement in value}:
            name, _, bound = requirement.partition(">=")
            assert bounds[name].startswith(bound), requirement

    def test_scoring_needs_the_base_packages_that_slicer_lacks(self, packages):
        """Compare without the packages that come with 3D Slicer."""
        slicers = {"numpy", "SimpleITK", "scipy", "pydicom", "pillow"}
        assert names_of(packages.REQUIREMENTS) - {"psutil"} == names_of(PYPROJECT["dependencies"]) - slicers

    @pytest.mark.parametrize(
        ("name", "extras", "optional"),
        [
            ("TORCH", ("torch",), set()),
            ("RADIOMICS", ("torch", "radiomics"), set()),
            ("DICOM", ("dicom",), set()),
            ("COHORT", ("cohort",), set()),
            ("TRAINING", ("studies", "cohort"), {"numba", "bokeh"}),
        ],
    )
    def test_panels_need_the_packages_of_the_command_line(self, lists, name, extras, optional):
        installed = {text for extra in extras for text in PYPROJECT["optional-dependencies"][extra]}
        assert names_of(installed) - optional <= names_of(lists[f"{name}_REQUIREMENTS"])

    def test_every_package_has_a_size(self, packages, lists):
        for value in lists.values():
            assert packages.downloadMb(value) >= 1


def test_the_python_of_slicer_5_8_is_refused_in_words(monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 9, 10))
    with pytest.raises(ImportError, match=r"in 3D Slicer, version 5\.12"):
        runpy.run_path(str(ROOT / "CACScoring" / "CACScoringLib" / "__init__.py"))


def test_an_older_slicer_is_refused_in_the_panel(packages, monkeypatch):
    monkeypatch.setitem(sys.modules, "slicer.packaging", None)
    monkeypatch.setattr(slicer.app, "applicationVersion", "5.10.0", raising=False)
    assert "5.12 or newer; this is 5.10.0" in packages.outdatedSlicer()
    widget = slicer.modules.cacscoring.widgetRepresentation().self()
    labels = [child.text for child in widget.parent.children() if hasattr(child, "text")]
    assert any("5.12 or newer" in text for text in labels)
    widget.enter()
    widget.exit()
    slicer.mrmlScene.Clear()
    widget.cleanup()
