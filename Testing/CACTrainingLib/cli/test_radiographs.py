"""`cac radiographs`: refusals."""

from CACScoringLib.cli.main import BAD_INPUT, BAD_USAGE
from CACTrainingLib.cli import main as cli


def test_digital_patients_that_cannot_be_made(tmp_path, capsys):
    command = ["radiographs", "digital", "--output", str(tmp_path)]
    assert cli.main([*command, "--patients", "3"]) == BAD_INPUT
    assert "at least 4 patients" in capsys.readouterr().err
    assert cli.main([*command, "--patients", "4", "--workers", "0"]) == BAD_USAGE
    assert "At least one worker" in capsys.readouterr().err
