"""Write how right the lesion network is in digital patients that it learned from, and in others.

    python Testing/Benchmarks/lesion_network.py CSV [--patients N] [--model CARD] [--other CARD]

Patients are of all difficulties by turns, as `cac train lesions` draws them. Those seen are the first of the training.
The others follow those that trainings were validated on, so that no weights were chosen by them. Voxels are weighed as
in the training's validation (`training.lesions.voxel_measures`). "Part" is what voxels of some kinds, as they truly
are, add to the mean log likelihood; a row for each difficulty states that of its patients. --other names a model whose
figures on the unseen patients stand in a column of its name.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import numpy as np
from by_scanner import origin, stated, write_rows

from CACScoringLib.models.cards import LoadedModel, find_model, load_model
from CACScoringLib.networks.configs import LESION_KINDS
from CACScoringLib.scoring.parts import CORONARY_KINDS
from CACScoringLib.statistics.bootstrap import Bootstrap, Estimate, ratio
from CACTrainingLib.data.datasets import default_cache
from CACTrainingLib.data.lesion_batches import LesionData
from CACTrainingLib.data.lesion_rows import patient_rows, patients
from CACTrainingLib.phantom import DIFFICULTIES
from CACTrainingLib.training.lesions import LEAST_PROBABILITY, LOG_LIKELIHOOD, lesion_answers, voxel_measures

SEED = 0
VALIDATION_PATIENTS = 5 * len(DIFFICULTIES)
"""Digital patients that trainings were validated on, 5 of each difficulty."""

PARTS = {
    "arteries": ("LM", "LAD", "LCX", "RCA"),
    "stents": ("stent",),
    "other devices": ("lead", "wire", "clip", "catheter", "prosthetic valve"),
    "calcium elsewhere": ("aortic valve and root", "mitral annulus", "aorta", "pericardium", "other calcium"),
    "noise": ("noise",),
}
"""Kinds that are taken together."""


def main() -> None:
    """Write the table that the arguments name."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("csv", type=Path)
    parser.add_argument("--patients", type=int, default=10 * len(DIFFICULTIES))
    parser.add_argument("--model", type=Path)
    parser.add_argument("--other", type=Path)
    arguments = parser.parse_args()
    model = load_model(arguments.model or find_model("lesions").path, "cpu")
    territories = load_model(find_model("territories").path, "cpu")
    first = {"unseen": ("validation", VALIDATION_PATIENTS), "seen": ("training", 0)}
    columns = {name: _estimates(model, territories, *start, arguments.patients) for name, start in first.items()}
    models = [model, territories]
    if arguments.other is not None:
        models.append(load_model(arguments.other, "cpu"))
        columns[models[-1].card.name] = _estimates(models[-1], territories, *first["unseen"], arguments.patients)
    settings = "".join(f"{used.card.name} {used.card.sha256[:8]}; " for used in models)
    settings += f"{arguments.patients} patients of the training; as many after {VALIDATION_PATIENTS} of the validation"
    about = origin("Testing/Benchmarks/lesion_network.py CSV", settings, SEED)
    rows = [
        {"quantity": name, **{key: stated(column[name], 3) for key, column in columns.items()}, **about}
        for name in columns["unseen"]
    ]
    write_rows(arguments.csv, rows)


def _estimates(model: LoadedModel, territories: LoadedModel, use: str, first: int, count: int) -> dict[str, Estimate]:
    """Return each quantity in some digital patients, with its interval over them."""
    folder, drawn = default_cache() / "lesions", patients(use, first + count)[first:]
    names = [str(number) for number, _ in drawn]
    rows = {name: [patient_rows(*patient, folder, territories)] for name, patient in zip(names, drawn, strict=True)}
    kinds, labels, weights, of_patient = lesion_answers(model.network, LesionData(rows))
    place = {name: n for n, name in enumerate(names)}
    patient = np.array([place[name] for name in of_patient.tolist()])
    group = np.array([DIFFICULTIES.index(difficulty) for _, difficulty in drawn])
    bootstrap = Bootstrap(names, np.random.default_rng(SEED))

    def summed(is_of: np.ndarray, values: np.ndarray | float = 1.0) -> np.ndarray:
        return np.bincount(patient[is_of], (weights * values)[is_of], count)

    result, everywhere = dict[str, Estimate](), np.full(len(labels), True)
    of_voxels = voxel_measures(kinds, labels)
    logs = of_voxels.pop(LOG_LIKELIHOOD)[1]
    is_coronary, coronary = np.isin(labels, CORONARY_KINDS), kinds[:, CORONARY_KINDS].sum(axis=1)
    of_place = np.log(np.maximum(np.where(is_coronary, coronary, 1 - coronary), LEAST_PROBABILITY))
    means = {LOG_LIKELIHOOD: (everywhere, logs), f"{LOG_LIKELIHOOD}, coronary or not": (everywhere, of_place)}
    for name, part in PARTS.items():
        means[f"part, {name}"] = np.isin(labels, [LESION_KINDS.index(kind) for kind in part]), logs
    for name, (is_of, values) in means.items():
        statistic = partial(_mean_of_groups, summed(is_of, values), summed(everywhere), group)
        result[name] = bootstrap.result(statistic, names).estimate
    for kind, difficulty in enumerate(DIFFICULTIES):
        if (is_of := group[patient] == kind).any():
            statistic = partial(ratio, numerator=summed(is_of, logs), denominator=summed(is_of))
            result[f"{LOG_LIKELIHOOD}, {difficulty or 'usual'}"] = bootstrap.result(statistic, names).estimate
    for name, (is_of, values) in of_voxels.items():
        if is_of.any():
            statistic = partial(ratio, numerator=summed(is_of, values), denominator=summed(is_of))
            result[name] = bootstrap.result(statistic, names).estimate
    return result


def _mean_of_groups(sums: np.ndarray, amounts: np.ndarray, group: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the mean over groups of patients of their sums over their amounts, [resamples].

    counts: Times that each patient was drawn, [resamples, patients]; groups of which none was drawn are left out.
    """
    is_in = group == np.arange(len(DIFFICULTIES))[:, None]
    drawn = counts @ (is_in * amounts).T
    return np.nanmean((counts @ (is_in * sums).T) / np.where(drawn > 0, drawn, np.nan), axis=1)


if __name__ == "__main__":
    main()
