"""How often an automatic category is wrong without a word, in usual scans and in ones unlike those of the calibration.

Run from the repository's root, some minutes a digital patient; KEPT is a folder in which each patient's numbers stay,
so that a run that was ended goes on:

    PYTHONPATH=CACTraining:CACScoring:Testing python Testing/Benchmarks/out_of_depth.py KEPT [--models DIR]
        [--patients N] [--first NUMBER] [--workers N]

Every patient is scanned twice: as usual, by a protocol of the calibration, and shifted, in one of SHIFTS. The true
category is that of the patient's reference score (`reference_scores`). A category is wrong without a word when it is
not the true one, and not withheld. Which limit withholds how much is printed for several limits; that on the model's
card is chosen on patients from 87000, and reported on patients from 88000.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import numpy as np

from CACScoringLib.core.ct import CTError
from CACScoringLib.core.files import write_text_atomically
from CACScoringLib.models.cards import bundled_folder, load_model, read_card
from CACScoringLib.pipeline import ScoreSettings, score_scan
from CACScoringLib.results import Networks
from CACScoringLib.scoring.uncertainty import CATEGORIES, LIMITS
from CACTrainingLib.phantom.anatomy.patient import draw_patient, stream, with_contrast
from CACTrainingLib.phantom.anatomy.strata import chosen_patients
from CACTrainingLib.phantom.cohort.cohort import in_processes
from CACTrainingLib.phantom.cohort.export import as_ct_scan
from CACTrainingLib.phantom.cohort.reference import reference_scores
from CACTrainingLib.phantom.scanner.protocol import PROTOCOLS, draw_pair
from CACTrainingLib.phantom.scanner.scanner import Kernel, Scanner
from CACTrainingLib.phantom.scanner.simulation import CHEST_MM, scan_grid, scan_patient

FIRST = 87000
HEART_MM = (-84.0, 66.0)
HEIGHTS_MM = {"varied": HEART_MM, "radiotherapy": CHEST_MM, "cardiac": HEART_MM}
USUAL = "usual"
BONE = Kernel("bone", 0.2, 3.0, 0.5)


def _noisy(scanner: Scanner) -> Scanner:
    return replace(scanner, noise_hu=120.0)  # about twice the most of usual scans, whatever these have


def _thick(scanner: Scanner) -> Scanner:
    return replace(scanner, slice_thickness_mm=10.0, slice_spacing_mm=10.0)


def _half(scanner: Scanner) -> Scanner:
    return replace(scanner, field_of_view_mm=scanner.field_of_view_mm / 2)


SHIFTS = {
    "noise of 120 HU": _noisy,
    "very sharp kernel": lambda scanner: replace(scanner, kernel=BONE, noise_hu=3 * scanner.noise_hu),
    "70 kVp": lambda scanner: replace(scanner, kvp=70.0, noise_hu=1.5 * scanner.noise_hu),
    "140 kVp": lambda scanner: replace(scanner, kvp=140.0),
    "10 mm slices": _thick,
    "half the field of view": _half,
    "contrast": lambda scanner: scanner,
}
"""What is done to a scanner; with contrast the patient is another."""

LIMITS_TRIED = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0)


@cache
def networks(folder: Path) -> Networks:
    import torch

    torch.set_num_threads(1)
    cards = {read_card(path).network: path for path in sorted(folder.glob("*.json"))}
    names = ("heart", "slices", "decomposition", "territories")
    return Networks(*(load_model(cards[name], "cpu") if name in cards else None for name in names))


def scored(number: int, models: Path, kept: Path) -> list[dict]:
    """What is found in a patient's usual and shifted scan."""
    path = kept / f"{number}.json"
    if path.is_file():
        return json.loads(path.read_text(encoding="utf-8"))
    patient = draw_patient(number, heart_shape="anatomical")
    truth = sum(score.agatston for score in reference_scores(patient).values())
    protocol = list(HEIGHTS_MM)[number % len(HEIGHTS_MM)]
    shift = list(SHIFTS)[number % len(SHIFTS)]
    usual, pose = draw_pair(PROTOCOLS[protocol], stream(number, 20))[0]
    rows = []
    for scan_number, name in enumerate((USUAL, shift), 1):
        scanner = SHIFTS[name](usual) if name in SHIFTS else usual
        own = with_contrast(patient) if name == "contrast" else patient
        grid = scan_grid(own, scanner, pose, HEIGHTS_MM[protocol])
        ct = as_ct_scan(scan_patient(own, scanner, pose, scan_number, grid, 1), own)
        row = {"number": number, "protocol": protocol, "scan": name, "truth": truth, "status": "refused"}
        try:
            result = score_scan(ct, ScoreSettings(allow_contrast=True), networks=networks(models))
        except CTError as error:
            rows.append({**row, "causes": [str(error)]})
            continue
        clinical, familiarity = result.methods["threshold"], result.familiarity
        if familiarity is None:
            raise SystemExit(f"The models in {models} hold nothing of their calibration's scans. Calibrate them.")
        told = {"distance": familiarity.distance, "causes": familiarity.causes, "limit": familiarity.limit}
        rows.append({**row, "status": clinical.status, "agatston": clinical.total.agatston, **told})
    write_text_atomically(path, json.dumps(rows, indent=1))
    return rows


