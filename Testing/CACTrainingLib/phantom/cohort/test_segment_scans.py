"""Scans with a plaque in each segment: made once, and every voxel of calcium labelled with its plaque."""

from dataclasses import replace

import numpy as np
import pytest
from digital_pairs import SCANNER

from CACTrainingLib.phantom.anatomy.heart import posed_frame
from CACTrainingLib.phantom.anatomy.segments import SEGMENTS
from CACTrainingLib.phantom.cohort import segment_scans
from CACTrainingLib.phantom.cohort.export import LABEL_HU
from CACTrainingLib.phantom.cohort.segment_scans import label_plaques, segment_scan
from CACTrainingLib.phantom.scanner.motion import ScanPose

pytestmark = pytest.mark.long

STILL = ScanPose(table_shift_mm=(14.0, -9.0, 6.0), inspiration=0.5, motion_scale=0.0)
NUMBER = 970000


@pytest.fixture(autouse=True)
def coarse(monkeypatch):
    """Coarse scans of a patient at rest, who lies aside."""
    monkeypatch.setattr(segment_scans, "draw_pair", lambda *_: ((SCANNER, STILL),) * 2)


def test_labels_lie_at_the_plaques():
    patient, scan, segments = segment_scans._simulate(NUMBER, "cardiac", 1.0)
    assert set(segments.values()) <= set(SEGMENTS)
    labels = label_plaques(patient, scan)
    added = scan.calcium_mg_cm3 * scan.scanner.calcium_hu_per_mg_cm3
    assert (added[labels > 0] > LABEL_HU - 1).all()
    assert (labels[added > 3 * LABEL_HU] > 0).all()
    frame, grid = posed_frame(patient.body, STILL), scan.grid
    vessels = {vessel.name: vessel for vessel in patient.tree.vessels}
    for plaque in patient.plaques:
        cloud = plaque.cloud(vessels[plaque.vessel], 0.5).map(frame.to_lps)
        true = np.average(cloud.positions_mm, axis=0, weights=cloud.weights) + STILL.table_shift_mm
        weights = np.where(labels == plaque.id, added, 0)
        middle = np.array([np.average(np.indices(weights.shape)[axis], weights=weights) for axis in (2, 1, 0)])
        assert np.linalg.norm(middle * grid.spacing_mm + grid.origin_mm - true) < 4, plaque


def test_a_scan_is_made_once_and_read_unchanged(tmp_path, monkeypatch):
    folder = tmp_path / "cardiac" / "patient"
    made = segment_scan(NUMBER, "cardiac", 0.4, folder)
    patient, scan, segments = segment_scans._simulate(NUMBER, "cardiac", 0.4)
    assert np.array_equal(made.ct.hu, scan.hu)
    assert np.array_equal(made.labels, label_plaques(patient, scan))
    assert {plaque.id: plaque.segment for plaque in made.plaques} == segments
    assert sum(plaque.mass_mg for plaque in made.plaques) == pytest.approx(patient.mass_mg)
    assert made.ct.acquisition.kvp == 120
    monkeypatch.setattr(segment_scans, "_simulate", lambda *_: pytest.fail("it is there"))
    again = segment_scan(NUMBER, "cardiac", 0.4, folder)
    assert np.array_equal(again.labels, made.labels)
    assert replace(again, ct=None, labels=None) == replace(made, ct=None, labels=None)
