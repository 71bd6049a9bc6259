"""The scans of the study: prepared for every kind, with what else is known of them."""

import json

import numpy as np
import pytest
from in_this_process import InThisProcess
from training_scans import write_scan

from CACScoringLib.core.progress import Progress
from CACScoringLib.networks import vessels as vessel_network
from CACScoringLib.networks.vessels import VesselNetConfig
from CACTrainingLib.data.scan_table import TableScan
from CACTrainingLib.whole_scan import prepared
from CACTrainingLib.whole_scan.scan_table import ARTERIES
from CACTrainingLib.whole_scan.vessels.configurations import Configuration, VesselBudget
from CACTrainingLib.whole_scan.vessels.scans import OTHER, read_scans, scans_of
from CACTrainingLib.whole_scan.vessels.study_runs import config_of, field_of

TINY = VesselNetConfig(slices=6, size=32, field="heart", field_mm=128.0, width=4)


@pytest.fixture
def table(tmp_path, monkeypatch):
    """Four scans of digital patients with their hearts given; the last cannot be read."""
    monkeypatch.setattr(prepared, "Workers", InThisProcess)
    monkeypatch.setattr(prepared, "_one_thread", lambda: None)
    monkeypatch.setitem(vessel_network.PRESETS, "compact", TINY)
    rows = []
    for n in range(4):
        folder = write_scan(tmp_path / f"p{n}", n, coronary=n < 2, valve=n == 2)
        (folder / "regions.nii.gz").write_bytes((folder / "heart.nii.gz").read_bytes())
        scores = dict.fromkeys(ARTERIES, 60.0 if n == 0 else 0.0)
        files = {"ct": folder / "ct.nii.gz", "heart": folder / "heart.nii.gz"}
        rows.append(TableScan(f"p{n}", str(n), files, scores, age_years=60.0 + n, sex="FM"[n % 2]))
    rows[3].ct.write_bytes(b"no picture")
    return rows


def test_scans_are_prepared_with_what_is_known(table, tmp_path):
    budget = VesselBudget(kinds=("cnn", "voxel-sum"))
    known = read_scans(table[:2], table[2:], ["p0", "p1"], budget, tmp_path / "cache", 1, Progress())
    field = field_of(config_of(Configuration("cnn"), "compact"))
    assert list(known.inputs) == [field]
    assert set(known.inputs[field]) == {"p0", "p1", f"{OTHER}p2"}
    assert known.scans.names == ("p0", "p1")
    assert known.noncoronary_controls.names == (f"{OTHER}p2",)
    assert list(known.failed) == [f"{OTHER}p3"]
    assert known.digital
    assert known.scans.agatston.tolist() == [[60] * 4, [0] * 4]
    assert known.scans.factors[:, :2].tolist() == [[60, 0], [61, 1]]
    # A disc of 14 pixels of 4 mm, in 8 slices of 3 mm.
    assert known.scans.factors[0, 2] == pytest.approx(np.pi * 56**2 * 24 / 1000, rel=0.03)
    assert known.noncoronary_controls.elsewhere == (("aortic valve",),)
    # Looked at is who was held out and has a score of 100 or more.
    assert [one.name for one in known.saliency_patients] == ["p0"]
    assert set(prepared.load(known.saliency_patients[0].regions[field])) == {"regions", "grid"}


def test_what_is_not_known_is_no_number(tmp_path):
    truth = tmp_path / "truth.json"
    scan = TableScan("a", "1", {"ct": tmp_path / "ct.nii.gz"}, dict.fromkeys(ARTERIES, 1.0))
    found = scans_of([scan], {"a": 500.0})
    assert np.isnan(found.factors[0]).tolist() == [True, True, False]
    assert found.elsewhere == (None,)
    truth.write_text(json.dumps({"distractors": []}), encoding="utf-8")
    assert scans_of([scan], {"a": 500.0}).elsewhere == ((),)
    truth.write_text("{", encoding="utf-8")
    assert scans_of([scan], {"a": 500.0}).elsewhere == (None,)
