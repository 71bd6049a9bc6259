"""Fake trainings of the study of radiographs: scores correlated with the truth, without computation."""

import zlib
from pathlib import Path

import numpy as np

from CACScoringLib.core import tables
from CACScoringLib.core.categories import category_numbers
from CACScoringLib.core.errors import CTError
from CACTrainingLib.evaluation.experiment import values_of
from CACTrainingLib.radiograph.settings import THRESHOLDS

BASE_KNOWS = 1.2
"""Distance between neighbouring categories, in standard deviations of the noise."""


def fake_training(study, run, folder):
    """Replacement of `RadiographStudy.validate`; results depend only on configuration, fold and patients."""
    if run.configuration.backbone == "densenet121":
        raise CTError("there is no memory for it")
    cohort, values = study.cohort, {}
    generator = np.random.default_rng(zlib.crc32(f"{run.configuration.name} {run.fold}".encode()))
    knows = BASE_KNOWS * (0.3 if run.configuration.name == "lateral" else 1.0)
    for use, rows in (("validation", cohort.validation(run.fold)), ("test", cohort.held_out)):
        value = knows * category_numbers(cohort.score[rows]) + generator.normal(0, 1.6, len(rows))
        logits = np.stack([value - knows * (n + 0.5) for n in range(len(THRESHOLDS))], 1)
        fused = logits + 0.08 * (cohort.factors[rows, :1] - 65)
        values[use] = values_of(1 / (1 + np.exp(-np.concatenate([logits, fused], 1))))
    return {**values, "seconds": 30.0}


def write_table(path: Path, patients: int, first: int = 0, factors: bool = True, seed: int = 0, digital=True) -> Path:
    """Write a table of radiographs with a row for each patient, and empty files."""
    generator = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(first, first + patients):
        kind = number % 8
        score = 0.0 if kind < 3 else (3.0, 30.0, 150.0, 250.0, 900.0)[kind - 3]
        file = path.parent / f"p{number}.npz"
        file.touch()
        age = 55 + 4 * (kind > 2) + 3 * (kind > 4) + generator.normal(0, 8)
        person = (round(float(age), 1), "FM"[number // 8 % 2], round(float(generator.normal(26, 3)), 1))
        rows.append((file.stem, number, file.name, score, score, score / 5, *(person if factors else ())))
    columns = ("name", "patient", "file", "agatston", "agatston_reader", "mass_mg")
    tables.write_table(path, (*columns, *(("age_years", "sex", "bmi_kg_m2") if factors else ())), rows)
    if digital:
        (path.parent / "radiographs.json").write_text("{}", encoding="utf-8")
    return path
