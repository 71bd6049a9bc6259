"""Settings from a file: what it may hold, and what is wrong with it."""

import json
from pathlib import Path

import pytest

from CACScoringLib.archive.address import Access
from CACScoringLib.archive.series import SeriesFilter
from CACScoringLib.cli.settings_file import from_file, scoring_settings
from CACScoringLib.core.output import OutputError
from CACScoringLib.run import RunSettings


def test_fields_are_changed_and_others_stay(tmp_path):
    rules = {"threshold_hu": 100, "weight_bounds_hu": [200, 300, 400.5], "connectivity": 4}
    score = {"rules": rules, "normalisation": "off", "mass_table": "masses.csv", "sex": None}
    series = {"thickness_mm": [2.5, 3], "modality": None}
    content = {"scoring": {"score": score, "healthy": False}, "access": {"ae_title": "ME"}, "series": series}
    file = tmp_path / "settings.json"
    file.write_text(json.dumps(content))
    found = scoring_settings(str(file), RunSettings(saliency=False))
    assert (found.healthy, found.saliency, found.score.normalisation) == (False, False, "off")
    assert found.score.mass_table == tmp_path / "masses.csv"
    assert (found.score.rules.threshold_hu, found.score.rules.weight_bounds_hu) == (100.0, (200.0, 300.0, 400.5))
    assert found.score.rules.name.startswith("Agatston, 130 HU, changed: threshold_hu = 100.0, weight_bounds_hu = ")
    assert from_file(json.dumps(content), "access", Access(token_file=Path("t"))) == Access(Path("t"), ae_title="ME")
    assert from_file(str(file), "series", SeriesFilter()) == SeriesFilter(modality=None, thickness_mm=(2.5, 3.0))
    assert scoring_settings(None, RunSettings()) == RunSettings()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "JSON"),
        ("nowhere.json", "JSON"),
        ('{"scorings": {}}', "scoring, access, series, watch, study"),
        ('{"scoring": {"rules": {}}}', "scoring in --settings .* score, identify"),
        ('{"scoring": {"score": {"rules": 3}}}', "scoring.score.rules in"),
        ('{"scoring": {"healthy": "no"}}', "scoring.healthy in --settings is 'no'"),
        ('{"scoring": {"score": {"rules": {"connectivity": true}}}}', "connectivity in --settings is True"),
        ('{"scoring": {"score": {"rules": {"weight_bounds_hu": [1, 2]}}}}', "weight_bounds_hu"),
        ('{"scoring": {"score": {"slices": 3}}}', "scoring.score.slices"),
    ],
)
def test_what_is_wrong_is_told(content, message):
    with pytest.raises(OutputError, match=message):
        scoring_settings(content, RunSettings())
