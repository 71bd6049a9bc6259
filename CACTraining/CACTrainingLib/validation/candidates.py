"""Calibration data of a scan's results: every lesion with its probability, recorded intervals, facts of the scan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import SimpleITK as sitk

from CACScoringLib.io.reading import read_mask
from CACScoringLib.networks.configs import LESION_KINDS
from CACScoringLib.quality.calibration import METAL, recorded_facts
from CACScoringLib.record.score_record import ScoreRecord
from CACScoringLib.record.scores import Lesion, Verdict
from CACScoringLib.scoring.lesion_calibration import log_odds
from CACScoringLib.scoring.lesion_network import CORONARY_KINDS

from ..evaluation.scored_scan import SCORED_METHODS


@dataclass(frozen=True)
class Candidate:
    """A lesion that may belong to a score.

    Attributes:
        logit: Recorded log-odds that it is coronary calcium.
        agatston: Agatston score.
        artery: Key of the artery that it would count in.
        can_count: False for noise, devices and calcium of other sites, which no calibration lets count.
        coronary: True where the reference has coronary calcium; None if it has no outlines.
    """

    logit: float
    agatston: float
    artery: str
    can_count: bool = True
    coronary: bool | None = None


@dataclass(frozen=True)
class ScanCandidates:
    """Lesions that may belong to the automatic scores of a scan, with facts of the scan.

    Attributes:
        lesions: By key of `scored_scan.SCORED_METHODS`: all that the networks judged for the clinical score, and what
            counts in the map.
        intervals: Recorded interval of the total by the same keys; None if there was none.
        probabilities: Recorded probabilities of the categories; empty if withheld.
        facts: `familiarity.FACTS`.
        metal: True if there is metal near the arteries, where errors of scores are unknown.
    """

    lesions: dict[str, list[Candidate]]
    intervals: dict[str, list[float] | None]
    probabilities: dict[str, float]
    facts: dict[str, float | None]
    metal: bool = False


def scan_candidates(record: ScoreRecord, folder: Path, coronary: Sequence[bool] | None) -> ScanCandidates | None:
    """Candidates of a scan's results; None if the clinical score is not automatic, or is by an earlier version.

    Args:
        record: The scan's result.
        folder: Its folder.
        coronary: True for each `MethodScore.listed` lesion of the clinical score where the reference has coronary
            calcium; None if it has no outlines.

    Raises:
        CTError: A file cannot be read.
    """
    method = record.methods.get("threshold")
    if method is None or method.status != "automatic":
        return None
    if not all(lesion.verdict and lesion.verdict.kinds for lesion in (*method.lesions, *method.left_out)):
        return None
    labels = [None] * len(method.listed) if coronary is None else list(map(bool, coronary))
    heart = sitk.GetArrayFromImage(sitk.DICOMOrient(read_mask(folder / "heart.nii.gz"), "LPS")) != 0
    mapped = record.methods.get("decomposition")
    pairs = zip(method.listed, labels, strict=True)
    return ScanCandidates(
        lesions={
            "automatic": [_candidate(x, x.verdict, label) for x, label in pairs if x.verdict and x.verdict.kinds],
            "map": [] if mapped is None else [_candidate(x, x.verdict, None) for x in mapped.lesions if x.verdict],
        },
        intervals={
            key: interval and list(interval)
            for key, (name, _) in SCORED_METHODS.items()
            if name in record.methods
            for interval in [record.methods[name].total.interval_90]
        },
        probabilities=(record.categories.probabilities if record.categories else None) or {},
        facts=recorded_facts(record, heart),
        metal=record.familiarity is not None and METAL in record.familiarity.causes,
    )


def _candidate(lesion: Lesion, verdict: Verdict, coronary: bool | None) -> Candidate:
    in_arteries = sum(verdict.kinds.get(LESION_KINDS[column], 0.0) for column in CORONARY_KINDS)
    can_count = verdict.counts or in_arteries >= 0.5
    logit = float(log_odds(verdict.probability))
    return Candidate(logit, lesion.clinical_agatston, verdict.artery.key, can_count, coronary)
