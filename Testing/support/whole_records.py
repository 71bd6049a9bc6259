"""The content of a `scores.json` that has what readers rely on, and no more."""

from CACScoringLib.record.score_record import ScoreRecord, record_from

MEASURED = {"median_hu": 45.0, "bright_hu": 50.0, "noise_hu": 20.0, "windows": 9}
CATEGORIES = {
    "method": "threshold",
    "status": "automatic",
    "risk_class": "11–100",
    "cac_drs": "A1/N1",
    "arterial_age_years": 60.0,
}


def record_of(content: dict) -> ScoreRecord:
    """Return content as read from a file."""
    return record_from(content, "scores.json")


def whole_record() -> dict:
    score = {
        "agatston": 3.0,
        "clinical_agatston": 3.0,
        "volume_mm3": 2.0,
        "pseudo_mass_hu_mm3": 30.0,
        "lesions": 1,
        "interval_90": [0.0, 9.5],
    }
    method = {"status": "reviewed", "reviewed": True, "agatston_scale": None, "total": score, "arteries": {"LM": score}}
    place = {"voxels": 2, "peak_hu": 180.0, "mean_hu": 150.0, "centroid_ras_mm": [0, 1, 2.5], "components": []}
    method["lesions"] = [{**score, **place, "id": 1, "artery": "LM"}]
    return {
        "schema": "cac-score/1",
        "input": {"name": "ct", "size": [9, 9, 9], "spacing_mm": [0.7, 0.7, 3], "voxels_sha256": "0" * 64},
        "acquisition": {"file_format": "NRRD", "kvp": 120.0, "kernel": None},
        "measured": None,
        "heart": {"source": "given"},
        "warnings": [{"code": "a", "message": "b"}],
        "rules": {"threshold": {"threshold_hu": 130.0}},
        "models": [],
        "methods": {"threshold": method},
    }


def automatic_record(threshold_hu: dict[str, float]) -> dict:
    """Content of an automatic result without calcium. threshold_hu: Threshold by method."""
    score = {"agatston": 0.0, "clinical_agatston": 0.0, "volume_mm3": 0.0, "pseudo_mass_hu_mm3": 0.0, "lesions": 0}
    method = {"status": "automatic", "reviewed": False, "arteries": {}, "total": score, "lesions": []}
    rules = {name: {"threshold_hu": value} for name, value in threshold_hu.items()}
    return {**whole_record(), "rules": rules, "methods": dict.fromkeys(rules, method)}
