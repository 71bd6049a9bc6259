"""Fake trainings of the study of radiographs: scores correlated with the truth, without computation."""

import zlib
from pathlib import Path

import numpy as np

from CACScoringLib.core import tables
from CACScoringLib.core.ct import CTError
from CACTrainingLib.radiograph.cases import read_table
from CACTrainingLib.radiograph.study.runs import HELD_OUT, THRESHOLDS
from CACTrainingLib.statistics.patient_folds import category_of

BASE_KNOWS = 1.2
"""Distance between neighbouring categories, in standard deviations of the noise."""


class FakeTraining:
    """Function for the study's runs; results depend only on configuration, fold and patients."""

    def __init__(self, data, budget):
        self.data = data

    def __call__(self, run):
        if run.configuration.backbone == "densenet121":
            raise CTError("there is no memory for it")
        rows = read_table(self.data.external if run.fold == HELD_OUT else self.data.table)
        if run.fold != HELD_OUT:
            rows = [row for row, fold in zip(rows, self.data.folds, strict=True) if fold == run.fold]
        generator = np.random.default_rng(zlib.crc32(f"{run.configuration.name} {run.fold}".encode()))
        category = category_of([row.scores["agatston"] for row in rows])
        knows = BASE_KNOWS * (0.3 if run.configuration.name == "lateral" else 1.0)
        value = knows * category + generator.normal(0, 1.6, len(rows))
        logits = np.stack([value - knows * (n + 0.5) for n in range(len(THRESHOLDS))], 1)
        age = np.array([row.factors[0] for row in rows])
        fused = 1 / (1 + np.exp(-logits - 0.08 * (age[:, None] - 65)))
        return {
            "names": [row.name for row in rows],
            "image": (1 / (1 + np.exp(-logits))).tolist(),
            "both": fused.tolist() if np.isfinite(fused).all() else None,
            "seconds": 30.0,
        }


def fake_trainer(data, budget):
    """Replacement of `runs.trainer`."""
    return FakeTraining(data, budget)


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