def _category(score: float) -> int:
    return int(np.searchsorted(LIMITS["agatston"], score, side="right"))


def _wrong(row: dict) -> bool:
    return row["status"] == "automatic" and _category(row["agatston"]) != _category(row["truth"])


def _withheld(row: dict, limit: float | None = None) -> bool:
    if row["status"] != "automatic":
        return False
    return row["distance"] > 0 if limit == 0 else row["distance"] >= (row["limit"] if limit is None else limit)


def _silent(row: dict, limit: float | None = None) -> bool:
    return _wrong(row) and not _withheld(row, limit)


def _share(values: list[bool]) -> str:
    return f"{sum(values):3d} of {len(values):3d} ({np.mean(values):4.0%})" if values else "-"


def printed(rows: list[dict]) -> None:
    """Print what was found."""
    shifted = [row for row in rows if row["scan"] != USUAL]
    parts = {name: [row for row in rows if row["scan"] == name] for name in (USUAL, *SHIFTS)}
    parts |= {"all shifted": shifted, "all": rows}
    heads = ("no category", "withheld", "wrong before", "wrong after")
    print(f"{'scans':24s}" + "".join(f"{title:>22s}" for title in heads))
    for name, own in parts.items():
        columns = ([r["status"] != "automatic" for r in own], [_withheld(r) for r in own])
        columns = (*columns, [_wrong(r) for r in own], [_silent(r) for r in own])
        print(f"{name:24s}" + "".join(f"{_share(values):>22s}" for values in columns))
    print(f"\n{'limit':24s}{'usual withheld':>22s}{'shifted wrong after':>22s}{'all wrong after':>22s}")
    for limit in LIMITS_TRIED:
        columns = ([_withheld(r, limit) for r in parts[USUAL]], [_silent(r, limit) for r in shifted])
        columns = (*columns, [_silent(r, limit) for r in rows])
        print(f"{limit or '> 0':<24}" + "".join(f"{_share(values):>22s}" for values in columns))
    print("\nTrue category, and that of each shifted scan with its causes:")
    for row in shifted:
        found = CATEGORIES[_category(row["agatston"])] if "agatston" in row else row["status"]
        far = f", distance {row['distance']:.2f}" if "distance" in row else ""
        print(f"{row['number']} {row['scan']}: {CATEGORIES[_category(row['truth'])]}, found {found}{far}", end="")
        print(f" ({'; '.join(row['causes'])})" if row["causes"] else "")


def main() -> None:
    """Scan, score and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kept", type=Path, help="folder for each patient's numbers, of these models")
    parser.add_argument("--models", type=Path, default=bundled_folder(), help="folder of models (default: bundled)")
    parser.add_argument("--patients", type=int, default=140)
    parser.add_argument("--first", type=int, default=FIRST)
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    options.kept.mkdir(parents=True, exist_ok=True)
    numbers = chosen_patients(options.first, options.patients)
    work = partial(scored, models=options.models, kept=options.kept)
    found = in_processes(work, numbers, options.workers, lambda done, of: print(f"{done} of {of}", flush=True))
    printed([row for number in numbers for row in found[number]])


if __name__ == "__main__":
    main()
