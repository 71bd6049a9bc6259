"""OpenVINO is imported in one place, where its telemetry is switched off."""

import os
import re
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[3]
SAMPLE = ROOT / "CACScoring" / "Resources" / "SampleData" / "CACDigitalPatient.nrrd"
RUNTIME = ROOT / "CACScoring" / "CACScoringLib" / "models" / "graph.py"


def test_only_a_single_file_imports_openvino():
    """Indented imports are for type checking."""
    files = {path for folder in ("CACScoring", "CACTraining", "examples") for path in (ROOT / folder).rglob("*.py")}
    imports = re.compile(r"^(import|from) openvino\b", re.MULTILINE)
    assert [path for path in files if imports.search(path.read_text(encoding="utf-8"))] == [RUNTIME]


@pytest.fixture(scope="module")
def score_with_empty_home(tmp_path_factory):
    """Home and process group of a finished score."""
    home = tmp_path_factory.mktemp("home")
    command = [sys.executable, "-m", "CACScoringLib.cli", "score", str(SAMPLE), "--output"]
    command.append(str(tmp_path_factory.mktemp("output") / "result"))
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("XDG_")}
    path = os.pathsep.join([str(ROOT / "CACScoring"), str(ROOT / "CACTraining")])
    environment = {**inherited, "HOME": str(home), "USERPROFILE": str(home), "PYTHONPATH": path}
    process = subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        start_new_session=True,
    )
    text, _ = process.communicate(timeout=300)
    assert process.returncode == 0, text
    assert "Calcium map" in text
    return home, process.pid


@pytest.mark.long
def test_a_score_leaves_nothing_in_the_home(score_with_empty_home):
    assert list(score_with_empty_home[0].rglob("*")) == []


@pytest.mark.long
@pytest.mark.skipif(os.name == "nt", reason="Windows has no process groups")
def test_no_process_outlives_a_score(score_with_empty_home):
    group = score_with_empty_home[1]
    living = [p for p in psutil.process_iter() if p.status() != psutil.STATUS_ZOMBIE]
    assert [p.name() for p in living if os.getpgid(p.pid) == group] == []
