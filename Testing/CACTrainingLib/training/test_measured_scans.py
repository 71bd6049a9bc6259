"""What was measured of a scan is kept, with what follows from its kept heart."""

import json

import numpy as np
import pytest

from CACTrainingLib.training import measured_scans
from CACTrainingLib.training.measured_scans import MeasuredScan, measure


def test_what_a_kept_scan_shows_of_the_heart_is_told_by_its_kept_heart(tmp_path, monkeypatch):
    monkeypatch.setattr(measured_scans, "_name", lambda scan, hashes: f"{len(hashes)}")
    facts = {"pixel_mm": 0.5, "slice_spacing_mm": 3.0, "noise_hu": 20.0}
    kept = MeasuredScan("1", "clean", False, [], [], 0.0, None, {}, 1.0, facts)
    (tmp_path / "4.json").write_text(json.dumps(vars(kept)))
    assert measure(None, (None,) * 4, tmp_path).facts == facts, "without a kept heart nothing is said of it"
    mask = np.zeros((8, 20, 30), np.uint8)
    mask[:4, 5:9, 10:16] = 1
    np.savez_compressed(tmp_path / "2-heart.npz", mask=mask)
    found = measure(None, (None,) * 4, tmp_path).facts
    assert {key: found[key] for key in facts} == facts
    assert found["field_of_view_mm"] == 15.0
    assert found["heart_ml"] == pytest.approx(96 * 0.75 / 1000)
    assert found["heart_cut_percent"] == 100.0
