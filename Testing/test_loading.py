"""Imports when 3D Slicer loads the modules: only packages that it has, and none that are slow.

Imports are read from the sources; those for type checking and inside functions are not counted.
"""

import ast
import functools
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
AT_PANEL_LOAD = {*sys.stdlib_module_names, "numpy", "vtk", "SimpleITK", "qt", "ctk", "slicer", "SegmentEditorEffects"}
"""Packages that Slicer has loaded already, or loads fast."""


def panel_files() -> list[Path]:
    """Files that may import Qt: module files, panel sections and editor effects."""
    modules = [f for f in ROOT.glob("*/*.py") if f.stem == f.parent.name]
    return sorted({*modules, *ROOT.glob("CAC*/*Lib/panel/**/*.py"), *ROOT.glob("*/SegmentEditor*/**/*.py")})


@functools.cache
def imports_of(file: Path) -> set[str]:
    return imports_at_load(ast.parse(file.read_text(encoding="utf-8")))


def imports_at_load(tree: ast.Module) -> set[str]:
    """Dotted names that a file imports at load; relative names begin with a dot."""
    names: set[str] = set()
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            prefix = "." * node.level + (node.module or "")
            separator = "" if prefix.endswith(".") else "."
            names |= {f"{prefix}{separator}{alias.name}" for alias in node.names}
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            waiting += node.orelse
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            waiting += ast.iter_child_nodes(node)
    return names


def absolute(name: str, within: str) -> str:
    """Resolve a relative name within the package of the importing file."""
    dots = len(name) - len(name.lstrip("."))
    if not dots:
        return name
    return ".".join([*within.split(".")[: 1 - dots or None], name.lstrip(".")])


def loaded_with(file: Path) -> dict[str, str]:
    """Third-party packages that a file loads, directly or indirectly, each with the importing file."""
    loaded: dict[str, str] = {}
    visited: set[Path] = set()
    waiting = [file]
    while waiting:
        current = waiting.pop()
        if current in visited:
            continue
        visited.add(current)
        for name in imports_of(current):
            full = absolute(name, package(current))
            if files := files_of(full):
                waiting += files
            else:
                loaded.setdefault(full.split(".")[0], current.stem)
    return loaded


@functools.cache
def files_of(name: str) -> list[Path]:
    """CAC's files that importing a dotted name loads: the module and its packages; empty for third-party names."""
    parts = name.split(".")
    for base in [*(ROOT / module for module in ("CACScoring", "CACTraining")), *ROOT.glob("CACScoring/SegmentEditor*")]:
        if parts[0] != f"{base.name}Lib":
            continue
        packages = [base.joinpath(*parts[:n], "__init__.py") for n in range(1, len(parts) + 1)]
        modules = [base.joinpath(*parts[:n]).with_suffix(".py") for n in range(2, len(parts) + 1)]
        return [path for path in [*packages, *modules] if path.exists()]
    return []


def package(file: Path) -> str:
    """Package of a file, from the library down; empty for a module's own file."""
    folders = list(file.relative_to(ROOT).parts[:-1])
    first = next((n for n, folder in enumerate(folders) if folder.endswith("Lib")), len(folders))
    return ".".join(folders[first:])


def test_panels_load_nothing_heavy():
    files = panel_files()
    assert {"CACScoring", "review_section", "CACTraining", "slices_section"} <= {file.stem for file in files}
    heavy = {file.name: {n: by for n, by in loaded_with(file).items() if n not in AT_PANEL_LOAD} for file in files}
    assert not {file: names for file, names in heavy.items() if names}


MAX_FILES = 81
"""Most CAC modules loaded between the panel's start and a click on *Score*."""

PRESS = """
import sys, panel_results, slicer, desktop_host
from pytest import MonkeyPatch
with MonkeyPatch.context() as patch:
    desktop_host.load_panel(patch, "CACScoring", main_window=False)
    own = [name for name in sys.modules if name.partition(".")[0] in ("CACScoring", "CACScoringLib")]
    for name in own:
        del sys.modules[name]
    desktop_host.load(patch, "CACScoring")
    slicer.app.startupCompleted.emit()
    panel = desktop_host.open_panel("CACScoring")
    from panel_driver import ScriptedProcess
    from CACScoringLib.mrml.scene import add_volume
    panel.scorer.job.process = ScriptedProcess()
    panel.ui.inputSelector.setCurrentNode(add_volume(slicer.mrmlScene, panel_results.chest_image(), "chest"))
    panel.ui.methodBox.setCurrentIndex(1)
    panel.ui.scoreButton.click()
    assert panel.scorer.isRunning
    print(sum(name.partition(".")[0] in ("CACScoring", "CACScoringLib") for name in sys.modules))
"""


@pytest.mark.long
def test_a_run_of_the_panel_begins_with_few_files():
    places = [ROOT / "CACScoring", ROOT / "Testing", ROOT / "Testing" / "support"]
    code = f"import sys; sys.path[:0] = {[str(place) for place in places]!r}\n{PRESS}"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert int(process.stdout.split()[-1]) <= MAX_FILES
