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
    **dict.fromkeys(["radiograph_network", "radiograph_fusion", "radiomics_network", "vessel_network"], 0),
    **dict.fromkeys(["ct", "output", "networks", "resources", "markup"], 1),
    **dict.fromkeys(["risk", "lesions", "dicom", "acquisition", "chest", "progress", "preprocessing", "inference"], 2),
    **dict.fromkeys(["evidence", "picking", "sample_data", "workers", "model_store", "processes"], 2),
    **dict.fromkeys(["scores", "reading", "heart", "models", "heart_network", "slices", "decomposition"], 3),
    **dict.fromkeys(["arteries", "pictures"], 3),
    **{"image_files": 2.5, "metal": 2.5, "noise": 2.5, "heart_search": 3.5},
    **dict.fromkeys(["projection_geometry", "projection_kernels"], 2),
    **dict.fromkeys(["projection_planes", "projection_torch", "xray"], 3),
    **dict.fromkeys(["radiograph_view"], 2),
    **dict.fromkeys(["radiomic_texture"], 2),
    **dict.fromkeys(["radiomics"], 5),
    **dict.fromkeys(["vessel_input"], 3),
    **dict.fromkeys(["vessels"], 4),
    **dict.fromkeys(["radiograph_dicom", "radiograph_saliency"], 3),
    **dict.fromkeys(["radiograph_reading", "radiograph_card"], 4),
    **dict.fromkeys(["radiograph_score"], 5),
    **dict.fromkeys(["radiograph_report"], 6),
    **dict.fromkeys(["projection"], 4),
    **{"second_opinion": 3, "second_opinion_trust": 4, "second_opinion_page": 6, "second_opinion_run": 8},
    **dict.fromkeys(["pipeline", "scene_content", "cohort_scans", "repeatability"], 4),
    **dict.fromkeys(["report", "comparison", "review", "tables", "cohort_folder", "cohort_table", "drr_files"], 5),
    **dict.fromkeys(["cohort_memory"], 5),
    **dict.fromkeys(["drr_job"], 5),
    **dict.fromkeys(["comparison_page", "segments", "drr_preview"], 6),
    **dict.fromkeys(["lesion_segments", "page"], 7),
    **dict.fromkeys(["mrml", "review_export"], 8),
    **dict.fromkeys(["review_nodes", "scan_run", "drr_nodes"], 9),
    **dict.fromkeys(["review_scene", "cohort", "comparison_run", "cli_drr", "cli_radiograph", "radiograph_nodes"], 10),
    **dict.fromkeys(["cli", "panel"], 11),
    "CACScoring": 12,
}
"""A file of CACScoring imports only from floors below its own. `panel` is a folder, whose files may know each other."""

KNOW_SLICER = {
    *("mrml", "segments", "lesion_segments", "tables", "review_nodes", "review_scene"),
    *("drr_nodes", "radiograph_nodes"),
}
"""Files outside the panel that may import it."""

SLICER = {"slicer", "vtk", "vtkmodules"}
QT = {"qt", "ctk", "PySide6", "PythonQt"}
AT_PANEL_LOAD = {*sys.stdlib_module_names, "numpy", "vtk", "SimpleITK", "qt", "ctk", "slicer", "SegmentEditorEffects"}
"""What Slicer brings along and has loaded already, or loads fast."""


def library_files(module: str) -> list[Path]:
    """Without those of panels."""
    files = sorted((ROOT / module / f"{module}Lib").rglob("*.py"))
    return [file for file in files if file.parent.name != "panel"]


def panel_files() -> list[Path]:
    """Module files, their panels' sections and editor effects: what may know Qt."""
    modules = [f for f in ROOT.glob("*/*.py") if f.stem == f.parent.name]
    return sorted({*modules, *ROOT.glob("CAC*/*Lib/panel/*.py"), *ROOT.glob("*/SegmentEditor*/**/*.py")})


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


def scoring_modules(names: set[str], within: str = SCORING) -> set[str]:
    """Files and folders of CACScoringLib among imported names: `.ct.CTError`, `.pictures`, `CACScoringLib.mrml` alike.

    within: the package whose file imports them, from which relative names count.
    """
    full = {absolute(name, within) for name in names}
    return {name.split(".")[1] for name in full if name.startswith(f"{SCORING}.")}


def absolute(name: str, within: str) -> str:
    """A relative name in full. within: the package of the file that imports it."""
    dots = len(name) - len(name.lstrip("."))
    if not dots:
        return name
    return ".".join([*within.split(".")[: 1 - dots or None], name.lstrip(".")])


def upward(name: str, names: set[str], within: str = SCORING) -> list[str]:
    """Imports of a file of CACScoring that are not from a floor below it. name: of the file, or of its folder."""
    others = scoring_modules(names, within) - ({name} if name == "panel" else set())
    return sorted(other for other in others if FLOORS.get(other, 99) >= FLOORS[name])


def loaded_with(file: Path) -> dict[str, str]:
    """Names outside the project's own packages that a file loads, itself or through others, each with who does it."""
    found: dict[str, str] = {}
    seen: set[Path] = set()
    waiting = [file]
    while waiting:
        current = waiting.pop()
        if current in seen:
            continue
        seen.add(current)
        within = ".".join(_package(current))
        for name in imports_of(current, at_load_only=True):
            full = absolute(name, within)
            if own := own_files(full):
                waiting += own
            else:
                found.setdefault(full.split(".")[0], current.stem)
    return found


