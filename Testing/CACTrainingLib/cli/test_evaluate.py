"""`cac evaluate`: what is asked for on the command line reaches the study."""

import json
from pathlib import Path

import pytest
from made_experiments import make_quick
from radiograph_study import fake_trainer, write_table

from CACScoringLib.models.choice import ModelChoice
from CACTrainingLib.cli import main as cli
from CACTrainingLib.cli.evaluate import STUDIES
from CACTrainingLib.radiograph.study import prognosis
from CACTrainingLib.radiograph.study import study as radiograph_study
from CACTrainingLib.studies import evaluation, model_comparison
from CACTrainingLib.studies.evaluation import Evaluation, EvaluationSettings
from CACTrainingLib.whole_scan.radiomics import study as radiomics_study
from CACTrainingLib.whole_scan.vessels import study as vessel_study


@pytest.fixture
def asked(monkeypatch, tmp_path):
    """What the studies are made with."""
    settings = []

    def evaluate(*arguments):
        settings.append(arguments[:-1] if len(arguments) > 2 else arguments[0])
        page = tmp_path / "study.html"
        return Evaluation(page, ()) if isinstance(arguments[0], EvaluationSettings) else page

    for module, name in (
        (evaluation, "evaluate"),
        (model_comparison, "compare_models"),
        (radiograph_study, "evaluate_radiographs"),
        (vessel_study, "evaluate_vessels"),
        (radiomics_study, "evaluate_radiomics"),
        (prognosis, "evaluate_prognosis"),
    ):
        monkeypatch.setattr(module, name, evaluate)
    return settings


def run(study, *arguments, **settings):
    file = ["--settings", json.dumps({"study": settings})] if settings else []
    return cli.main(["evaluate", study, "--output", "out", *arguments, *file])


def test_studies_of_scan_pairs(asked):
    options = ["--data", "d", "--pairs", "2", "--model", "m", "--overwrite", "--use", "test", "--seed", "4"]
    assert run("all", *options, "--workers", "2", "--device", "cpu", store_limits=True, ablation={"pairs": 3}) == 0
    (made,) = asked
    assert made.studies == evaluation.SCAN_STUDIES
    assert (made.data, made.pairs, made.overwrite, made.use, made.seed) == (Path("d"), 2, True, "test", 4)
    assert (made.models, made.workers) == (ModelChoice(("m",), device="cpu"), 2)
    assert (made.store_limits, made.ablation.pairs) == (True, 3)


def test_comparison_of_models(asked):
    assert run("models", "--data", "d", "--model", "a", "--model", "b", cache="c") == 0
    assert (asked[0].data, asked[0].models, asked[0].cache) == (Path("d"), ("a", "b"), Path("c"))


@pytest.mark.parametrize("study", ["radiograph", "vessels", "radiomics"])
def test_studies_of_trainings(asked, study):
    options = ["--data", "t.csv", "--seed", "4", "--workers", "2"]
    assert run(study, *options, minutes=0, budget={"folds": 3, "steps": 7}) == 0
    (made,) = asked
    assert (made.data, made.output, made.minutes, made.workers) == (Path("t.csv"), Path("out"), 0, 2)
    assert (made.budget.folds, made.budget.steps, made.budget.seed) == (3, 7, 4)


def test_settings_of_one_study(asked):
    assert run("radiograph", "--data", "t.csv", external="e.csv", names=["lateral"]) == 0
    assert (asked[0].external, asked[0].names) == (Path("e.csv"), ("lateral",))
    assert run("vessels", "--data", "t.csv", budget={"networks": ["cnn-log"], "preset": "paper"}) == 0
    assert (asked[1].budget.networks, asked[1].budget.preset) == (("cnn-log",), "paper")
    assert run("prognosis", "--data", "t.csv", "--seed", "3") == 0
    assert asked[2] == (Path("t.csv"), Path("out"), 3)


@pytest.mark.parametrize(
    ("study", "arguments", "settings", "code", "message"),
    [
        *((study, [], {}, 3, "--data") for study in ("radiograph", "prognosis", "models")),
        ("heart", ["--data", "x", "--compare", "a"], {}, None, "--compare"),
        ("prognosis", ["--data", "x", "--pairs", "2"], {}, 3, "prognosis does not take --pairs"),
        ("vessels", ["--data", "x"], {"budget": {"networks": ["resnet"]}}, 3, "no network 'resnet'"),
        ("vessels", ["--data", "x"], {"external": "e.csv"}, 2, "fields of these names"),
    ],
)
def test_refusals(asked, capsys, study, arguments, settings, code, message):
    if code is None:
        with pytest.raises(SystemExit):
            run(study, *arguments, **settings)
    else:
        assert run(study, *arguments, **settings) == code
    assert message in capsys.readouterr().err
    assert not asked
    assert study in STUDIES


def test_a_study_from_the_command_to_its_page(tmp_path, monkeypatch, capsys):
    make_quick(monkeypatch, 20)
    monkeypatch.setattr(radiograph_study.evaluate_radiographs, "__defaults__", (None, fake_trainer))
    table = write_table(tmp_path / "own" / "radiographs.csv", 48)
    settings = json.dumps({"study": {"names": ["lateral"], "budget": {"folds": 3}}})
    start = ["evaluate", "radiograph", "--data", str(table), "--output", str(tmp_path / "out"), "--settings", settings]
    assert cli.main(start) == 0
    assert "study.html" in capsys.readouterr().out
    assert "lateral" in (tmp_path / "out" / "study.html").read_text(encoding="utf-8")
