"""Lesions that count by each method, and the method's score of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from ..anatomy.courses import Course
from ..anatomy.heart_region import HeartRegion
from ..calcium_map.decomposition import DecomposedHeart, Decomposition, clear_map
from ..core.ct import CTScan, ScanWarning
from ..core.labels import Artery, Labelled
from ..record.findings import BloodPool, MassCalibration
from ..record.rules import ScoringRules
from ..record.scores import Lesion, LesionSet, MethodScore, NonCoronaryScore
from .artefacts import dense_warning, noise_warnings
from .doubt import decisive_warning, stent_warning
from .features import features_of
from .intervals import with_intervals
from .judge import JudgedLesions, device_warning, judge_map
from .lesions import find_lesions, labelled_voxels
from .map_evidence import complete_map
from .mass import MAX_MEASURED, with_masses
from .reader_labels import ReaderLabels, outside_warning, unlabelled_warning
from .scores import method_score, non_coronary_score, rules_of_map
from .sites import DenseVoxels, dense_voxels, verdicts_by_place
from .uncertainty import ScanErrors


@dataclass(frozen=True)
class MethodLesions:
    """Lesions of a method before they are measured.

    Attributes:
        status: Key of `STATUSES`.
        rules: Rules of the method.
        counted: Lesions that count.
        left_out: Candidates that an automatic clinical score leaves out.
        no_calcium: True if a reader reviewed the scan and labelled nothing.
        elsewhere: Calcium outside the arteries; None if neither networks nor a reader separated it, and for the map.
        warnings: Doubts about the lesions.
    """

    status: str
    rules: ScoringRules
    counted: LesionSet
    left_out: tuple[Lesion, ...] = ()
    no_calcium: bool = False
    elsewhere: NonCoronaryScore | None = None
    warnings: tuple[ScanWarning, ...] = ()


def clinical_lesions(
    scan: CTScan,
    heart: HeartRegion,
    rules: ScoringRules,
    blood: BloodPool | None,
    judged: JudgedLesions | None,
    reader: ReaderLabels | None,
    status: str,
) -> MethodLesions:
    """Find the lesions of the clinical rule: those that a reader labelled, else those that count by their verdicts,
    else everything dense where arteries run.

    Args:
        scan: The scan as scored.
        heart: Heart and territories.
        rules: Rules of the clinical score.
        blood: Blood and noise; None if not measured.
        judged: Everything dense, with verdicts; None where nothing was judged.
        reader: The reader's labels; None without a reader.
        status: Status of the reader's labels: "reviewed" if a person vouches for them.
    """
    devices = [] if judged is None else device_warning(judged)
    if reader is None and judged is not None:
        counted, non_coronary = judged.lesions.part(judged.counted), judged.non_coronary
        doubts = [*devices, *dense_warning(counted), *noise_warnings(counted, non_coronary, blood)]
        left_out, aside = judged.left_out, non_coronary_score(False, non_coronary)
        return MethodLesions("automatic", rules, counted, left_out, elsewhere=aside, warnings=tuple(doubts))
    is_dense = scan.hu >= rules.threshold_hu
    if reader is not None:
        is_dense &= reader.sites == 0
    if judged is None:
        voxels = dense_voxels(heart, is_dense, scan.grid)
    else:
        voxels = DenseVoxels.of(judged.non_coronary, None)
        voxels = voxels.where(is_dense.reshape(-1)[voxels.flat])
    sites = Labelled(voxels.flat, voxels.sites)
    if reader is not None:
        # The networks' sites stand for a reader who labelled nothing outside the arteries.
        has_others = heart.territories is not None and not reader.has_elsewhere
        is_other = has_others & (sites.values > max(Artery))
        sites = labelled_voxels(reader.sites).with_labels(sites.flat[is_other], sites.values[is_other])
    dense = find_lesions(scan.image, sites, rules)
    coronary, non_coronary = dense.coronary, dense.non_coronary
    elsewhere = None if heart.territories is None else non_coronary_score(False, non_coronary)
    if reader is not None:
        labelled = dense if reader.has_elsewhere else coronary
        doubts = [*reader.warnings, *devices, *outside_warning(coronary, heart.mask), *dense_warning(labelled)]
        if judged is not None:
            doubts += unlabelled_warning(reader.sites, judged.lesions.part(judged.counted))
        is_reviewed = status == "reviewed"
        if reader.has_elsewhere:
            elsewhere = non_coronary_score(is_reviewed, non_coronary)
        return MethodLesions(status, rules, coronary, (), is_reviewed and reader.no_calcium, elsewhere, tuple(doubts))
    if heart.territories is not None:
        verdicts = verdicts_by_place(coronary, voxels)
        lesions = [replace(x, verdict=verdict) for x, verdict in zip(coronary.lesions, verdicts, strict=True)]
        coronary = dense.part(lesions)
    doubts = [*dense_warning(coronary), *noise_warnings(coronary, non_coronary, blood)]
    return MethodLesions("candidates", rules, coronary, elsewhere=elsewhere, warnings=tuple(doubts))


def map_lesions(
    decomposed: DecomposedHeart,
    scan: CTScan,
    heart: HeartRegion,
    clinical_rules: ScoringRules,
    noise_hu: float | None,
    judged: JudgedLesions | None,
    slices_by_reader: Mapping[int, bool],
) -> tuple[MethodLesions, Decomposition]:
    """Find the lesions of the calcium map that count, and clear the others from the map.

    A reader's labels of lesions in the CT end at the threshold of the clinical rule, so they do not review the map.

    Args:
        decomposed: Calcium map before any lesion is left out, and slice probabilities.
        scan: The scan as scored.
        heart: Heart and territories.
        clinical_rules: Rules of the clinical score.
        noise_hu: Noise of blood, SD; None if it could not be measured.
        judged: Everything dense, with verdicts; None where nothing was judged.
        slices_by_reader: A reader's overrides of slices.

    Returns:
        The lesions, and the map of these alone.
    """
    warnings: list[ScanWarning] = []
    if judged is not None:
        counted_dense = judged.lesions.part(judged.counted)
        parts, count = complete_map(decomposed.parts, scan, counted_dense, slices_by_reader)
        decomposed = replace(decomposed, parts=parts)
        if count:
            message = (
                f"In {count} place(s) the calcium map misses lesions that certainly count; what exceeds blood was "
                "added there."
            )
            warnings.append(ScanWarning("map-completed", message))
    parts = decomposed.parts
    rules = rules_of_map(clinical_rules, parts.settings.floor_hu, scan.acquisition.calcium_kvp)
    dense = None if judged is None else judged.lesions
    lesions = judge_map(scan, heart, rules, decomposed, noise_hu, dense)
    counted = lesions.part([lesion for lesion in lesions.lesions if lesion.verdict is None or lesion.verdict.counts])
    excluded = np.setdiff1d(lesions.every.flat, counted.voxels.flat, assume_unique=True)
    cleared = np.zeros(parts.hu.shape, bool)
    cleared.reshape(-1)[excluded] = True
    if count := len(lesions.lesions) - len(counted.lesions):
        subject = "1 lesion of the calcium map was" if count == 1 else f"{count} lesions of the calcium map were"
        message = f"{subject} left out, as probably noise or not coronary calcium."
        warnings.append(ScanWarning("map-left-out", message))
    return MethodLesions("automatic", rules, counted, warnings=tuple(warnings)), clear_map(parts, cleared)


def score_lesions(
    method_lesions: MethodLesions,
    scan: CTScan,
    calibration: MassCalibration,
    elsewhere: NonCoronaryScore | None,
    courses: Mapping[Artery, Course],
    errors: ScanErrors,
) -> MethodScore:
    """Measure the lesions that count, add them up, and state the errors of the sums.

    Args:
        method_lesions: Lesions of the method.
        scan: The scan as scored.
        calibration: Mass calibration.
        elsewhere: Calcium outside the arteries, by the clinical rule; None if unknown.
        courses: Courses of the arteries; empty if unknown.
        errors: Errors of scores in this scan.
    """
    aside = LesionSet((), method_lesions.counted.every) if elsewhere is None else elsewhere.lesion_set
    lesions = with_masses(method_lesions.counted, scan, calibration, aside.id_map > 0, method_lesions.rules.is_map)
    method = method_score(
        method_lesions.status,
        method_lesions.rules,
        lesions,
        method_lesions.counted.every,
        method_lesions.left_out,
        method_lesions.no_calcium,
        has_masses=len(lesions) <= MAX_MEASURED,
    )
    method = replace(method, features=features_of(method, scan, courses))
    return with_intervals(method, errors, aside.lesions)


def doubts_about(method: MethodScore, elsewhere: NonCoronaryScore | None, has_territories: bool) -> list[ScanWarning]:
    """Return the doubts about a clinical score that nobody has reviewed, which a reader should look at.

    Args:
        method: The score.
        elsewhere: Calcium outside the arteries; None if unknown.
        has_territories: True if the territories of the arteries are known.
    """
    if method.status not in ("automatic", "candidates"):
        return []
    lesions = () if elsewhere is None else elsewhere.lesion_list
    return [*stent_warning(method), *decisive_warning(method, lesions), _unreviewed_warning(method, has_territories)]


def _unreviewed_warning(method: MethodScore, has_territories: bool) -> ScanWarning:
    """The doubt about a clinical score that nobody has reviewed."""
    if method.status == "automatic":
        count, excluded = len(method.lesions), len(method.left_out)
        if not count + excluded:
            message = "The clinical score is automatic: there are no candidates. Nobody has reviewed the scan."
            return ScanWarning("automatic", message)
        message = (
            f"The clinical score is automatic: the lesion network counts {count} of {count + excluded} candidates. "
            "Nobody has reviewed them. Review them in 3D Slicer or the browser; or correct their labels in "
            f"lesions.nii.gz, where excluded ones are labelled {int(Artery.UNASSIGNED)}, and score again with "
            "these labels."
        )
        return ScanWarning("automatic", message)
    where = "inside the heart region: coronary and valve calcium, the aorta, and noise."
    if has_territories:
        where = "in the territories of the coronary arteries, noise included, each in the artery of its territory."
    message = (
        f"These candidates have not been reviewed. They include everything dense {where} Review them in 3D "
        "Slicer or the browser; or correct their labels in lesions.nii.gz and score again with these labels."
    )
    return ScanWarning("unreviewed", message)
