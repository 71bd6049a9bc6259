"""Trainings of the study of radiographs that are made up: scores that know the truth more or less, in no time."""

import csv
import zlib
from pathlib import Path

import numpy as np

from CACScoringLib.core.ct import CTError
from CACTrainingLib.radiograph.study.configurations import THRESHOLDS
from CACTrainingLib.radiograph.study.results import read_radiographs
from CACTrainingLib.statistics.patient_folds import category_of

BASE_KNOWS = 1.2
"""How far apart patients of neighbouring categories are, in standard deviations of the noise."""


class FakeTraining:
    """Does the study's runs. Its answers depend on the configuration, the fold and the patients only."""

    def __init__(self, data, budget):
        self.own = read_radiographs(data.table)
        self.folds = np.array(data.folds)
        self.other = read_radiographs(data.external) if data.external else None
        self.steps = budget.steps or 100

    def __call__(self, run):
        configuration = run.configuration
        if configuration.backbone == "densenet121":
            raise CTError("there is no memory for it")
        radiographs = self.other if configuration.external else self.own
        rows = np.arange(len(radiographs.names)) if configuration.external else np.flatnonzero(self.folds == run.fold)
        generator = np.random.default_rng(zlib.crc32(f"{configuration.name} {run.fold}".encode()))
        knows = (
            BASE_KNOWS
            * (1.2 if configuration.counterfactual else 0.9)
            * (1.0 if configuration.enhancement == "none" else 0.8)
        )
        value = knows * category_of(radiographs.agatston)[rows] + generator.normal(0, 1.6, len(rows))
        logits = np.stack([value - knows * (n + 0.5) for n in range(len(THRESHOLDS))], 1)
        probabilities = 1 / (1 + np.exp(-logits))
        both = None
        if radiographs.factors is not None:
            age = (radiographs.factors[rows, 0] - 65) / 10
            both = (1 / (1 + np.exp(-logits - 0.8 * age[:, None]))).tolist()
        return {
            "names": [radiographs.names[row] for row in rows],
            "fold": run.fold,
            "logits": logits.tolist(),
            "image": probabilities.tolist(),
            "both": both,
            "seconds": 30.0,
            "steps": self.steps,
            "weights": 55_000,
        }


def fake_trainer(data, budget):
    """In place of `study_runs.trainer`."""
    return FakeTraining(data, budget)


def write_table(path: Path, patients: int, first: int = 0, factors: bool = True, seed: int = 0, digital=True) -> Path:
    """A table of radiographs, a row for each patient, whose files are empty."""
    generator = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = ["name", "patient", "file", "agatston", "agatston_reader", "mass_mg"]
    columns += ["age_years", "sex", "bmi_kg_m2"] if factors else []
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, columns, extrasaction="ignore")
        writer.writeheader()
        for number in range(first, first + patients):
            kind = number % 8
            score = 0.0 if kind < 3 else (3.0, 30.0, 150.0, 250.0, 900.0)[kind - 3]
            file = path.parent / f"p{number}.npz"
            file.touch()
            age = 55 + 4 * (kind > 2) + 3 * (kind > 4) + generator.normal(0, 8)
            writer.writerow(
                {
                    "name": f"p{number}",
                    "patient": number,
                    "file": file.name,
                    "agatston": score,
                    "agatston_reader": score,
                    "mass_mg": score / 5,
                    "age_years": round(float(age), 1),
                    "sex": "FM"[number // 8 % 2],
                    "bmi_kg_m2": round(float(generator.normal(26, 3)), 1),
                }
            )
    if digital:
        (path.parent / "radiographs.json").write_text("{}", encoding="utf-8")
    return path
