"""Write how much of the calcium that is possible in each place the territory network assigns to the right one.

    python Testing/Benchmarks/territories.py CSV [--patients N]

Patients are drawn as `cac train territories` draws them, with numbers that no training, calibration or study has. Each
has 40 plaques in each artery and 40 deposits of each other kind (`phantom.POSSIBLE`), weighed as they are distributed
over people. Calcium is assigned to its most probable territory except "outside"; an assignment's confidence is the
share of its artery among the arteries, with the temperature of the model's card. Plain scans have no noise; as scanned
they have the noise, slices, kernels, tissue and fields of view of `TerritoryAugmentation`, and are neither turned,
moved nor scaled; calcium outside the field of view is left out. The heart is compared in plain scans, in patients with
and without what real chests have around it.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from by_scanner import origin, stated, write_rows

from CACScoringLib.anatomy.territories import IN_HEART
from CACScoringLib.core.labels import TERRITORIES
from CACScoringLib.models.cards import find_model, load_model
from CACScoringLib.models.inference import predict
from CACScoringLib.models.preprocessing import TERRITORY_SPACING_MM
from CACScoringLib.statistics.bootstrap import Estimate, patient_estimate, ratio
from CACTrainingLib.data.territory_patches import (
    CALCIFYING,
    SIZE,
    UNKNOWN,
    TerritoryAugmentation,
    augment_patches,
    draw_patches,
    heart_centre,
    plain_patch,
)
from CACTrainingLib.phantom import TerritoryVolume, posed_frame, territory_volume
from CACTrainingLib.phantom.cohort.territory_volumes import FIRST_MM, draw_positioned

FIRST_NUMBER, SEED = 9_900_000, 0
SCANNED = TerritoryAugmentation(
    off_centre_mm=0, elsewhere_share=0, turn_degrees=0, tilt_degrees=0, scale=1, displacement_mm=0, specks=0
)
VIEWS = {"plain": "", "as scanned": "as scanned: "}
HEARTS = {False: "heart in plain fat, Dice", True: "heart with surroundings, Dice"}
"""Quantities of the heart's outline, by whether a patient has surroundings."""
ROOT, ANNULUS, TISSUE = (TERRITORIES.index(name) for name in ("aortic valve and root", "mitral annulus", "other"))

View = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Network input [2, k, j, i]; possible calcium by CALCIFYING [n, k, j, i]; place of the first voxel in the volume."""


def main() -> None:
    """Write the table that the arguments name."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("csv", type=Path)
    parser.add_argument("--patients", type=int, default=40)
    arguments = parser.parse_args()
    model, shares = load_model(find_model("territories").path, "cpu"), dict[str, list[tuple[float, float]]]()
    temperature = float(model.card.calibration["temperature"])
    with TemporaryDirectory() as folder:
        for number in range(FIRST_NUMBER, FIRST_NUMBER + arguments.patients):
            volume = territory_volume(number, Path(folder))
            surroundings = HEARTS[draw_positioned(number)[2]["surroundings"]]
            for view, (x, possible, low) in _views(volume, number).items():
                heart, *output = predict(model.network, x[None], 1)[0][0]
                quantities = _quantities(np.stack(output), possible, _from_fork(number, low), temperature)
                for name, is_hit, amount in quantities:
                    shares.setdefault(VIEWS[view] + name, []).append((float(amount[is_hit].sum()), float(amount.sum())))
                if view == "plain":
                    outline, true = heart >= IN_HEART, plain_patch(volume)[0].heart.numpy() > 0
                    overlap = 2.0 * float((outline & true).sum()), float(outline.sum() + true.sum())
                    shares.setdefault(surroundings, []).append(overlap)
            print(f"{number} done", flush=True)
    settings = f"{model.card.name} {model.card.sha256[:8]}; {arguments.patients} patients from {FIRST_NUMBER}, "
    settings += "as cac train territories draws them"
    about = origin("Testing/Benchmarks/territories.py CSV", settings, SEED)
    rows = [{"quantity": name, "proportion": stated(_estimate(parts), 3), **about} for name, parts in shares.items()]
    write_rows(arguments.csv, rows)


