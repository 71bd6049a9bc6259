"""Judges of lesions: the networks' findings in a scan, weighed by the evidence stored with the map (`evidence`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..anatomy.heart_region import HeartRegion
from ..anatomy.territories import Territories
from ..calcium_map.decomposition import DecomposedHeart
from ..core.ct import CTScan
from ..models.cards import LoadedModel
from ..models.choice import Networks
from ..networks.configs import LESION_KINDS
from ..record.scores import LesionSet, Verdict
from .borders import sites_by_looks
from .evidence import (
    Evidence,
    lies_elsewhere,
    log_odds,
    map_features,
    place_log_odds,
    probability_of_candidates,
    shared_voxels,
    with_verdicts,
)
from .lesion_network import CORONARY_KINDS, lesion_kinds
from .noise_specks import NoiseSpecks
from .sites import verdicts_by_place

LOOKS_CORONARY = 0.5
"""Probability by its looks from which a candidate's slices are decomposed, whatever the slice classifier answers."""

OTHER_KINDS = {
    "aortic valve and root": "calcium of the aortic valve or root",
    "mitral annulus": "calcium of the mitral annulus",
    "aorta": "calcium of the aorta",
    "pericardium": "calcium of the pericardium or pleura",
    "other calcium": "calcium of a node or muscle",
    "lead": "a lead",
    "wire": "a wire",
    "clip": "a clip",
    "catheter": "a catheter",
    "prosthetic valve": "a prosthetic valve",
    "noise": "noise or bright tissue",
}
"""Words for those of LESION_KINDS that a candidate may look like when it is left out."""

STENT_PROBABILITY = 0.75
"""Probability from which a candidate is named as a possible stent. Of 300 scans of 150 digital patients it names 2 of 4
with stents, and 6 of the others, of three patients."""


@dataclass(frozen=True)
class CandidateJudge:
    """Judge of the candidates of the clinical rule.

    Attributes:
        scan: The scan as scored.
        territories: The heart's territories.
        evidence: Weights of CANDIDATE_FEATURES.
        network: Lesion network.
    """

    scan: CTScan
    territories: Territories
    evidence: Evidence
    network: LoadedModel

    @classmethod
    def of(cls, networks: Networks | None, scan: CTScan, heart: HeartRegion) -> CandidateJudge | None:
        """Return the judge; None where evidence, lesion network or territories are missing.

        Raises:
            CTError: The stored evidence does not match this version.
        """
        if networks is None or networks.lesions is None or heart.territories is None:
            return None
        evidence = Evidence.stored(networks.decomposition.card.calibration)
        if evidence is None:
            return None
        return cls(scan, heart.territories, evidence, networks.lesions)

    def sites_by_looks(self, sites: np.ndarray) -> np.ndarray:
        """Take parts that look like calcium of a valve or the aorta from the arteries (`borders.sites_by_looks`)."""
        return sites_by_looks(sites, self.scan, self.territories, self.network)

    def kinds(self, lesions: LesionSet) -> np.ndarray:
        """Ask the lesion network what the candidates among all lesions of the clinical rule look like.

        Returns:
            Probability of each of LESION_KINDS, float32 [n, kinds].

        Raises:
            CTError: The device has too little memory.
        """
        candidates = lesions.coronary
        return lesion_kinds(candidates.id_map, candidates.ids, self.scan, self.territories, self.network)

    def judge(self, lesions: LesionSet, kinds: np.ndarray, map_hu: np.ndarray) -> JudgedLesions:
        """Give the candidates their verdicts by all evidence.

        Args:
            lesions: All lesions of the clinical rule, of which those in the arteries are candidates.
            kinds: From `kinds`.
            map_hu: Calcium map before any lesion is left out, HU [k, j, i].

        Raises:
            CTError: The stored evidence does not match this version.
        """
        candidates, specks = lesions.coronary, NoiseSpecks.of(lesions, self.territories)
        verdicts = verdicts_by_place(candidates, self.territories)
        features = candidate_features(candidates, verdicts, kinds, specks, map_hu)
        looks_like_stent = (kinds[:, LESION_KINDS.index("stent")] >= STENT_PROBABILITY).tolist()
        verdicts = [
            replace(verdict, is_stent=is_stent)
            for verdict, is_stent in zip(self.evidence.judge(verdicts, features), looks_like_stent, strict=True)
        ]
        reasons = self.evidence.reasons(features, looks_of(kinds))
        most_not_coronary = self.evidence.most_not_coronary
        return JudgedLesions(with_verdicts(candidates, verdicts, most_not_coronary, reasons), most_not_coronary)


