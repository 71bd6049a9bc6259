"""Trainings of the study of vessel regression that are made up: scores that know the truth more or less, in no time."""

import csv
import json
import zlib
from pathlib import Path

import numpy as np

from CACScoringLib.core.ct import CTError
from CACTrainingLib.whole_scan.scan_table import ARTERIES
from CACTrainingLib.whole_scan.vessels.scans import OTHER, Known, scans_of
from CACTrainingLib.whole_scan.vessels.study_runs import PICTURES, write_arrays

SCORES = (0.0, 0.0, 0.0, 15.0, 60.0, 150.0, 300.0, 900.0)
"""Total of every eighth patient."""

NOISE = {"cnn": 0.6, "se-cnn": 0.7, "vit": 1.5, "voxel-sum": 0.25, "voxel-sum-supervised": 0.2}
"""Standard deviation of the logarithm of what is predicted, by kind."""


class FakeTraining:
    """Does the study's runs. Its answers depend on the run and the patients only."""

    def __init__(self, data, budget):
        self.data, self.budget = data, budget

    def __call__(self, run):
        configuration, data = run.configuration, self.data
        if configuration.kind == "vit" and configuration.output == "log":
            raise CTError("there is no memory for it")
        if run.grid and configuration.rates[0] > 2e-3:
            return {"fold": run.fold, "useless": "the loss is no number"}
        learned, validated = data.folds[run.fold]
        parts = {"training": learned, "validation": validated}
        if run.evaluated:
            parts |= {"test": data.test, "others": data.noncoronary_controls}
        kept = {name: self._predicted(run, names) for name, names in parts.items() if names}
        steps = np.arange(10, 110, 10)
        errors = [4e4 * np.exp(-steps / 30) * (1 + run.fold / 10) + floor for floor in (1e3, 3e3)]
        kept |= {"fold": run.fold, "curves": np.stack([steps, *errors], 1).tolist()}
        kept |= {"seconds": 30.0, "steps": 100, "best_step": 70, "weights": 55_000, "largest": 500.0}
        if run.saliency and configuration.kind in ("cnn", "voxel-sum"):
            kept["saliency"] = self._saliency(configuration)
        if run.saliency and configuration.kind == "se-cnn":
            weights = 0.5 + 0.2 * np.cos(np.linspace(-2, 2, 12))
            kept["slice_weights"] = {"mean": weights.tolist(), "sd": [0.03] * 12, "slice_mm": 3.0}
        return kept

    def _predicted(self, run, names):
        generator = np.random.default_rng(zlib.crc32(f"{run.configuration.name} {run.fold}".encode()))
        scores = []
        for name in names:
            true = np.array(self.data.agatston.get(name, (0.0,) * len(ARTERIES)))
            spread = NOISE[run.configuration.kind] * (1.0 if run.configuration.augmented else 1.5)
            scores.append(true * np.exp(generator.normal(0, spread, len(true))) + generator.uniform(0, 4, len(true)))
        return {"names": list(names), "agatston": np.round(scores, 3).tolist()}

    def _saliency(self, configuration):
        generator = np.random.default_rng(0)
        pictures = {}
        for n in range(3):
            near = np.zeros((32, 32), bool)
            near[12:16, 8 + n : 14 + n] = True
            saliency = generator.uniform(0, 0.2, near.shape) + 0.8 * near
            pictures |= {f"grey_{n}": generator.uniform(0, 1, near.shape), f"saliency_{n}": saliency, f"near_{n}": near}
        write_arrays(self.data.folder / PICTURES / f"{configuration.name}.npz", pictures)
        names = [f"p{n}" for n in range(8)]
        shares = np.array([0.3, 0.5, 0.05, 0.15]) + generator.normal(0, 0.01, (8, 4))
        return {"names": names, "shares": shares.tolist(), "volumes": [[0.02, 0.3, 0.08, 0.6]] * 8}


def fake_trainer(data, budget):
    """In place of `whole_scan.vessels.study_runs.trainer`."""
    return FakeTraining(data, budget)


def fake_reader(failing=()):
    """In place of `vessels.scans.read_scans`: hearts that grow a little with age. failing: names of scans."""

    def read(table, noncoronary_controls, test, budget, cache, workers, progress):
        from dataclasses import replace

        noncoronary_controls = [replace(scan, name=OTHER + scan.name) for scan in noncoronary_controls]
        rows = [scan for scan in (*table, *noncoronary_controls) if scan.name not in failing]
        volumes = {scan.name: 500.0 + (scan.age_years or 60) for scan in rows}
        known = scans_of([scan for scan in table if scan.name in volumes], volumes)
        other = scans_of(noncoronary_controls, volumes)
        failed = dict.fromkeys(failing, "its heart was not found")
        return Known(known, other if other.names else None, {}, (), failed, True)

    return read


def write_table(path: Path, patients: int, first: int = 0, truth: bool = True, other: bool = False) -> Path:
    """A table of CTs that are not there, a row for each patient. other: none has coronary calcium, all have some
    elsewhere. truth: write what digital patients have beside their CTs.
    """
    generator = np.random.default_rng(first)
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = ["name", "patient", "ct", *(f"agatston_{a}" for a in ARTERIES), "age_years", "sex"]
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, columns)
        writer.writeheader()
        for number in range(first, first + patients):
            total = 0.0 if other else SCORES[number % 8]
            folder = path.parent / f"p{number}"
            folder.mkdir(exist_ok=True)
            (folder / "ct.nii.gz").touch()
            if truth:
                elsewhere = [{"kind": "aortic valve"}] if other or number % 2 else []
                (folder / "truth.json").write_text(json.dumps({"distractors": elsewhere}), encoding="utf-8")
            shares = np.round(generator.dirichlet([0.3, 1, 0.6, 0.8]) * total, 2)
            row = {f"agatston_{artery}": share for artery, share in zip(ARTERIES, shares, strict=True)}
            age = 50 + 3 * (number % 8) + generator.normal(0, 6)
            row |= {"name": f"p{number}", "patient": number, "ct": f"p{number}/ct.nii.gz", "sex": "FM"[number // 8 % 2]}
            writer.writerow(row | {"age_years": round(float(age), 1)})
    return path
