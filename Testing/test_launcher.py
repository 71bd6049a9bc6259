"""The launcher, with an existing environment."""

import hashlib
import os
import re
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
    (packages / "borrowed.pth").write_text("\n".join(map(str, paths)), encoding="utf-8")
    files = [home / "pyproject.toml", home / "constraints.txt"]
    fingerprint = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    (home / ".venv" / "installed.sha256").write_text(fingerprint, encoding="utf-8")
    return home / "cac"


def test_nothing_is_imported_from_the_current_folder(launcher, tmp_path):
    folder = tmp_path / "scans"
    folder.mkdir()
    for module in ("random", "json", "numpy", "CACScoringLib"):
        (folder / f"{module}.py").write_text("print('executed')", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(launcher), "models", "list"], cwd=folder, capture_output=True, encoding="utf-8"
    )
    assert done.returncode == 0, done.stderr
    assert "executed" not in done.stdout
    assert "territories-compact" in done.stdout


def test_sizes_of_extras_are_those_of_the_docs(launcher):
    """The launcher states what it installs; here pip fails at once."""
    (packages,) = launcher.parent.glob(".venv/[Ll]ib/**/site-packages")
    (packages / "pip.py").write_text("raise SystemExit(1)", encoding="utf-8")
    page = (ROOT / "docs" / "user" / "installation.md").read_text(encoding="utf-8")
    sizes = {
        name: float(number) / (1000 if unit == "MB" else 1)
        for name, number, unit in re.findall(r"\| `(\w+)` \| ([\d.]+) (GB|MB) \|", page)
    }
    command = [sys.executable, str(launcher), "--add-extras", ",".join(sizes)]
    done = subprocess.run(command, capture_output=True, encoding="utf-8")
    assert f"adding {','.join(sizes)} ({sum(sizes.values()):.2g} GB)" in done.stderr


def test_a_torch_that_brings_cuda_is_announced(launcher):
    """Here the index of the processor's builds is out of reach."""
    (packages,) = launcher.parent.glob(".venv/[Ll]ib/**/site-packages")
    (packages / "pip.py").write_text("import sys\nsys.exit('--index-url' in sys.argv)", encoding="utf-8")
    command = [sys.executable, str(launcher), "--add-extras", "torch"]
    done = subprocess.run(command, capture_output=True, encoding="utf-8")
    assert done.returncode == 0
    is_asked = sys.platform == "linux" and not shutil.which("nvidia-smi")
    assert ("PyPI's PyTorch brings CUDA, about 4 GB more" in done.stderr) == is_asked


def test_type_checkers_find_the_source(tmp_path):
    """They read path files only. Here pip installs nothing, so nothing else leads to the source."""
    for name in ("cac", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path / name)
    for name in ("CACScoring", "CACTraining"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "stub").mkdir()
    (tmp_path / "stub" / "pip.py").write_text("", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(tmp_path / "cac"), "--version"],
        env={**os.environ, "PYTHONPATH": str(tmp_path / "stub")},
        capture_output=True,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr
    assert all((ROOT / name / f"{name}Lib" / "py.typed").is_file() for name in ("CACScoring", "CACTraining"))
