"""Scans of a study of radiomics that are made up, and models of them that take no time."""

import csv
from pathlib import Path

import numpy as np

from CACScoringLib.core.ct import CTError
from CACScoringLib.whole_scan.radiomics import PSEUDO_FEATURE
from CACTrainingLib.whole_scan.radiomics.configurations import HELD_OUT
from CACTrainingLib.whole_scan.radiomics.data import Scans, with_derived

KINDS = (0.0, 0.0, 0.0, 3.0, 30.0, 150.0, 250.0, 900.0)
"""Scores, in turn."""


def made_scans(n=80, first=0, seed=0, networks=True, score=None, digital=True, factors=True) -> Scans:
    """Feature "heart_stat_mean" tells little of the truth, the candidates' score most, one of the networks' some."""
    generator = np.random.default_rng(seed)
    agatston = np.array([KINDS[k % len(KINDS)] if score is None else score for k in range(n)])
    truth = agatston > 0
    measured = np.where(agatston > 10, agatston, 0) * generator.uniform(0.7, 1.3, n)
    other = (np.arange(n) % 3 == 0).astype(float)
    measured += 40 * other * (generator.random(n) < 0.4)
    noise = generator.normal(size=(n, 6))
    heart = np.stack([noise[:, 0] + 0.8 * truth, noise[:, 1], np.ones(n)], 1)
    candidates = np.stack([np.log1p(measured), np.sqrt(measured) + noise[:, 2], noise[:, 3]], 1)
    values = {"heart": heart, "candidates": candidates}
    titles = {
        "heart": ("heart_stat_mean", "heart_stat_var", "heart_morph_volume"),
        "candidates": (PSEUDO_FEATURE, "candidate_stat_max", "candidate_place_x"),
    }
    if networks:
        values["own"] = np.stack([noise[:, 4] + 1.2 * truth, noise[:, 5]], 1)
        titles["own"] = ("slices_average_0", "heart_network_0")
    age = 55 + 6 * truth + generator.normal(0, 8, n)
    unknown = np.full(n, np.nan)
    return with_derived(
        Scans(
            names=tuple(f"p{first + k}" for k in range(n)),
            patients=tuple(str(first + k) for k in range(n)),
            agatston=agatston,
            visible=(agatston > 10).astype(float) if digital else unknown,
            other=other if digital else unknown,
            factors=np.stack([age, np.arange(n) % 2], 1) if factors else None,
            features=values,
            titles=titles,
            pseudo=measured > 0,
            failed={},
        )
    )


def write_table(path: Path, n=80, first=0, score=None, contrast=False) -> Path:
    """A table of the same scans; there is nothing in their CTs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    arteries = ("LM", "LAD", "LCX", "RCA")
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("name", "patient", "ct", *(f"agatston_{a}" for a in arteries), "contrast"))
        for k in range(n):
            (path.parent / f"p{first + k}.nii.gz").touch()
            total = KINDS[k % len(KINDS)] if score is None else score
            writer.writerow((f"p{first + k}", first + k, f"p{first + k}.nii.gz", 0, total, 0, 0, int(contrast)))
    return path


def reader(**made):
    """In place of `whole_scan.radiomics.data.read_scans`: the made-up scans of the names that a table holds."""

    def read(table, folder, files, workers, device, progress):
        first = int(table[0].patient)
        score = 0.0 if not any(scan.total for scan in table) else None
        # Names are in turn, so that a table's rows are those of the scans made.
        whole = made_scans(int(table[-1].patient) - first + 1, first, seed=first, score=score, **made)
        places = {name: n for n, name in enumerate(whole.names)}
        return whole.chosen([places[scan.name] for scan in table])

    return read


class MadeModel:
    """Calls by a weighted sum of standardised features, the weights from their means in both classes."""

    def __init__(self, features, labels):
        self.middle, self.spread = features.mean(0), np.maximum(features.std(0), 1e-9)
        scaled = (features - self.middle) / self.spread
        self.weights = scaled[labels].mean(0) - scaled[~labels].mean(0)
        self.limit = float(np.quantile(self.probabilities(features)[labels], 0.05, method="lower"))

    def probabilities(self, features):
        return 1 / (1 + np.exp(-((features - self.middle) / self.spread) @ self.weights))


class Fitting:
    """Makes models without tuning, and counts them. fails: which classifier cannot be made."""

    def __init__(self, fails=None):
        self.done, self.fails = [], fails

    def __call__(self, data, budget):
        self.data = data

        def do(run):
            self.done.append(run)
            if run.configuration.classifier == self.fails:
                raise CTError("it did not converge")
            rows = np.flatnonzero(data.folds == run.fold)
            learned = np.flatnonzero((data.folds != run.fold) & (data.folds != HELD_OUT))
            features = data.own.features[run.configuration.features]
            model = MadeModel(features[learned], data.own.truth[learned])
            last = run.fold == HELD_OUT
            noncoronary_controls = last and data.noncoronary_controls
            titles = data.own.titles["both"]
            rows_of = [[title, 0.1 - 0.01 * n, 0.02, 0.0, 0.2] for n, title in enumerate(titles)]
            return {
                "rows": rows.tolist(),
                "fold": run.fold,
                "probabilities": model.probabilities(features[rows]).tolist(),
                "limit": model.limit,
                "others": model.probabilities(data.noncoronary_controls.features[run.configuration.features]).tolist()
                if noncoronary_controls
                else None,
                "weights": model.weights.tolist() if run.configuration.classifier == "logistic" else None,
                "importance": {"features": rows_of, "families": rows_of[:2]} if last else None,
                "seconds": 1.0,
            }

        return do
