"""Training scans of the heart network: those with an outlined heart in folders, and those of a table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from CACScoringLib.core.tables import read_table

from ..project.training_scan import DataError, TrainingScan
from .datasets import find_scans, split_by_patient


def outlined_scans(
    folders: Iterable[Path], annotator: str | None, table: Path | None, share: float, seed: int
) -> tuple[list[TrainingScan], list[TrainingScan]]:
    """Return training and validation scans with outlined hearts, of folders (`find_scans`) and a table (`read_pairs`).

    share, seed: as in `split_by_patient`. Raises DataError for a patient in both parts, or a part without scans.
    """
    return split(with_outlined_heart(find_scans(folders, annotator)), read_pairs(table) if table else [], share, seed)


def read_pairs(table: Path) -> list[TrainingScan]:
    """Read scans with heart masks from a CSV table.

    Columns: patient, ct (DICOM folder or file), heart (mask on any grid), and optionally label (the heart's value in
    the mask) and use (training, validation or empty, to let the split decide). Paths are relative to the table.
    Raises TableError.
    """
    pairs = []
    for line in read_table(table, ("patient", "ct", "heart"), short_lines=True).lines:
        line.need("patient", "ct", "heart")
        ct, heart, label = line.need_file("ct"), line.need_file("heart"), line.number_in("label", 0, integer=True)
        pair = TrainingScan(name=line.text("ct"), patient=line.text("patient"), ct=ct, heart=heart)
        use = line.choice("use", ("training", "validation")) or ""
        pairs.append(replace(pair, heart_label=None if label is None else int(label), use=use))
    return pairs


def split(
    scans: Sequence[TrainingScan], pairs: Sequence[TrainingScan], share: float, seed: int
) -> tuple[list[TrainingScan], list[TrainingScan]]:
    """Split scans by the table's use, or by patient. Raises DataError for a patient in both parts."""
    free = [*scans, *(scan for scan in pairs if not scan.use)]
    training, validation = split_by_patient(free, share, seed) if free else ([], [])
    training += [scan for scan in pairs if scan.use == "training"]
    validation += [scan for scan in pairs if scan.use == "validation"]
    if duplicates := {s.patient for s in training} & {s.patient for s in validation}:
        raise DataError(
            f"Patients are both in training and in validation: {', '.join(sorted(duplicates))}. Check the table."
        )
    if not training or not validation:
        raise DataError(f"There are {len(training)} scans to train on and {len(validation)} to validate on; give more.")
    return training, validation


def with_outlined_heart(scans: Sequence[TrainingScan]) -> list[TrainingScan]:
    """Return the scans with an outlined heart; a region derived from the lungs would teach its errors.

    Raises DataError if no scan of several has one.
    """
    outlined = [scan for scan in scans if scan.heart_known]
    if scans and not outlined:
        raise DataError(
            f"None of the {len(scans)} scans has an outlined heart: theirs were found from the lungs. Insert lesions "
            "with --heart MASK, or give other scans."
        )
    return outlined
