"""Test the data set for networks of one's own, and the example that trains one."""

import runpy
from pathlib import Path

import numpy as np
import pytest
from coca_files import region, write_gated
from training_scans import CALCIUM_HU, HU_PER_MG_CM3, write_scan

from CACScoringLib.core.labels import Artery
from CACScoringLib.io.reading import read_ct
from CACTrainingLib.data.datasets import find_scans
from CACTrainingLib.data.scan_dataset import ScanDataset
from CACTrainingLib.references.registry import read_reference

SQUARE = [(3.5, 3.5), (6.5, 3.5), (6.5, 6.5), (3.5, 6.5)]


def test_items_hold_scan_and_labels_with_their_place(tmp_path):
    ct = read_ct(write_gated(tmp_path, 0, [region(3, 36.0, SQUARE)]))
    (item,) = ScanDataset(read_reference(tmp_path).scans)
    assert item.keys() == {"name", "patient", "image", "affine", "label"}
    (place,) = np.argwhere(item["image"][0].numpy() == 420).tolist()
    assert item["label"][(0, *place)] == Artery.LAD
    x, y, z = ct.image.TransformIndexToPhysicalPoint(place[::-1])
    np.testing.assert_allclose(item["affine"] @ [*place, 1], [-x, -y, z, 1])


def test_items_of_digital_patients_hold_map_and_heart(tmp_path):
    write_scan(tmp_path / "a", 1, coronary=True, valve=False)
    (item,) = ScanDataset(find_scans([tmp_path]))
    assert item.keys() == {"name", "patient", "image", "affine", "map", "heart"}
    assert float(item["map"].max()) * HU_PER_MG_CM3 == pytest.approx(max(CALCIUM_HU.values()))
    assert item["heart"][item["map"] > 0].all()


def test_the_example_trains_and_scores_a_test_set(tmp_path, monkeypatch, capsys):
    for number in range(5):
        write_gated(tmp_path / "coca", number, [region(5, 30.0, SQUARE)], seed=number)
    monkeypatch.setattr("sys.argv", ["own_network.py", str(tmp_path / "coca"), str(tmp_path / "run"), "3"])
    runpy.run_path(str(Path(__file__).parents[3] / "examples" / "own_network.py"))
    (_, predicted, reference), *lines = (line.split() for line in capsys.readouterr().out.splitlines())
    assert not lines
    assert float(reference) > 0 <= float(predicted)
