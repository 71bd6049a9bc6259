"""Write the table of maps that are evaluated as van Velzen et al. do (docs/results/cyclegan-published.csv).

    python Testing/Benchmarks/as_published.py CSV FOLDER [CARD ...]

FOLDER keeps the digital patients, which are drawn if they are not there. Evaluated are `map-labels`, models of the
calcium map named by their CARD, and a reader at 130 HU. Slice classifier and limit are those that come with CAC.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from by_scanner import origin, write_rows

from CACScoringLib.models.cards import find_model, load_model
from CACTrainingLib.data.datasets import SliceDataset, default_cache, find_scans, load_slices, prepare
from CACTrainingLib.phantom import CohortSettings, write_cohort
from CACTrainingLib.training.published_evaluation import COMPARATOR, READER, rows_as_published

PATIENTS = {
    "chest-varied": (8410000, 8410022, 8440013, 8440016, 8440024),
    "cardiac-varied": (8400014, 8400049, 8450003, 8450015),
}
"""Patients by scanning protocol, held out of the trainings of cyclegan-course.csv."""

COLUMNS = {
    "sensitivity": "sensitivity of scans",
    "f1": "F1 of scans",
    "captured": "captured",
    "precision": "precision",
    "precision_visible": "precision in slices with calcium",
    "slice_correlation": "correlation per slice",
}
"""Titles of measures."""


def draw(folder: Path) -> SliceDataset:
    """Return the slices of the patients, drawn if they are not in the folder."""
    for protocol, numbers in PATIENTS.items():
        for number in numbers:
            settings = CohortSettings(protocol, first_number=number, scans=1, diverse=True, surroundings=True)
            write_cohort(1, folder / str(number), settings, workers=1)
    folders = prepare(find_scans([folder]), "slices", default_cache())
    return SliceDataset([load_slices(prepared) for prepared in folders])


def cell(value: object) -> str:
    """Return a measure with two decimals; empty where it is not defined."""
    return "" if value == "" else f"{float(str(value)):.2f}".removeprefix("0")


def table_rows(cards: list[Path], data: SliceDataset) -> list[dict[str, object]]:
    """Return the table's rows."""
    paths = {COMPARATOR: find_model("decomposition", COMPARATOR).path, **{card.stem: card for card in cards}}
    generators = {name: load_model(path, "cpu") for name, path in paths.items()}
    visible = np.bincount(data.scan, data.visible, len(data.scans)) > 0
    patients = "; ".join(f"{name} {' '.join(map(str, numbers))}" for name, numbers in PATIENTS.items())
    about = (
        f"{len(data.scans)} digital patients (diverse, with surroundings, one scan each; {patients}), "
        f"{int(visible.sum())} with visible calcium; {len(data)} slices, {int(data.visible.sum())} with visible calcium"
    )
    facts = origin("Testing/Benchmarks/as_published.py", "", "") | {"data": about}
    rows = []
    for row in rows_as_published(generators, data, "cpu"):
        name, rate = row["method"], float(str(row["false_positive_rate"]))
        rows.append(
            {
                "map and floor": name if name == READER else f"`{name}`, {row['floor_hu']:g} HU",
                "slice limit": row.get("slice_limit", ""),
                "classifier": row.get("classifier", ""),
                "scans without calcium positive": f"{round(rate * (~visible).sum())} of {(~visible).sum()}",
                **{title: cell(row[measure]) for measure, title in COLUMNS.items()},
                **facts,
            }
        )
    return rows


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("csv", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("cards", type=Path, nargs="*")
    options = parser.parse_args()
    write_rows(options.csv, table_rows(options.cards, draw(options.folder)))


if __name__ == "__main__":
    main()
