"""`cac radiographs`: arguments of the commands, and their errors."""

import json

from CACScoringLib.cli.main import BAD_INPUT, BAD_USAGE
from CACTrainingLib.cli import main as cli
from CACTrainingLib.radiograph import cohort, scans


def test_digital_patients(tmp_path, monkeypatch, capsys):
    calls = []

    def write(folder, settings, workers, progress):
        calls.append((folder, settings, workers))
        progress(2, 9)
        return folder / "radiographs.csv", {}

    monkeypatch.setattr(cohort, "write_radiographs", write)
    command = ["radiographs", "digital", "--patients", "9", "--output", str(tmp_path)]
    command += ["--settings", '{"first_number": 70, "super_resolution": "thin"}']
    assert cli.main([*command, "--workers", "2", "--progress", "json"]) == 0
    assert calls == [(tmp_path, cohort.RadiographCohortSettings(70, 9, "cardiac", "thin"), 2)]
    out, err = capsys.readouterr()
    assert "radiographs of 9 digital patients" in out
    assert {"event": "counted", "done": 2, "count": 9} in [json.loads(line) for line in err.splitlines()]


def test_digital_patients_that_cannot_be_made(tmp_path, capsys):
    command = ["radiographs", "digital", "--output", str(tmp_path)]
    assert cli.main([*command, "--patients", "3"]) == BAD_INPUT
    assert "at least 4 patients" in capsys.readouterr().err
    assert cli.main([*command, "--patients", "4", "--workers", "0"]) == BAD_USAGE
    assert "At least one worker" in capsys.readouterr().err


def test_own_scans(tmp_path, monkeypatch, capsys):
    calls = []

    def write(source, folder, workers, progress):
        calls.append((source, folder, workers))
        return folder / "radiographs.csv", {"bad": "It is torn."}

    monkeypatch.setattr(scans, "write_scan_radiographs", write)
    command = ["radiographs", "scans", "my.csv", "--output", str(tmp_path), "--workers", "3"]
    assert cli.main(command) == 0
    assert [str(part) for part in calls[0]] == ["my.csv", str(tmp_path), "3"]
    out, err = capsys.readouterr()
    assert "1 failed, see failures.csv" in out
    assert "bad: It is torn." in err
