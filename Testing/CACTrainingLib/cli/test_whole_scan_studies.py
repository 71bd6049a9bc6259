"""`cac evaluate vessels`: what is asked for on the command line reaches the study."""

from pathlib import Path

import pytest

from CACTrainingLib.cli import main as cli
from CACTrainingLib.whole_scan.vessels import study as vessel_study
from CACTrainingLib.whole_scan.vessels.plan import KINDS, OUTPUTS


@pytest.fixture
def asked(monkeypatch, tmp_path):
    """Settings that the study is made with."""
    found = []

    def evaluate(settings, progress):
        found.append(settings)
        return tmp_path / "study.html"

    monkeypatch.setattr(vessel_study, "evaluate_vessels", evaluate)
    return found


def run(*arguments):
    return cli.main(["evaluate", "vessels", "--output", "out", *arguments])


def test_all_is_passed_on(asked, capsys):
    options = ["--others", "o.csv", "--kinds", "cnn,summed", "--outputs", "log", "--folds", "3", "--minutes", "0"]
    options += [
        "--only-folds",
        "augmentation=1",
        "--steps",
        "7",
        "--seed",
        "4",
        "--tables",
        "grid",
        "--preset",
        "paper",
    ]
    options += ["--workers", "2", "--cache", "c"]
    assert run("--data", "t.csv", *options) == 0
    assert "study.html: the study" in capsys.readouterr().out
    settings = asked[0]
    assert (settings.data, settings.others, settings.cache) == (Path("t.csv"), Path("o.csv"), Path("c"))
    assert (settings.minutes, settings.workers, settings.tables) == (0, 2, ("grid",))
    effort = settings.effort
    assert (effort.kinds, effort.outputs, effort.folds) == (("cnn", "summed"), ("log",), 3)
    assert (effort.only, effort.steps, effort.seed, effort.preset) == ({"augmentation": 1}, 7, 4, "paper")


def test_without_more_all_is_trained(asked):
    assert run("--data", "t.csv") == 0
    assert asked[0].effort.kinds == tuple(KINDS)
    assert asked[0].effort.outputs == tuple(OUTPUTS)
    assert asked[0].minutes is None


def test_what_is_wrong_is_said(asked, capsys):
    assert run() == 3
    assert "--data" in capsys.readouterr().err
    assert run("--data", "t.csv", "--kinds", "resnet") == 3
    assert "no network 'resnet'" in capsys.readouterr().err
    assert not asked
