"""The borders of the house: who may import whom, read from the sources without running them.

Imports for type names only (under TYPE_CHECKING) do not run and are not counted.
"""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCORING, TRAINING = "CACScoringLib", "CACTrainingLib"

FLOORS = {
    **dict.fromkeys(["ct", "output", "networks", "resources"], 1),
    **dict.fromkeys(["risk", "lesions", "dicom", "acquisition", "chest", "progress", "preprocessing", "inference"], 2),
    **dict.fromkeys(["scores", "reading", "heart", "models", "heart_network", "slices", "decomposition"], 3),
    **dict.fromkeys(["arteries", "projection", "pictures"], 3),
    **dict.fromkeys(["pipeline", "scene_content"], 4),
    **dict.fromkeys(["report", "page", "mrml"], 5),
    **dict.fromkeys(["cli", "CACScoring"], 6),
}
"""A file of CACScoring imports only from floors below its own."""

SLICER = {"slicer", "vtk", "vtkmodules"}
QT = {"qt", "ctk", "PySide6", "PythonQt"}
AT_PANEL_LOAD = {*sys.stdlib_module_names, "numpy", "vtk", "SimpleITK", "qt", "ctk", "slicer"}
"""What Slicer brings along and has loaded already, or loads fast."""


def library_files(module: str) -> list[Path]:
    return sorted((ROOT / module / f"{module}Lib").rglob("*.py"))


def panel_files() -> list[Path]:
    """Module files and editor effects: what may know Qt."""
    modules = [f for f in ROOT.glob("*/*.py") if f.stem == f.parent.name]
    return sorted({*modules, *ROOT.glob("*/SegmentEditor*/**/*.py")})


def imports(tree: ast.Module, at_load_only: bool = False) -> set[str]:
    """Dotted names imported in a file; relative ones begin with a dot."""
    found: set[str] = set()
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            prefix = "." * node.level + (node.module or "")
            separator = "" if prefix.endswith(".") else "."
            found |= {f"{prefix}{separator}{alias.name}" for alias in node.names}
        inside_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            waiting += node.orelse
        elif not (at_load_only and inside_function):
            waiting += ast.iter_child_nodes(node)
    return found


def imports_of(file: Path, at_load_only: bool = False) -> set[str]:
    return imports(ast.parse(file.read_text(encoding="utf-8")), at_load_only)


def roots(names: set[str]) -> set[str]:
    return {name.split(".")[0] for name in names if not name.startswith(".")}


def scoring_modules(names: set[str]) -> set[str]:
    """Files of CACScoringLib among imported names: `.ct.CTError`, `.pictures` and `CACScoringLib.mrml` alike."""
    own = set()
    for name in names:
        if name.startswith("."):
            own.add(name.lstrip(".").split(".")[0])
        elif name.startswith(f"{SCORING}."):
            own.add(name.split(".")[1])
    return own


def upward(name: str, names: set[str]) -> list[str]:
    """Imports of a file of CACScoring that are not from a floor below it."""
    return sorted(other for other in scoring_modules(names) if FLOORS.get(other, 99) >= FLOORS[name])


SCORING_FILES = [f for f in library_files("CACScoring") if f.stem != "__init__"]


@pytest.mark.parametrize("file", [*SCORING_FILES, ROOT / "CACScoring" / "CACScoring.py"], ids=lambda f: f.stem)
def test_imports_only_from_floors_below(file):
    assert file.stem in FLOORS, f"{file.stem} has no floor: give it one here and in the design"
    assert not upward(file.stem, imports_of(file))


@pytest.mark.parametrize("file", SCORING_FILES, ids=lambda f: f.stem)
def test_scoring_does_not_know_training(file):
    assert not roots(imports_of(file)) & {TRAINING, "CACTraining"}


@pytest.mark.parametrize(
    "file", [*library_files("CACScoring"), *library_files("CACTraining")], ids=lambda f: f"{f.parent.name}/{f.stem}"
)
def test_libraries_do_not_know_slicer_or_qt(file):
    allowed = SLICER if file.name == "mrml.py" else set()
    assert not roots(imports_of(file)) & (SLICER | QT) - allowed


@pytest.mark.parametrize("file", panel_files(), ids=lambda f: f.stem)
def test_panels_load_nothing_heavy(file):
    # Within effects, the package's own files are imported too; those are guarded here file by file.
    own = {file.parent.name, file.stem}
    assert roots(imports_of(file, at_load_only=True)) <= AT_PANEL_LOAD | own


def test_panels_are_found():
    assert "CACScoring" in [f.stem for f in panel_files()]


class TestTheTest:
    """The guard itself: it must notice what it is for."""

    @pytest.mark.parametrize(
        ("name", "source", "found"),
        [
            ("ct", "from .lesions import Artery", ["lesions"]),
            ("lesions", "from . import risk", ["risk"]),
            ("scores", "from .lesions import Artery", []),
            ("scores", "import CACScoringLib.pipeline", ["pipeline"]),
            ("pipeline", "def f():\n    from . import mrml", ["mrml"]),
            ("mrml", "if TYPE_CHECKING:\n    from .cli import main", []),
            ("report", "from .forgotten import thing", ["forgotten"]),
        ],
    )
    def test_upward_imports(self, name, source, found):
        assert upward(name, imports(ast.parse(source))) == found

    def test_imports_inside_functions_are_not_at_load(self):
        tree = ast.parse("import json\ndef f():\n    import torch\nclass C:\n    import scipy.ndimage")
        assert roots(imports(tree, at_load_only=True)) == {"json", "scipy"}
        assert roots(imports(tree)) == {"json", "scipy", "torch"}
