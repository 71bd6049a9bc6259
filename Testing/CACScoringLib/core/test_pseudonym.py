"""Tests of pseudonyms: digests by a key that is made once."""

import stat

import pytest

from CACScoringLib.core import acquisition
from CACScoringLib.core.acquisition import (
    FILE,
    Acquisition,
    is_placeholder,
    key_fault,
    unnamed,
    unnamed_scan,
    with_pseudonym,
)

SIMPLE = "it is too short or too simple; write 64 random hexadecimal digits into it"


def scan(patient_id="P1", issuer=None, date="2024-05-06"):
    return with_pseudonym(Acquisition("DICOM", patient_id=patient_id, patient_id_issuer=issuer, study_date=date))


@pytest.fixture
def new_user(tmp_path, monkeypatch):
    """The folder of a user without a key."""
    monkeypatch.delenv(FILE)
    monkeypatch.setattr(acquisition, "user_data_folder", lambda: tmp_path / "CAC")
    return tmp_path / "CAC"


def test_digests_tell_patients_issuers_and_days_apart():
    changes = scan("P2"), scan(issuer="CLINIC"), scan(date="2024-05-07"), scan(" P1 "), scan(date=None)
    assert [changed.patient_digest == scan().patient_digest for changed in changes] == [False, False, True, True, True]
    assert [changed.study_digest == scan().study_digest for changed in changes] == [False, False, False, True, False]
    assert changes[2].shifted_day - scan().shifted_day == 1
    assert (changes[4].study_digest, changes[4].shifted_day) == (None, None)
    for patient_id in (None, "", " ", "ANONYMOUS", "0", "000000", "UNKNOWN", "N/A", "no id", "Xxxx", "999999", "--"):
        assert scan(patient_id).patient_digest is None


def test_a_key_is_made_once_for_its_owner_alone(new_user):
    first = scan()
    assert stat.S_IMODE((new_user / "patient.key").stat().st_mode) == 0o600
    assert list(new_user.iterdir()) == [new_user / "patient.key"]
    assert scan() == first
    (new_user / "patient.key").unlink()
    assert scan().patient_key != first.patient_key


@pytest.mark.parametrize("content", [None, b"short", b"0123456789" * 4])
def test_without_a_usable_key_there_is_no_digest(new_user, content, monkeypatch):
    new_user.mkdir()
    monkeypatch.setenv(FILE, str(new_user / "site.key"))
    if content is not None:
        (new_user / "site.key").write_bytes(content)
    assert scan().patient_digest is None
    assert key_fault() == ("No such file or directory" if content is None else SIMPLE)
    assert (new_user / "site.key").exists() == (content is not None)


@pytest.mark.parametrize("text", ["1", "anon-17", "00017", "99", "Ann Noname", "XX1"])
def test_ids_of_people_are_no_placeholders(text):
    assert not is_placeholder(text)


@pytest.mark.parametrize("code", ["ANON0001", "SUBJ-001", "Patient1"])
def test_equal_id_and_name_count_once(code):
    assert Acquisition("DICOM", patient_id=code, patient_name=code).identity == {"patient_id": code}


def test_a_name_has_the_same_digest_in_any_spelling():
    names = "ROE^JANE", "Roé^Jane^M^Dr", "Roe, Jane", "jane roe"
    digests = [with_pseudonym(Acquisition("DICOM", patient_name=name)).identity_digests for name in names]
    assert digests == 4 * digests[:1]
    assert digests[0].keys() == {"patient_name"}
    assert with_pseudonym(Acquisition("DICOM", patient_name="Anonymous^Patient", patient_birth_date="1900-01-01")) == (
        Acquisition("DICOM", patient_name="Anonymous^Patient", patient_birth_date="1900-01-01")
    )


PERSON = Acquisition(
    "DICOM",
    patient_name="VAN DER MÜLLER^Ana-Maria^X=山田",
    patient_id="ID-4711",
    study_date="2021-03-17",
    series_uid="1.2.840.99.4711",
    study_digest="0123456789abcdef",
)


@pytest.mark.parametrize(
    "name",
    [
        *("Mueller", "müller_ct", "MULLER2", "anamaria.nrrd", "ct-Maria", "van.der.x", "id_4711-b"),
        *("scan 2021-03-17", "1_2_840_99_4711", "山田"),
    ],
)
def test_a_name_of_patient_or_study_is_replaced(name):
    assert unnamed_scan(name, PERSON) == "scan-01234567"
    assert unnamed_scan(name, Acquisition("DICOM")) == name


@pytest.mark.parametrize("name", ["scan 12", "TCGA-A4MA", "2020-03-17", "4711"])
def test_other_names_of_a_scan_stay(name):
    assert unnamed_scan(name, PERSON) == name


def test_a_command_keeps_all_but_the_names():
    command = "cac score '/data/Müller Ana/ct 1' --series 3 --output=/out/id4711-cac --settings '{\"a\": \"MARIA\"}'"
    bare = "cac score '/data/scan scan/ct 1' --series 3 --output=/out/scan --settings '{\"a\": \"scan\"}'"
    assert unnamed(command, PERSON) == bare
    assert unnamed(command, Acquisition("DICOM", patient_id="12", patient_name="Li^")) == command
