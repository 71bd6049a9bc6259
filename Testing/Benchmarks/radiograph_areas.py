"""Write how well finished radiograph models tell coronary calcium on radiographs of digital patients.

    python Testing/Benchmarks/radiograph_areas.py RADIOGRAPHS CSV TITLE=CARD [TITLE=CARD ...]

RADIOGRAPHS is a folder of `cac radiographs digital`, of patients that no model has learned from, and CARD the card of a
model. Hearts are located by the model, as in scoring. Areas are of the image alone: of the patients as they are; of
their own calcium, against all of them without coronary calcium too, where nothing but calcium tells them apart; and of
all calcium drawn on their arteries. Intervals are over resamples of the patients. Of each model after the first, the
differences of the first one's areas from its own are written too.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from by_scanner import origin, stated, write_rows

from CACScoringLib.models.cards import read_network
from CACScoringLib.networks.radiograph import RadiographNet
from CACScoringLib.statistics.bootstrap import patient_estimate
from CACScoringLib.statistics.roc import above, area_under_curve
from CACTrainingLib.data.scan_table import LABELS, read_radiographs
from CACTrainingLib.radiograph.dataset import NONE, PATIENTS, RadiographSet, load_radiographs
from CACTrainingLib.radiograph.task import predict_logits

SEED = 0
THRESHOLDS = {0: "above 0", 100: "from 100", 400: "from 400"}
GROUPS = ("", ": own calcium, and all without", ": all drawings, and all without")


@dataclass(frozen=True)
class Answers:
    """Answers of a model to the radiographs of a group. truth, logits: [radiographs, THRESHOLDS]."""

    patients: np.ndarray
    truth: np.ndarray
    logits: np.ndarray


def main() -> None:
    """Write the table of the areas."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("radiographs", type=Path)
    parser.add_argument("csv", type=Path)
    parser.add_argument("cards", nargs="+", metavar="TITLE=CARD")
    arguments = parser.parse_args()
    data = load_radiographs(read_radiographs(arguments.radiographs))
    models = dict(argument.rsplit("=", 1) for argument in arguments.cards)
    answers = {title: answers_of(Path(card), data) for title, card in models.items()}
    numbers = sorted(int(number) for number in re.findall(r"\d+", " ".join(map(str, data.patients))))
    rows: list[dict[str, object]] = []
    for title, card in models.items():
        settings = (
            f"{len(data)} patients, {numbers[0]} to {numbers[-1]}; model {read_network(Path(card))[0].sha256[:8]}"
        )
        about = origin("Testing/Benchmarks/radiograph_areas.py RADIOGRAPHS CSV TITLE=CARD ...", settings, SEED)
        first, *_ = answers
        for group, part in answers[title].items():
            rows.append({"model and radiographs": f"{title}{group}", **cells(part), **about})
        for group, part in answers[title].items():
            if title != first:
                name = f"{first}, difference from the {title}{group}"
                rows.append({"model and radiographs": name, **cells(answers[first][group], part), **about})
    write_rows(arguments.csv, rows)


def answers_of(path: Path, data: RadiographSet) -> dict[str, Answers]:
    """Return the answers of the model of a card to the radiographs of GROUPS."""
    network = cast(RadiographNet, read_network(path)[1]).eval()
    assert network.config.thresholds == tuple(map(float, THRESHOLDS)), f"{path} has other thresholds."
    drawings = range(min(len(drawn) for drawn in data.drawn))
    scores = {
        PATIENTS: data.scores[LABELS[0]],
        NONE: np.zeros(len(data)),
        **{n: np.array([drawn[n].agatston for drawn in data.drawn]) for n in drawings},
    }
    cases = np.arange(len(data))
    logits = {number: predict_logits(network, data, cases, locate=True, number=number) for number in scores}
    parts = ((PATIENTS,), (PATIENTS, NONE), tuple(scores))
    return {group: _joined(data, scores, logits, numbers) for group, numbers in zip(GROUPS, parts, strict=True)}


def _joined(
    data: RadiographSet, scores: dict[int, np.ndarray], logits: dict[int, np.ndarray], numbers: tuple[int, ...]
) -> Answers:
    score = np.concatenate([scores[number] for number in numbers])
    truth = above(score, tuple(map(float, THRESHOLDS))) > 0
    return Answers(np.tile(data.patients, len(numbers)), truth, np.concatenate([logits[n] for n in numbers]))


def cells(answers: Answers, former: Answers | None = None) -> dict[str, object]:
    """Return the cells of a model's row, or of its differences from another model."""
    counts = "; ".join(f"{positive.sum()}, {(~positive).sum()}" for positive in answers.truth.T)
    row: dict[str, object] = {
        "patients": len(set(answers.patients)),
        "with, without: above 0; from 100; from 400": counts,
    }
    return {**row, **dict(_areas(answers, former))}


def _areas(answers: Answers, former: Answers | None) -> Iterator[tuple[str, str]]:
    for n, title in enumerate(THRESHOLDS.values()):

        def difference(weights: np.ndarray, n: int = n) -> np.ndarray:
            areas = [
                area_under_curve(weights, answers.truth[:, n], part.logits[:, n]) for part in (answers, former) if part
            ]
            return areas[0] - areas[1] if former else areas[0]

        yield title, stated(patient_estimate(difference, answers.patients, SEED))


if __name__ == "__main__":
    main()
