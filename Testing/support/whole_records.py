"""The content of a `scores.json` that has what readers rely on, and no more."""


def whole_record() -> dict:
    score = {
        "agatston": 3.0,
        "clinical_agatston": 3.0,
        "pseudo_mass_hu_mm3": 30.0,
        "lesions": 1,
        "interval_90": [0.0, 9.5],
    }
    method = {
        "status": "reviewed",
        "reviewed": True,
        "agatston_scale": None,
        "total": score,
        "arteries": {"LM": score},
        "lesions": [score],
    }
    return {
        "input": {"name": "ct", "size": [9, 9, 9], "spacing_mm": [0.7, 0.7, 3]},
        "acquisition": {"kvp": 120.0, "kernel": None},
        "measured": None,
        "heart": {"source": "given"},
        "warnings": [{"code": "a", "message": "b"}],
        "rules": {"threshold": {"threshold_hu": 130.0}},
        "models": [],
        "methods": {"threshold": method},
    }
