"""Tests of pseudonyms: digests by a key that is made once."""

import stat

import pytest

from CACScoringLib.core import pseudonym
from CACScoringLib.core.acquisition import Acquisition, is_placeholder
from CACScoringLib.core.pseudonym import FILE, with_pseudonym


def scan(patient_id="P1", issuer=None, date="2024-05-06"):
    return with_pseudonym(Acquisition("DICOM", patient_id=patient_id, patient_id_issuer=issuer, study_date=date))


@pytest.fixture
def new_user(tmp_path, monkeypatch):
    """The folder of a user without a key."""
    monkeypatch.delenv(FILE)
    monkeypatch.setattr(pseudonym, "user_data_folder", lambda: tmp_path / "CAC")
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


@pytest.mark.parametrize("content", [None, b"", b"short"])
def test_without_a_usable_key_there_is_no_digest(new_user, content, monkeypatch):
    new_user.mkdir()
    monkeypatch.setenv(FILE, str(new_user / "site.key"))
    if content is not None:
        (new_user / "site.key").write_bytes(content)
    assert scan().patient_digest is None
    assert (new_user / "site.key").exists() == (content is not None)


@pytest.mark.parametrize("text", ["P1", "1", "LIDC-IDRI-0001", "anon-17", "00017", "99", "Ann Noname", "XX1"])
def test_ids_of_people_are_no_placeholders(text):
    assert not is_placeholder(text)


def test_a_name_has_the_same_digest_in_any_spelling():
    names = "ROE^JANE", "Roé^Jane^M^Dr", "Roe, Jane", "jane roe"
    digests = [with_pseudonym(Acquisition("DICOM", patient_name=name)).identity_digests for name in names]
    assert digests == 4 * digests[:1]
    assert digests[0].keys() == {"patient_name"}
    assert with_pseudonym(Acquisition("DICOM", patient_name="Anonymous^Patient", patient_birth_date="1900-01-01")) == (
        Acquisition("DICOM", patient_name="Anonymous^Patient", patient_birth_date="1900-01-01")
    )
