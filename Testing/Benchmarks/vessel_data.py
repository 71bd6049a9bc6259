"""Make the real scans with plaque from which vessel regression learns, and the table of them (OUTPUT/cohort.csv).

    python Testing/Benchmarks/vessel_data.py OUTPUT CT ... [--seed 41] [--all]

Each CT, as .../NAME/PATIENT/clean/ct.nii.gz, is free of calcium. It gets plaque as `cac insert` makes it with the
settings of USUAL and, by turns, of one of IN_TURN, or all (--all): of each artery alone, few and many, beside the
mitral annulus and the aortic root, and everywhere. Rerun the command to resume.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import SimpleITK as sitk

from CACScoringLib.core.errors import InsertionError
from CACScoringLib.core.files import read_json
from CACScoringLib.core.labels import ARTERIES
from CACScoringLib.io.reading import read_ct
from CACScoringLib.models.cards import find_model, load_model
from CACTrainingLib.phantom import InsertedSettings, prepare_background, write_insertions

DEPOSITS_BESIDE = ("mitral annulus", "aortic root")
DEPOSITS = (*DEPOSITS_BESIDE, "aortic valve", "papillary muscle", "pericardium")
"""Calcium outside the arteries: next to them, and anywhere."""
USUAL = {
    "everywhere": InsertedSettings(everywhere=True, vary=True),
    "RCA-many": InsertedSettings("RCA", 15, DEPOSITS_BESIDE),
    "LCX-many": InsertedSettings("LCX", 15, DEPOSITS_BESIDE),
    "LAD-many": InsertedSettings("LAD", 15, DEPOSITS_BESIDE),
    "RCA-heavy": InsertedSettings("RCA", 80, DEPOSITS_BESIDE),
    "LCX-heavy": InsertedSettings("LCX", 80, DEPOSITS_BESIDE),
    "LAD-heavy": InsertedSettings("LAD", 80, DEPOSITS_BESIDE),
}
"""Settings of a scan of each CT, by folder."""
IN_TURN = {
    "none": InsertedSettings(plaques=0, deposits=DEPOSITS, vary=True),
    "RCA-few": InsertedSettings("RCA", 3, DEPOSITS_BESIDE, vary=True),
    "LCX-few": InsertedSettings("LCX", 3, DEPOSITS_BESIDE, vary=True),
    "LAD": InsertedSettings("LAD", 6, DEPOSITS_BESIDE, vary=True),
}
"""Settings of one further scan, another for each CT, by folder."""
PARTS = USUAL | IN_TURN


def main() -> None:
    """Make the scans that the arguments name."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path)
    parser.add_argument("cts", type=Path, nargs="+")
    parser.add_argument("--seed", type=int, default=41)
    parser.add_argument("--all", action="store_true")
    arguments = parser.parse_args()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    for n, ct in enumerate(arguments.cts):
        turn = list(IN_TURN)[n % len(IN_TURN)]
        insert(ct, arguments.output, arguments.seed, list(PARTS if arguments.all else [*USUAL, turn]))
    write_table(arguments.output)


def insert(ct: Path, output: Path, seed: int, parts: Sequence[str]) -> None:
    """Write a scan with the plaque of some of PARTS, if it can be inserted."""
    name, patient = ct.parts[-4:-2]
    folders = {part: output / name / part for part in parts}
    if all((folder / patient / "insertion_00000" / "truth.json").exists() for folder in folders.values()):
        return
    network = load_model(find_model("territories").path, "cpu")
    try:
        background = prepare_background(read_ct(ct), None, patient, network)
        for part, folder in folders.items():
            write_insertions(background, folder, 1, replace(PARTS[part], seed=seed))
            print(folder, flush=True)
    except InsertionError as error:
        print(f"{name} is left out: {error}", flush=True)


def write_table(output: Path) -> None:
    """Write the table of all scans: one without calcium of each CT, and those with plaque."""
    rows = []
    files = sorted(output.glob("*/*/*/insertion_*/truth.json"))
    for file in [*sorted(output.glob("*/everywhere/*/clean/truth.json")), *files]:
        truth = read_json(file)
        masses = {f"mass_mg_{artery}": truth["mass_mg_by_artery"][artery] for artery in ARTERIES}
        rows.append({"folder": file.parent.relative_to(output).as_posix(), "patient": truth["patient"], **masses})
    with (output / "cohort.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
