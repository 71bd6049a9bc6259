"""Options that commands share: settings from a file, and the cluster."""

import json
from argparse import Namespace
from dataclasses import fields, is_dataclass
from pathlib import Path

import handmade_estimates
import pytest

from CACScoringLib.cli import main as scoring_main
from CACScoringLib.cli.options import from_file, on_cluster, scoring_settings
from CACScoringLib.cli.radiograph import RadiographInput
from CACScoringLib.cohort.workers import chosen_cluster
from CACScoringLib.core.errors import OutputError
from CACScoringLib.drr.settings import DrrSettings
from CACScoringLib.pipeline import ScoreSettings
from CACScoringLib.run import RunSettings, ScanInput
from CACTrainingLib.browser.serving import ServerSettings
from CACTrainingLib.cli import main as training
from CACTrainingLib.phantom.cohort.cohort import CohortSettings
from CACTrainingLib.phantom.insertion.inserted import InsertedSettings
from CACTrainingLib.radiograph.cohort import RadiographCohortSettings

PAGE = Path(__file__).parents[3] / "docs/user/settings.md"
DOCUMENTED = (ScoreSettings(), ScoreSettings().rules, RunSettings(), ScanInput(Path()), RadiographInput())
DOCUMENTED += (DrrSettings(), CohortSettings(), InsertedSettings(), RadiographCohortSettings(), ServerSettings())
NOT_IN_FILES = {"decomposition", "calibration", "ct", "scans", "angle_degrees", "mirrored"}
NOT_IN_FILES |= {"equivalent_mg_per_mm3_hu", "patients"}


def settings_of(*sources, **options):
    return scoring_settings(Namespace(settings=list(sources), **options), RunSettings(saliency=False))


def test_fields_are_changed_and_others_stay(tmp_path):
    rules = {"threshold_hu": 100, "weight_bounds_hu": [200, 300, 400.5], "connectivity": 4}
    scoring = {"rules": rules, "normalisation": "off", "mass_table": "masses.csv", "sex": None, "slices": {"7": True}}
    content = {"scoring": scoring, "results": {"healthy": False}, "scan": {"series": "2"}}
    file = tmp_path / "settings.json"
    file.write_text(json.dumps(content), encoding="utf-8")
    settings = settings_of(str(file), '{"scoring": {"candidates": true}}', allow_unusual=True, dicom=True)
    score = settings.score
    assert (settings.healthy, settings.saliency, settings.dicom, settings.identify) == (False, False, True, False)
    assert (score.normalisation, score.candidates, score.slices) == ("off", True, {7: True})
    assert (score.allow_contrast, score.allow_reversed) == (True, True)
    assert score.mass_table == tmp_path / "masses.csv"
    assert (score.rules.threshold_hu, score.rules.weight_bounds_hu) == (100.0, (200.0, 300.0, 400.5))
    assert score.rules.name.startswith("Agatston, 100 HU, changed: weight_bounds_hu = ")
    assert from_file([str(file)], "scan", ScanInput(Path("ct"))) == ScanInput(Path("ct"), "2")
    assert from_file(['{"deposits": ["aortic wall"]}'], None, InsertedSettings()).deposits == ("aortic wall",)
    assert settings_of() == RunSettings(saliency=False)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "JSON"),
        ("nowhere.json", "JSON"),
        ('{"scorings": {}}', "scoring, results"),
        ('{"scoring": {"minimum_pixels": 3}}', "scoring of --settings .* rules, candidates"),
        ('{"scoring": {"rules": {"connectivity": true}}}', "connectivity in --settings is True"),
        ('{"scoring": ' + 10**5 * "[" + "}", "JSON"),
    ],
)
def test_what_is_wrong_is_told(content, message):
    with pytest.raises(OutputError, match=message):
        settings_of(content)


@pytest.mark.parametrize("settings", DOCUMENTED, ids=lambda settings: type(settings).__name__)
def test_every_field_is_documented(settings):
    text = PAGE.read_text(encoding="utf-8")
    names = {field.name for field in fields(settings) if not is_dataclass(getattr(settings, field.name))}
    assert {name for name in names - NOT_IN_FILES if name not in text} == set()


def test_a_command_works_on_it_while_it_lasts():
    def parsed(*more):
        return training.make_parser().parse_args(["cohort", "IN", "--output", "OUT", *more])

    with on_cluster(parsed()):
        assert chosen_cluster() == "local"
    options = parsed("--cluster", "tcp://head:8786")
    with on_cluster(options):
        assert chosen_cluster() == "tcp://head:8786"
    assert chosen_cluster() == "local"
    assert "cluster" not in options.extras(options)
    options = parsed("--cluster", "slurm")
    assert "cluster" in options.extras(options)


@pytest.mark.parametrize(
    ("words", "extras"),
    [
        ([], ()),
        (["--whole-scan"], ("torch",)),
        (["--whole-scan", "vessels"], ("torch",)),
        (["--whole-scan", "radiomics"], ("torch", "radiomics")),
        (["--whole-scan", "vessels,radiomics"], ("torch", "radiomics")),
        (["--whole-scan", "--model", "radiomics-untrained"], ("torch", "radiomics")),
    ],
)
def test_only_computed_estimates_need_extras(words, extras, tmp_path, monkeypatch):
    handmade_estimates.save_radiomics(tmp_path)
    if any("radiomics" in word for word in words):
        monkeypatch.setenv("CAC_MODEL_DIR", str(tmp_path))
    options = training.make_parser().parse_args(["score", "CT", "--output", "OUT", *words])
    assert options.extras(options) == extras


@pytest.mark.parametrize("cluster", ["cloud", "http://head:8786", "tcp://head"])
def test_no_cluster_is_told_before_anything_is_done(cluster, capsys):
    assert training.main(["cohort", "IN", "--output", "OUT", "--cluster", cluster]) == scoring_main.BAD_INPUT
    assert f"no cluster '{cluster}'" in capsys.readouterr().err
