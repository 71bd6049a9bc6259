"""Download by a client of the Imaging Data Commons that writes series to the disk: choice, resume, checks, errors."""

import errno
import json
import sys
from types import SimpleNamespace

import pandas as pd
import pytest
from collection_files import IMAGES, CommonsClient

from CACScoringLib.core.files import OutputError
from CACScoringLib.core.progress import Progress
from CACTrainingLib.collections import download
from CACTrainingLib.collections.collection import collections
from CACTrainingLib.collections.download import CHECKSUMS, RemoteSeries, chosen_series, fetch
from CACTrainingLib.collections.scans import CollectionError

NLST, LIDC = collections()["nlst"], collections()["lidc"]


@pytest.fixture(autouse=True)
def few_images(monkeypatch):
    monkeypatch.setattr(download, "MIN_IMAGES", IMAGES)


class Client(CommonsClient):
    contrast_index = pd.DataFrame(
        [("1.0", ["NONE"]), ("1.7", None), ("1.8", ["Omnipaque", "ORAL & IV"])],
        columns=("SeriesInstanceUID", "ContrastBolusAgent"),
    )


ROWS = [(f"1.{n}", f"P{n}", f"2.{n}", "chest", "lidc_idri") for n in range(3)]


def run(client, folder, count=3, collection=LIDC):
    return fetch(collection, folder, count, Progress(), client)


def test_series_checksums_and_terms(tmp_path):
    assert run(Client(ROWS), tmp_path / "scans") == 3
    series = tmp_path / "scans" / "P1" / "1.1"
    assert len(json.loads((series / CHECKSUMS).read_text())) == IMAGES
    assert len(list(series.glob("*.dcm"))) == IMAGES
    assert "CC BY 3.0" in (tmp_path / "scans" / "TERMS-lidc.txt").read_text("utf-8")


def test_series_with_a_contrast_agent_are_not_fetched(tmp_path, monkeypatch):
    rows = [(f"1.{n}", f"P{n}", f"2.{n}", "chest", "lidc_idri") for n in (0, 7, 8, 9)]
    client = Client(rows)
    assert run(client, tmp_path / "scans", 10) == 3
    assert sorted(client.fetched) == ["1.0", "1.7", "1.9"], "an agent called NONE is none"
    monkeypatch.delattr(Client, "contrast_index")
    assert run(Client(rows), tmp_path / "older", 10) == 4, "an older package has no index of agents"


def test_a_download_that_stops_half_way_resumes(tmp_path):
    with pytest.raises(CollectionError, match=r"4 of 8 images .+ rerun the command to resume"):
        run(Client(ROWS, broken=["1.1"]), tmp_path)
    assert not (tmp_path / "P1" / "1.1").exists(), "a series is whole or absent"
    complete = {path.parent.name for path in tmp_path.rglob(CHECKSUMS)}
    client = Client(ROWS)
    run(client, tmp_path)
    assert set(client.fetched) == {"1.0", "1.1", "1.2"} - complete
    assert list(tmp_path.rglob(".*partial*")) == []


@pytest.mark.parametrize("damage", ["changed", "missing", "no checksums"])
def test_damaged_series_are_fetched_again(tmp_path, damage):
    run(Client(ROWS), tmp_path)
    series = tmp_path / "P2" / "1.2"
    file = next(series.glob("*.dcm"))
    {"changed": lambda: file.write_bytes(b"x"), "missing": file.unlink, "no checksums": (series / CHECKSUMS).unlink}[
        damage
    ]()
    client = Client(ROWS)
    run(client, tmp_path)
    assert client.fetched == ["1.2"]
    assert len(list(series.glob("*.dcm"))) == IMAGES


@pytest.mark.parametrize("error", [RuntimeError, OSError])
def test_without_a_connection_the_way_by_hand_is_named(tmp_path, error):
    with pytest.raises(CollectionError) as caught:
        run(Client(ROWS, error=error("no route to host")), tmp_path)
    message = str(caught.value)
    assert f"{error.__name__}: no route to host" in message
    assert "portal.imaging.datacommons.cancer.gov, collection lidc_idri" in message
    assert f"cac data import lidc {tmp_path} --output PROJECT" in message