def own_files(name: str) -> list[Path]:
    """The file of ours that a dotted name leads to, with the packages above it; none for others' names."""
    parts = name.split(".")
    for base in [*(ROOT / module for module in ("CACScoring", "CACTraining")), *ROOT.glob("CACScoring/SegmentEditor*")]:
        if parts[0] != f"{base.name}Lib":
            continue
        packages = [base.joinpath(*parts[:n], "__init__.py") for n in range(1, len(parts) + 1)]
        modules = [base.joinpath(*parts[:n]).with_suffix(".py") for n in range(2, len(parts) + 1)]
        return [path for path in [*packages, *modules] if path.exists()]
    return []


def _package(file: Path) -> list[str]:
    """Of which package a file is part: the folders from the library's down; none for a module's own file."""
    folders = list(file.relative_to(ROOT).parts[:-1])
    first = next((n for n, folder in enumerate(folders) if folder.endswith("Lib")), len(folders))
    return folders[first:]


SCORING_FILES = [f for f in library_files("CACScoring") if f.stem != "__init__"]
SECTION_FILES = sorted((ROOT / "CACScoring" / "CACScoringLib" / "panel").glob("*.py"))
TRAINING_SECTION_FILES = sorted((ROOT / "CACTraining" / "CACTrainingLib" / "panel").glob("*.py"))


@pytest.mark.parametrize("file", [*SCORING_FILES, ROOT / "CACScoring" / "CACScoring.py"], ids=lambda f: f.stem)
def test_imports_only_from_floors_below(file):
    assert file.stem in FLOORS, f"{file.stem} has no floor: give it one here and in the design"
    assert not upward(file.stem, imports_of(file))


@pytest.mark.parametrize("file", SECTION_FILES, ids=lambda f: f"panel/{f.stem}")
def test_panel_imports_only_from_floors_below(file):
    assert not upward("panel", imports_of(file), f"{SCORING}.panel")


@pytest.mark.parametrize("files", [SECTION_FILES, TRAINING_SECTION_FILES], ids=[SCORING, TRAINING])
def test_sections_of_a_panel_do_not_turn_in_circles(files):
    known = {
        file.stem: {name.split(".")[2] for name in _inside_panel(file)} & {f.stem for f in files} for file in files
    }
    assert known
    while free := [name for name, others in known.items() if not others & set(known)]:
        for name in free:
            del known[name]
    assert not known


def _inside_panel(file: Path) -> list[str]:
    """What a section imports from its own panel."""
    own = ".".join(_package(file))
    names = [absolute(name, own) for name in imports_of(file)]
    return [name for name in names if name.startswith(f"{own}.")]


@pytest.mark.parametrize("file", library_files("CACTraining"), ids=lambda f: f"{f.parent.name}/{f.stem}")
def test_training_runs_without_a_panel(file):
    """On a cluster there is no Slicer."""
    within = ".".join(_package(file))
    names = {absolute(name, within) for name in imports_of(file)}
    assert not {name for name in names if name.startswith((f"{SCORING}.panel", f"{TRAINING}.panel"))}


@pytest.mark.parametrize("file", [*SCORING_FILES, *SECTION_FILES], ids=lambda f: f.stem)
def test_scoring_does_not_know_training(file):
    assert not roots(imports_of(file)) & {TRAINING, "CACTraining"}


@pytest.mark.parametrize(
    "file", [*library_files("CACScoring"), *library_files("CACTraining")], ids=lambda f: f"{f.parent.name}/{f.stem}"
)
def test_libraries_do_not_know_slicer_or_qt(file):
    allowed = SLICER if file.stem in KNOW_SLICER else set()
    assert not roots(imports_of(file)) & (SLICER | QT) - allowed


@pytest.mark.parametrize("file", panel_files(), ids=lambda f: f"{f.parent.name}/{f.stem}")
def test_panels_load_nothing_heavy(file):
    loaded = loaded_with(file)
    assert not {name: by for name, by in loaded.items() if name not in AT_PANEL_LOAD}


def test_panels_are_found():
    assert {"CACScoring", "review_section", "CACTraining", "slices_section"} <= {f.stem for f in panel_files()}


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

    def test_relative_names(self):
        assert absolute("..ct.CTError", "CACScoringLib.panel") == "CACScoringLib.ct.CTError"
        assert absolute(".worker", "CACScoringLib.panel") == "CACScoringLib.panel.worker"
        assert absolute("json", "CACScoringLib.panel") == "json"
        names = imports(ast.parse("from ..mrml import SceneNodes\nfrom .worker import Worker"))
        assert scoring_modules(names, "CACScoringLib.panel") == {"mrml", "panel"}

    def test_what_others_load_is_seen(self):
        heavy = loaded_with(ROOT / "CACScoring" / "CACScoringLib" / "review_scene.py")
        assert "scipy" in heavy, "through lesions.py, which review_scene.py imports"

    def test_imports_inside_functions_are_not_at_load(self):
        tree = ast.parse("import json\ndef f():\n    import torch\nclass C:\n    import scipy.ndimage")
        assert roots(imports(tree, at_load_only=True)) == {"json", "scipy"}
        assert roots(imports(tree)) == {"json", "scipy", "torch"}
