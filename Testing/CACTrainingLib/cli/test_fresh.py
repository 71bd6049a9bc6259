"""Every command with only the packages that it requires itself, as on its first use.

A command runs in a fresh Python, and its child processes too, in which all packages are hidden but the base's and those
of the extras that it has required so far.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from requirement_closure import importable

from CACTrainingLib.cli.main import make_parser
from CACTrainingLib.cli.train import NETWORKS

ROOT = Path(__file__).parents[3]
SCAN = ROOT / "CACScoring/Resources/SampleData/CACDigitalPatient.nrrd"

HIDE = """
import json, os
from importlib.machinery import PathFinder
NAMES = json.loads(os.environ["IMPORTABLE"])
find = PathFinder.find_spec
def find_visible(name, path=None, target=None):
    first = name.partition(".")[0]
    visible = first not in NAMES["all"] or any(first in NAMES[extra] for extra in os.environ["EXTRAS"].split(","))
    return find(name, path, target) if visible else None
PathFinder.find_spec = find_visible
"""
"""Code of `sitecustomize`, which Python runs at start."""

START = """
import os, sys
from CACScoringLib.cli import main as scoring
def require(*names):
    os.environ["EXTRAS"] = ",".join([os.environ["EXTRAS"], *names])
scoring.require = require
from CACTrainingLib.cli.main import main
if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
"""

WITHOUT_DATA = ("territories", "super-resolution")
"""Networks trained on digital patients only."""
DOES_ITS_WORK = [
    "score SCAN --output new",
    "cohort table.csv --output new",
    "evaluate accuracy --data table.csv --output new",
    "evaluate reproducibility --data pairs.csv --output new",
]
ENDS_EARLY = [
    *("compare none none", "cohort report none", "drr none --output new", "completion bash"),
    *("models list", "info SCAN", "explain none 1", "data list", "sample table.csv"),
    "phantom --single 1 --output table.csv",
    *("insert none --output new", "calibrate --data none --slices none --decomposition none"),
    *(f"train {name} --data none --output new" for name, network in NETWORKS.items() if "data" in network.options),
    *(f'train {network} --settings {{"patients":0}} --output new' for network in WITHOUT_DATA),
    *(f"evaluate {study} --data none --output new" for study in ("detection", "heart", "ablation", "radiograph")),
    *(f"evaluate {study} --data none --output new" for study in ("prognosis", "vessels", "radiomics")),
    *("review none", "review none --double --reader a --reader b", "project new new", "project agreement none"),
    *("radiographs digital --patients 1 --output table.csv", "radiographs scans none --output new"),
]
"""Commands whose input is refused after their packages are loaded."""
OF_DEVELOPERS = {"docs", "test", "check"}


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """Environment variables that hide all extras."""
    place = tmp_path_factory.mktemp("fresh")
    (place / "sitecustomize.py").write_text(HIDE, encoding="utf-8")
    (place / "start.py").write_text(START, encoding="utf-8")
    libraries = [str(place), str(ROOT / "CACScoring"), str(ROOT / "CACTraining")]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(libraries),
        "IMPORTABLE": json.dumps(importable()),
        "EXTRAS": "",
    }


def run(line, folder, environment):
    """Run a command line in a folder with tables; return the exit code and standard error."""
    (folder / "table.csv").write_text(f"ct,total\n{SCAN},161\n", encoding="utf-8")
    (folder / "pairs.csv").write_text(f"patient,scan,ct\nP,1,{SCAN}\nP,2,again.nrrd\n", encoding="utf-8")
    shutil.copy(SCAN, folder / "again.nrrd")
    words = [str(SCAN) if word == "SCAN" else word for word in line.split()]
    command = [sys.executable, "-m", "start", *words]
    process = subprocess.run(command, cwd=folder, env=environment, capture_output=True, encoding="utf-8", timeout=900)
    return process.returncode, process.stderr


@pytest.mark.long
@pytest.mark.parametrize("line", ENDS_EARLY + DOES_ITS_WORK)
def test_a_command_begins_and_some_do_their_work(line, environment, tmp_path):
    code, errors = run(line, tmp_path, environment)
    assert code in ((0,) if line in DOES_ITS_WORK else (0, 2, 3)), errors
    assert "usage:" not in errors


def test_no_command_is_left_out():
    tried = {line.split()[0] for line in ENDS_EARLY + DOES_ITS_WORK}
    assert tried | OF_DEVELOPERS == {*make_parser()._subparsers._group_actions[0].choices}


@pytest.mark.parametrize(("extras", "code"), [("", 1), ("studies", 1), ("studies,cohort", 0)])
def test_a_package_is_hidden_until_its_extra_is_required(extras, code, environment):
    """The guard itself detects a package that was not required."""
    process = subprocess.run([sys.executable, "-c", "import bokeh"], env={**environment, "EXTRAS": extras})
    assert process.returncode == code
