"""Installing what the networks need."""

import sys

import pytest
import slicer


class TestPackages:
    @pytest.fixture
    def packages(self, panel, monkeypatch):
        from CACScoringLib.panel import packages

        present = set()
        monkeypatch.setattr(packages.importlib.util, "find_spec", lambda name: name if name in present else None)
        packages.present = present
        return packages

    def test_pip_ensure_of_newer_slicer(self, packages, monkeypatch):
        asked = []

        def pip_ensure(requirements, requester):
            asked.extend(requirements)
            packages.present |= {"openvino", "safetensors"}

        module = type(sys)("slicer.packaging")
        module.pip_ensure = pip_ensure
        monkeypatch.setitem(sys.modules, "slicer.packaging", module)
        assert packages.ensurePackages() == ""
        assert asked == ["openvino>=2026.1", "safetensors>=0.8"]

    def test_the_pytorch_extension_knows_the_graphics_card(self, packages, monkeypatch):
        packages.present |= {"openvino", "safetensors"}
        versions = []

        class PyTorchUtilsLogic:
            def installTorch(self, askConfirmation, torchVersionRequirement):  # noqa: N802, N803
                versions.append((askConfirmation, torchVersionRequirement))
                packages.present.add("torch")

        module = type(sys)("PyTorchUtils")
        module.PyTorchUtilsLogic = PyTorchUtilsLogic
        monkeypatch.setitem(sys.modules, "PyTorchUtils", module)
        monkeypatch.setattr(slicer.modules, "pytorchutils", object(), raising=False)
        assert packages.ensurePackages(packages.TORCH_REQUIREMENTS) == ""
        assert versions == [(True, ">=2.13")]

    def test_other_requirements(self, packages, monkeypatch):
        """What was asked for is installed, and nothing else; the message says for what."""
        monkeypatch.setitem(sys.modules, "slicer.packaging", None)
        questions, installed = [], []
        monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda text: questions.append(text) or True)
        monkeypatch.setattr(slicer.util, "pip_install", installed.append)
        packages.present.add("numpy")
        wanted = {"numpy": "numpy>=2", "skimage": "scikit-image>=0.24"}
        assert packages.ensurePackages(wanted, "CAC Training", "Training") == (
            "Training needs scikit-image. Install this first."
        )
        assert installed == ["scikit-image>=0.24"]
        assert "CAC Training" in questions[0]
        packages.present.add("skimage")
        assert packages.ensurePackages(wanted, "CAC Training", "Training") == ""