def _views(volume: TerritoryVolume, number: int) -> dict[str, View]:
    """Return a patient as plain_patch and a scanner of the patient's number show it, by VIEWS."""
    patch, low = plain_patch(volume)
    index, value, label = volume.possible
    place = np.stack(np.unravel_index(index, volume.hu.shape)) - np.array(low)[:, None]
    inside = ((place >= 0) & (place < SIZE)).all(0)
    possible = np.zeros((len(CALCIFYING), SIZE, SIZE, SIZE), np.float32)
    np.add.at(possible, (np.searchsorted(CALCIFYING, label[inside]), *place[:, inside]), value[inside])
    drawn = augment_patches(draw_patches([volume], SCANNED, np.random.default_rng([SEED, number])))
    x, amounts, labels = (drawn[name][0].numpy() for name in ("x", "possible", "labels"))
    middle = np.array(heart_centre(volume)) - (SIZE - 1) / 2
    return {
        "plain": (patch.x.numpy(), possible, np.array(low, float)),
        "as scanned": (x, np.where(labels == UNKNOWN, 0, amounts), middle),
    }


def _from_fork(number: int, low: np.ndarray) -> np.ndarray:
    """Return the distance in mm of each voxel of a patch from the left main's fork. low: Place of the first voxel."""
    patient, pose, *_ = draw_positioned(number)
    ends = posed_frame(patient.body, pose).to_lps(patient.tree.of("LM")[0].path_mm[-1]) + pose.table_shift_mm
    fork = ((ends - FIRST_MM) / TERRITORY_SPACING_MM)[::-1] - low
    return TERRITORY_SPACING_MM[0] * np.linalg.norm(np.indices((SIZE,) * 3).T - fork, axis=-1).T


def _quantities(
    output: np.ndarray, possible: np.ndarray, from_fork: np.ndarray, temperature: float
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yield name, hits and amounts of each row. output: Probabilities of TERRITORIES [11, k, j, i]."""
    channel, *place = np.nonzero(possible)
    amount, true = possible[(channel, *place)].astype(float), np.array(CALCIFYING)[channel]
    probabilities, distance = output[(slice(None), *place)], from_fork[tuple(place)]
    assigned = 1 + probabilities[1:].argmax(0)
    is_right, in_artery = assigned == true, assigned <= 4
    calibrated = probabilities[1:5] ** (1 / temperature)
    confidence = calibrated.max(0) / np.maximum(calibrated.sum(0), 1e-3)
    of_artery, of_left = true <= 4, true <= 3
    is_called = of_artery & (confidence >= 0.85) & (confidence < 0.95)
    groups = {
        **{TERRITORIES[n]: (true == n, is_right) for n in range(1, 5)},
        "all": (of_artery, is_right),
        "within 10 mm of the fork": (of_left & (distance <= 10), is_right),
        "within 5 mm of the fork": (of_left & (distance <= 5), is_right),
        "root assigned to an artery": (true == ROOT, in_artery),
        "annulus assigned to an artery": (true == ANNULUS, in_artery),
        "pericardium and papillary muscles assigned to an artery": (true == TISSUE, in_artery),
        "confidence of .85 to .95 that is right": (is_called, 1 + calibrated.argmax(0) == true),
    }
    for name, (belongs, is_hit) in groups.items():
        yield name, is_hit[belongs], amount[belongs]


def _estimate(parts: list[tuple[float, float]]) -> Estimate:
    """Return the share of hits, with its interval over patients. parts: Amounts of hits and of all, by patient."""
    hits, amounts = np.array(parts).T
    return patient_estimate(partial(ratio, numerator=hits, denominator=amounts), range(len(parts)), SEED)


if __name__ == "__main__":
    main()
