"""Files that Slicer installs of each module, and facts of the extension."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from cmake_lists import assigned, commands, install, installed_files

ROOT = Path(__file__).parents[1]


def modules(root: Path) -> list[Path]:
    """Folders of the modules that the root builds, with nested hidden modules."""
    folders = [root / words[0] for name, words in commands(root / "CMakeLists.txt") if name == "add_subdirectory"]
    for folder in folders:
        nested = [words[0] for name, words in commands(folder / "CMakeLists.txt") if name == "add_subdirectory"]
        folders += [folder / name for name in nested if name != "Testing"]
    return folders


def test_code_and_resources_are_installed():
    """The patterns cover the deepest files, without those of nested modules."""
    files = installed_files(ROOT / "CACScoring")
    assert {
        "CACScoring.py",
        "CACScoringLib/panel/effects/scan.py",
        "CACScoringLib/Resources/Models/Alternatives/map-labels.json",
        "Resources/Icons/CACScoring.svg",
    } <= set(files)
    assert not any("SegmentEditor" in name for name in files)


def test_modules_install_no_file_over_another():
    """Slicer has one folder for all modules of an extension."""
    files = [name for folder in modules(ROOT) for name in installed_files(folder) if "__pycache__" not in name]
    assert len(files) == len(set(files))


@pytest.mark.parametrize("folder", modules(ROOT), ids=lambda folder: folder.name)
def test_module_is_named_as_its_folder_and_built(folder):
    assert assigned(folder / "CMakeLists.txt", "MODULE_NAME") == [folder.name]
    built = [words for name, words in commands(folder / "CMakeLists.txt") if name == "slicerMacroBuildScriptedModule"]
    assert len(built) == 1
    assert "WITH_GENERIC_TESTS" in built[0]
    assert (folder / "Resources" / "Icons" / f"{folder.name}.svg").exists()


def test_every_module_file_is_built():
    """The root builds every folder with a module's file (whose name is the folder's)."""
    files = [*ROOT.glob("*/*.py"), *ROOT.glob("*/*/*.py")]
    candidates = {f.parent for f in files if f.stem == f.parent.name}
    assert candidates <= set(modules(ROOT))


def test_files_and_macros_of_the_extension_are_there():
    root = ROOT / "CMakeLists.txt"
    for variable in ("EXTENSION_LICENSE_FILE", "EXTENSION_README_FILE"):
        path = assigned(root, variable)[0].replace("${CMAKE_CURRENT_SOURCE_DIR}", str(ROOT))
        assert Path(path).exists()
    assert (ROOT / assigned(root, "EXTENSION_ICONURL")[0].split("/main/")[1]).exists()
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
    """Installed as by Slicer; modules that need Qt are tested in the desktop host."""
    for name in ("CACScoring", "CACTraining"):
        install(ROOT / name, tmp_path)
    command = [sys.executable, "-c", IMPORT_ALL, str(tmp_path)]
    done = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert {"CACScoringLib.pipeline", "CACTrainingLib.cli.main", "territories-compact"} <= set(done.stdout.split())
