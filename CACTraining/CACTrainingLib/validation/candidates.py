"""Calibration data of a scan's results: probability of every candidate, recorded intervals, facts of the scan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import SimpleITK as sitk

from CACScoringLib.core.labels import Artery
from CACScoringLib.io.reading import read_mask
from CACScoringLib.networks.configs import LESION_KINDS
from CACScoringLib.quality.calibration import METAL, recorded_facts
from CACScoringLib.record.score_record import ScoreRecord
from CACScoringLib.record.scores import Lesion, Verdict
from CACScoringLib.scoring.lesion_network import CORONARY_KINDS
from CACScoringLib.scoring.map_evidence import log_odds

from ..evaluation.scored_scan import SCORED_METHODS


@dataclass(frozen=True)
class ScanCandidates:
    """All candidates of an automatic clinical score, excluded ones too, with facts of their scan.

    The first four attributes hold lists of equal length; `coronary` may be None.

    Attributes:
        logits: Log-odds that each candidate is coronary calcium, as recorded.
        agatston: Agatston score of each candidate.
        arteries: Key of each candidate's artery; "unassigned" of those that are no calcium of an artery at any limit.
        coronary: True where the reference has coronary calcium; None if the reference has no outlines.
        intervals: Recorded interval of the total by key of `scored_scan.SCORED_METHODS`; None if there was none.
        probabilities: Recorded probabilities of the categories; empty if withheld.
        map_arteries: Agatston score of the map by artery; empty without a map.
        facts: `familiarity.FACTS`.
        metal: True if there is metal near the arteries, where errors of scores are unknown.
    """

    logits: list[float]
    agatston: list[float]
    arteries: list[str]
    coronary: list[bool] | None
    intervals: dict[str, list[float] | None]
    probabilities: dict[str, float]
    map_arteries: dict[str, float]
    facts: dict[str, float | None]
    metal: bool = False


def candidates_of(record: ScoreRecord) -> list[Lesion]:
    """Candidates of the automatic clinical score: counted ones, then excluded ones."""
    method = record.methods["threshold"]
    return [*method.lesions, *method.left_out]


def scan_candidates(record: ScoreRecord, folder: Path, coronary: Sequence[bool] | None) -> ScanCandidates | None:
    """Candidates of a scan's results; None if the clinical score is not automatic, or is by an earlier version.

    Args:
        record: The scan's result.
        folder: Its folder.
        coronary: True for each of `candidates_of` where the reference has coronary calcium; None if it has no outlines.

    Raises:
        CTError: A file cannot be read.
    """
    method = record.methods.get("threshold")
    if method is None or method.status != "automatic":
        return None
    lesions = candidates_of(record)
    verdicts = [lesion.verdict for lesion in lesions if lesion.verdict is not None and lesion.verdict.kinds]
    if len(verdicts) < len(lesions):
        return None
    heart = sitk.GetArrayFromImage(sitk.DICOMOrient(read_mask(folder / "heart.nii.gz"), "LPS")) != 0
    probabilities = record.categories.probabilities if record.categories else None
    mapped = record.methods.get("decomposition")
    return ScanCandidates(
        logits=[log_odds(verdict.probability) for verdict in verdicts],
        agatston=[lesion.clinical_agatston for lesion in lesions],
        arteries=[_artery(verdict) for verdict in verdicts],
        coronary=None if coronary is None else list(map(bool, coronary)),
        intervals={
            key: interval and list(interval)
            for key, (name, _) in SCORED_METHODS.items()
            if name in record.methods
            for interval in [record.methods[name].total.interval_90]
        },
        probabilities=probabilities or {},
        map_arteries={} if mapped is None else {a.key: score.clinical_agatston for a, score in mapped.arteries.items()},
        facts=recorded_facts(record, heart),
        metal=record.familiarity is not None and METAL in record.familiarity.causes,
    )


def _artery(verdict: Verdict) -> str:
    """Return the key of the artery that a candidate would count in."""
    coronary = sum(verdict.kinds.get(LESION_KINDS[column], 0.0) for column in CORONARY_KINDS)
    return (verdict.artery if verdict.counts or coronary >= 0.5 else Artery.UNASSIGNED).key
