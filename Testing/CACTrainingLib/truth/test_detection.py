"""Detection on records whose rates are known by hand."""

import numpy as np
import pytest
from study_samples import hearts, map_lesions, record, scores_of
from study_tables import cells as cells_of
from study_tables import tables_of

from CACTrainingLib.evaluation.parts import METHODS
from CACTrainingLib.truth import detection

MAP = METHODS["map"]


def sections(records):
    return detection.sections(records, np.random.default_rng(0))


def cells(records, name, title, after=None):
    return cells_of(tables_of(sections(records))[name], title, after)


def test_rates_of_scans():
    """3 of 4 visible found, 1 of 6 others above zero; one scan without reference."""
    scans = [record(f"v{n}", 1, True, {"map": mass}) for n, mass in enumerate((1, 2, 3, 0))]
    scans += [record(f"n{n}", 1, False, {"map": float(n == 0)}) for n in range(6)]
    scans.append(record("u", 1, None, {"map": 9.0}))
    rates = cells(scans, "detection_scans", MAP)
    values = {name: (rates[name].value, rates[name].n) for name in ("Sensitivity", "False positives", "Accuracy")}
    assert values == {
        "Sensitivity": (0.75, 4),
        "False positives": (pytest.approx(1 / 6), 6),
        "Accuracy": (pytest.approx(0.8), 10),
    }
    assert rates["F1"].value == pytest.approx(6 / 8)
    assert rates["Published: F1"] == 0.80
    assert any("1 scan " in text for text in sections(scans)[0].text)


def test_false_positives_by_cause_with_an_exact_interval():
    records = [record(f"h{n}", 1, False, {"map": n % 2}, truth_mg={"total": 1.0}) for n in range(4)]
    records += [
        record(f"d{n}", 1, False, {"map": 0}, truth_mg={"total": 0}, distractors=("aortic wall",)) for n in range(10)
    ]
    records += [record(f"c{n}", 1, False, {"map": n == 0}, truth_mg={"total": 0}) for n in range(10)]
    positives = cells(records, "false_positives", MAP)
    hidden, distractor, clean = (positives[title] for title in detection.KINDS.values())
    assert [(c.value, c.n) for c in (hidden, distractor, clean)] == [(0.5, 4), (0, 10), (pytest.approx(0.1), 10)]
    assert 0.3 < distractor.high < 0.32


def test_calcium_in_the_wrong_artery_is_missed_and_false():
    """The RCA is visible in both scans; the map assigns it correctly in the first, and to the LCX in the second."""
    masses = ((1, scores_of({"RCA": 4.0})), (2, scores_of({"LCX": 4.0})))
    records = [record("p", number, True, {"map": mass}, visible_arteries=("RCA",)) for number, mass in masses]
    rows = {title: cells(records, "detection_arteries", title, after=MAP) for title in ("All", "RCA", "LCX")}
    assert rows["RCA"]["Sensitivity"].value == 0.5
    assert rows["LCX"]["False positives"].value == 0.5
    assert (rows["All"]["Sensitivity"].value, rows["All"]["Sensitivity"].n) == (0.5, 2)
    assert (rows["All"]["False positives"].value, rows["All"]["False positives"].n) == (0.25, 4)
    assert (rows["RCA"]["Published: Sensitivity"], rows["LCX"]["Published: Sensitivity"]) == (0.57, 0.67)


def test_left_main_counts_with_the_descending():
    records = [record("p", 1, True, {"map": scores_of({"LM": 2.0})}, visible_arteries=("LAD",))]
    assert cells(records, "detection_arteries", "LM and LAD", after=MAP)["Sensitivity"].value == 1


def test_lesions_of_the_map_by_size():
    lesions = (("LAD", 0.5, False), ("LAD", 2.0, True), ("RCA", 2.5, False), ("LCX", 40.0, True))
    about = {"truth_mg": {"total": 44.0}, "lesions": map_lesions(*lesions)}
    records = [record("p", 1, True, {"map": 44.0}, **about), record("unknown", 1, True, lesions=about["lesions"])]
    titles = ("All", "1–3 mg", "≥ 30 mg", "3–10 mg")
    held = {title: cells(records, "map_lesions", title)["Hold coronary calcium"] for title in titles}
    assert (held["All"].value, held["All"].n) == (0.5, 4)
    assert (held["1–3 mg"].value, held["≥ 30 mg"].value, held["3–10 mg"]) == (0.5, 1, None)


def test_slices_at_the_threshold():
    slices = ((True, 0.9), (True, 0.6), (True, 0.2), (False, 0.7), (False, 0.1), (False, 0.3))
    records = [record(f"p{n}", 1, True, {"map": 1.0}, slices=slices, slice_threshold=0.6) for n in range(6)]
    rates = {t: cells(records, "slices", t)["Found"] for t in ("Sensitivity", "False positives", "Accuracy")}
    values = [rate.value for rate in rates.values()]
    assert values == pytest.approx([2 / 3, 1 / 3, 2 / 3])
    assert rates["Sensitivity"].n == 18
    assert cells(records, "slices", "Area under the ROC curve")["Found"].value == pytest.approx(6 / 9)


def test_heart_medians_and_quartiles():
    dices = (0.95, 0.9, 0.7, 0.96, 0.94)
    records = [record(f"p{n}", 1, heart=hearts(d, 10.0 + n, 1.0 + n / 10)) for n, d in enumerate(dices)]
    section = detection.heart_sections(records, np.random.default_rng(0))[0]
    dice, hausdorff, surface = section.tables[0].rows
    assert (dice[1].value, dice[2], dice[3], dice[4]) == (0.94, 0.9, 0.95, 0.7)
    assert (hausdorff[1].value, hausdorff[4]) == (12, 14)
    assert surface[1].value == pytest.approx(1.2)
    assert any("p2-1 (0.70)" in text for text in section.text)
    assert not detection.heart_sections([record(values={"map": 1.0})], np.random.default_rng(0))[0].tables
