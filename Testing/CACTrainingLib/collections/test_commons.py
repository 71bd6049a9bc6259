"""Series of the Imaging Data Commons: choice, download by a stand-in for idc-index's client, resume and errors."""

import inspect

import pytest
from collection_files import IMAGES, CommonsClient, remote_series

from CACScoringLib.core.errors import CTError
from CACScoringLib.core.progress import Progress
from CACTrainingLib.collections import commons
from CACTrainingLib.collections.commons import chosen_series, fetch_sample
from CACTrainingLib.references.collection import collections

NLST, LIDC = collections()["nlst"], collections()["lidc"]
SERIES = [remote_series(f"1.{n}", f"P{n}", "chest", study=f"2.{n}") for n in range(3)]


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Fetch series with a client into a folder."""
    monkeypatch.setattr(commons, "MIN_IMAGES", IMAGES)

    def run(client, count=3, series=None, collection=LIDC, progress=None):
        monkeypatch.setattr(commons, "connected_client", lambda *_: client)
        monkeypatch.setattr(commons, "series_of", lambda _: SERIES if series is None else series)
        return fetch_sample(collection, tmp_path / "scans", count, progress or Progress())

    return run


def test_series_progress_and_terms(run, tmp_path):
    progress, counts, notes = Progress(), [], []
    progress.note = notes.append
    progress.counted = lambda done, count: counts.append((done, count))
    assert run(CommonsClient(SERIES), progress=progress) == 3
    assert len(list((tmp_path / "scans" / "P1" / "1.1").glob("*.dcm"))) == IMAGES
    assert "CC BY 3.0" in (tmp_path / "scans" / "TERMS-lidc.txt").read_text("utf-8")
    assert counts == [(0, 1), (1, 1), (1, 1)], "MB of all"
    assert notes == ["3 series of 3 patients (CC BY 4.0): 2 MB to fetch, 0 series there before"]


def test_series_with_a_contrast_agent_are_not_fetched(run, monkeypatch):
    series = [remote_series(f"1.{n}", f"P{n}", "chest", study=f"2.{n}") for n in (0, 7, 8, 9)]
    client = CommonsClient(series)
    assert run(client, 10, series) == 3
    assert sorted(client.fetched) == ["1.0", "1.7", "1.9"], "an agent called NONE is none"
    monkeypatch.delattr(CommonsClient, "contrast_index")
    assert run(CommonsClient(series), 10, series) == 4, "an older package has no index of agents"


def test_a_download_that_stops_half_way_resumes(run):
    with pytest.raises(CTError, match=r"4 of 8 images .+ rerun the command to resume"):
        run(CommonsClient(SERIES, broken=("1.1",)))
    client = CommonsClient(SERIES)
    assert run(client) == 3
    assert client.fetched == ["1.1"]
    assert run(CommonsClient(SERIES, error=RuntimeError())) == 3, "nothing is fetched again"


@pytest.mark.long
def test_the_client_of_idc_index_takes_what_is_passed():
    client = pytest.importorskip("idc_index").IDCClient
    passed, taken = (inspect.signature(kind.download_from_manifest).parameters for kind in (CommonsClient, client))
    assert set(passed) <= set(taken)


def test_where_the_client_fails_the_way_by_hand_is_named(run, tmp_path):
    with pytest.raises(CTError) as caught:
        run(CommonsClient(SERIES, error=RuntimeError("no route to host")))
    message = str(caught.value)
    assert "RuntimeError: no route to host" in message
    assert "portal.imaging.datacommons.cancer.gov, collection lidc_idri" in message
    assert f"cac data import lidc {tmp_path / 'scans'} --output PROJECT" in message


def test_without_a_connection(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError("no route to host")

    monkeypatch.setattr(commons, "getproxies", dict)
    monkeypatch.setattr(commons.socket, "create_connection", refuse)
    with pytest.raises(CTError, match=r"no connection to .+ \(no route to host\)\. On another computer: "):
        fetch_sample(LIDC, tmp_path, 1, Progress())


def test_a_collection_that_the_index_lacks(run):
    with pytest.raises(CTError, match="has no CT of National Lung"):
        run(CommonsClient([]), series=[], collection=NLST)


def test_nlst_gives_pairs_of_one_soft_kernel():
    series = [
        remote_series(uid, patient, f"0,OPA,GE,HSQX,{kernel},370,{mm},120,40,0,1.5", images)
        for uid, patient, kernel, mm, images in (
            ("thick", "a", "STANDARD", "2.5", 100),
            ("thin", "a", "STANDARD", "1.25", 100),
            ("lung", "a", "LUNG", "1.25", 100),
            ("localizer", "a", "na", "na", 2),
            ("sharp-thick", "b", "B70f", "5", 100),
            ("sharp-thin", "b", "B70f", "2", 100),
            ("alone", "c", "B30f", "2", 100),
            ("similar", "d", "B30f", "2", 100),
            ("alike", "d", "B30f", "2.5", 100),
        )
    ]
    assert [entry.uid for entry in chosen_series(series, 10)] == ["thin", "thick"]


def test_lidc_gives_the_largest_series_of_each_patient_in_a_stable_order():
    series = [remote_series(f"{patient}{n}", str(patient), "", 100 + n) for patient in range(30) for n in range(2)]
    uids = [entry.uid for entry in chosen_series(series, 10)]
    assert len(uids) == 10
    assert all(uid.endswith("1") for uid in uids)
    assert uids == [entry.uid for entry in chosen_series(series[::-1], 10)]
    assert uids[:5] == [entry.uid for entry in chosen_series(series, 5)], "more scans keep the earlier ones"
