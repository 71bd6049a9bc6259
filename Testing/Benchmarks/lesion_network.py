"""Write how right the lesion network is in digital patients that it learned from, and in others.

    python Testing/Benchmarks/lesion_network.py CSV [--patients N] [--model CARD]

Patients are of all difficulties by turns, as `cac train lesions` draws them. Those seen are the first of the training.
The others follow those that trainings were validated on, so that no weights were chosen by them. Voxels are weighed as
in the training's validation (`training.lesions.measures`). "Part" is what voxels of some kinds, as they truly are, add
to the mean log likelihood.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
from by_scanner import origin, stated, write_rows

from CACScoringLib.models.cards import LoadedModel, find_model, load_model
from CACScoringLib.networks.configs import LESION_KINDS
from CACScoringLib.scoring.parts import CORONARY_KINDS
from CACScoringLib.statistics.bootstrap import Bootstrap, Estimate, estimate
from CACTrainingLib.data.datasets import default_cache
from CACTrainingLib.data.lesion_batches import LesionData
from CACTrainingLib.data.lesion_rows import DIFFICULTIES, patient_rows, patients
from CACTrainingLib.training.lesions import lesion_answers, measures

SEED = 0
VALIDATION_PATIENTS = 45
"""Digital patients that trainings were validated on."""

GROUPS = tuple(difficulty or "usual" for difficulty in DIFFICULTIES)

PARTS = {
    "arteries": ("LM", "LAD", "LCX", "RCA"),
    "stents": ("stent",),
    "other devices": ("lead", "wire", "clip", "catheter", "prosthetic valve"),
    "calcium elsewhere": ("aortic valve and root", "mitral annulus", "aorta", "pericardium", "other calcium"),
    "noise": ("noise",),
}
"""Kinds that are taken together."""

LEAST = 1e-4
"""Least probability that a logarithm is taken of, as in `measures`."""


def main() -> None:
    """Write the table that the arguments name."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("csv", type=Path)
    parser.add_argument("--patients", type=int, default=90)
    parser.add_argument("--model", type=Path)
    arguments = parser.parse_args()
    model = load_model(arguments.model or find_model("lesions").path, "cpu")
    territories = load_model(find_model("territories").path, "cpu")
    unseen = _estimates(model, territories, "validation", VALIDATION_PATIENTS, arguments.patients)
    seen = _estimates(model, territories, "training", 0, arguments.patients)
    settings = f"{model.card.name} {model.card.sha256[:8]}; {territories.card.name} {territories.card.sha256[:8]}; "
    settings += f"{arguments.patients} patients of the training; as many after {VALIDATION_PATIENTS} of the validation"
    about = origin("Testing/Benchmarks/lesion_network.py CSV", settings, SEED)
    rows = [
        {"quantity": name, "unseen": stated(unseen[name], 3), "seen": stated(seen[name], 3), **about} for name in unseen
    ]
    write_rows(arguments.csv, rows)


def _estimates(model: LoadedModel, territories: LoadedModel, use: str, first: int, count: int) -> dict[str, Estimate]:
    """Return each quantity in some digital patients, with its interval over them."""
    folder, drawn = default_cache() / "lesions", patients(use, first + count)[first:]
    rows = {str(number): [patient_rows(number, difficulty, folder, territories)] for number, difficulty in drawn}
    kinds, labels, weights, names = lesion_answers(model.network, LesionData(rows))
    patient = np.searchsorted(sorted(rows), names)
    group = np.array([DIFFICULTIES.index(dict(drawn)[int(name)]) for name in sorted(rows)])[patient]
    quantities = _quantities(kinds, labels, weights, group)

    def of_resamples(counts: np.ndarray) -> np.ndarray:
        values = (_quantities(kinds, labels, weights * of_patient[patient], group) for of_patient in counts)
        return np.array([[value.get(name, math.nan) for name in quantities] for value in values])

    values = Bootstrap(sorted(rows), np.random.default_rng(SEED)).result(of_resamples, sorted(rows)).values
    return {name: estimate(values[:, n], count, count) for n, name in enumerate(quantities)}


def _quantities(kinds: np.ndarray, labels: np.ndarray, weights: np.ndarray, group: np.ndarray) -> dict[str, float]:
    """Return `measures`, the log likelihood of coronary or not, and the parts of PARTS; arguments as of `measures`."""
    share = weights / np.bincount(group, weights)[group] / len(np.unique(group[weights > 0]))
    is_coronary = np.isin(labels, CORONARY_KINDS)
    coronary = kinds[:, CORONARY_KINDS].sum(axis=1)
    of_place = np.log(np.maximum(np.where(is_coronary, coronary, 1 - coronary), LEAST))
    of_kind = share * np.log(np.maximum(np.take_along_axis(kinds, labels[:, None], 1)[:, 0], LEAST))
    parts = {
        f"part, {name}": float(of_kind[np.isin(labels, [LESION_KINDS.index(kind) for kind in part])].sum())
        for name, part in PARTS.items()
    }
    values = measures(kinds, labels, weights, np.array(list(GROUPS))[group])
    return {**values, "log likelihood, coronary or not": float((share * of_place).sum()), **parts}


if __name__ == "__main__":
    main()
