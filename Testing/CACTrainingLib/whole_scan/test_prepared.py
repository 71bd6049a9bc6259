"""Scans prepared once: in this process, with a heart that is given or found."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import SimpleITK as sitk
from training_scans import HEART_SLICES, write_scan

from CACScoringLib.core.ct import CTError
from CACScoringLib.models.cards import find_model
from CACTrainingLib.data.scan_table import TableScan
from CACTrainingLib.whole_scan import prepared
from CACTrainingLib.whole_scan.prepared import _key, load, prepare


@dataclass
class Event:
    index: int
    state: str
    result: str | None = None
    reason: str = ""


class HereWorkers:
    """In place of processes. lost: jobs whose process is said to have been killed."""

    lost = ()

    def __init__(self, count, begin):
        self.work = begin()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def run(self, jobs):
        for n, job in enumerate(jobs):
            yield Event(n, "begun")
            yield (
                Event(n, "lost", reason="its process ended (-9)")
                if n in self.lost
                else Event(n, "done", self.work(job))
            )


@pytest.fixture(autouse=True)
def here(monkeypatch):
    monkeypatch.setattr(prepared, "Workers", HereWorkers)
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
    inside = sitk.GetArrayFromImage(region.mask) > 0
    return {"slices": np.flatnonzero(inside.any((1, 2))), "mean": sitk.GetArrayFromImage(scan.image)[inside].mean()}


def test_each_scan_is_worked_on_once(scans, tmp_path):
    CALLS.clear()
    found = prepare(scans, tmp_path, "means", heart_hu, "a")
    assert (sorted(found.files), found.failed, len(CALLS)) == (["0", "1"], {}, 2)
    kept = load(found.files["0"])
    assert kept["slices"].tolist() == list(range(*HEART_SLICES.indices(10)))
    assert 40 < kept["mean"] < 60
    assert prepare(scans, tmp_path, "means", heart_hu, "a") == found
    assert len(CALLS) == 2
    other = prepare(scans[:1], tmp_path, "means", heart_hu, "other settings")
    assert other.files["0"] != found.files["0"]
    assert len(CALLS) == 3


def test_a_scan_that_fails_stops_no_other(scans, tmp_path, monkeypatch):
    broken = TableScan("broken", "9", {"ct": tmp_path / "broken.nii.gz"})
    broken.ct.write_bytes(b"no image")
    found = prepare([broken, *scans], tmp_path, "means", heart_hu, "a")
    assert list(found.failed) == ["broken"]
    assert "broken.nii.gz" in found.failed["broken"]
    assert sorted(found.files) == ["0", "1"]
    with pytest.raises(CTError, match=r"None of 1 scans .* broken"):
        prepare([broken], tmp_path, "means", heart_hu, "a")
    monkeypatch.setattr(HereWorkers, "lost", (0,))
    found = prepare(scans, tmp_path, "other", heart_hu, "a")
    assert "-9" in found.failed["0"]
    assert not list((tmp_path / "other").glob("tmp*"))


def test_a_heart_by_another_network_is_found_anew(scans, monkeypatch):
    unknown = TableScan("0", "0", {"ct": scans[0].ct})
    before, given = _key(unknown, "a"), _key(scans[0], "a")
    other = find_model("territories")
    other = replace(other, card=replace(other.card, sha256="another"))
    monkeypatch.setattr(prepared, "find_model", lambda network: other)
    assert _key(unknown, "a") != before
    assert _key(scans[0], "a") == given


def test_a_changed_scan_is_prepared_anew(scans, tmp_path):
    copy = tmp_path / "ct.nii.gz"
    copy.write_bytes(scans[0].ct.read_bytes())
    scan = TableScan("0", "0", {"ct": copy, "heart": scans[0].heart})
    before = prepare([scan], tmp_path, "means", heart_hu, "a").files["0"]
    sitk.WriteImage(sitk.ReadImage(copy) + 10, copy)
    after = prepare([scan], tmp_path, "means", heart_hu, "a").files["0"]
    assert load(after)["mean"] == pytest.approx(load(before)["mean"] + 10, abs=0.01)