@dataclass(frozen=True)
class JudgedLesions:
    """Candidates with their verdicts.

    Attributes:
        lesions: Lesions, those left out included.
        most_not_coronary: Probability of not being coronary above which they are left out.
    """

    lesions: LesionSet
    most_not_coronary: float


def judge_map(
    lesions: LesionSet,
    heart: HeartRegion,
    decomposed: DecomposedHeart,
    noise_hu: float | None,
    dense: LesionSet,
    judged: JudgedLesions | None,
) -> LesionSet:
    """Give the lesions of the calcium map their verdicts: that of what is dense in them, or by the map's own evidence.

    Args:
        lesions: All lesions of the map, of which those in the arteries may count.
        heart: Heart and territories.
        decomposed: Calcium map and slice probabilities.
        noise_hu: Noise of blood, SD; None if it could not be measured.
        dense: All lesions of the clinical rule.
        judged: Those of them in the arteries with their verdicts; None if they have none.

    Returns:
        The lesions in the arteries.

    Raises:
        CTError: The stored evidence does not match this version.
    """
    settings = decomposed.parts.settings
    coronary, most_not_coronary = lesions.coronary, settings.most_not_coronary
    verdicts = verdicts_by_place(coronary, heart.territories)
    features = map_features(coronary, verdicts, decomposed.slices.on_scan, noise_hu)
    verdicts = Evidence(settings.evidence_weights, None, most_not_coronary).judge(verdicts, features)
    if judged is None:
        return with_verdicts(coronary, verdicts, most_not_coronary)
    candidates = judged.lesions
    elsewhere = lies_elsewhere(coronary, dense, candidates)
    probabilities = np.array([x.verdict.probability for x in candidates.lesions if x.verdict is not None], float)
    of_dense = probability_of_candidates(shared_voxels(coronary, candidates), probabilities, elsewhere)
    is_dense = ~np.isnan(of_dense)
    for n in np.flatnonzero(is_dense).tolist():
        verdicts[n] = replace(verdicts[n], not_coronary_probability=float(1 - of_dense[n]))
    return with_verdicts(coronary, verdicts, np.where(is_dense, judged.most_not_coronary, most_not_coronary))


def slices_of_coronary_looks(candidates: LesionSet, kinds: np.ndarray) -> tuple[int, ...]:
    """Find the slices of candidates that look like coronary calcium (LOOKS_CORONARY).

    Args:
        candidates: Candidates of the clinical rule.
        kinds: Probability of each of LESION_KINDS, [n, kinds].

    Returns:
        The slices, rising.
    """
    looks_coronary = kinds[:, CORONARY_KINDS].sum(axis=1) >= LOOKS_CORONARY
    coronary = (lesion for lesion, looks in zip(candidates.lesions, looks_coronary, strict=True) if looks)
    return tuple(sorted({k for lesion in coronary for k in lesion.slices}))


def looks_of(kinds: np.ndarray) -> list[str]:
    """Return what candidates look like if they are no coronary calcium, in words.

    Args:
        kinds: Probability of each of LESION_KINDS, [n, kinds].
    """
    columns = [LESION_KINDS.index(kind) for kind in OTHER_KINDS]
    words = list(OTHER_KINDS.values())
    return [words[n] for n in kinds[:, columns].argmax(1)]


def candidate_features(
    candidates: LesionSet,
    verdicts: Sequence[Verdict],
    kinds: np.ndarray,
    specks: NoiseSpecks,
    map_hu: np.ndarray,
) -> dict[str, np.ndarray]:
    """Measure CANDIDATE_FEATURES of each candidate of the clinical rule.

    Args:
        candidates: The candidates.
        verdicts: Of the candidates' places, in their order.
        kinds: Probability of each of LESION_KINDS, [n, kinds].
        specks: Specks of noise in the scan.
        map_hu: Calcium map, HU [k, j, i].

    Returns:
        Values by name, float64 [n].
    """
    looks, voxels = kinds[:, CORONARY_KINDS].sum(axis=1).tolist(), candidates.voxels
    return {
        "log_rarity": specks.rarity(candidates),
        "place_logit": place_log_odds(verdicts),
        "look_logit": np.array([log_odds(probability) for probability in looks], float),
        "in_map": np.isin(candidates.ids, voxels.ids[map_hu.reshape(-1)[voxels.flat] > 0]).astype(float),
    }
