"""The columns of a cohort's table that come from `scores.json`."""

import heart_with_territories
import pytest

from CACScoringLib.cohort.table import columns, result_row
from CACScoringLib.report.files import result_as_json

LAST = [f"non_coronary_agatston_{site}" for site in ("aortic_valve", "mitral_annulus", "thoracic_aorta", "other")]


def test_calcium_outside_the_arteries_stands_in_the_last_columns(monkeypatch):
    assert columns(["threshold"], identify=False)[-5:] == ["seconds", *LAST]
    content = result_as_json(heart_with_territories.score(monkeypatch), {})
    row = result_row(content)
    assert [row[name] for name in LAST] == pytest.approx([128, 96, 96, 0])


@pytest.mark.parametrize("unknown", [{"non_coronary": None}, {}])
def test_unknown_calcium_elsewhere_leaves_its_columns_empty(monkeypatch, unknown):
    content = result_as_json(heart_with_territories.score(monkeypatch), {})
    del content["non_coronary"]
    assert not set(LAST) & set(result_row({**content, **unknown}))
