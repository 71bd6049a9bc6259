"""The launcher, with an existing environment."""

import hashlib
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def launcher(tmp_path):
    """Return a copy of the launcher, with an environment that has this Python's packages."""
    home = tmp_path / "home"
    home.mkdir()
    for name in ("cac", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, home / name)
    venv.create(home / ".venv", symlinks=os.name != "nt")
    (packages,) = home.glob(".venv/[Ll]ib/**/site-packages")
    paths = [ROOT / "CACScoring", ROOT / "CACTraining", *filter(lambda path: "site-packages" in path, sys.path)]
    (packages / "borrowed.pth").write_text("\n".join(map(str, paths)))
    files = [home / "pyproject.toml", home / "constraints.txt"]
    fingerprint = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    (home / ".venv" / "installed.sha256").write_text(fingerprint)
    return home / "cac"


@pytest.mark.parametrize("module", ["random", "json", "numpy", "CACScoringLib"])
def test_nothing_is_imported_from_the_current_folder(launcher, tmp_path, module):
    folder = tmp_path / "scans"
    folder.mkdir()
    (folder / f"{module}.py").write_text("print('executed')")
    done = subprocess.run(
        [sys.executable, str(launcher), "models", "list"], cwd=folder, capture_output=True, encoding="utf-8"
    )
    assert done.returncode == 0, done.stderr
    assert "executed" not in done.stdout
    assert "territories-compact" in done.stdout
