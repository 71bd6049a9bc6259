"""Study of people whose calcium an engineer has read (`references.people`): `cac evaluate people`.

It repeats the front page's table. The output keeps `scans` (as `cac cohort` writes them), the crops made of DICOM
series, and `people.csv`, a row for each scan.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from scipy import ndimage

from CACScoringLib.core.ct import CTScan
from CACScoringLib.core.errors import BadReferenceError
from CACScoringLib.core.labels import Artery
from CACScoringLib.core.progress import Progress
from CACScoringLib.core.tables import write_table
from CACScoringLib.core.version import commit
from CACScoringLib.core.voxels import voxels_of
from CACScoringLib.io.reading import read_ct, read_mask
from CACScoringLib.models.choice import ModelChoice
from CACScoringLib.record.score_record import read_result
from CACScoringLib.scans.source import ScanSource

from ..evaluation.jobs import make_folder, scored_folders
from ..evaluation.page import write_study
from ..evaluation.papers import texts_of
from ..evaluation.parts import Section
from ..references.people import DOUBTFUL, Person, find_people, people
from .people_summary import draw_people, figures_of

TABLE = "people.csv"
"""Table in the output folder, in the form of that in docs/results."""

CROPS = "crops"
"""Folder of the crops in the output folder."""

COLUMNS = (
    *("scan", "reading", "automatic", "interval", "map", "false", "missed", "right artery", "false severe warnings"),
    *("refused", "command", "settings", "seed", "date", "commit"),
)

CALCIUM_HU, AREA_MM2, SLICE_MM = 130, 1.0, 3.0
"""The clinical rule (Agatston 1990): threshold, least area of a component in a slice, thickness of its slices."""

WEIGHT_HU, MAX_WEIGHT = 100, 4
"""A component weighs one for each WEIGHT_HU of its peak, at most MAX_WEIGHT."""

TEXTS = texts_of("people")


@dataclass(frozen=True)
class PeopleSettings:
    """Settings of the study.

    Attributes:
        data: Folder of the scans (`references.people.find_people`).
        output: Output folder.
        models: Models to score with.
        workers: Number of processes; None for as many as fit.
        overwrite: True to score again.
    """

    data: Path
    output: Path
    models: ModelChoice = field(default_factory=ModelChoice)
    workers: int | None = None
    overwrite: bool = False


def evaluate_people(settings: PeopleSettings, progress: Progress | None = None) -> tuple[Path, list[tuple[str, str]]]:
    """Score the scans of people that lie in a folder, compare them with the readings, and write table, figure and page.

    Returns:
        Path of `study.html`, and the figures in short.

    Raises:
        BadReferenceError: The folder holds none of the scans.
        OutputError: The output cannot be used.
        CTError: A model cannot be used.
    """
    progress = progress or Progress()
    progress.begin(["finding scans", "scans", "comparison", "page"])
    make_folder(settings.output)
    known = people()
    with progress.step("finding scans"):
        found, refused = find_people(settings.data, known, settings.output / CROPS, progress.counted)
    if not found:
        reasons = "".join(f" {person.name}: {why}" for person, why in refused)
        raise BadReferenceError(
            f"{settings.data} holds none of the {len(known)} scans that were read.{reasons} "
            "docs/results.md names the collections that they come from."
        )
    with progress.step("scans"):
        sources = [source for _, source in found]
        options = (settings.models, settings.workers, settings.overwrite, progress)
        folders = scored_folders(sources, settings.output, *options)
    with progress.step("comparison"):
        rows = {person.name: _refused(person, why) for person, why in refused}
        for (person, source), folder in zip(found, folders, strict=True):
            rows[person.name] = _refused(person, folder) if isinstance(folder, str) else _row(person, source, folder)
    with progress.step("page"):
        listed = [rows[person.name] for person in known if person.name in rows]
        write_table(settings.output / TABLE, COLUMNS, (row | _origin(settings) for row in listed), guarded=True)
        figures = figures_of(listed)
        page = _write_page(settings, listed, len(known), figures)
    return page, figures


def _row(person: Person, source: ScanSource, folder: Path) -> dict[str, str]:
    """Compare a scored scan with its reading: cells of COLUMNS."""
    record = read_result(folder)
    total, mapped = record.methods["threshold"].total, record.methods["decomposition"].total
    interval = total.interval_90
    false_alarms = [w.code for w in record.warnings if w.severe and w.code not in person.true_alarms]
    cells = {
        "reading": f"{person.reading:g}",
        "automatic": f"{total.agatston:.1f}",
        "interval": "withheld" if interval is None else f"{interval[0]:.0f} to {interval[1]:.0f}",
        "map": f"{mapped.clinical_agatston:.1f}",
        "false severe warnings": " ".join(false_alarms),
    }
    if person.reading:
        counted = np.asarray(voxels_of(read_mask(folder / "lesions.nii.gz")))
        cells |= _agreement(read_ct(source.ct), person, counted)
    return dict.fromkeys(COLUMNS, "") | {"scan": person.name} | cells


def _refused(person: Person, why: str) -> dict[str, str]:
    return dict.fromkeys(COLUMNS, "") | {"scan": person.name, "reading": f"{person.reading:g}", "refused": why}


def _agreement(ct: CTScan, person: Person, counted: np.ndarray) -> dict[str, str]:
    """Return where the score lies that was counted falsely or missed, and the share in the right artery.

    counted: Labels of the lesions that count, [k, j, i].
    """
    truth, spacing = person.labels(), ct.image.GetSpacing()
    counted = np.where(counted <= Artery.OTHER, counted, 0)
    true = (truth >= Artery.LM) & (truth <= Artery.RCA) & (ct.hu >= CALCIUM_HU)
    of_score, of_reading = (agatston_of_voxels(ct.hu, mask, spacing) for mask in (counted > 0, true))
    is_same = truth == counted
    if not person.separates_lm:
        is_same |= np.isin(truth, (Artery.LM, Artery.LAD)) & np.isin(counted, (Artery.LM, Artery.LAD))
    in_both = of_reading[true & (counted > 0)].sum()
    share = of_reading[true & is_same].sum() / in_both if in_both else None
    return {
        "false": f"{of_score[(counted > 0) & ~true & (truth != DOUBTFUL)].sum():.0f}",
        "missed": f"{of_reading[true & (counted == 0)].sum():.0f}",
        "right artery": "" if share is None else f"{share:.2f}",
    }


def agatston_of_voxels(hu: np.ndarray, mask: np.ndarray, spacing_mm: Sequence[float]) -> np.ndarray:
    """Return each voxel's part of the Agatston score of a mask, float32 [k, j, i]; it is 0 outside.

    Args:
        hu: [k, j, i].
        mask: Calcium, bool [k, j, i].
        spacing_mm: Along i, j, k.
    """
    parts = np.zeros(hu.shape, np.float32)
    area_mm2 = spacing_mm[0] * spacing_mm[1]
    for k in np.flatnonzero(mask.any(axis=(1, 2))):
        components, count = ndimage.label(mask[k], np.ones((3, 3)))
        for number in range(1, count + 1):
            is_in = components == number
            if is_in.sum() * area_mm2 >= AREA_MM2:
                weight = min(MAX_WEIGHT, int(hu[k][is_in].max() // WEIGHT_HU))
                parts[k][is_in] = area_mm2 * weight * spacing_mm[2] / SLICE_MM
    return parts


def _origin(settings: PeopleSettings) -> dict[str, str]:
    models = f"models {' '.join(settings.models.names)}" if settings.models.names else "bundled models"
    facts = {"command": "`cac evaluate people --data FOLDER`", "settings": models, "seed": "none"}
    hash_, *changed = commit().split("-")
    return {**facts, "date": datetime.date.today().isoformat(), "commit": "-".join([hash_[:8], *changed])}


def _write_page(
    settings: PeopleSettings, rows: Sequence[dict[str, str]], known: int, figures: Sequence[tuple[str, str]]
) -> Path:
    columns = COLUMNS[: COLUMNS.index("command")]
    tables = (
        TEXTS.table("figures", ("Question", "Answer"), figures),
        TEXTS.table("scans", columns, [[row[name] for name in columns] for row in rows]),
    )
    figure = TEXTS.figure("against_reading", partial(draw_people, rows=rows), (5.6, 4.6))
    text = (TEXTS.explanation.format(scans=len(rows), known=known),)
    section = Section("people", "Scores against the readings", text, tables, (figure,))
    facts = {"Data": str(settings.data), "Program": f"commit {commit()}"}
    return write_study(settings.output, TEXTS.title, [section], facts, digital=False)
