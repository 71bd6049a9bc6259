"""Tables of features: order of scans, and sets of features."""

import numpy as np

from CACTrainingLib.data.scan_table import TableScan
from CACTrainingLib.whole_scan.prepared import PreparedScans
from CACTrainingLib.whole_scan.radiomics import fitting as features
from CACTrainingLib.whole_scan.radiomics.fitting import features_of


def scans(tmp_path, *names):
    return [TableScan(name, name, {"ct": tmp_path}) for name in names]


def test_features_of_the_scans_that_can_be_prepared(monkeypatch, tmp_path):
    def prepare(scans, folder, kind, work, key, workers, progress):
        return PreparedScans({scan.name: scan.name for scan in scans if scan.name != "w"}, {"w": "broken"})

    names = np.array(["heart_a", "candidate_b"])
    monkeypatch.setattr(features, "prepare", prepare)
    monkeypatch.setattr(features, "load", lambda file: {"names": names, "values": np.array([ord(file), 1])})
    table, failed = features_of(scans(tmp_path, "z", "w", "x"), tmp_path)
    assert [scan.name for scan in table.scans] == ["z", "x"]
    assert table.values.tolist() == [[ord("z"), 1], [ord("x"), 1]]
    assert (table.of_set("both"), table.of_set("heart")) == (["heart_a", "candidate_b"], ["heart_a"])
    assert table.columns(["candidate_b"]).tolist() == [[1], [1]]
    assert failed == {"w": "broken"}
