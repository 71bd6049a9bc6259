"""`cac evaluate` of experiments: what is asked for on the command line reaches the study."""

from pathlib import Path

import pytest
from made_experiments import make_quick
from radiograph_study import fake_trainer, write_table

from CACTrainingLib.cli import main as cli
from CACTrainingLib.radiograph.study import prognosis
from CACTrainingLib.radiograph.study import study as radiograph_study
from CACTrainingLib.whole_scan.radiomics import study as radiomics_study
from CACTrainingLib.whole_scan.vessels import study as vessel_study


@pytest.fixture
def asked(monkeypatch, tmp_path):
    """What the studies are made with."""
    found = []

    def evaluate(*given):
        found.append(given[:-1] if len(given) > 2 else given[0])
        return tmp_path / "study.html"

    for module, name in (
        (radiograph_study, "evaluate_radiographs"),
        (vessel_study, "evaluate_vessels"),
        (radiomics_study, "evaluate_radiomics"),
        (prognosis, "evaluate_prognosis"),
    ):
        monkeypatch.setattr(module, name, evaluate)
    return found


def run(study, *arguments):
    return cli.main(["evaluate", study, "--output", "out", *arguments])


OPTIONS = ("--data", "t.csv", "--folds", "3", "--minutes", "0", "--seed", "4", "--workers", "2")
OF_SCANS = ("--test", "test.csv", "--cache", "c")


@pytest.mark.parametrize("study", ["radiograph", "vessels", "radiomics"])
def test_what_all_take_is_passed_on(asked, capsys, study):
    of_scans = OF_SCANS if study != "radiograph" else ()
    assert run(study, *OPTIONS, *of_scans) == 0
    assert "study.html: the study" in capsys.readouterr().out
    settings = asked[0]
    assert (settings.data, settings.output, settings.minutes, settings.workers) == (Path("t.csv"), Path("out"), 0, 2)
    assert (settings.budget.folds, settings.budget.seed, settings.budget.only) == (3, 4, {})
    if of_scans:
        assert (settings.test, settings.cache) == (Path("test.csv"), Path("c"))
    assert run(study, "--data", "t.csv") == 0
    assert asked[1].minutes is None


def test_what_a_study_of_radiographs_takes(asked):
    options = ["--external", "e.csv", "--configurations", "lateral,two-views", "--steps", "7"]
    assert run("radiograph", *OPTIONS, *options) == 0
    assert (asked[0].external, asked[0].names) == (Path("e.csv"), ("lateral", "two-views"))
    assert asked[0].budget.steps == 7


def test_what_a_study_of_vessels_takes(asked):
    options = ["--networks", "cnn-log,vit-linear", "--preset", "paper", "--steps", "7"]
    assert run("vessels", *OPTIONS, *options) == 0
    budget = asked[0].budget
    assert (budget.networks, budget.preset, budget.steps) == (("cnn-log", "vit-linear"), "paper", 7)


def test_what_a_study_of_radiomics_takes(asked):
    assert run("radiomics", *OPTIONS, "--contrast-data", "c.csv") == 0
    assert asked[0].contrast == Path("c.csv")


def test_what_a_study_of_prognosis_takes(asked):
    assert run("prognosis", "--data", "t.csv", "--seed", "3") == 0
    assert asked == [(Path("t.csv"), Path("out"), 3)]


@pytest.mark.parametrize("study", ["radiograph", "prognosis", "vessels", "radiomics"])
def test_what_is_wrong_is_said(asked, capsys, study):
    assert run(study) == 3
    assert "--data" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run(study, "--data", "t.csv", "--only-folds", "fusion")
    if study == "vessels":
        assert run(study, "--data", "t.csv", "--networks", "resnet") == 3
        assert "no network 'resnet'" in capsys.readouterr().err
    assert not asked


def test_a_study_from_the_command_to_its_page(tmp_path, monkeypatch, capsys):
    make_quick(monkeypatch, 20)
    monkeypatch.setattr(radiograph_study.evaluate_radiographs, "__defaults__", (None, fake_trainer))
    table = write_table(tmp_path / "own" / "radiographs.csv", 48)
    start = ["evaluate", "radiograph", "--data", str(table), "--output", str(tmp_path / "out"), "--folds", "3"]
    assert cli.main([*start, "--configurations", "lateral"]) == 0
    assert "study.html" in capsys.readouterr().out
    assert "lateral" in (tmp_path / "out" / "study.html").read_text(encoding="utf-8")
    assert cli.main([*start, "--configurations", "colours"]) == 3
    assert "colours" in capsys.readouterr().err
