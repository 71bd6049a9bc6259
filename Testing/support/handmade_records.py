"""Results made by hand, without a scan."""

from dataclasses import replace

from CACScoringLib.core.acquisition import Acquisition
from CACScoringLib.core.labels import Artery
from CACScoringLib.record.findings import Categories
from CACScoringLib.record.rules import ScoringRules
from CACScoringLib.record.score_record import HeartRecord, InputRecord, ScoreRecord
from CACScoringLib.record.scores import Lesion, LesionSet, MethodScore, Verdict
from CACScoringLib.scoring.scores import rules_of_map, score_of, scores_by_site


def lesion(agatston, artery=Artery.LAD, probability=1.0, counts=True):
    """Make a lesion that lies in a scan of `record`, with the networks' verdict."""
    verdict = {"not_coronary_probability": 1 - probability, "counts": counts, "kinds": {"coronary": 1.0}}
    scores = {"agatston": agatston, "clinical_agatston": agatston, "volume_mm3": 0.0, "pseudo_mass_hu_mm3": 0.0}
    place = {"voxels": 9, "centroid_ras_mm": (-12.0, -12.0, 9.0), "components": (), "peak_hu": 250.0, "mean_hu": 180.0}
    return Lesion(
        id=1, site=artery, lesions=1, **scores, **place, verdict=Verdict(artery=artery, confidence=1.0, **verdict)
    )


def method(name="threshold", lesions=(), interval=None):
    """Make an automatic score of lesions, those left out among them. interval: Of the total."""
    counted = [x for x in lesions if x.verdict.counts]
    rules = ScoringRules() if name == "threshold" else rules_of_map(ScoringRules(), 20.0, 120.0)
    parts = {"total": replace(score_of(counted), interval_90=interval), "arteries": scores_by_site(counted, Artery)}
    return MethodScore(status="automatic", rules=rules, **parts, table=LesionSet.of(lesions))


def record(methods, kernel=None, thickness_mm=2.5, **categories):
    """Make the record of a scan of 18 × 16 × 8 voxels. categories: Fields of `Categories`."""
    return ScoreRecord(
        input=InputRecord("scan", (18, 16, 8), (2.0, 2.0, thickness_mm), ""),
        acquisition=Acquisition("DICOM", kernel=kernel, slice_thickness_mm=thickness_mm),
        heart=HeartRecord("given"),
        warnings=(),
        models=(),
        methods=methods,
        categories=Categories("threshold", "automatic", "", "A0", 39.1, **categories),
    )
