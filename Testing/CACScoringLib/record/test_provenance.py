"""Every result states the program, time, command and hashes that it follows from."""

import csv
import hashlib
import io
import json
import os
import re
import subprocess
import sys
from datetime import datetime
from importlib import metadata
from pathlib import Path

import pytest
from made_results import make_result
from small_ct import score_command, write_ct

from CACScoringLib.cli import main as cli
from CACScoringLib.core import version
from CACScoringLib.core.files import OutputFolder, file_sha256
from CACScoringLib.core.progress import Progress
from CACScoringLib.record.provenance import COLUMNS, Provenance
from CACScoringLib.record.score_record import read_result
from CACScoringLib.report.page import result_as_html
from CACScoringLib.run import RunSettings, write_result

PROVENANCE = Provenance("0.2.0", "1f" * 20, "2026-11-27T12:00:00+01:00", "Linux", "cac score /data/DOE^JANE/ct.nii.gz")


@pytest.fixture
def no_cached_commit():
    version.commit.cache_clear()
    yield
    version.commit.cache_clear()


def made_result(**changes):
    return make_result(**changes).stating(provenance=PROVENANCE)


def test_scores_state_program_command_and_hashes(tmp_path):
    write_ct(tmp_path, "nii")
    command = score_command(tmp_path)
    assert cli.main(command) == 0
    record = read_result(tmp_path / "out")
    provenance = record.provenance
    assert provenance.version == version.VERSION
    assert provenance.commit == version.commit()
    assert datetime.fromisoformat(provenance.created).utcoffset() is not None
    assert provenance.command.startswith("cac score …/")
    assert str(tmp_path) not in provenance.command
    masks = {role: file_sha256(Path(command[command.index(f"--{role}") + 1])) for role in provenance.inputs_sha256}
    assert provenance.inputs_sha256 == masks
    assert provenance.settings["score"]["rules"]["threshold_hu"] == 130
    text = json.dumps(provenance.settings, sort_keys=True, separators=(",", ":"))
    assert provenance.settings_sha256 == hashlib.sha256(text.encode()).hexdigest()
    assert re.fullmatch(r"[0-9a-f]{64}", record.input.voxels_sha256)


def test_tables_end_with_the_provenance_without_folders_unless_they_identify(tmp_path):
    for identify, stated in ((False, "cac score …/ct.nii.gz"), (True, PROVENANCE.command)):
        assert made_result().record.provenance.stated(identify).command == stated
        write_result(OutputFolder(tmp_path / str(identify)), made_result(), RunSettings(identify=identify), Progress())
        for name in ("scores.json", "report.html", "lesions.csv", "features.csv"):
            assert ("DOE^JANE" in (tmp_path / str(identify) / name).read_text(encoding="utf-8")) == identify
        for name in ("lesions.csv", "features.csv"):
            row = next(csv.DictReader(io.StringIO((tmp_path / str(identify) / name).read_text(encoding="utf-8"))))
            assert list(row)[-len(COLUMNS) :] == list(COLUMNS)
            assert (row["cac_commit"], row["created"], row["command"]) == (
                PROVENANCE.commit,
                PROVENANCE.created,
                stated,
            )


def test_reports_of_a_scan_differ_in_a_single_line():
    later = Provenance("0.2.0", "2f" * 20, "2026-11-28T12:00:00+01:00", "Windows", "cac score other")
    results = [make_result().stating(provenance=provenance) for provenance in (PROVENANCE, later)]
    pages = [result_as_html(result).splitlines() for result in results]
    differing = [pair for pair in zip(*pages, strict=True) if pair[0] != pair[1]]
    assert len(differing) == 1
    assert PROVENANCE.commit in differing[0][0]


def test_a_checkout_states_its_commit():
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True)
    assert version.commit().removesuffix("-changed") == commit.stdout.strip()


@pytest.mark.usefixtures("no_cached_commit")
def test_a_copy_without_git_states_the_commit_that_was_stored(tmp_path, monkeypatch):
    (tmp_path / "Resources").mkdir()
    version.write_commit(tmp_path)
    monkeypatch.setattr(version, "_LIBRARY", tmp_path)
    stated = version.commit()
    version.commit.cache_clear()
    assert version.commit() == stated
    version.commit.cache_clear()
    (tmp_path / "Resources" / "commit.txt").unlink()
    monkeypatch.setattr(version, "_installed_commit", lambda: None)
    assert version.commit().startswith("unknown")


@pytest.mark.long
def test_an_installed_package_states_commit_and_versions(tmp_path):
    """Needs the build system from an index or a cache."""
    root, place = Path(__file__).parents[3], tmp_path / "site"
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", "--local", root, clone], check=True)
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", place, clone]
    subprocess.run(install, check=True)
    environment = {**os.environ, "PYTHONPATH": str(place), "PYTHONSAFEPATH": "1"}
    command = [sys.executable, "-m", "CACTrainingLib.cli", "score", "--sample", "--output", tmp_path / "out"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=clone, capture_output=True, text=True).stdout.strip()
    provenance = read_result(tmp_path / "out").provenance
    assert provenance.commit == head
    for name in ("numpy", "SimpleITK", "openvino"):
        assert provenance.packages[name].startswith(metadata.version(name))
