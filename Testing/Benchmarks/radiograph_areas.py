"""Write how well finished radiograph models tell coronary calcium on radiographs of digital patients.

    python Testing/Benchmarks/radiograph_areas.py RADIOGRAPHS CSV CARD ...

RADIOGRAPHS is a folder of `cac radiographs digital`, of patients that no model has learned from, and CARD the card of a
model. Hearts are located by the model, as in scoring. Areas are of the image alone: of the patients as they are; of
their own calcium, against all of them without coronary calcium too, where nothing but calcium tells them apart; and of
all calcium drawn on their arteries. Intervals are over resamples of the patients.
"""

from __future__ import annotations

import argparse
import csv
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np

from CACScoringLib.models.cards import read_network
from CACScoringLib.networks.radiograph import RadiographNet
from CACScoringLib.statistics.bootstrap import patient_estimate
from CACScoringLib.statistics.roc import above, area_under_curve
from CACTrainingLib.data.scan_table import LABELS, read_radiographs
from CACTrainingLib.radiograph.dataset import NONE, PATIENTS, RadiographSet, load_radiographs
from CACTrainingLib.radiograph.task import predict_logits

SEED = 0
COLUMNS = ("model", "radiographs", "patients", "threshold", "area", "low", "high", "with", "without")


def main() -> None:
    """Write the table of the areas."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("radiographs", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("cards", type=Path, nargs="+")
    arguments = parser.parse_args()
    data = load_radiographs(read_radiographs(arguments.radiographs))
    with arguments.output.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for card in arguments.cards:
            writer.writerows(areas_of(card, data))


def areas_of(path: Path, data: RadiographSet) -> list[tuple[object, ...]]:
    """Return rows of COLUMNS of the model of a card."""
    card, network = read_network(path)
    network = cast(RadiographNet, network).eval()
    drawings = range(min(len(drawn) for drawn in data.drawn))
    scores = {
        PATIENTS: data.scores[LABELS[0]],
        NONE: np.zeros(len(data)),
        **{n: np.array([drawn[n].agatston for drawn in data.drawn]) for n in drawings},
    }
    cases = np.arange(len(data))
    logits = {number: predict_logits(network, data, cases, locate=True, number=number) for number in scores}
    groups = {
        "own calcium": (PATIENTS,),
        "own calcium, and all without": (PATIENTS, NONE),
        "all drawings, and all without": tuple(scores),
    }
    rows: list[tuple[object, ...]] = []
    for title, numbers in groups.items():
        score = np.concatenate([scores[number] for number in numbers])
        values = np.concatenate([logits[number] for number in numbers])
        truth = above(score, network.config.thresholds) > 0
        patients = np.tile(data.patients, len(numbers))
        for threshold, positive, value in zip(network.config.thresholds, truth.T, values.T, strict=True):
            estimate = patient_estimate(partial(area_under_curve, truth=positive, scores=value), patients, SEED)
            figures = (f"{figure:.3f}" for figure in (estimate.value, estimate.low, estimate.high))
            rows.append((card.name, title, len(data), f"{threshold:g}", *figures, positive.sum(), (~positive).sum()))
    return rows


if __name__ == "__main__":
    main()
