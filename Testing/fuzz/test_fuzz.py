"""The fuzzing in short: inputs of every kind, always the same."""

from random import Random

import pytest

from . import oracle
from .targets import TARGETS

pytestmark = pytest.mark.long

COUNT = 12


@pytest.mark.parametrize("name", TARGETS)
def test_inputs_are_scored_right_or_warned_of_or_refused(name, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "user"))
    sound = tmp_path / "sound"
    sound.mkdir()
    TARGETS[name].prepare(sound)
    for number in range(COUNT):
        done, wrong = TARGETS[name].trial(sound, tmp_path / f"{number}", Random(f"{name} {number}"))
        assert not wrong, done


@pytest.mark.parametrize(
    ("code", "said", "wrong"),
    [
        (None, "Traceback", "traceback"),
        (1, "Error: it is so", "exit code 1"),
        (3, "it is so", "without an error"),
        (3, "Error: \x1b[31m", "control characters"),
        (3, "Error: it is so", ""),
    ],
)
def test_what_is_complained_of(code, said, wrong, tmp_path):
    assert wrong in oracle.complaint(oracle.Outcome(code, said), tmp_path) or not wrong
    assert bool(oracle.complaint(oracle.Outcome(code, said), tmp_path)) == bool(wrong)


def test_files_that_are_complained_of(tmp_path):
    for name, text in {"a.json": '{"a": NaN}', "a.html": "<script>alert(1)", "a.csv": "a,b\n1,=1+1\n"}.items():
        out = tmp_path / name / "out"
        out.mkdir(parents=True)
        (out / name).write_text(text)
        assert name in oracle.complaint(oracle.Outcome(0, ""), tmp_path / name)


def test_another_score_is_complained_of(tmp_path):
    target = TARGETS["nrrd"]
    target.prepare(tmp_path)
    oracle.run(target.arguments(tmp_path))
    assert target.judge(tmp_path) == ""
    record = tmp_path / "out" / "scores.json"
    record.write_text(record.read_text().replace('"agatston": 1', '"agatston": 2'))
    assert "expected" in target.judge(tmp_path)
