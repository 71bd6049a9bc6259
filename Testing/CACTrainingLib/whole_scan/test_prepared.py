"""Preparation of scans, in this process."""

from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
from in_this_process import InThisProcess
from training_scans import HEART_SLICES, write_scan

from CACScoringLib.core.errors import CTError
from CACScoringLib.models.cards import find_model
from CACTrainingLib.data.scan_table import TableScan
from CACTrainingLib.whole_scan import sources
from CACTrainingLib.whole_scan.sources import load, prepare


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    monkeypatch.setattr("CACScoringLib.cohort.workers.Workers", InThisProcess)
    monkeypatch.setattr("torch.set_num_threads", lambda count: None)


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scans")
    places = [write_scan(folder / str(n), n, coronary=True, valve=False) for n in range(2)]
    return [
        TableScan(place.name, place.name, {name: place / f"{name}.nii.gz" for name in ("ct", "heart")})
        for place in places
    ]


CALLS = []


def heart_hu(scan, region):
    CALLS.append(scan.source)
    return {"slices": np.flatnonzero(region.mask.any((1, 2))), "mean": scan.hu[region.mask].mean()}


@pytest.mark.long
def test_each_scan_is_worked_on_once(scans, tmp_path):
    CALLS.clear()
    files, failed = prepare(scans, tmp_path, "means", heart_hu, "a")
    assert (sorted(files), failed, len(CALLS)) == (["0", "1"], {}, 2)
    arrays = load(files["0"])
    assert arrays["slices"].tolist() == list(range(*HEART_SLICES.indices(10)))
    assert 40 < arrays["mean"] < 60
    assert prepare(scans, tmp_path, "means", heart_hu, "a") == (files, failed)
    assert len(CALLS) == 2
    changed, _ = prepare(scans[:1], tmp_path, "means", heart_hu, "other settings")
    assert changed["0"] != files["0"]
    assert len(CALLS) == 3


@pytest.mark.long
def test_a_scan_that_fails_stops_no_other(scans, tmp_path):
    broken = TableScan("broken", "9", {"ct": tmp_path / "broken.nii.gz"})
    broken.ct.write_bytes(b"no image")
    files, failed = prepare([broken, *scans], tmp_path, "means", heart_hu, "a")
    assert list(failed) == ["broken"]
    assert "broken.nii.gz" in failed["broken"]
    assert sorted(files) == ["0", "1"]
    with pytest.raises(CTError, match=r"None of 1 scans .* broken"):
        prepare([broken], tmp_path, "means", heart_hu, "a")


@pytest.mark.long
def test_a_changed_scan_is_prepared_anew(scans, tmp_path):
    copy = tmp_path / "ct.nii.gz"
    copy.write_bytes(scans[0].ct.read_bytes())
    scan = TableScan("0", "0", {"ct": copy, "heart": scans[0].heart})
    before = prepare([scan], tmp_path, "means", heart_hu, "a")[0]["0"]
    sitk.WriteImage(sitk.ReadImage(copy) + 10, copy)
    after = prepare([scan], tmp_path, "means", heart_hu, "a")[0]["0"]
    assert load(after)["mean"] == pytest.approx(load(before)["mean"] + 10, abs=0.01)


@pytest.mark.long
def test_another_territory_network_prepares_a_scan_anew_even_with_a_given_heart(scans, tmp_path, monkeypatch):
    before, _ = prepare(scans[:1], tmp_path, "means", heart_hu, "a")
    bundled = find_model("territories")
    another = replace(bundled, card=replace(bundled.card, sha256="1" * 64))
    monkeypatch.setattr(sources, "find_model", lambda network: another)
    after, _ = prepare(scans[:1], tmp_path, "means", heart_hu, "a")
    assert after["0"] != before["0"], "work sees its territories"
