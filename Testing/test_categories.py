"""The category of one score is the same wherever it is stated, counted or compared."""

import ast
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from whole_records import CATEGORIES as KNOWN
from whole_records import record_of, whole_record

from CACScoringLib.core.categories import CATEGORIES, category_numbers, category_of
from CACScoringLib.core.labels import Artery
from CACScoringLib.readings.agreement import _total_statistics
from CACScoringLib.readings.cases import ReviewCase
from CACScoringLib.readings.work_list import ReadingProgress, WorkList
from CACScoringLib.record.scores import MethodScore
from CACScoringLib.report.headline import headline
from CACScoringLib.scoring.scores import categories_of, class_number, risk_class
from CACTrainingLib.browser.page_state import _facts
from CACTrainingLib.truth import agreement, reproducibility

ROOT = Path(__file__).parents[1]
EXPECTED = {0.0: "0", 0.3: "1-99", 99.4: "1-99", 99.6: "100-399", 399.4: "100-399", 399.6: "400+"}

LIMITS_IN = {
    "core/categories.py": "the categories",
    "scoring/scores.py": "risk classes and CAC-DRS of the rounded score",
    "statistics/patient_folds.py": "thresholds that radiographs are trained to detect",
    "truth/agreement.py": "thresholds of detection",
    "truth/reproducibility.py": "scores at which limits of agreement are listed",
    "networks/configs.py": "thresholds that a radiograph's network answers",
    "radiograph/task.py": "stages of a curriculum",
    "phantom/anatomy/patient.py": "strata from which patients are drawn",
}
"""Files that name both limits, and what for."""


def method_of(agatston: float) -> MethodScore:
    content = whole_record()
    method = content["methods"]["threshold"]
    score = method["total"] | {"agatston": agatston, "clinical_agatston": agatston, "lesions": int(agatston > 0)}
    score |= {} if agatston else {"volume_mm3": 0.0, "pseudo_mass_hu_mm3": 0.0}
    lesions = [method["lesions"][0] | score] if agatston else []
    zeros = {"agatston": 0.0, "clinical_agatston": 0.0, "volume_mm3": 0.0, "pseudo_mass_hu_mm3": 0.0, "lesions": 0}
    arteries = {artery.key: score if artery == Artery.LM else zeros for artery in Artery}
    content["methods"]["threshold"] = method | {"total": score, "arteries": arteries, "lesions": lesions}
    return record_of(content | {"categories": KNOWN}).methods["threshold"]


@pytest.fixture
def case(tmp_path):
    return ReviewCase(name="a", patient="a", ct=tmp_path / "ct.nrrd", id="a", folder=tmp_path, status="automatic")


@pytest.mark.parametrize(("agatston", "expected"), EXPECTED.items())
def test_every_place_states_the_category_of_the_printed_score(agatston, expected, case):
    method = method_of(agatston)
    text = headline({"threshold": method}, categories_of(method), ()).category
    work = WorkList([case], ["Ann"])
    reviewed = _facts(work, case, ReadingProgress("reviewed", agatston))
    before = _facts(work, replace(case, agatston=agatston, has_category=True), ReadingProgress())
    assert f"category {expected.replace('-', '–')} ·" in text
    assert (reviewed["category"], before["category"], category_of(agatston)) == (expected,) * 3
    assert CATEGORIES[category_numbers(np.array(agatston))] == expected


def test_readers_agree_who_have_the_same_printed_score(case):
    cases = [replace(case, patient=str(number)) for number in range(8)]
    first = np.array([0.0, 50.0, 150.0, 500.0] * 2)
    second = np.array([0.0, 50.2, 99.6, 399.6] * 2)
    kappa = _total_statistics(cases, np.stack([first, second], axis=1))["kappa"]
    assert kappa.value == pytest.approx(1.0)
    weights = np.ones((1, 8))
    assert agreement.category_kappa(weights, first, second) == pytest.approx(1.0)
    assert agreement.reach(100, np.array([99.4, 99.6])).tolist() == [False, True]


def test_risk_classes_are_one_function():
    scores = [0.0, 0.3, 10.4, 10.6, 100.4, 100.6, 400.4, 400.6]
    assert [class_number(score) for score in scores] == [0, 1, 1, 2, 2, 3, 3, 4]
    assert reproducibility.category(np.array(scores)).tolist() == [0, 0, 0, 1, 1, 2, 2, 3]
    assert risk_class(10.4) == "1–10"


def test_no_other_file_names_the_limits():
    named = set()
    for library in ("CACScoring/CACScoringLib", "CACTraining/CACTrainingLib"):
        for file in (ROOT / library).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if not isinstance(node, ast.Tuple | ast.List) or len(node.elts) > len(CATEGORIES):
                    continue
                numbers = {part.value for part in ast.walk(node) if isinstance(part, ast.Constant)}
                if {100, 400} <= numbers:
                    named.add(file.relative_to(ROOT / library).as_posix())
    assert named <= {*LIMITS_IN}, "ask core.categories, or say here what these limits are for"
