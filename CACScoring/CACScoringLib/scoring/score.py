"""Scores of a method: a pure function of the facts of a scan and of the labels of its lesions.

The labels come from the networks, from a reader's label map, or from a review; the numbers follow from them alone.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from ..anatomy.courses import Course
from ..core.labels import Artery, NonCoronary, Site
from ..facts.measurement import ScanFacts
from ..record.rules import ScoringRules
from ..record.scores import COUNTED, Lesion, LesionSet, LesionVoxels, MethodScore
from .features import features_of
from .mass import MAX_MEASURED, MeasuredMasses, lesion_masses, mass_columns
from .ostium import ostial_calcium
from .scores import method_score, non_coronary_score
from .uncertainty import ScanErrors, with_intervals


@dataclass(frozen=True)
class LesionLabels:
    """Lesions of a method with their sites and verdicts: what counts, is left out, or lies outside the arteries.

    Attributes:
        status: Key of `STATUSES`.
        rules: Rules that the lesions were found by.
        lesions: The lesions.
        of_reader: Kinds of sites (Artery, NonCoronary) that a reader has labelled.
        knows_elsewhere: True if networks or a reader separated calcium outside the arteries.
        no_calcium: True if a reader reviewed the scan and labelled nothing.
        decided: IDs of lesions of an automatic score that a reader has decided about.
        judged: Everything dense with the networks' verdicts, also noise and devices outside the arteries, which are no
            lesions; None of labels of other origin.
    """

    status: str
    rules: ScoringRules
    lesions: LesionSet
    of_reader: tuple[type[Site], ...] = ()
    knows_elsewhere: bool = False
    no_calcium: bool = False
    decided: Collection[int] = ()
    judged: LesionSet | None = None


def score(
    facts: ScanFacts,
    labels: LesionLabels,
    errors: ScanErrors,
    clinical: MethodScore | None = None,
    courses: Mapping[Artery, Course] | None = None,
    masses: MeasuredMasses | None = None,
) -> MethodScore:
    """Measure lesions, add up those that count, and state the errors of the sums.

    Args:
        facts: Facts of the scan.
        labels: Labels of the lesions.
        errors: Errors of scores in the scan.
        clinical: Clinical score, for a calcium map: its calcium outside the arteries counts for no lesion.
        courses: Courses of the arteries, for the features of lesions; None for a score without features.
        masses: Masses of these labels by `counted_masses`; None to measure them.
    """
    masses = counted_masses(facts, labels, clinical) if masses is None else masses
    table, has_masses = _with_masses(facts, labels, masses)
    elsewhere = None if clinical is None else clinical.non_coronary
    if clinical is None and labels.knows_elsewhere:
        is_reviewed = labels.status == "reviewed" and NonCoronary in labels.of_reader
        elsewhere = non_coronary_score(is_reviewed, table)
    method = method_score(labels.status, labels.rules, table, labels.no_calcium, has_masses, elsewhere)
    if courses is not None:
        method = replace(method, features=features_of(method, facts.scan, courses))
    is_automatic = clinical is None and labels.status == "automatic"
    ostial = root_at_ostia(facts, labels, courses) if is_automatic else []
    withheld = clinical is not None and clinical.withheld
    return with_intervals(method, errors, labels.decided, ostial, withheld)


def root_at_ostia(
    facts: ScanFacts, labels: LesionLabels, courses: Mapping[Artery, Course] | None = None
) -> list[Lesion]:
    """Return calcium of the aortic root at ostia (`ostial_calcium`).

    courses: Courses of the arteries; None to find them.
    """
    return ostial_calcium(
        facts.scan, labels.rules, labels.lesions, facts.region.territory_labels, courses, labels.decided
    )


def counted_masses(
    facts: ScanFacts,
    labels: LesionLabels,
    clinical: MethodScore | None = None,
    known: MeasuredMasses | None = None,
) -> MeasuredMasses:
    """Measure the masses of lesions that count, in their order.

    They are not measured of more than MAX_MEASURED lesions, which are mostly noise.

    Args:
        facts: Facts of the scan.
        labels: Labels of the lesions.
        clinical: As of `score`.
        known: Masses by an earlier call, of which those are kept whose surroundings are the same.
    """
    counted = labels.lesions.of_status(COUNTED)
    if not _measures_masses(facts, counted):
        return {}
    if clinical is None:
        outside: LesionVoxels | None = labels.lesions.non_coronary.voxels
    else:
        outside = None if clinical.non_coronary is None else clinical.outside_set.voxels
    scan, elsewhere = facts.scan, None if outside is None else outside.flat
    assert facts.calibration is not None
    calcium = counted, facts.calibration, elsewhere, labels.rules.is_map
    return lesion_masses(scan.hu, scan.image.GetSpacing(), *calcium, known)


def _measures_masses(facts: ScanFacts, counted: LesionSet) -> bool:
    return facts.calibration is not None and len(counted.ids) <= MAX_MEASURED


def _with_masses(facts: ScanFacts, labels: LesionLabels, masses: MeasuredMasses) -> tuple[LesionSet, bool]:
    """Return the lesions with the masses of those that count, and True if these were measured."""
    table = labels.lesions
    is_counted = [status == COUNTED for status in table.statuses]
    if not _measures_masses(facts, table.part(is_counted)):
        return table, False
    of_counted = iter(masses.values())
    of_rows = [next(of_counted) if counts else (None, None) for counts in is_counted]
    return table.with_columns(**mass_columns(of_rows)), True
