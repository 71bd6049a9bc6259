"""Digital patients drawn for the slice networks."""

import numpy as np
import pytest

from CACTrainingLib.data.datasets import SliceDataset, load_slices, prepare, split_by_patient
from CACTrainingLib.data.drawn_scans import FIRST_NUMBERS, draw_scan, drawn_scans
from CACTrainingLib.phantom import DIFFICULTIES
from CACTrainingLib.training.runs import TrainingData


def test_each_use_has_patients_of_its_own():
    scans = drawn_scans(50, 0.2)
    uses = [scan.use for scan in scans]
    assert (uses.count("training"), uses.count("validation")) == (40, 10)
    assert len({scan.number for scan in scans}) == 50
    assert split_by_patient(scans, 0.2, 0) == (scans[:40], scans[40:])


def test_the_card_states_their_numbers():
    scans = tuple(drawn_scans(10, 0.2))
    text = TrainingData(scans[:8], scans[8:], (), ()).describe()
    assert "digital patients 5000000 to 5000007 drawn" in text
    assert "digital patients 5500000 to 5500001 drawn" in text


def test_fingerprints_follow_the_number():
    first, second = drawn_scans(2, 0)
    assert first.fingerprint() != second.fingerprint()
    assert first.content_hash() != second.content_hash()
    assert first.fingerprint() == drawn_scans(1, 0)[0].fingerprint()


@pytest.mark.long
def test_a_patient_is_prepared_without_files(tmp_path):
    scans = [scan for scan in drawn_scans(4, 0) if scan.number % 4 in (1, 2)]
    plaque, without = map(load_slices, prepare(scans, "slices", tmp_path))
    assert plaque.visible.any()
    assert plaque.has_map
    assert np.abs(plaque.maps).max() > 0.05
    assert not without.visible.any()
    assert without.kind != "coronary"
    data = SliceDataset([plaque, without])
    assert data.visible.sum() == plaque.visible.sum()
    assert [path.name.split("-")[0] for path in tmp_path.iterdir()] == ["slices", "slices"]


@pytest.mark.long
def test_every_fourth_patient_is_difficult_by_turns():
    first = FIRST_NUMBERS["training"] + 3
    difficulties = [draw_scan(number)[0].difficulty for number in range(first, first + 12, 4)]
    turn = DIFFICULTIES.index(difficulties[0])
    assert difficulties == [DIFFICULTIES[(turn + n) % len(DIFFICULTIES)] for n in range(3)]
    assert len(set(difficulties)) == 3
