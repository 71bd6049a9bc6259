"""Bundles: refusals, and a bundle that is installed and scores in a namespace without a network."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from CACScoringLib.core import version
from CACScoringLib.core.files import file_sha256
from CACTrainingLib.cli import bundle
from CACTrainingLib.cli.main import main


@pytest.fixture
def pip(monkeypatch):
    """Replace pip by a function that downloads an empty wheel, and record its arguments."""
    commands = []

    def run(command, **_options):
        commands.append(command)
        folder = Path(command[command.index("--dest") + 1])
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "empty.whl").touch()
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(bundle.subprocess, "run", run)
    return commands


def test_a_bundle_holds_code_models_packages_and_hashes(pip, tmp_path, monkeypatch):
    monkeypatch.setattr(version, "commit", lambda: "abc")
    monkeypatch.setattr(bundle, "CONTENT", ("cac", "constraints.txt", "CACScoring"))
    monkeypatch.setattr(bundle.shutil, "which", lambda _: None)
    folder = tmp_path / "bundle"
    assert main(["bundle", "--output", str(folder), "--extras", "torch"]) == 0
    lines = (folder / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
    names = {line.split("  ")[1] for line in lines}
    assert (folder / "CACScoring/CACScoringLib/Resources/commit.txt").read_text(encoding="utf-8") == "abc\n"
    models = "CACScoring/CACScoringLib/Resources/Models"
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert names >= {"cac", f"{models}/map-compact.safetensors", f"wheels/{python}/empty.whl", "wheels/3.12/empty.whl"}
    assert f"{file_sha256(folder / 'cac')}  cac" in lines
    assert not any("__pycache__" in name for name in names)
    assert any(text.startswith("openvino>=") for text in pip[-1])
    assert "torch==2.13.0" in pip[-1]
    assert any(bundle.CPU_BUILDS in command for command in pip) == (sys.platform == "linux")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--output", "."], "exists. Give --output a new folder."),
        (["--output", "new", "--extras", "scene,torhc"], "There is no extra torhc. Choose of cluster, "),
    ],
)
def test_bad_usage_is_refused(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["bundle", *words]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_failed_download_leaves_nothing(capsys, tmp_path, monkeypatch):
    def fail(command, **_options):
        return subprocess.CompletedProcess(command, 1, "", "ERROR: no network")

    monkeypatch.setattr(bundle.subprocess, "run", fail)
    monkeypatch.setattr(bundle, "CONTENT", ("cac",))
    assert main(["bundle", "--output", str(tmp_path / "bundle"), "--extras", ""]) == 3
    assert "could not be downloaded.\nERROR: no network" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="needs a network namespace")
def test_a_bundle_installs_and_scores_without_a_network(tmp_path):
    folder = tmp_path / "my bundle"
    assert main(["bundle", "--output", str(folder), "--extras", ""]) == 0
    variables = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PIP_FIND_LINKS")}
    command = ["unshare", "--net", sys.executable, str(folder / "cac"), "score", "--sample", "--output", "result"]
    done = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "result" / "scores.json").exists()
