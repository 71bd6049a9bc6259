"""Studies of vessel regression and radiomics on simulated scans, with an instant training."""

import zlib
from pathlib import Path

import numpy as np

from CACScoringLib.core import tables
from CACScoringLib.core.labels import ARTERIES
from CACScoringLib.whole_scan.radiomics import THRESHOLD_FEATURE
from CACTrainingLib.whole_scan.radiomics.fitting import HEART_ML, feature_table
from CACTrainingLib.whole_scan.radiomics.study import with_calls

SCORES = (0.0, 0.0, 0.0, 15.0, 60.0, 150.0, 300.0, 900.0)
"""Total scores, all in the LAD; they repeat every eight patients."""


def write_table(
    path: Path, patients: int = 48, first: int = 0, digital: bool = True, contrast: int = 0, totals=SCORES, uses=("",)
) -> Path:
    """Write a table of empty CT files, a row per patient. contrast: number of enhanced CTs, the first ones. totals:
    scores, which repeat; uses likewise."""
    rows = []
    for n in range(first, first + patients):
        folder = path.parent / f"p{n}"
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("ct.nii.gz", *(["truth.json"] if digital else [])):
            (folder / name).write_text('{"body": {}}', encoding="utf-8")
        scores = (totals[n % len(totals)] if artery == "LAD" else 0 for artery in ARTERIES)
        age, sex = 50 + 3 * (n % 8) + n % 5, "FM"[n // 8 % 2]
        use = uses[n % len(uses)]
        rows.append((folder.name, n, f"p{n}/ct.nii.gz", *scores, age, sex, int(n < first + contrast), use))
    columns = ("name", "patient", "ct", *(f"agatston_{a}" for a in ARTERIES), "age_years", "sex", "contrast", "use")
    tables.write_table(path, columns, rows)
    return path


def without_scans(monkeypatch, failing: tuple[str, ...] = ()) -> None:
    """Replace the preparation, which reads scans. failing: names of scans that cannot be prepared."""

    def prepare_vessels(scans, folder, config, workers, progress):
        files = {scan.name: scan.ct for scan in scans if scan.name not in failing}
        return files, dict.fromkeys(failing, "its heart was not found")

    def features_of(scans, folder, workers, progress, encoder):
        names = (HEART_ML, "heart_noise", THRESHOLD_FEATURE)
        used = tuple(scan for scan in scans if scan.name not in failing)
        rows = [(500 + scan.total % 7, int(scan.patient) % 3, np.log1p(scan.total // 20)) for scan in used]
        return feature_table(used, names, np.array(rows, float)), dict.fromkeys(failing, "its heart was not found")

    whole_scan = "CACTrainingLib.whole_scan"
    monkeypatch.setattr(f"{whole_scan}.vessels.fitting.prepare_vessels", prepare_vessels)
    monkeypatch.setattr(f"{whole_scan}.vessels.fitting.heart_ml", lambda file: 500.0)
    monkeypatch.setattr(f"{whole_scan}.radiomics.fitting.features_of", features_of)


def fake_training(study, run, folder):
    """Predict the truth with noise, in place of `validate`: much for "cnn" and "heart", little for the others."""
    generator = np.random.default_rng(zlib.crc32(f"{run}".encode()))
    name = getattr(run.configuration, "kind", None) or run.configuration.features
    spread = 3.0 if name in ("cnn", "heart") else 0.1
    values = {}
    for part, rows in study.predicted_by(run.fold):
        scores = np.array([[study.cohort.scans[row].scores[artery] for artery in ARTERIES] for row in rows])
        predicted = (1 + scores) * np.exp(generator.normal(0, spread, (len(rows), 1))) - 0.5
        if not hasattr(run.configuration, "kind"):
            predicted = with_calls(predicted.sum(1) / (5 + predicted.sum(1)), 0.5)
        values[part] = predicted.tolist()
    return {**values, "seconds": 1.0}
