"""How visible coronary calcium is on digital patients' radiographs, to an observer who needs no training by examples.

    PYTHONPATH=CACTraining:CACScoring python Testing/Benchmarks/radiograph_visibility.py FOLDER

FOLDER: of `cac radiographs digital`. The observer is Hotelling's: the best linear one, knowing mean and covariance of
healthy surroundings at each place of the heart (Barrett and Myers 2004, Foundations of Image Science, 13.2.12).

1. Told the place and the exact picture of a patient's brightest spots, how many standard deviations of healthy
   surroundings they stand out (d'). About 4 are needed where hundreds of places are looked at.
2. Not told the place: each place about the heart is compared with a round spot, and the likelihoods are added up; area
   under the ROC curve by cross-validation (surroundings from training patients only, folds of `cac train radiograph`).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from scipy import ndimage

from CACTrainingLib.radiograph.dataset import MARGIN_PIXELS, RadiographSet, load_radiographs
from CACTrainingLib.radiograph.fitting import folds
from CACTrainingLib.statistics.roc import areas

THRESHOLDS = (0.0, 100.0, 400.0)
REACH, CELL = 8, 8
"""Pixels: of the surroundings about a place to each side, and side of the places that share one covariance."""
SPOT_MM = 1.2
SPOTS, LEAST_MM = 4, 0.3
MOVED = 6
"""Pixels by which healthy surroundings are moved, for more of them."""
EDGE = REACH + MOVED + 1
PATIENTS = 40
"""Of each category, whose spots are judged."""
STEEPNESS = 1.5
_WHITE, _MAP_MM = 65535.0, 0.02


def pictures(data: RadiographSet, view: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Squares as they are, with the calcium taken away, and the calcium, mm; each [n, row, column]."""
    own = data.own()
    healthy = own.copy()
    healthy[data.sample[data.scale == 0]] = np.nonzero(data.scale == 0)[0]
    own, healthy = (data.squares[n][:, view].astype(np.float32) / _WHITE for n in (own, healthy))
    return own, healthy, data.maps[:, view].astype(np.float32) * _MAP_MM


def known_spots(healthy: np.ndarray, own: np.ndarray, calcium: np.ndarray, without: np.ndarray) -> list[float]:
    """d' of each patient's brightest spots together. without: pictures of others, who have no calcium."""
    generator = np.random.default_rng(0)
    found = []
    for case in range(len(own)):
        left, total = calcium[case].copy(), 0.0
        for _ in range(SPOTS):
            row, column = np.unravel_index(ndimage.gaussian_filter(left, 1).argmax(), left.shape)
            border = min(row, column, MARGIN_PIXELS - 1 - row, MARGIN_PIXELS - 1 - column)
            if left[row, column] < LEAST_MM or border < EDGE:
                break
            near = slice(row - REACH, row + REACH + 1), slice(column - REACH, column + REACH + 1)
            left[near] = 0
            signal = (own[case] - healthy[case])[near].ravel()
            moves = generator.integers(-MOVED, MOVED + 1, (len(without), 6, 2))
            patches = [
                picture[near[0].start + r : near[0].stop + r, near[1].start + c : near[1].stop + c].ravel()
                for picture, some in zip(without, moves, strict=True)
                for r, c in some
            ]
            covariance = np.cov(_level(np.array(patches)).T)
            covariance += 1e-3 * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
            total += float(_level(signal) @ np.linalg.solve(covariance, _level(signal)))
        found.append(total**0.5)
    return found


def likelihoods(healthy: np.ndarray, own: np.ndarray, calcium: np.ndarray) -> np.ndarray:
    """Of a spot anywhere, for each of `own`. healthy, calcium: of the patients whom the observer learns from."""
    y, x = np.mgrid[-REACH : REACH + 1, -REACH : REACH + 1]
    spot = _level(np.exp(-(x**2 + y**2) / (2 * SPOT_MM**2)).ravel())
    generator = np.random.default_rng(0)
    where = calcium.mean(0)
    answers, prior = [], []
    for row in range(40, MARGIN_PIXELS - 40, CELL):
        for column in range(40, MARGIN_PIXELS - 40, CELL):
            often = where[row : row + CELL, column : column + CELL].sum()
            if often < 0.5 * where.mean() * CELL**2:
                continue
            some = generator.choice(CELL**2, 8, replace=False)
            surroundings = _patches(healthy, row, column)[:, some].reshape(-1, spot.size)
            middle = surroundings.mean(0)
            covariance = np.cov((surroundings - middle).T) + 1e-7 * np.eye(spot.size)
            template = np.linalg.solve(covariance, spot)
            answers.append((_patches(own, row, column) - middle) @ (template / np.sqrt(spot @ template)))
            prior.append(np.full(CELL**2, often))
    answer, weight = np.concatenate(answers, 1), np.concatenate(prior)
    # Thick patients have less contrast: each is measured by its own spread.
    answer = answer - np.median(answer, 1, keepdims=True)
    answer /= np.percentile(np.abs(answer), 68, axis=1, keepdims=True)
    return np.log((np.exp(STEEPNESS * answer) * weight).mean(1))


def _patches(pictures: np.ndarray, row: int, column: int) -> np.ndarray:
    """Surroundings of each place of a cell, level: [n, places, pixels]."""
    part = pictures[:, row - REACH : row + REACH + CELL, column - REACH : column + REACH + CELL]
    windows = np.lib.stride_tricks.sliding_window_view(part, (2 * REACH + 1,) * 2, axis=(1, 2))
    return _level(windows.reshape(len(pictures), CELL**2, -1))


def _level(values: np.ndarray) -> np.ndarray:
    return values - values.mean(-1, keepdims=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    data = load_radiographs(parser.parse_args().folder, "agatston", scales=(1.0, 0.0))
    scores = data.scores["agatston"]
    print(f"{len(data)} patients")
    for view, name in enumerate(data.views):
        own, healthy, calcium = pictures(data, view)
        for low, high in ((1e-9, 100), (100, 400), (400, np.inf)):
            some = np.nonzero((scores >= low) & (scores < high))[0][:PATIENTS]
            part = known_spots(healthy[some], own[some], calcium[some], healthy[scores == 0])
            quartiles = ", ".join(f"{q:.1f}" for q in np.percentile(part, [25, 50, 75]))
            print(f"{name}: d' of known spots, score from {max(low, 1):g} (n {len(part)}): quartiles {quartiles}")
        predicted = []
        for fold in folds(data, 5, 0):
            learned = np.concatenate([fold.training, fold.validation])
            answer = likelihoods(healthy[learned], own[fold.test], calcium[learned])
            predicted.append(areas(np.repeat(answer[:, None], 3, 1), scores[fold.test], THRESHOLDS))
        for key in predicted[0]:
            values = [one[key] for one in predicted]
            print(
                f"{name}: place not known, {key}: {np.mean(values):.2f} (folds {min(values):.2f} to {max(values):.2f})"
            )


if __name__ == "__main__":
    main()
