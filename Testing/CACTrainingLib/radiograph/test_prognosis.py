"""Study of prognosis: table of events, and page."""

import json

import numpy as np
import pytest
from study_tables import csv_rows

from CACScoringLib.core.tables import write_table
from CACTrainingLib.radiograph.prognosis import (
    HAZARD_RATIOS,
    PROBABILITIES,
    evaluate_prognosis,
    read_events,
    simulate_events,
)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Use few resamples."""
    monkeypatch.setattr("CACScoringLib.statistics.bootstrap.RESAMPLES", 200)


SCORES = (0, 30, 200, 900)


def simulate(patients):
    """Simulate patients whose predicted category is often the true one."""
    generator = np.random.default_rng(0)
    category = generator.choice(4, patients, p=(0.4, 0.3, 0.2, 0.1))
    years, event = simulate_events(category, 0)
    predicted = np.clip(category + generator.integers(-1, 2, patients), 0, 3)
    return [
        {
            "patient": f"p{n}",
            "time_years": round(float(years[n]), 4),
            "event": int(event[n]),
            "agatston": SCORES[category[n]],
            "predicted_agatston": SCORES[predicted[n]],
            "age_years": round(float(generator.normal(60, 8)), 1),
            "sex": "FM"[n % 2],
        }
        for n in range(patients)
    ]


def write_rows(path, rows):
    write_table(path, list(rows[0]), rows)
    return path


@pytest.mark.long
def test_the_page_finds_the_hazards_that_were_put_in(tmp_path):
    table = write_rows(tmp_path / "events.csv", simulate(700))
    page = evaluate_prognosis(table, tmp_path / "out").read_text(encoding="utf-8")
    assert "log-rank p &lt; 0.001" in page.replace("\xa0", " ")
    assert not json.loads((tmp_path / "out" / "study.json").read_text(encoding="utf-8"))["digital"]
    true = csv_rows(tmp_path / "out" / "tables" / "categories.csv")[2:5]
    assert [row["Category"].strip() for row in true] == ["1–99", "100–399", "≥ 400"]
    for row, hazard in zip(true, HAZARD_RATIOS[1:], strict=True):
        assert float(row["Hazard ratio low"]) < hazard < float(row["Hazard ratio high"])
        # Age and sex do not predict events here.
        assert float(row["Adjusted"]) == pytest.approx(float(row["Hazard ratio"]), rel=0.1)
    concordance = {row["Sorted by"]: row for row in csv_rows(tmp_path / "out" / "tables" / "concordance.csv")}
    values = {title: float(row["Harrell's C"]) for title, row in concordance.items()}
    assert 0.5 < values["Predicted category"] < values["True category"] < 0.9
    assert float(concordance["Predicted category"]["Less true category high"]) < 0
    assert (tmp_path / "out" / "figures" / "survival_figure.png").stat().st_size > 1000


def test_predicted_categories_from_probabilities_or_scores(tmp_path):
    base = {"time_years": 1, "event": 0, "agatston": 0}
    probabilities = [(0.4, 0.9, 0.9), (0.5, 0.1, 0.0), (0.9, 0.6, 0.4), (0.9, 0.8, 0.7)]
    rows = [
        {"patient": n, **base, **dict(zip(PROBABILITIES, probability, strict=True))}
        for n, probability in enumerate(probabilities)
    ]
    events = read_events(write_rows(tmp_path / "a.csv", rows))
    assert events.predicted.tolist() == [0, 1, 2, 3]
    assert events.risk == pytest.approx([2.2, 0.6, 1.9, 2.4])
    rows = [{"patient": n, **base, "predicted_agatston": score} for n, score in enumerate((0, 1, 100, 400))]
    assert read_events(write_rows(tmp_path / "b.csv", rows)).predicted.tolist() == [0, 1, 2, 3]
