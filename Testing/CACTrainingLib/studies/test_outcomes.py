"""Outcomes whose hazard is known: ratios are recovered, and nothing is found where there is nothing."""

import math

import numpy as np
import pytest

from CACScoringLib.core.tables import TableError, write_table
from CACTrainingLib.evaluation.jobs import StudyError
from CACTrainingLib.studies.outcomes import Outcomes, _cross_fitted, evaluate_outcomes, outcome_section, read_outcomes

SCORE_RATIO, FEATURE_RATIO = 1.6, 1.8


def outcomes(feature_ratio=FEATURE_RATIO, patients=500, with_years=True, seed=0):
    """Outcomes by log score and diffusivity of known ratios, with a third of the patients lost to follow-up."""
    g = np.random.default_rng(seed)
    score, diffusivity, noise = g.standard_normal((3, patients))
    log_risk = math.log(SCORE_RATIO) * score + math.log(feature_ratio) * diffusivity
    columns = {"log_agatston": score, "diffusivity": diffusivity, "mean_weight": noise}
    names = [f"p{n}" for n in range(patients)]
    if not with_years:
        return Outcomes(names, g.random(patients) < 1 / (1 + np.exp(-log_risk)), None, columns)
    years, lost = g.exponential(10 / np.exp(log_risk)), g.exponential(15, patients)
    return Outcomes(names, years <= lost, np.minimum(years, lost), columns)


def tables_of(section):
    return {table.name: {row[0]: row[1:] for row in table.rows} for table in section.tables}


@pytest.mark.parametrize("with_years", [True, False])
def test_known_ratios_are_recovered(with_years):
    tables = tables_of(outcome_section(outcomes(with_years=with_years), seed=0))
    adjusted_ratio = tables["ratios"]["diffusivity"][1]
    assert adjusted_ratio.low < FEATURE_RATIO * 1.02
    assert adjusted_ratio.high > FEATURE_RATIO * 0.98
    noise_ratio = tables["ratios"]["mean_weight"][1]
    assert noise_ratio.low < 1 < noise_ratio.high
    (score,), (features,) = tables["discrimination"].values()
    assert features.value > score.value + 0.03
    difference = tables["difference"]["  Agatston score"][3]
    assert difference.low > 0
    events, non_events, total = tables["reclassification"]["Agatston score and features"]
    assert min(events.value, non_events.value, total.low) > 0
    assert total.value == pytest.approx(events.value + non_events.value)
    slope = tables["calibration"]["Agatston score and features"][0]
    assert slope.low < math.e < slope.high


def test_feature_without_effect_adds_no_discrimination():
    tables = tables_of(outcome_section(outcomes(feature_ratio=1.0), seed=0))
    crude_ratio, adjusted_ratio = tables["ratios"]["diffusivity"]
    assert crude_ratio.low < 1 < crude_ratio.high
    assert adjusted_ratio.low < 1 < adjusted_ratio.high
    assert tables["difference"]["  Agatston score"][3].low < 0
    for part in tables["reclassification"]["Agatston score and features"]:
        assert part.low < 0 < part.high


def test_risks_are_absolute_by_the_horizon():
    data = outcomes(patients=1000)
    columns = np.column_stack([data.columns["log_agatston"], data.columns["diffusivity"]])
    true_hazard = 0.1 * data.horizon * np.exp(columns @ np.log([SCORE_RATIO, FEATURE_RATIO]))
    hazard = np.exp(_cross_fitted(data, columns, seed=0))
    assert np.abs(np.exp(-hazard) - np.exp(-true_hazard)).mean() < 0.05


def write(folder, patients=60, **more):
    """Write a table of outcomes and a cohort's results."""
    made, results = outcomes(patients=patients), folder / "results"
    results.mkdir()
    columns = ("name", "threshold_agatston", "threshold_diffusivity", "threshold_left_main")
    scores = [
        (f"p{n}", abs(100 * made.columns["log_agatston"][n]), "" if n else 0.5, n % 2 > 0) for n in range(patients)
    ]
    write_table(results / "cohort.csv", columns, scores)
    rows = [(f"p{n}", int(made.event[n]), made.years[n]) for n in range(patients)]
    write_table(folder / "outcomes.csv", ("name", "event", "years"), more.get("rows", rows))
    return folder / "outcomes.csv", results


def test_the_study_is_written_from_a_cohort(tmp_path):
    table, results = write(tmp_path)
    page = evaluate_outcomes(table, results, tmp_path / "study")
    assert "C-index" in page.read_text(encoding="utf-8")
    read = read_outcomes(table, results)
    assert read.columns["diffusivity"][:2].tolist() == [0.5, 0]
    assert read.columns["left_main"][:2].tolist() == [0, 1]


def test_missing_scores_and_few_events_are_refused(tmp_path):
    table, results = write(tmp_path, rows=[("stranger", 1, 2.0)])
    with pytest.raises(TableError, match="no score of 'stranger'"):
        read_outcomes(table, results)
    write_table(table, ("name", "event", "years"), [(f"p{n}", 0, 1.0) for n in range(60)])
    with pytest.raises(StudyError, match="0 events in 60"):
        read_outcomes(table, results)
