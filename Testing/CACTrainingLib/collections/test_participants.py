"""Participants of a table: the choice of one series by DeepCAC's rule, the manifest, and a download that resumes."""

import contextlib
import itertools
import locale
from dataclasses import replace
from types import SimpleNamespace

import pytest
from collection_files import IMAGES, CommonsClient, remote_series

from CACScoringLib.core.errors import BadReferenceError, TableError
from CACScoringLib.core.tables import read_table
from CACTrainingLib.cli import data
from CACTrainingLib.cli import main as cli
from CACTrainingLib.collections import commons
from CACTrainingLib.collections.participants import KERNELS, baseline_choice, choose
from CACTrainingLib.references.collection import collections
from CACTrainingLib.references.manifest import MANIFEST, read_manifest
from CACTrainingLib.references.reference import scan_of, scans_below

NLST = collections()["nlst"]


def remote(kernel="STANDARD", mm="2.5", year="0", images=100, uid="1", patient="a"):
    description = f"{year},OPA,GE,LSPLUS,{kernel},360,{mm},120,64,0.1,1.5"
    return remote_series(uid, patient, description, images)


def choice_of(*series):
    choice = baseline_choice("a", series)
    return None if choice.series is None else choice.series.reconstruction, choice


def test_spacing_decides_before_the_kernel():
    series, choice = choice_of(remote("STANDARD", "1.2"), remote("BONE", "2.5"), remote("STANDARD", "5"))
    assert series == ("BONE", 2.5)
    reason = "Baseline; 2.5 mm of 1.2, 2.5, 5; kernel BONE of BONE; by the kernel first it would be STANDARD."
    assert choice.reason == reason


@pytest.mark.parametrize(("softer", "harder"), list(itertools.pairwise(KERNELS)))
def test_the_softest_kernel_is_taken(softer, harder):
    assert choice_of(remote(harder, uid="1"), remote(softer, uid="2"), remote("B31s", uid="3"))[0] == (softer, 2.5)


def test_later_years_localizers_and_short_series_are_passed_over():
    series, choice = choice_of(remote(year="1"), remote(year="2"), remote(images=2), remote(mm="na"))
    assert series is None
    assert choice.reason == "None of 4 CT series is a baseline scan with a stated thickness."
    assert choice_of()[1].reason == "The index has no CT of this participant."
    assert choice_of(remote(mm="5"), remote("BONE", "10"))[1].reason.endswith("are 5 mm thick or more.")


def test_of_equal_series_the_largest_is_taken():
    choice = choice_of(remote(images=50, uid="1"), remote(images=144, uid="2"))[1]
    assert choice.series.uid == "2"
    assert "most images of 2 such series" in choice.reason


def test_slices_of_3_2_mm_are_taken_where_no_others_are():
    assert choice_of(remote("C", "3.2"), remote("C", "1"))[0] == ("C", 1.0)
    series, choice = choice_of(remote("C", "3.2"), remote("D", "3.2"))
    assert series == ("C", 3.2)
    assert "slices overlap" in choice.reason


def table(tmp_path, text):
    (tmp_path / "people.csv").write_text(text, encoding="utf-8")
    return read_table(tmp_path / "people.csv", short_lines=True)


def test_series_are_looked_up_as_listed(tmp_path):
    listed = table(tmp_path, "patient_id,selected_series_uid\na,1\nb,2\n")
    choices = choose(listed, [remote("B50f", "5", uid="1")])
    assert [choice.series and choice.series.uid for choice in choices] == ["1", None]
    assert choices[1].reason == "The index has no CT series of this UID."


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("case,total\n1,2\n", "no column of participants"),
        ("PID,total\na,2\na,3\n", "the same participant"),
        ("PID,total\n,2\n", "no PID in line 2"),
    ],
)
def test_tables_of_another_layout(tmp_path, text, message):
    with pytest.raises(TableError, match=message):
        choose(table(tmp_path, text), [])


@pytest.mark.long
def test_the_rule_reads_the_index_that_comes_with_the_package():
    with contextlib.suppress(locale.Error):
        locale.setlocale(locale.LC_CTYPE, "C.UTF-8")  # the package opens its files in the locale's encoding
    pytest.importorskip("idc_index_data")
    series = commons.series_of(NLST)
    patients = sorted({entry.patient for entry in series})
    assert len(patients) > 20_000
    by_patient = {}
    for entry in series:
        by_patient.setdefault(entry.patient, []).append(entry)
    choices = [baseline_choice(patient, by_patient[patient]) for patient in patients[::50]]
    share = sum(choice.series is not None for choice in choices) / len(choices)
    assert share > 0.85


