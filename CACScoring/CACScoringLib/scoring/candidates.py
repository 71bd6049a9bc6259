"""Scores of a scan: of candidates or a reader's lesions by the clinical rule, and of the lesions of the calcium map."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import SimpleITK as sitk

from ..anatomy.heart_region import HeartRegion
from ..calcium_map.decomposition import DecomposedHeart, Decomposition, clear_map
from ..core.ct import CTScan, ScanWarning
from ..core.labels import Artery
from ..core.voxels import voxels_of
from ..record.findings import BloodPool
from ..record.rules import ScoringRules
from ..record.scores import Lesion, LesionSet, MethodScore, NonCoronaryScore
from .artefacts import dense_warning, metal_lesions, metal_warning, noise_warnings, without_metal
from .doubt import decisive_warning, stent_warning
from .judge import CandidateJudge, JudgedLesions, judge_map, slices_of_coronary_looks
from .lesions import find_lesions
from .methods import method_score, non_coronary_score
from .reader_labels import ReaderLabels, outside_warning
from .scores import rules_of_map
from .sites import candidate_sites, verdicts_by_place


@dataclass(frozen=True)
class DenseLesions:
    """Lesions of an image at or above a threshold, in heart and territories.

    Attributes:
        lesions: All lesions, metal included.
        candidates: Lesions that are no metal.
        warnings: Warnings about metal.
        kinds: Probability of each of LESION_KINDS for each candidate in the arteries, [n, kinds]; None without a judge.
    """

    lesions: LesionSet
    candidates: LesionSet
    warnings: tuple[ScanWarning, ...]
    kinds: np.ndarray | None = None

    @property
    def coronary_slices(self) -> tuple[int, ...]:
        """Slices of candidates that look like coronary calcium, rising; none without a judge."""
        return () if self.kinds is None else slices_of_coronary_looks(self.candidates.coronary, self.kinds)

    @property
    def has_coronary_metal(self) -> bool:
        """True if a lesion among the arteries is metal."""
        candidates = {lesion.id for lesion in self.candidates.lesions}
        return any(isinstance(x.site, Artery) and x.id not in candidates for x in self.lesions.lesions)


@dataclass(frozen=True)
class ClinicalScore:
    """Scores of a scan by the clinical rule.

    Attributes:
        method: Scores of the coronary arteries.
        non_coronary: Scores of other sites; None if neither networks nor a reader separated them.
        warnings: Warnings about the scores.
    """

    method: MethodScore
    non_coronary: NonCoronaryScore | None
    warnings: tuple[ScanWarning, ...]


@dataclass(frozen=True)
class MapScore:
    """Scores of a calcium map.

    Attributes:
        method: Scores of the coronary arteries.
        decomposition: Decomposition whose map holds the lesions that count alone.
        warnings: Warnings about the scores.
    """

    method: MethodScore
    decomposition: Decomposition
    warnings: tuple[ScanWarning, ...]


def find_dense_lesions(
    image: sitk.Image,
    scan: sitk.Image,
    heart: HeartRegion,
    rules: ScoringRules,
    reader_sites: np.ndarray | None = None,
    judge: CandidateJudge | None = None,
) -> DenseLesions:
    """Find the lesions of the CT, or of its calcium map, in the territories or, without these, in the heart.

    Args:
        image: CT or calcium map, HU.
        scan: The CT, from which peaks are read.
        heart: Heart and territories.
        rules: Rules, with the threshold of the image.
        reader_sites: A reader's sites, uint8 [k, j, i]; then only lesions beside these outside the arteries are found.
        judge: Judge of candidates, who looks at them, and divides lesions at the arteries' borders by their looks; None
            to go by the territories alone.
    """
    dense = voxels_of(image) >= rules.threshold_hu
    if reader_sites is not None:
        dense &= reader_sites == 0
    sites = candidate_sites(heart, dense)
    if reader_sites is not None:
        sites[sites <= max(Artery)] = 0
    if judge is not None:
        sites = judge.sites_by_looks(sites)
    lesions = find_lesions(image, sites, rules, peaks=scan)
    candidates, warnings = without_metal(lesions, scan)
    return DenseLesions(lesions, candidates, tuple(warnings), None if judge is None else judge.kinds(candidates))


def score_candidates(
    dense: DenseLesions,
    heart: HeartRegion,
    rules: ScoringRules,
    judged: JudgedLesions | None,
    blood: BloodPool | None,
) -> ClinicalScore:
    """Score the candidates of the clinical rule that count by their verdicts, or all of them without evidence.

    Args:
        dense: Candidates of the clinical rule.
        heart: Heart and territories.
        rules: Rules of the clinical score.
        judged: The candidates with their verdicts; None to leave none of them out.
        blood: Blood and noise; None if not measured.
    """
    coronary = dense.candidates.coronary
    has_territories = heart.territories is not None
    doubts: list[ScanWarning] = []
    if judged is None:
        lesions = coronary.lesions
        if has_territories:
            verdicts = verdicts_by_place(coronary, heart.territories)
            lesions = tuple(replace(x, verdict=verdict) for x, verdict in zip(lesions, verdicts, strict=True))
        method = method_score("candidates", rules, lesions, coronary.voxels)
    else:
        counted, left_out = divided(judged.lesions)
        method = method_score("automatic", rules, counted, judged.lesions.voxels, left_out)
        doubts = [*stent_warning(method), *decisive_warning(method)]
    elsewhere = non_coronary_score(False, dense.candidates) if has_territories else None
    noise = noise_warnings(method.lesion_set, dense.candidates.non_coronary, blood)
    doubts = [*dense_warning(method.lesion_set), *noise, *doubts]
    warnings = (*dense.warnings, *doubts, unreviewed_warning(method, judged is not None, has_territories))
    return ClinicalScore(method, elsewhere, warnings)


def divided(lesions: LesionSet) -> tuple[list[Lesion], list[Lesion]]:
    """Divide lesions with verdicts into those that count and those that do not."""
    counted: list[Lesion] = []
    left_out: list[Lesion] = []
    for lesion in lesions.lesions:
        (counted if lesion.verdict is None or lesion.verdict.counts else left_out).append(lesion)
    return counted, left_out


def unreviewed_warning(method: MethodScore, has_verdicts: bool, has_territories: bool) -> ScanWarning:
    """The doubt about a clinical score that nobody has reviewed."""
    if has_verdicts:
        count, excluded = len(method.lesions), len(method.left_out)
        if not count + excluded:
            message = "The clinical score is automatic: there are no candidates. Nobody has reviewed the scan."
            return ScanWarning("automatic", message)
        message = (
            f"The clinical score is automatic: the networks' evidence counts {count} of {count + excluded} candidates. "
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


def score_reading(
    reader: ReaderLabels,
    dense: DenseLesions,
    scan: CTScan,
    heart: HeartRegion,
    rules: ScoringRules,
    status: str,
) -> ClinicalScore:
    """Score the lesions that a reader labelled, metal included, and calcium elsewhere as labelled or by territory.

    Args:
        reader: The reader's labels.
        dense: Candidates of the clinical rule, whose metal may streak into labelled lesions.
        scan: The scan as scored.
        heart: Heart and territories.
        rules: Rules of the clinical score.
        status: Key of `STATUSES`: "reviewed" if a person vouches for the labels.
    """
    image = scan.image
    labelled = find_lesions(image, reader.sites, rules)
    is_reviewed, coronary = status == "reviewed", labelled.coronary
    no_calcium = is_reviewed and reader.no_calcium
    method = method_score(status, rules, coronary.lesions, coronary.voxels, no_calcium=no_calcium)
    elsewhere = None
    if reader.has_elsewhere:
        elsewhere = non_coronary_score(is_reviewed, labelled)
    elif heart.territories is not None:
        unlabelled = find_dense_lesions(image, image, heart, rules, reader.sites)
        elsewhere = non_coronary_score(False, unlabelled.candidates)
    outside = outside_warning(labelled.coronary, heart.mask)
    metal = metal_warning(labelled, metal_lesions(labelled, image))
    return ClinicalScore(method, elsewhere, (*reader.warnings, *dense.warnings, *outside, *metal))


def score_map(
    decomposed: DecomposedHeart,
    scan: CTScan,
    heart: HeartRegion,
    clinical_rules: ScoringRules,
    noise_hu: float | None,
    dense: DenseLesions,
    judged: JudgedLesions | None,
) -> MapScore:
    """Score the lesions of the calcium map that count by their evidence, and clear the others from the map.

    A reader's labels of lesions in the CT end at the threshold of the clinical rule, so they do not review the map.

    Args:
        decomposed: Calcium map before any lesion is left out, and slice probabilities.
        scan: The scan as scored.
        heart: Heart and territories.
        clinical_rules: Rules of the clinical score.
        noise_hu: Noise of blood, SD; None if it could not be measured.
        dense: Lesions of the clinical rule; metal among them mostly is that in the map.
        judged: The candidates with their verdicts; None if they have none.
    """
    parts = decomposed.parts
    rules = rules_of_map(clinical_rules, parts.settings.floor_hu, scan.acquisition.calcium_kvp)
    in_map = find_dense_lesions(parts.image(), scan.image, heart, rules)
    of_map = judge_map(in_map.candidates, heart, decomposed, noise_hu, dense.lesions, judged)
    counted, left_out = divided(of_map)
    every, voxels = in_map.lesions.voxels, of_map.part(counted).voxels
    excluded = np.setdiff1d(every.flat, voxels.flat, assume_unique=True)
    if excluded.size:
        cleared = np.zeros(every.shape, bool)
        cleared.reshape(-1)[excluded] = True
        parts = clear_map(parts, cleared)
    warnings = [] if dense.warnings else list(in_map.warnings)
    if count := len(left_out):
        subject = "1 lesion of the calcium map was" if count == 1 else f"{count} lesions of the calcium map were"
        message = f"{subject} left out, as probably noise or not coronary calcium."
        warnings.append(ScanWarning("map-left-out", message))
    return MapScore(method_score("automatic", rules, counted, voxels), parts, tuple(warnings))
