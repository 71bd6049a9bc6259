"""Every file that Slicer installs is listed in CMake, and every listed file exists."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from cmake_lists import assigned, commands, install

ROOT = Path(__file__).parents[1]
RESOURCE_ENDINGS = {
    *(".npz", ".safetensors", ".svg", ".png", ".ui", ".json", ".csv", ".txt", ".md", ".nrrd"),
    *(".html", ".css", ".js"),
}


def modules(root: Path) -> list[Path]:
    """Folders of the modules that the root builds, with hidden modules' own folders."""
    folders = [root / words[0] for name, words in commands(root / "CMakeLists.txt") if name == "add_subdirectory"]
    for folder in folders:
        nested = [words[0] for name, words in commands(folder / "CMakeLists.txt") if name == "add_subdirectory"]
        folders += [folder / name for name in nested if name != "Testing"]
    return folders


def differences(folder: Path) -> list[str]:
    """What is wrong with a module's lists, one line each."""
    cmake = folder / "CMakeLists.txt"
    listed = assigned(cmake, "MODULE_PYTHON_SCRIPTS") + assigned(cmake, "MODULE_PYTHON_RESOURCES")
    own = [f for f in folder.rglob("*") if f.is_file() and not _elsewhere(f, folder)]
    present = {
        f.relative_to(folder).as_posix()
        for f in own
        if f.suffix == ".py" or ("Resources" in f.relative_to(folder).parts and f.suffix in RESOURCE_ENDINGS)
    }
    return [
        *(f"listed twice: {name}" for name in sorted({n for n in listed if listed.count(n) > 1})),
        *(f"listed, but missing: {name}" for name in sorted(set(listed) - present)),
        *(f"not listed: {name}" for name in sorted(present - set(listed))),
    ]


def _elsewhere(file: Path, folder: Path) -> bool:
    """Whether a file is built, a test, or belongs to a module nested in the folder."""
    parents = file.relative_to(folder).parents
    nested = any((folder / p / "CMakeLists.txt").exists() for p in parents if p != Path())
    return nested or any(part in ("__pycache__", "Testing") for part in file.relative_to(folder).parts)


def test_modules_are_found():
    assert ROOT / "CACScoring" in modules(ROOT)


@pytest.mark.parametrize("folder", modules(ROOT), ids=lambda folder: folder.name)
def test_listed_files_are_those_that_exist(folder):
    assert not differences(folder)


@pytest.mark.parametrize("folder", modules(ROOT), ids=lambda folder: folder.name)
def test_module_is_named_as_its_folder_and_built(folder):
    assert assigned(folder / "CMakeLists.txt", "MODULE_NAME") == [folder.name]
    built = [words for name, words in commands(folder / "CMakeLists.txt") if name == "slicerMacroBuildScriptedModule"]
    assert len(built) == 1
    assert "WITH_GENERIC_TESTS" in built[0]
    assert (folder / "Resources" / "Icons" / f"{folder.name}.svg").exists()


def test_every_module_file_is_built():
    """A folder with a module's file (the class named as the file) that the root does not build is forgotten."""
    files = [*ROOT.glob("*/*.py"), *ROOT.glob("*/*/*.py")]
    candidates = {f.parent for f in files if f.stem == f.parent.name}
    assert candidates <= set(modules(ROOT))


def test_every_package_is_installed_by_pip():
    named = re.search(r"packages = \[\n(.*?)\]", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.DOTALL)
    libraries = [(ROOT / module, ROOT / module / f"{module}Lib") for module in ("CACScoring", "CACTraining")]
    present = {
        ".".join(file.parent.relative_to(root).parts) for root, library in libraries for file in library.rglob("*.py")
    }
    assert set(re.findall(r'"(.*?)"', named[1])) == present | {
        "CACScoringLib.Resources.Atlas",
        "CACScoringLib.Resources.Models",
        "CACScoringLib.Resources.Models.Alternatives",
        "CACTrainingLib.Resources.Hearts",
        "CACTrainingLib.Resources.Review",
    }


def test_extension_facts():
    root = ROOT / "CMakeLists.txt"
    assert [words for name, words in commands(root) if name == "project"] == [["CAC"]]
    assert assigned(root, "EXTENSION_CATEGORY") == ["Cardiac"]
    assert assigned(root, "EXTENSION_CONTRIBUTORS") == ["CAC developers"]
    assert "Apache License" in (ROOT / "LICENSE.txt").read_text(encoding="utf-8")
    for variable in ("EXTENSION_LICENSE_FILE", "EXTENSION_README_FILE"):
        path = assigned(root, variable)[0].replace("${CMAKE_CURRENT_SOURCE_DIR}", str(ROOT))
        assert Path(path).exists()
    icon = assigned(root, "EXTENSION_ICONURL")[0].split("/main/")[1]
    assert (ROOT / icon).exists()
    included = [words[0] for name, words in commands(root) if name == "include"]
    assert included == ["${Slicer_USE_FILE}", "${Slicer_EXTENSION_GENERATE_CONFIG}", "${Slicer_EXTENSION_CPACK}"]


IMPORT_ALL = """
import importlib, pkgutil, sys
for library in ("CACScoringLib", "CACTrainingLib"):
    package = importlib.import_module(library)
    assert package.__file__.startswith(sys.argv[1]), package.__file__
    for module in pkgutil.walk_packages(package.__path__, f"{library}."):
        if ".panel" not in module.name and not module.name.endswith("__main__"):
            importlib.import_module(module.name)
            print(module.name)
from CACScoringLib.models.cards import find_model, verify_model
print(verify_model(find_model("territories").path).name)
"""


@pytest.mark.long
def test_installed_libraries_import(tmp_path):
    """Installed as Slicer does it; what needs Qt is tried in the desktop host."""
    for name in ("CACScoring", "CACTraining"):
        install(ROOT / name, tmp_path)
    command = [sys.executable, "-c", IMPORT_ALL, str(tmp_path)]
    done = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert {"CACScoringLib.pipeline", "CACTrainingLib.cli.main", "territories-compact"} <= set(done.stdout.split())


class TestTheTest:
    """The comparison itself: it must notice what it is for."""

    @pytest.fixture
    def module(self, tmp_path):
        for name in ("Thing.py", "ThingLib/__init__.py", "ThingLib/part.py", "Resources/Icons/Thing.svg"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        (tmp_path / "CMakeLists.txt").write_text(
            "set(MODULE_NAME Thing)\n"
            "set(MODULE_PYTHON_SCRIPTS\n  ${MODULE_NAME}.py\n  ThingLib/__init__.py  # of it\n  ThingLib/part.py\n)\n"
            "set(MODULE_PYTHON_RESOURCES Resources/Icons/${MODULE_NAME}.svg)\n"
        )
        return tmp_path

    def test_complete(self, module):
        assert differences(module) == []

    def test_listed_file_is_missing(self, module):
        (module / "ThingLib" / "part.py").unlink()
        assert differences(module) == ["listed, but missing: ThingLib/part.py"]

    @pytest.mark.parametrize("name", ["ThingLib/new.py", "Resources/UI/Thing.ui"])
    def test_file_is_not_listed(self, module, name):
        (module / name).parent.mkdir(exist_ok=True)
        (module / name).touch()
        assert differences(module) == [f"not listed: {name}"]

    def test_nested_module_is_not_the_outer_ones(self, module):
        (module / "Effect").mkdir()
        (module / "Effect" / "CMakeLists.txt").touch()
        (module / "Effect" / "Effect.py").touch()
        assert differences(module) == []
