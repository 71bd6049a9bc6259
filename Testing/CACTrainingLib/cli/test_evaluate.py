"""`cac evaluate`: options of the command line reach the study."""

import json
from pathlib import Path

import pytest

from CACScoringLib.models.choice import ModelChoice
from CACTrainingLib.cli import main as cli
from CACTrainingLib.cli.evaluate import STUDIES
from CACTrainingLib.evaluation import experiment
from CACTrainingLib.radiograph import prognosis
from CACTrainingLib.studies import evaluation
from CACTrainingLib.studies.evaluation import Evaluation, EvaluationSettings


@pytest.fixture
def study_settings(monkeypatch, tmp_path):
    """Settings of the studies that were made."""
    settings = []

    def evaluate(*arguments):
        arguments = arguments[1:] if isinstance(arguments[0], type) else arguments
        settings.append(arguments[:-1] if len(arguments) > 2 else arguments[0])
        page = tmp_path / "study.html"
        return Evaluation(page, ()) if isinstance(arguments[0], EvaluationSettings) else page

    for module, name in (
        (evaluation, "evaluate"),
        (experiment, "carry_out"),
        (prognosis, "evaluate_prognosis"),
    ):
        monkeypatch.setattr(module, name, evaluate)
    return settings


def run(study, *arguments, **settings):
    file = ["--settings", json.dumps({"study": settings}, default=str)] if settings else []
    return cli.main(["evaluate", study, "--output", "out", *arguments, *file])


def test_studies_of_scan_pairs(study_settings):
    options = ["--data", "d", "--pairs", "2", "--model", "m", "--overwrite", "--use", "test", "--seed", "4"]
    assert run("all", *options, "--workers", "2", "--device", "cpu", store_limits=True, ablation_pairs=3) == 0
    (settings,) = study_settings
    assert settings.studies == evaluation.SCAN_STUDIES
    assert (settings.data, settings.pairs, settings.overwrite) == (Path("d"), 2, True)
    assert (settings.use, settings.seed) == ("test", 4)
    assert (settings.models, settings.workers) == (ModelChoice(("m",), device="cpu"), 2)
    assert (settings.store_limits, settings.ablation_pairs) == (True, 3)


@pytest.mark.parametrize(
    ("study", "more"),
    [
        ("radiograph", {"test": Path("e.csv"), "names": ("lateral",)}),
        ("vessels", {"names": ("cnn-log",), "preset": "paper"}),
        ("radiomics", {"minutes": 0}),
    ],
)
def test_studies_of_trainings(study_settings, study, more):
    options = ["--data", "t.csv", "--seed", "4", "--workers", "2"]
    assert run(study, *options, **more, budget={"folds": 3, "steps": 7}) == 0
    (settings,) = study_settings
    assert (settings.data, settings.output, settings.workers) == (Path("t.csv"), Path("out"), 2)
    assert (settings.budget.folds, settings.budget.steps, settings.budget.seed) == (3, 7, 4)
    assert {name: getattr(settings, name) for name in more} == more


def test_study_of_prognosis(study_settings):
    assert run("prognosis", "--data", "t.csv", "--seed", "3") == 0
    assert study_settings == [(Path("t.csv"), Path("out"), 3)]


@pytest.mark.parametrize(
    ("study", "arguments", "settings", "code", "message"),
    [
        *((study, [], {}, 3, "--data") for study in ("radiograph", "prognosis", "heart")),
        ("heart", ["--data", "x", "--compare", "a"], {}, None, "--compare"),
        ("prognosis", ["--data", "x", "--pairs", "2"], {}, 3, "prognosis does not take --pairs"),
        ("vessels", ["--data", "x"], {"preset": "huge"}, 3, "no preset 'huge'"),
        ("vessels", ["--data", "x"], {"external": "e.csv"}, 2, "fields of these names"),
    ],
)
def test_refusals(study_settings, capsys, study, arguments, settings, code, message):
    if code is None:
        with pytest.raises(SystemExit):
            run(study, *arguments, **settings)
    else:
        assert run(study, *arguments, **settings) == code
    assert message in capsys.readouterr().err
    assert not study_settings
    assert study in STUDIES
