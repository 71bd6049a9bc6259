"""Python in README and pages runs as it stands there, with nothing but what CAC installs."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from coca_files import region, write_gated

from CACScoringLib.mrml.sample_data import sample_file

ROOT = Path(__file__).parents[1]
FENCE = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
PAGES = [
    ROOT / "README.md",
    *(page for folder in ("docs", "CACScoring", "CACTraining") for page in ROOT.glob(f"{folder}/**/*.md")),
]
SNIPPETS = [
    (page.relative_to(ROOT).as_posix(), number, code)
    for page in sorted(PAGES)
    for number, code in enumerate(FENCE.findall(page.read_text(encoding="utf-8")), 1)
]
IDS = [f"{page}-{number}" for page, number, _ in SNIPPETS]


@pytest.fixture
def data(tmp_path):
    """Folder of what snippets take: DICOM_FOLDER, CT and COCA."""
    for name in ("CT", "DICOM_FOLDER"):
        (tmp_path / name).mkdir()
        shutil.copy(sample_file(), tmp_path / name)
    write_gated(tmp_path / "COCA", 0, [region(5, 30.0, np.array([[4, 4], [8, 4], [8, 8], [4, 8]]))])
    return tmp_path


def test_there_are_snippets():
    assert {"README.md", "docs/reference/python.md"} <= {page for page, *_ in SNIPPETS}


@pytest.mark.parametrize(("page", "number", "code"), SNIPPETS, ids=IDS)
def test_names_of_a_snippet_are_defined(page, number, code):
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "F", "--quiet", "-"]
    done = subprocess.run(command, input=code, capture_output=True, text=True)
    assert done.returncode == 0, f"{page}: {done.stdout}"


@pytest.mark.long
@pytest.mark.parametrize(("page", "number", "code"), SNIPPETS, ids=IDS)
def test_a_snippet_runs(page, number, code, data):
    libraries = os.pathsep.join(str(ROOT / module) for module in ("CACScoring", "CACTraining"))
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=data,
        env={**os.environ, "PYTHONPATH": libraries},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{page}: {done.stderr}"
