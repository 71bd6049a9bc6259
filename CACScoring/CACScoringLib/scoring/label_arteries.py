"""Arteries of a reader's labels: whether they fit the territories, and arteries by territory in their place."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..core.ct import ScanWarning
from ..core.errors import MaskError
from ..core.labels import MAIN_ARTERIES, TERRITORIES, Artery
from ..facts.measurement import ScanFacts
from .labels import ReaderLabels
from .parts import without_slivers

ORCASCORE = {Artery.LM: Artery.LAD, Artery.LAD: Artery.LCX, Artery.LCX: Artery.RCA}
"""Artery that a label of CAC means in the numbering of orCaScore, which has no left main."""

MIN_GAIN = 0.4
"""Excess of another artery's share of a label's dense voxels over its own artery's, from which the label seems to mean
another one. In labels of seven people −1 to −0.5, of five digital patients up to 0.32 (a left main alone); of other
conventions 0.85 to 1 where a label means another artery, 0.65 where one label means all."""

MIN_VOXELS, MIN_SHARE = 4, 0.1
"""Dense voxels of a label that is judged, and of an artery that a label is said to hold or of the heart's other side:
number, and share of them (in labels of seven people up to 2 % lie on the other side). The share is also that of wrong
labels in all."""

MAX_LM_MM = 50.0
"""Largest extent of calcium in a left main, which is 5 to 25 mm long."""


def artery_warnings(sites: np.ndarray, facts: ScanFacts) -> list[ScanWarning]:
    """Warn of labels whose calcium lies in the territories of other arteries, as of other conventions.

    sites: As in `ReaderLabels`.
    """
    is_labelled = np.isin(sites, MAIN_ARTERIES) & (facts.scan.hu >= facts.rules.threshold_hu)
    flat = np.flatnonzero(is_labelled)
    labels = sites.reshape(-1)[flat]
    if facts.region.territories is None:
        return _long_left_main(flat, labels, facts)
    likely = _likely_arteries(flat, facts)
    counts = {
        label: np.array([np.count_nonzero(likely[labels == label] == artery) for artery in MAIN_ARTERIES])
        for label in MAIN_ARTERIES
        if np.count_nonzero(labels == label) >= MIN_VOXELS
    }
    likeliest = {label: MAIN_ARTERIES[int(count.argmax())] for label, count in counts.items()}
    wrong = [label for label, count in counts.items() if _is_wrong(label, count)]
    # Other conventions move much of the calcium; the network errs in single small plaques.
    if sum(counts[label].sum() for label in wrong) < max(1, MIN_SHARE * len(labels)):
        return []
    places = "; ".join(f"label {label.value} ({label.key}) in {_shares(counts[label])}" for label in wrong)
    message = (
        f"Calcium lies in the territories of other arteries than its labels: {places}.{_proposal(counts, likeliest)}"
    )
    # At least 93 % of sound labels lie in their artery's territory.
    return [ScanWarning("labels-other-artery", message, severe=bool((likely == labels).mean() < 0.5))]


def _is_wrong(label: Artery, count: np.ndarray) -> bool:
    """True if a label's calcium lies in one other artery far more than in its own, or on both sides of the heart.

    count: Its dense voxels in each of MAIN_ARTERIES.
    """
    is_right = np.array([artery == Artery.RCA for artery in MAIN_ARTERIES])
    of_other_side = count[is_right != (label == Artery.RCA)].sum()
    gain = np.delete(count, label - Artery.LM).max() - count[label - Artery.LM]
    return bool(of_other_side >= max(MIN_VOXELS, MIN_SHARE * count.sum()) or gain >= MIN_GAIN * count.sum())


def _proposal(counts: dict[Artery, np.ndarray], likeliest: dict[Artery, Artery]) -> str:
    """Return a sentence about the convention that labels follow; empty if none fits.

    Args:
        counts: Dense voxels by label, in each of MAIN_ARTERIES.
        likeliest: Artery that most of a label's voxels lie in.
    """
    if len(counts) == 1:
        ((label, count),) = counts.items()
        if np.count_nonzero(count >= max(MIN_VOXELS, MIN_SHARE * count.sum())) > 1:
            return f" The map has the label {label.value} alone: it probably marks calcium of all arteries."
    if all(ORCASCORE.get(label) == artery for label, artery in likeliest.items()):
        return " The labels may be numbered as in orCaScore (1 LAD, 2 LCX, 3 RCA)."
    if len(set(likeliest.values())) < len(likeliest):
        return ""
    order = ", ".join(f"{label.value} {artery.key}" for label, artery in likeliest.items())
    return f" They would fit as {order}."


def _shares(count: np.ndarray) -> str:
    """Return the arteries of dense voxels with their shares, the largest first."""
    shares = count / count.sum()
    order = [n for n in np.argsort(-count, kind="stable") if shares[n] >= MIN_SHARE]
    return ", ".join(f"the {MAIN_ARTERIES[n].key} {shares[n]:.0%}" for n in order)


def _long_left_main(flat: np.ndarray, labels: np.ndarray, facts: ScanFacts) -> list[ScanWarning]:
    """Warn, without territories, of a map with the left main's label alone that reaches further than a left main."""
    if not len(flat) or (labels != Artery.LM).any():
        return []
    places = np.stack(np.unravel_index(flat, facts.scan.hu.shape), axis=1) * facts.scan.image.GetSpacing()[::-1]
    extent_mm = float(np.linalg.norm(np.ptp(places, axis=0)))
    if extent_mm <= MAX_LM_MM:
        return []
    message = (
        f"The map has the label {Artery.LM.value} ({Artery.LM.key}) alone, on calcium up to {extent_mm:.0f} mm apart, "
        "further than a left main reaches: it probably marks calcium of all arteries."
    )
    return [ScanWarning("labels-other-artery", message, severe=True)]


def _likely_arteries(flat: np.ndarray, facts: ScanFacts) -> np.ndarray:
    """Return the artery in whose territory voxels lie most probably, [n]."""
    assert facts.region.territories is not None
    columns = [TERRITORIES.index(artery.key) for artery in MAIN_ARTERIES]
    probability = facts.region.territories.at(flat, facts.scan.hu.shape)[:, columns]
    return np.array(MAIN_ARTERIES, np.uint8)[probability.argmax(axis=1)]


def by_territory(reader: ReaderLabels, facts: ScanFacts) -> ReaderLabels:
    """Return labels whose coronary lesions have the arteries of their territories, whatever artery they were labelled.

    A lesion that spans arteries is split between them voxel by voxel, as unlabelled ones are.

    Raises:
        MaskError: There are no territories.
    """
    if facts.region.territories is None:
        raise MaskError(
            "Arteries by territory need the network of the territories. Label the arteries, or score with it."
        )
    sites = reader.sites.copy()
    flat = np.flatnonzero((sites > 0) & (sites <= max(Artery)))
    arteries = _likely_arteries(flat, facts)
    dense = facts.scan.hu.reshape(-1)[flat] >= facts.rules.threshold_hu
    if dense.any():
        arteries[dense] = without_slivers(flat[dense], arteries[dense], facts.scan.grid)
    changed = np.count_nonzero(dense & (arteries != sites.reshape(-1)[flat]))
    sites.reshape(-1)[flat] = arteries
    message = (
        f"The labelled calcium was assigned to arteries by the network's territories: {changed} of "
        f"{np.count_nonzero(dense)} dense voxels have another artery than their label."
    )
    return replace(reader, sites=sites, warnings=(*reader.warnings, ScanWarning("arteries-by-territory", message)))
