"""Calcium of the aortic root at the ostium of a coronary artery, which no network tells from the artery's own.

Calcium of a sinus wall and of an ostium may be one piece. As a whole it is the root's and does not count. The part
that lies where the artery begins may belong to the score: it raises the upper end of the interval, and is stated.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from ..anatomy.courses import Course, artery_courses
from ..core.ct import CTScan, ScanWarning
from ..core.labels import TERRITORIES, Artery, Labelled, NonCoronary
from ..core.text import abbreviated_list
from ..record.rules import ScoringRules
from ..record.scores import Lesion, LesionSet
from .lesions import find_lesions

OSTIUM_MM = 8.0
"""Length of an artery, from its ostium, in which calcium of the root may be its own."""

MIN_AGATSTON = 30.0
"""Least Agatston score of such calcium at one artery that is stated."""


def ostial_calcium(
    scan: CTScan,
    rules: ScoringRules,
    table: LesionSet,
    territories: np.ndarray | None,
    courses: Mapping[Artery, Course] | None = None,
    decided: Collection[int] = (),
) -> list[Lesion]:
    """Return calcium of the aortic root in the territories of LM and RCA at their ostia, as lesions of these arteries.

    Args:
        scan: The scan as scored.
        rules: Rules of the clinical score.
        table: All lesions of an automatic score.
        territories: Labels of TERRITORIES, uint8 [k, j, i]; None if unknown.
        courses: Courses of the arteries; None to find them.
        decided: IDs of lesions that a reader has decided about.

    Returns:
        The lesions; none of an artery with less than MIN_AGATSTON.
    """
    if territories is None:
        return []
    rows = zip(table.columns["site"], table.ids, strict=True)
    voxels = table.part(site == NonCoronary.AORTIC_VALVE and number not in decided for site, number in rows).voxels
    labels, spacing = territories.reshape(-1)[voxels.flat], scan.image.GetSpacing()
    lesions: list[Lesion] = []
    for artery in (Artery.LM, Artery.RCA):
        flat = voxels.flat[labels == TERRITORIES.index(artery.key)]
        if not len(flat):
            continue
        courses = artery_courses(territories, spacing) if courses is None else courses
        if artery not in courses:
            continue
        places_mm = np.stack(np.unravel_index(flat, voxels.shape), axis=1) * spacing[::-1]
        flat = flat[courses[artery].at(places_mm) <= OSTIUM_MM]
        ostial = find_lesions(scan, Labelled(flat, np.full(len(flat), artery, np.uint8)), rules).lesions
        if sum(lesion.agatston for lesion in ostial) >= MIN_AGATSTON:
            lesions += ostial
    return lesions


def ostium_warning(lesions: Collection[Lesion]) -> list[ScanWarning]:
    """Warn of calcium of the aortic root at an artery's ostium. lesions: By `ostial_calcium`."""
    if not lesions:
        return []
    ostia, agatston = dict.fromkeys(lesion.site.key for lesion in lesions), sum(lesion.agatston for lesion in lesions)
    message = (
        f"Calcium of the aortic root with an Agatston score of {agatston:.0f} lies in the first {OSTIUM_MM:g} mm of "
        f"{abbreviated_list(ostia)}. It may be the artery's. It does not count; the upper end of the interval and the "
        "category probabilities include it."
    )
    return [ScanWarning("ostium-doubtful", message)]
