"""Runs every command of the tutorial, unchanged, in an empty folder."""

import json
import os
import sys
from pathlib import Path

import pytest
from mktestdocs import check_md_file

ROOT = Path(__file__).parents[1]
TUTORIAL = ROOT / "docs" / "user" / "tutorial.md"


def agatston(folder: str) -> dict:
    methods = json.loads(Path(folder, "scores.json").read_text(encoding="utf-8"))["methods"]
    arteries = methods["threshold"]["arteries"]
    return {name: arteries[name]["agatston"] for name in ("LM", "LAD", "LCX", "RCA")}


@pytest.mark.long
@pytest.mark.skipif(os.name == "nt", reason="the commands are for a shell")
def test_the_tutorial_runs_with_the_stated_output(tmp_path, monkeypatch):
    launcher = tmp_path / "cac"  # the real one would update its environment first
    launcher.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m CACTrainingLib.cli "$@"\n', encoding="utf-8")
    launcher.chmod(0o755)
    (tmp_path / ".venv").symlink_to(sys.prefix)
    monkeypatch.chdir(tmp_path)
    # A new environment has no bytecode, so that each command would compile PyTorch again.
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    monkeypatch.setenv("PYTHONPYCACHEPREFIX", str(tmp_path / "bytecode"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(str(ROOT / name) for name in ("CACScoring", "CACTraining")))
    check_md_file(TUTORIAL, memory=True, lang="bash")

    truth = json.loads(Path("patient/truth.json").read_text(encoding="utf-8"))
    assert f"{truth['mass_mg']:.1f} mg in all" in TUTORIAL.read_text(encoding="utf-8").replace("\n", " ")
    warnings = json.loads(Path("result/scores.json").read_text(encoding="utf-8"))["warnings"]
    assert [warning["code"] for warning in warnings if warning["severe"]] == []
    before, after = agatston("reviewed"), agatston("corrected")
    assert before["LM"] > 0
    assert (after["LM"], after["LAD"]) == (0, pytest.approx(before["LM"] + before["LAD"]))
    assert all(Path(page).is_file() for page in ("comparison/comparison.html", "study/study.html"))
