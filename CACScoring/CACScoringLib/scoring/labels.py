"""Labels of lesions by the networks or a reader's label map: what counts by each method, and what is left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from ..calcium_map.decomposition import DecomposedHeart, Decomposition, clear_map
from ..core.ct import ScanWarning
from ..core.labels import Artery, Labelled, NonCoronary
from ..record.scores import COUNTED
from .judge import calcium_of, judge_map
from .lesions import find_lesions, labelled_voxels
from .map_evidence import complete_map
from .reader_labels import ReaderLabels
from .score import LesionLabels, ScanFacts
from .scores import rules_of_map
from .sites import DenseVoxels, dense_voxels, verdicts_by_place


def clinical_labels(
    facts: ScanFacts, reader: ReaderLabels | None = None, status: str = "reviewed", is_judged: bool = True
) -> LesionLabels:
    """Label the lesions of the clinical rule: those that a reader labelled, else those that count by their verdicts,
    else everything dense where arteries run.

    Args:
        facts: Facts of the scan.
        reader: The reader's labels; None without a reader.
        status: Status of the reader's labels: "reviewed" if a person vouches for them.
        is_judged: False to list all candidates, whatever their verdicts.
    """
    scan, rules, has_territories = facts.scan, facts.rules, facts.region.territories is not None
    judged = facts.judged if is_judged else None
    if reader is None and judged is not None:
        return LesionLabels("automatic", rules, calcium_of(judged), knows_elsewhere=True)
    is_dense = scan.hu >= rules.threshold_hu
    if reader is not None:
        is_dense &= reader.sites == 0
    if judged is None:
        voxels = dense_voxels(facts.region, is_dense, scan.grid)
    else:
        voxels = DenseVoxels.of(calcium_of(judged).non_coronary, None)
        voxels = voxels.where(is_dense.reshape(-1)[voxels.flat])
    sites = Labelled(voxels.flat, voxels.sites)
    if reader is None:
        dense = find_lesions(scan.image, sites, rules)
        if has_territories:
            by_place = iter(verdicts_by_place(dense.coronary, voxels))
            kinds = dense.columns["site"]
            dense = dense.with_columns(verdict=[next(by_place) if isinstance(x, Artery) else None for x in kinds])
        return LesionLabels("candidates", rules, dense, knows_elsewhere=has_territories)
    # The networks' sites stand for a reader who labelled nothing outside the arteries.
    is_other = (has_territories and not reader.has_elsewhere) & (sites.values > max(Artery))
    sites = labelled_voxels(reader.sites).with_labels(sites.flat[is_other], sites.values[is_other])
    return LesionLabels(
        status,
        rules,
        find_lesions(scan.image, sites, rules),
        of_reader=(Artery, NonCoronary) if reader.has_elsewhere else (Artery,),
        knows_elsewhere=has_territories or reader.has_elsewhere,
        no_calcium=status == "reviewed" and reader.no_calcium,
    )


def map_labels(
    facts: ScanFacts, decomposed: DecomposedHeart, by_reader: Mapping[int, bool]
) -> tuple[LesionLabels, Decomposition, list[ScanWarning]]:
    """Label the lesions of the calcium map that count, and clear the others from the map.

    A reader's labels of lesions in the CT end at the threshold of the clinical rule, so they do not review the map.

    Args:
        facts: Facts of the scan.
        decomposed: Its calcium map.
        by_reader: A reader's overrides of slices.

    Returns:
        The labels, the map of these lesions alone, and doubts about them.
    """
    scan, judged = facts.scan, facts.judged
    warnings: list[ScanWarning] = []
    if judged is not None and not decomposed.parts.settings.without_completion:
        parts, count = complete_map(decomposed.parts, scan, judged.of_status(COUNTED), by_reader)
        decomposed = replace(decomposed, parts=parts)
        if count:
            message = (
                f"In {count} place(s) the calcium map misses lesions that certainly count; what exceeds blood was "
                "added there."
            )
            warnings.append(ScanWarning("map-completed", message))
    parts = decomposed.parts
    rules = rules_of_map(facts.rules, parts.settings.floor_hu, scan.acquisition.calcium_kvp)
    lesions = judge_map(facts, rules, decomposed)
    counted = lesions.of_status(COUNTED)
    excluded = np.setdiff1d(lesions.every.flat, counted.voxels.flat, assume_unique=True)
    cleared = np.zeros(parts.hu.shape, bool)
    cleared.reshape(-1)[excluded] = True
    if count := len(lesions.ids) - len(counted.ids):
        subject = "1 lesion of the calcium map was" if count == 1 else f"{count} lesions of the calcium map were"
        message = f"{subject} left out, as probably noise or not coronary calcium."
        warnings.append(ScanWarning("map-left-out", message))
    return LesionLabels("automatic", rules, counted), clear_map(parts, cleared), warnings
