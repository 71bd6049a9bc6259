"""Options of `cac evaluate`, `train`, `radiographs` and `data`: they reach their work, and foreign ones are refused."""

import json
from pathlib import Path

import pytest
from collection_files import chest, labels, write_image
from in_this_process import InThisProcess

from CACScoringLib.cli.main import BAD_INPUT, BAD_USAGE
from CACScoringLib.models.choice import ModelChoice
from CACTrainingLib.cli import main as cli
from CACTrainingLib.cli.evaluate import STUDIES
from CACTrainingLib.cli.main import main
from CACTrainingLib.evaluation import jobs, study
from CACTrainingLib.project.project import Project
from CACTrainingLib.radiograph import prognosis
from CACTrainingLib.training import decomposition, slices, territories
from CACTrainingLib.truth import evaluation
from CACTrainingLib.truth.evaluation import Evaluation, EvaluationSettings


@pytest.fixture
def study_settings(monkeypatch, tmp_path):
    """Settings of the studies that were made."""
    settings = []

    def evaluate(*arguments):
        arguments = arguments[1:] if isinstance(arguments[0], type) else arguments
        settings.append(arguments[0] if hasattr(arguments[0], "output") else arguments[:-1])
        page = tmp_path / "study.html"
        return Evaluation(page, ()) if isinstance(arguments[0], EvaluationSettings) else page

    for module, name in ((evaluation, "evaluate"), (study, "carry_out"), (prognosis, "evaluate_prognosis")):
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


@pytest.mark.parametrize(
    ("is_terminal", "options", "answer", "expected"),
    [(True, [], "y", True), (True, [], "", False), (True, ["--yes"], None, True), (False, [], None, True)],
)
def test_a_long_study_asks_at_a_terminal(monkeypatch, is_terminal, options, answer, expected):
    answers = []
    monkeypatch.setattr(study, "carry_out", lambda *arguments: answers.append(arguments[-1]("Two hours.")))
    monkeypatch.setattr("sys.stdin.isatty", lambda: is_terminal)
    monkeypatch.setattr("builtins.input", lambda question: answer)
    run("vessels", "--data", "t.csv", *options)
    assert answers == [expected]


def test_study_of_prognosis(study_settings):
    assert run("prognosis", "--data", "t.csv", "--seed", "3") == 0
    assert study_settings == [(Path("t.csv"), Path("out"), 3)]


@pytest.mark.parametrize(
    ("study", "arguments", "settings", "code", "message"),
    [
        ("radiograph", [], {}, 3, "--data"),
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


def test_radiographs_that_cannot_be_made(tmp_path, capsys):
    command = ["radiographs", "digital", "--output", str(tmp_path)]
    assert cli.main([*command, "--patients", "3"]) == BAD_INPUT
    assert "at least 4 patients" in capsys.readouterr().err
    assert cli.main([*command, "--patients", "4", "--workers", "0"]) == BAD_USAGE
    assert "At least one worker" in capsys.readouterr().err
    table = tmp_path / "cts.csv"
    table.write_text("ct,patient\na.nii,A\n", encoding="utf-8")
    scans = ["radiographs", "scans", str(table), "--output", str(tmp_path / "out")]
    assert cli.main([*scans, "--settings", '{"views": ["AP"]}']) == BAD_INPUT
    assert "no views AP. Choose of PA, lateral" in capsys.readouterr().err


def test_import(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(jobs, "Workers", InThisProcess)
    write_image(tmp_path / "a" / "TRV1P1CTI.mhd", chest())
    write_image(tmp_path / "a" / "TRV1P1R.mhd", labels())
    write_image(tmp_path / "a" / "TRV1P2R.mhd", labels())
    write_image(tmp_path / "a" / "TRV1P3CTI.mhd", chest())
    write_image(tmp_path / "a" / "TRV1P3R.mhd", labels())
    words = ["data", "import", "orcascore", str(tmp_path / "a"), "--output", str(tmp_path / "project")]
    assert cli.main(words) == 0
    streams = capsys.readouterr()
    assert "orCaScore, MICCAI 2014: Terms of the challenge" in streams.out
    assert "1 scans in the project, 1 left out\n  1 left out: It is the same scan as 0001" in streams.out
    assert "Left out of orCaScore, MICCAI 2014: TRV1P2" in streams.err
    assert len(Project.open(tmp_path / "project").scans) == 1


@pytest.fixture
def train(tmp_path, monkeypatch):
    """Function that runs the command without training; returns exit code, options and settings."""

    def run(network, *words):
        received = []
        for module in (territories, slices, decomposition):
            monkeypatch.setattr(module, "train", lambda options, settings, _: received.extend((options, settings)))
        command = ["train", network, "--output", str(tmp_path / "m"), "--progress", "none", *map(str, words)]
        return main(command), *received

    return run


def test_settings_change_the_preset(train, tmp_path):
    table = tmp_path / "settings.json"
    table.write_text(json.dumps({"loop": {"patience": 3}, "batch_size": 7}), encoding="utf-8")
    words = ("--settings", table, "--steps", 5, "--annotator", "Ada", "--workers", 2)
    code, options, settings = train("territories", *words)
    assert code == 0
    assert (settings.batch_size, settings.learning_rate, settings.network.width) == (7, 1e-3, 16)
    assert (settings.loop.patience, settings.loop.steps, settings.loop.validate_every) == (3, 5, 400)
    assert (options.annotator, options.workers, options.preset) == ("Ada", 2, "compact")


def test_a_preset_names_size_and_method(train, tmp_path):
    _, _, settings = train("decomposition", "--data", tmp_path, "--preset", "paper-labels")
    assert (settings.method, settings.network.width, settings.spot_weight) == ("labels", 64, 10.0)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["slices", "--data", "d", "--preset", "huge"], "no preset 'huge'; choose one of compact, real-slices, paper"),
        (["slices"], "--data"),
        (["radiomics", "--data", "d", "--steps", "3", "--resume"], "`cac train radiomics` has no --resume, --steps"),
        (["slices", "--data", "d", "--settings", '{"dither_hu": 3}'], "fields of these names"),
        (["slices", "--data", "d", "--settings", '{"loop": {"steps": "many"}}'], "wrong type"),
    ],
)
def test_what_a_network_does_not_know_is_refused(train, words, message, capsys):
    assert train(*words) == (BAD_USAGE,)
    assert message in capsys.readouterr().err
