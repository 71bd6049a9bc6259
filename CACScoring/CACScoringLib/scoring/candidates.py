"""Automatic scores of a scan: of dense candidates by the clinical rule, and of the lesions of the calcium map."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import SimpleITK as sitk

from ..anatomy.heart_region import HeartRegion
from ..calcium_map.decomposition import Decomposition, clear_map
from ..core.ct import CTScan, ScanWarning
from ..core.labels import Artery
from ..core.voxels import voxels_of
from ..record.findings import BloodPool
from .artefacts import dense_warning, noise_warnings, without_metal
from .doubt import decisive_warning, stent_warning
from .evidence import LesionSelection
from .judges import CandidateJudge, MapJudge
from .lesions import LesionSet, find_lesions
from .methods import MethodResult, NonCoronaryResult, elsewhere_result, method_result
from .rules import ScoringRules
from .scores import rules_of_map
from .sites import candidate_sites, suggested_arteries


@dataclass(frozen=True)
class DenseLesions:
    """Lesions of an image at or above a threshold, in heart and territories.

    Attributes:
        lesions: All lesions, metal included.
        candidates: Lesions that are no metal.
        warnings: Warnings about metal.
    """

    lesions: LesionSet
    candidates: LesionSet
    warnings: tuple[ScanWarning, ...]

    @property
    def has_coronary_metal(self) -> bool:
        """True if a lesion among the arteries is metal."""
        candidates = {lesion.id for lesion in self.candidates.lesions}
        return any(isinstance(x.artery, Artery) and x.id not in candidates for x in self.lesions.lesions)


@dataclass(frozen=True)
class ClinicalScore:
    """Scores of a scan by the clinical rule.

    Attributes:
        method: Scores of the coronary arteries.
        non_coronary: Scores of other sites; None if neither networks nor a reader separated them.
        warnings: Warnings about the scores.
    """

    method: MethodResult
    non_coronary: NonCoronaryResult | None
    warnings: tuple[ScanWarning, ...]


@dataclass(frozen=True)
class MapScore:
    """Scores of a calcium map.

    Attributes:
        method: Scores of the coronary arteries.
        decomposition: Decomposition whose map holds the lesions that count alone.
        warnings: Warnings about the scores.
    """

    method: MethodResult
    decomposition: Decomposition
    warnings: tuple[ScanWarning, ...]


def find_dense_lesions(
    image: sitk.Image,
    scan: sitk.Image,
    heart: HeartRegion,
    territories: sitk.Image | None,
    rules: ScoringRules,
    reader_sites: np.ndarray | None = None,
    judge: CandidateJudge | None = None,
) -> DenseLesions:
    """Find the lesions of the CT, or of its calcium map, in the territories or, without these, in the heart.

    Args:
        image: CT or calcium map, HU.
        scan: The CT, from which peaks are read.
        heart: Heart and territories.
        territories: Labels of the territories on the scan's grid; None where no network found them.
        rules: Rules, with the threshold of the image.
        reader_sites: A reader's sites, uint8 [k, j, i]; then only lesions beside these outside the arteries are found.
        judge: Judge of candidates, who divides lesions at the arteries' borders by their looks; None to go by the
            territories alone.
    """
    dense = voxels_of(image) >= rules.threshold_hu
    if reader_sites is not None:
        dense &= reader_sites == 0
    sites = candidate_sites(heart, territories, dense)
    if reader_sites is not None:
        sites[sites <= max(Artery)] = 0
    if judge is not None:
        sites = judge.sites_by_looks(sites)
    lesions = find_lesions(image, sites, rules, peaks=scan)
    candidates, warnings = without_metal(lesions, scan)
    return DenseLesions(lesions, candidates, tuple(warnings))


def score_candidates(
    dense: DenseLesions,
    scan: CTScan,
    heart: HeartRegion,
    rules: ScoringRules,
    selection: LesionSelection | None,
    blood: BloodPool | None,
) -> ClinicalScore:
    """Score the candidates of the clinical rule that count by their evidence, or all of them without evidence.

    Args:
        dense: Candidates of the clinical rule.
        scan: The scan as scored.
        heart: Heart and territories.
        rules: Rules of the clinical score.
        selection: Candidates divided by their evidence; None to leave none of them out.
        blood: Blood and noise; None if not measured.
    """
    coronary, spacing = dense.candidates.coronary, scan.image.GetSpacing()
    has_territories = heart.territories is not None
    doubts: list[ScanWarning] = []
    if selection is None:
        suggestions = tuple(suggested_arteries(coronary, heart.territories)) if has_territories else ()
        method = method_result("candidates", coronary, rules, spacing, suggestions)
    else:
        counted = selection.lesions
        method = method_result("automatic", counted, rules, spacing, selection.suggestions, selection.left_out)
        method = replace(method, possible_stents=selection.stents)
        doubts = [*stent_warning(method), *decisive_warning(method, spacing)]
    elsewhere = elsewhere_result(False, rules, dense.candidates, spacing) if has_territories else None
    noise = noise_warnings(method.lesions, dense.candidates.non_coronary, blood)
    doubts = [*dense_warning(method.lesions), *noise, *doubts]
    warnings = (*dense.warnings, *doubts, unreviewed_warning(method, has_territories))
    return ClinicalScore(method, elsewhere, warnings)


def unreviewed_warning(method: MethodResult, has_territories: bool) -> ScanWarning:
    """The doubt about a clinical score that nobody has reviewed."""
    if method.left_out is not None:
        count, excluded = len(method.lesions.lesions), len(method.left_out.lesions.lesions)
        if not count + excluded:
            message = "The clinical score is automatic: there are no candidates. Nobody has reviewed the scan."
            return ScanWarning("automatic", message)
        message = (
            f"The clinical score is automatic: the networks' evidence counts {count} of {count + excluded} candidates. "
            "Nobody has reviewed them. Review them in 3D Slicer or the browser; or correct their labels in "
            f"lesions.nii.gz, where excluded ones are labelled {int(Artery.UNASSIGNED)}, and score again with "
            "--lesions and --reader."
        )
        return ScanWarning("automatic", message)
    where = "inside the heart region: coronary and valve calcium, the aorta, and noise."
    if has_territories:
        where = "in the territories of the coronary arteries, noise included, each in the artery of its territory."
    message = (
        f"These candidates have not been reviewed. They include everything dense {where} Review them in 3D "
        "Slicer or the browser; or correct their labels in lesions.nii.gz and score again with --lesions and "
        "--reader."
    )
    return ScanWarning("unreviewed", message)


def score_map(
    judge: MapJudge,
    territories: sitk.Image | None,
    clinical_rules: ScoringRules,
    has_metal_warning: bool,
) -> MapScore:
    """Score the lesions of the calcium map that count by their evidence, and clear the others from the map.

    A reader's labels of lesions in the CT end at the threshold of the clinical rule, so they do not review the map.

    Args:
        judge: Networks' findings in the scan, with the map before any lesion is left out.
        territories: Labels of the territories on the scan's grid; None where no network found them.
        clinical_rules: Rules of the clinical score.
        has_metal_warning: True if candidates of the clinical rule were metal: that in the map mostly is the same.
    """
    scan, parts = judge.scan, judge.decomposed.parts
    settings = parts.settings
    rules = rules_of_map(clinical_rules, settings.floor_hu, scan.acquisition.calcium_kvp)
    dense = find_dense_lesions(parts.image(), scan.image, judge.heart, territories, rules)
    selection = judge.select(dense.candidates)
    excluded = np.setdiff1d(dense.lesions.flat, selection.lesions.flat, assume_unique=True)
    if excluded.size:
        cleared = np.zeros(dense.lesions.id_map.shape, bool)
        cleared.reshape(-1)[excluded] = True
        parts = clear_map(parts, cleared)
    warnings = [] if has_metal_warning else list(dense.warnings)
    if count := len(selection.left_out.suggestions):
        subject = "1 lesion of the calcium map was" if count == 1 else f"{count} lesions of the calcium map were"
        message = f"{subject} left out, as probably noise or not coronary calcium."
        warnings.append(ScanWarning("map-left-out", message))
    method = method_result("automatic", selection.lesions, rules, scan.image.GetSpacing(), selection.suggestions)
    return MapScore(method, parts, tuple(warnings))