@pytest.fixture
def client(monkeypatch):
    """Client and index of two participants, one with a hard kernel too."""
    soft, hard = (
        remote(kernel, uid=uid, patient="100001", images=IMAGES)
        for kernel, uid in (("STANDARD", "1.1"), ("BONE", "1.2"))
    )
    series = [hard, soft, remote("FC51", "2", uid="1.3", patient="100002", images=IMAGES)]
    client = CommonsClient(series)
    monkeypatch.setattr(commons, "MIN_IMAGES", IMAGES)
    monkeypatch.setattr(commons, "series_of", lambda _: list(client.series.values()))
    monkeypatch.setattr(commons, "connected_client", lambda *_: client)
    monkeypatch.setattr(data, "require", lambda _: None)
    return client


@pytest.fixture
def fetch(tmp_path, capsys):
    """Run `cac data nlst` for three participants, one of them unknown; return exit code and streams."""
    (tmp_path / "people.csv").write_text(
        "PID,CAC_AI,CAC_manual\n100001,5,0\n100002,0,7\n100003,1,1\n", encoding="utf-8"
    )

    def run(*words):
        command = ["data", "nlst", "--table", str(tmp_path / "people.csv"), "--output", str(tmp_path / "scans"), *words]
        return cli.main(command), capsys.readouterr()

    return run


def test_a_table_from_choice_to_manifest(client, fetch, tmp_path):
    code, streams = fetch()
    assert code == 0
    assert client.fetched == ["1.1", "1.3"]
    assert "2 of 3 scans; manifest.csv has the reason" in streams.out
    assert f"cac validate {tmp_path / 'people.csv'} --scans {tmp_path / 'scans'} --output STUDY" in streams.out
    assert "2 of 3 have one series.\n1: The index has no CT of this participant." in streams.err
    rows = {row.patient: row for row in read_manifest(tmp_path / "scans")}
    assert (rows["100001"].kernel, rows["100001"].thickness_mm, rows["100001"].images) == ("STANDARD", "2.5", "8")
    assert rows["100003"].problem == "The index has no CT of this participant."
    scans = scans_below(tmp_path / "scans")
    assert scan_of("100002", scans).ct == tmp_path / "scans" / "100002" / "1.3"
    assert scan_of("1.1", scans) == scan_of("100001", scans), "series are found by UID too"
    with pytest.raises(BadReferenceError, match="no CT of this participant"):
        scan_of("100003", scans)


def test_an_incomplete_series_stops_nothing_and_is_fetched_again(client, fetch, tmp_path):
    client.broken = {"1.1"}
    code, streams = fetch()
    assert (code, "1 of 3 scans" in streams.out) == (0, True)
    problem = next(row.problem for row in read_manifest(tmp_path / "scans") if row.patient == "100001")
    assert "4 of 8 images of a series of 100001 arrived" in problem
    client.broken, client.fetched = set(), []
    assert "2 of 3 scans" in fetch()[1].out
    assert client.fetched == ["1.1"]


def test_gigabytes_are_asked_for(client, fetch, tmp_path, monkeypatch):
    client.series = {url: replace(entry, size_mb=600.0) for url, entry in client.series.items()}
    monkeypatch.setattr(data.sys, "stdin", SimpleNamespace(isatty=lambda: False))
    code, streams = fetch()
    assert (code, client.fetched) == (2, [])
    assert "2 series, 1.2 GB, are to be fetched. Add --yes" in streams.err
    assert (tmp_path / "scans" / MANIFEST).is_file()
    assert "not there" in read_manifest(tmp_path / "scans")[0].problem
    monkeypatch.setattr(data.sys, "stdin", SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr("builtins.input", lambda _: "n")
    assert "0 of 3 scans" in fetch()[1].out
    assert fetch("--yes")[0] == 0
    assert client.fetched == ["1.1", "1.3"]


def test_nobody_of_the_table_is_in_the_index(client, fetch):
    client.series = {url: replace(entry, patient="z") for url, entry in client.series.items()}
    code, streams = fetch()
    assert code == 3
    assert "has a series in National Lung" in streams.err
