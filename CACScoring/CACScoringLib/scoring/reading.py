"""Score of a reader's lesions by the clinical rule."""

from __future__ import annotations

from ..anatomy.heart_region import HeartRegion
from ..core.ct import CTScan
from .artefacts import metal_lesions, metal_warning
from .candidates import ClinicalScore, DenseLesions, find_dense_lesions
from .lesions import find_lesions
from .methods import elsewhere_result, method_result
from .reader_labels import ReaderLabels, outside_warning
from .rules import ScoringRules


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
    image, spacing = scan.image, scan.image.GetSpacing()
    labelled = find_lesions(image, reader.sites, rules)
    is_reviewed = status == "reviewed"
    method = method_result(status, labelled.coronary, rules, spacing, no_calcium=is_reviewed and reader.no_calcium)
    elsewhere = None
    if reader.has_elsewhere:
        elsewhere = elsewhere_result(is_reviewed, rules, labelled, spacing)
    elif heart.territories is not None:
        unlabelled = find_dense_lesions(image, image, heart, rules, reader.sites)
        elsewhere = elsewhere_result(False, rules, unlabelled.candidates, spacing)
    outside = outside_warning(labelled.coronary, heart.mask)
    metal = metal_warning(labelled, metal_lesions(labelled, image))
    return ClinicalScore(method, elsewhere, (*reader.warnings, *dense.warnings, *outside, *metal))
