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


FORBIDDEN = {
    "CACScoringLib.core.ct -> CACScoringLib.scoring.lesions": "from ..scoring import lesions",
    "CACScoringLib.report.page -> CACScoringLib.run": "def f():\n    from .. import run",
    "CACScoringLib.scoring.scores -> CACTrainingLib": "import CACTrainingLib",
    "CACScoringLib.scoring.mass -> CACScoringLib.models.cards": "from ..models import cards",
    "CACScoringLib.facts.store -> CACScoringLib.models.cards": "from ..models import cards",
    "CACScoringLib.pipeline -> vtk": "import vtk",
    "CACScoringLib.review.review -> qt": "import qt",
    "CACTrainingLib.data.datasets -> CACTrainingLib.truth.records": "from ..truth import records",
    "CACTrainingLib.data.batches -> CACTrainingLib.phantom.anatomy.body": "from ..phantom.anatomy import body",
    "CACTrainingLib.training.schedule -> CACScoringLib.panel.widgets": "from CACScoringLib.panel import widgets",
    "desktop_host.events -> CACScoringLib": "import CACScoringLib",
}
"""Line to add to a module, by the import that is forbidden."""


@pytest.mark.long
def test_forbidden_imports_are_reported(tmp_path):
    bases = {"CACScoringLib": "CACScoring", "CACTrainingLib": "CACTraining", "desktop_host": "Testing"}
    for library, base in bases.items():
        shutil.copytree(ROOT / base / library, tmp_path / base / library, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for forbidden, line in FORBIDDEN.items():
        parts = forbidden.split(" -> ")[0].split(".")
        with tmp_path.joinpath(bases[parts[0]], *parts).with_suffix(".py").open("a", encoding="utf-8") as file:
            file.write(f"\n{line}\n")
    new_room = tmp_path / "CACTraining" / "CACTrainingLib" / "new_room"
    new_room.mkdir()
    (new_room / "__init__.py").touch()
    report = lint(tmp_path).stdout
    assert [forbidden for forbidden in FORBIDDEN if f"{forbidden} (l." not in report] == []
    assert "CACTrainingLib.new_room\n" in report
    assert " KEPT" not in report
