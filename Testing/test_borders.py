"""Dependencies between packages: each imports only those below it, by the contracts in pyproject.toml."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LINT = "from importlinter.cli import lint_imports; sys.exit(lint_imports(config_filename=sys.argv[1], no_cache=True))"


def lint(folder: Path) -> subprocess.CompletedProcess:
    """Run import-linter on the libraries of a folder, with its pyproject.toml."""
    path = [str(folder / module) for module in ("CACScoring", "CACTraining", "Testing")]
    command = [sys.executable, "-c", f"import sys; sys.path[:0] = {path!r}; {LINT}", str(folder / "pyproject.toml")]
    return subprocess.run(command, capture_output=True, encoding="utf-8", cwd=folder)


def test_contracts_are_kept():
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout
    assert "0 broken" in done.stdout


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("CACScoring/CACScoringLib/core/ct.py", "from ..scoring import lesions"),
        ("CACScoring/CACScoringLib/report/page.py", "def f():\n    from .. import run"),
        ("CACScoring/CACScoringLib/scoring/scores.py", "import CACTrainingLib"),
        ("CACScoring/CACScoringLib/pipeline.py", "import vtk"),
        ("CACScoring/CACScoringLib/review/review.py", "import qt"),
        ("CACTraining/CACTrainingLib/data/datasets.py", "from ..studies import scans"),
        ("CACTraining/CACTrainingLib/data/datasets.py", "from ..phantom.anatomy import body"),
        ("CACTraining/CACTrainingLib/phantom/shapes.py", "from .. import warning_codes"),
        ("CACTraining/CACTrainingLib/new_room/__init__.py", ""),
        ("Testing/desktop_host/events.py", "import CACScoringLib"),
    ],
)
def test_forbidden_imports_are_reported(tmp_path, file, line):
    for name in ("CACScoring/CACScoringLib", "CACTraining/CACTrainingLib", "Testing/desktop_host"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    changed = tmp_path / file
    changed.parent.mkdir(exist_ok=True)
    text = changed.read_text(encoding="utf-8") if changed.exists() else ""
    changed.write_text(f"{text}\n{line}\n", encoding="utf-8")
    assert lint(tmp_path).returncode != 0
