"""The tables of a cohort whose scores are known, without scoring."""

import json
from dataclasses import replace
from pathlib import Path

from CACScoringLib.cohort.parquet import write_tables
from CACScoringLib.cohort.scans import CohortScan
from CACScoringLib.cohort.scoring import ScanRecord, write_record
from CACScoringLib.core.progress import ScanState


def score(agatston, **more):
    known = {"agatston": agatston, "volume_mm3": agatston / 2, "mass_mg": None, "pseudo_mass_hu_mm3": 9.0}
    return {**known, "lesions": 1, "peak_hu": 250, **more}


def method(agatston):
    arteries = {"LAD": score(agatston), "RCA": score(0.0)}
    lesions = [{"id": 1, "artery": "LAD", **score(agatston)}] if agatston else []
    total = score(agatston, interval_90=[agatston / 2, 2 * agatston])
    return {"status": "automatic", "reviewed": False, "total": total, "arteries": arteries, "lesions": lesions}


def content(agatston):
    return {
        "input": {"size": [512, 512, 100], "spacing_mm": [0.7, 0.7, 3.0]},
        "acquisition": {"file_format": "DICOM", "kvp": 120.0, "patient_name": "Doe^Jane", "series_number": 3},
        "measured": {"noise_hu": 21.5},
        "categories": {"method": "threshold", "risk_class": "11–100", "cac_drs": "A1"},
        "warnings": [{"code": "noisy", "message": "x"}, {"code": "noisy", "message": "y"}],
        "seconds": {"reading": 1.0, "heart": 2.5},
        "methods": {"threshold": method(agatston), "decomposition": method(agatston * 1.5)},
    }


def cohort(folder, *scores, identify=False):
    """A cohort of scans of these scores; None is one that failed."""
    record, scans = {"scans": {}}, []
    for i, agatston in enumerate(scores):
        name = f"Doe_Jane_{i}"
        scan = CohortScan(name, Path(f"/data/{name}/ct.nii.gz"), name, patient="Jane", group="women")
        state = ScanState(i, name, folder / name, scan.ct, state="done")
        record["scans"][name] = {"scan": f"{i:032x}"}
        if agatston is None:
            reason = f"/data/{name}/ct.nii.gz is empty ({i} bytes). {name} cannot be read."
            state = replace(state, state="failed", reason=reason)
        else:
            (folder / name).mkdir(exist_ok=True)
            (folder / name / "scores.json").write_text(json.dumps(content(agatston)))
            write_record(folder / name, ScanRecord("c" * 64, "f", "s", 4.0 + i, 2 * 10**9))
        scans.append((f"{i:032x}", scan, state))
    write_tables(folder, scans, identify)
    (folder / "cohort.json").write_text(json.dumps(record))
    return folder