def test_a_full_disk_leaves_whole_series(tmp_path):
    run(Client(ROWS), tmp_path, count=1)
    with pytest.raises(OSError, match="No space"):
        run(Client(ROWS, error=OSError(errno.ENOSPC, "No space left on device")), tmp_path)
    assert len(list(tmp_path.rglob(CHECKSUMS))) == 1
    assert run(Client(ROWS), tmp_path) == 3


def test_a_client_that_cannot_begin(tmp_path, monkeypatch):
    def client():
        raise FileNotFoundError("s5cmd executable not found")

    monkeypatch.setattr(download, "_check_connection", lambda *_: None)
    monkeypatch.setitem(sys.modules, "idc_index", SimpleNamespace())
    index = SimpleNamespace(IDCClient=SimpleNamespace(client=client))
    monkeypatch.setitem(sys.modules, "idc_index.index", index)
    with pytest.raises(CollectionError, match=r"s5cmd executable not found\)\. On a computer with a connection"):
        run(None, tmp_path)


def test_room_on_the_disk_is_checked_before_anything_is_fetched(tmp_path, monkeypatch):
    notes = []
    progress = Progress()
    progress.note = notes.append
    monkeypatch.setattr(download.shutil, "disk_usage", lambda folder: SimpleNamespace(free=10**6))
    client = Client(ROWS)
    with pytest.raises(OutputError, match=r"needs 2 MB and has 1\. Make room, or lower --scans"):
        fetch(LIDC, tmp_path, 3, progress, client)
    assert client.fetched == []
    assert notes == ["3 series of 3 patients (CC BY 4.0): 2 MB to fetch, 1 MB free, 0 series there before"]
    assert fetch(LIDC, tmp_path, 1, progress, client) == 1


def test_a_collection_that_the_index_lacks(tmp_path):
    with pytest.raises(CollectionError, match="has no CT of National Lung"):
        run(Client(ROWS), tmp_path, collection=NLST)


def remote(uid, patient, description, images=100, study="s"):
    return RemoteSeries(uid, patient, study, description, images, 50.0, "CC BY 4.0")


def test_nlst_gives_pairs_of_one_soft_kernel():
    series = [
        remote("thick", "a", "0,OPA,GE,HSQX,STANDARD,370,2.5,120,40,0,1.5"),
        remote("thin", "a", "0,OPA,GE,HSQX,STANDARD,370,1.25,120,40,0,1.5"),
        remote("lung", "a", "0,OPA,GE,HSQX,LUNG,370,1.25,120,40,0,1.5"),
        remote("localizer", "a", "0,OPL,GE,HSQX,na,na,na", images=2),
        remote("sharp-thick", "b", "0,OPA,SE,VZOOM,B70f,370,5,120,40,0,1.5"),
        remote("sharp-thin", "b", "0,OPA,SE,VZOOM,B70f,370,2,120,40,0,1.5"),
        remote("alone", "c", "0,OPA,SE,VZOOM,B30f,370,2,120,40,0,1.5"),
        remote("similar", "d", "0,OPA,SE,VZOOM,B30f,370,2,120,40,0,1.5"),
        remote("alike", "d", "0,OPA,SE,VZOOM,B30f,370,2.5,120,40,0,1.5"),
    ]
    assert [entry.uid for entry in chosen_series(series, 10)] == ["thin", "thick"]


def test_lidc_gives_the_largest_series_of_each_patient_in_a_stable_order():
    series = [remote(f"{patient}{n}", str(patient), "", 100 + n) for patient in range(30) for n in range(2)]
    uids = [entry.uid for entry in chosen_series(series, 10)]
    assert len(uids) == 10
    assert all(uid.endswith("1") for uid in uids)
    assert uids == [entry.uid for entry in chosen_series(series[::-1], 10)]
    assert uids[:5] == [entry.uid for entry in chosen_series(series, 5)], "more scans keep the earlier ones"


def test_names_of_the_index_are_no_paths(tmp_path):
    run(Client([("1.0", "../../P0", "2.0", "chest", "lidc_idri")]), tmp_path / "a" / "b" / "scans")
    assert not [path for path in tmp_path.rglob("*.dcm") if tmp_path / "a" / "b" / "scans" not in path.parents]


def test_no_scan_is_no_download(tmp_path):
    with pytest.raises(CollectionError, match="--scans 1"):
        run(Client(ROWS), tmp_path / "scans", count=0)
