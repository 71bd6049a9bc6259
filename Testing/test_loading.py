"""What 3D Slicer loads when it starts: nothing that it does not bring along, and nothing slow.

Read from the sources without running them. Imports for type names only, and those inside functions, are not counted.
"""

import ast
import functools
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
AT_PANEL_LOAD = {*sys.stdlib_module_names, "numpy", "vtk", "SimpleITK", "qt", "ctk", "slicer", "SegmentEditorEffects"}
"""What Slicer brings along and has loaded already, or loads fast."""


def panel_files() -> list[Path]:
    """Module files, their panels' sections and editor effects: what may know Qt."""
    modules = [f for f in ROOT.glob("*/*.py") if f.stem == f.parent.name]
    return sorted({*modules, *ROOT.glob("CAC*/*Lib/panel/**/*.py"), *ROOT.glob("*/SegmentEditor*/**/*.py")})


@functools.cache
def imports_of(file: Path) -> set[str]:
    return imports_at_load(ast.parse(file.read_text(encoding="utf-8")))


def imports_at_load(tree: ast.Module) -> set[str]:
    """Dotted names that a file imports when it is loaded; relative ones begin with a dot."""
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
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            waiting += node.orelse
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            waiting += ast.iter_child_nodes(node)
    return found


def absolute(name: str, within: str) -> str:
    """A relative name in full. within: the package of the file that imports it."""
    dots = len(name) - len(name.lstrip("."))
    if not dots:
        return name
    return ".".join([*within.split(".")[: 1 - dots or None], name.lstrip(".")])


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
        for name in imports_of(current):
            full = absolute(name, package(current))
            if own := own_files(full):
                waiting += own
            else:
                found.setdefault(full.split(".")[0], current.stem)
    return found


@functools.cache
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


def package(file: Path) -> str:
    """Of which package a file is part: the folders from the library's down; none for a module's own file."""
    folders = list(file.relative_to(ROOT).parts[:-1])
    first = next((n for n, folder in enumerate(folders) if folder.endswith("Lib")), len(folders))
    return ".".join(folders[first:])


def test_panels_load_nothing_heavy():
    files = panel_files()
    assert {"CACScoring", "review_section", "CACTraining", "slices_section"} <= {file.stem for file in files}
    heavy = {file.name: {n: by for n, by in loaded_with(file).items() if n not in AT_PANEL_LOAD} for file in files}
    assert not {file: names for file, names in heavy.items() if names}


MOST_FILES = 80
"""Of ours that a reader of the panel has before them from its start to the press of *Score*."""

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
    panel.scorer._worker._process = ScriptedProcess()
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
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert int(done.stdout.split()[-1]) <= MOST_FILES
