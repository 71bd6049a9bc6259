"""The study of prognosis: a table of events read, and its page."""

import csv
import json

import numpy as np
import pytest

from CACScoringLib.core.tables import TableError
from CACTrainingLib.cli import main as cli
from CACTrainingLib.radiograph.events import PROBABILITIES, read_events
from CACTrainingLib.radiograph.study.prognosis import evaluate_prognosis


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """With few resamples."""
    monkeypatch.setattr("CACTrainingLib.statistics.bootstrap.Bootstrap.__init__.__defaults__", (200,))


@pytest.fixture
def unpainted(monkeypatch):
    """Without pictures, which take seconds."""
    monkeypatch.setattr("CACTrainingLib.report.page.rendered", lambda figure: {"png": b"", "svg": b"<svg/>"})


HAZARDS = np.array([1.0, 3.6, 7.7, 9.7])
"""Of major events by a score of 0, 1 to 100, 101 to 300, above 300 (Detrano 2008, 10.1056/NEJMoa072100): a check of the
arithmetic, not of prognosis."""


def simulated(patients=600, seed=0):
    """Rows of patients whose hazards are HAZARDS, and whose predicted category is often the true one."""
    generator = np.random.default_rng(seed)
    category = generator.choice(4, patients, p=(0.4, 0.3, 0.2, 0.1))
    happens = generator.exponential(1 / (0.01 * HAZARDS[category]))
    lost = generator.uniform(2, 12, patients)
    predicted = np.clip(category + generator.integers(-1, 2, patients), 0, 3)
    return [
        {
            "patient": f"p{n}",
            "time_years": round(float(min(happens[n], lost[n])), 4),
            "event": int(happens[n] <= lost[n]),
            "agatston": (0, 30, 200, 900)[category[n]],
            "predicted_category": int(predicted[n]),
            "age_years": round(float(generator.normal(60, 8)), 1),
            "sex": "FM"[n % 2],
        }
        for n in range(patients)
    ]


def written(path, rows):
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def cells(folder, name):
    with (folder / "tables" / f"{name}.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_the_page_finds_the_hazards_that_were_put_in(tmp_path):
    table = written(tmp_path / "events.csv", simulated(700))
    page = evaluate_prognosis(table, tmp_path / "out").read_text(encoding="utf-8")
    assert "log-rank p &lt; 0.001" in page
    assert not json.loads((tmp_path / "out" / "study.json").read_text(encoding="utf-8"))["digital"]
    true = cells(tmp_path / "out", "categories")[2:5]
    assert [row["Category"].strip() for row in true] == ["1–99", "100–399", "≥ 400"]
    for row, hazard in zip(true, HAZARDS[1:], strict=True):
        assert float(row["Hazard ratio low"]) < hazard < float(row["Hazard ratio high"])
        # Age and sex tell nothing here.
        assert float(row["Adjusted"]) == pytest.approx(float(row["Hazard ratio"]), rel=0.1)
    concordance = {row["Sorted by"]: row for row in cells(tmp_path / "out", "concordance")}
    values = {title: float(row["Harrell's C"]) for title, row in concordance.items()}
    assert 0.5 < values["Predicted category"] < values["True category"] < 0.9
    assert float(concordance["Predicted category"]["Less true category high"]) < 0
    assert (tmp_path / "out" / "figures" / "survival_figure.png").stat().st_size > 1000


def test_the_command_line_makes_the_page(tmp_path, capsys, unpainted):
    table = written(tmp_path / "events.csv", simulated(60))
    output = tmp_path / "out"
    assert cli.main(["evaluate", "prognosis", "--data", str(table), "--output", str(output)]) == 0
    assert "study.html" in capsys.readouterr().out
    assert cli.main(["evaluate", "prognosis", "--output", str(output)]) == 3
    assert "--data" in capsys.readouterr().err


def test_too_few_events_are_said_and_nothing_breaks(tmp_path, unpainted):
    rows = [row | {"event": 0, "age_years": 60} for row in simulated(12)]
    rows[0]["event"] = 1
    page = evaluate_prognosis(written(tmp_path / "t.csv", rows), tmp_path / "out").read_text(encoding="utf-8")
    assert "fewer than 10 events" in page
    none = written(tmp_path / "n.csv", [row | {"event": 0} for row in rows])
    assert "with 0 events" in evaluate_prognosis(none, tmp_path / "none").read_text(encoding="utf-8")
    one = written(tmp_path / "o.csv", rows[:1])
    assert "1 patients with 1 events" in evaluate_prognosis(one, tmp_path / "one").read_text(encoding="utf-8")


def test_a_category_without_events_has_no_ratio(tmp_path, unpainted):
    rows = [row | {"event": row["event"] * (row["agatston"] != 900)} for row in simulated(300)]
    evaluate_prognosis(written(tmp_path / "t.csv", rows), tmp_path / "out")
    true = cells(tmp_path / "out", "categories")[2:5]
    assert true[2]["Hazard ratio"] == ""
    assert float(true[0]["Hazard ratio"]) > 1


def test_predicted_categories_from_probabilities_scores_or_as_given(tmp_path):
    base = {"time_years": 1, "event": 0, "agatston": 0}
    probabilities = [(0.4, 0.9, 0.9), (0.5, 0.1, 0.0), (0.9, 0.6, 0.4), (0.9, 0.8, 0.7)]
    rows = [
        {"patient": n, **base, **dict(zip(PROBABILITIES, probability, strict=True))}
        for n, probability in enumerate(probabilities)
    ]
    found = read_events(written(tmp_path / "a.csv", rows))
    assert found.predicted.tolist() == [0, 1, 2, 3]
    assert found.risk == pytest.approx([2.2, 0.6, 1.9, 2.4])
    rows = [{"patient": n, **base, "predicted_agatston": score} for n, score in enumerate((0, 1, 100, 400))]
    assert read_events(written(tmp_path / "b.csv", rows)).predicted.tolist() == [0, 1, 2, 3]
    rows = [{"patient": n, "time_years": 1, "event": 1, "category": n, "predicted_category": 3 - n} for n in range(4)]
    found = read_events(written(tmp_path / "c.csv", rows))
    assert found.true.tolist() == [0, 1, 2, 3]
    assert found.predicted.tolist() == [3, 2, 1, 0]
    assert (found.score, found.risk) == (None, None)


def test_factors_that_all_have_and_that_differ(tmp_path):
    rows = simulated(4)
    assert list(read_events(written(tmp_path / "a.csv", rows)).factors) == ["age_years", "sex"]
    assert read_events(tmp_path / "a.csv").factors["sex"].tolist() == [0, 1, 0, 1]
    rows[2]["age_years"] = ""
    assert list(read_events(written(tmp_path / "b.csv", rows)).factors) == ["sex"]
    assert not read_events(written(tmp_path / "c.csv", [row | {"sex": "F"} for row in rows])).factors


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"event": 2}, "event in line 2 of .* is '2'; it has to be a whole number between 0 and 1"),
        ({"event": ""}, "event in line 2"),
        ({"time_years": -1}, "time_years in line 2"),
        ({"agatston": "nan"}, "agatston in line 2"),
        ({"predicted_category": 4}, "predicted_category in line 2 .* between 0 and 3"),
        ({"patient": ""}, "no patient in line 2"),
        ({"patient": "p1"}, "have the same patient"),
        ({"sex": "x"}, "'x'; write F or M"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path, change, said):
    rows = simulated(3)
    rows[0] |= change
    with pytest.raises(TableError, match=said):
        read_events(written(tmp_path / "t.csv", rows))
