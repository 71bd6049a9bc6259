"""Tests of both protocols against peers in this process: the same requests have the same answers."""

import logging
import socket
import ssl
import subprocess
from io import BytesIO

import pydicom
import pytest
from archive_peers import REPORT_CLASS, dimse_peer, report_about, web_peer
from dicom_files import save

from CACScoringLib.archive.address import Access
from CACScoringLib.archive.series import SeriesFilter, SeriesSummary, digest
from CACScoringLib.archive.transfer import connect, dicom_files, matching_series, pull, pull_all, push_all
from CACScoringLib.core.errors import (
    ArchiveError,
    ArchiveUnauthorisedError,
    ArchiveUnreachableError,
    CTError,
    NoSuchSeriesError,
)
from CACScoringLib.core.progress import Progress
from CACScoringLib.io.reading import read_ct


def uid(paths):
    return pydicom.dcmread(paths[0]).SeriesInstanceUID


def test_series_are_found(archive, store, series):
    first, second = series(), series(PatientID="P2", StudyDate="20250101", SeriesDescription="LUNG")
    third = series(Modality="MR")
    store.add(*first, *second, *third)
    summaries = archive.find_series(SeriesFilter())
    assert [(summary.series_uid, summary.images) for summary in summaries] == [(uid(first), 4), (uid(second), 4)]
    assert (summaries[1].patient_id, summaries[1].study_date, summaries[1].description) == ("P2", "20250101", "LUNG")
    for fields in ({"patient_id": "P2"}, {"description": "lu*"}, {"dates": ("20250101", "")}):
        assert [summary.series_uid for summary in archive.find_series(SeriesFilter(**fields))] == [uid(second)]
    assert len(archive.find_series(SeriesFilter(modality=None))) == 3
    assert archive.find_series(SeriesFilter(patient_id="P3")) == []


def test_a_patient_id_with_spaces_is_found_without_url_decoding(store, series):
    right, similar = series(PatientID="AB 7/1"), series(PatientID="AB 7+1")
    store.add(*right, *similar)
    with web_peer(store) as address:
        archive = connect(address, Access())
        for store.decodes in (True, False):
            (summary,) = archive.find_series(SeriesFilter(patient_id="AB 7/1"))
            assert summary.series_uid == uid(right)
            assert archive.find_series(SeriesFilter(patient_id="AB 9/1")) == []


def test_facts_of_an_image(archive, store, series):
    store.add(*series())
    facts = archive.image_facts(archive.find_series(SeriesFilter())[0])
    assert facts.is_ct_slice
    assert facts.slice_thickness_mm == 3
    with pytest.raises(NoSuchSeriesError):
        archive.image_facts(SeriesSummary("1.2", "1.2.3", 1))


def test_a_series_is_pulled_unchanged(archive, store, series, tmp_path):
    paths = series()
    store.add(*paths)
    summaries = matching_series(archive, SeriesFilter(thickness_mm=(3, 3)))
    assert pull_all(archive, summaries, tmp_path / "out", Progress()) == (1, 0)
    folder = tmp_path / "out" / digest(uid(paths))
    assert sorted(file.name for file in folder.iterdir()) == [f"{n:06d}.dcm" for n in range(1, 5)]
    assert (read_ct(folder).hu == read_ct(paths[0].parent).hu).all()
    assert pull_all(archive, summaries, tmp_path / "out", Progress()) == (0, 1)


def test_an_interrupted_transfer_leaves_nothing_and_is_tried_again(archive, store, series, tmp_path, no_waiting):
    store.add(*series())
    summary = archive.find_series(SeriesFilter())[0]
    store.break_after = 2
    with pytest.raises(ArchiveUnreachableError):
        pull(archive, summary, tmp_path / "out" / "one")
    assert list((tmp_path / "out").iterdir()) == []
    store.break_after = 2
    assert pull_all(archive, [summary], tmp_path / "out", Progress()) == (1, 0)


def test_refused_objects_are_reported_and_the_others_stored(archive, store, series, tmp_path):
    paths = series()
    report = save(report_about(pydicom.dcmread(paths[0]), 4), tmp_path / "report.dcm")
    store.refused_class = REPORT_CLASS
    with pytest.raises(ArchiveError, match="refused 1 of 5 objects; the first: "):
        push_all(archive, dicom_files([*paths, report]), Progress())
    assert len(store.instances) == 4
    with pytest.raises(ArchiveError, match="refused 1 of 1"):
        push_all(archive, dicom_files([report]), Progress())


def test_requests_to_a_busy_archive_are_retried_after_longer_waits(archive, store, series, no_waiting):
    store.add(*series())
    store.fail = 3
    assert len(matching_series(archive, SeriesFilter())) == 1
    assert len(no_waiting) == 3
    assert all(2**n / 2 <= seconds <= 2**n for n, seconds in enumerate(no_waiting))


@pytest.mark.parametrize("address", ["http://127.0.0.1:9/dicom-web", "dimse://PEER@127.0.0.1:9"])
def test_no_archive_answers(address):
    with pytest.raises(ArchiveUnreachableError, match="does not answer"):
        connect(address, Access()).find_series(SeriesFilter())


@pytest.mark.parametrize("protocol", ["http://{}/dicom-web", "dimse://PEER@{}"])
def test_a_silent_peer_is_given_up(protocol, monkeypatch):
    for name in ("dicomweb.ANSWER", "dimse.NEGOTIATION"):
        monkeypatch.setattr(f"CACScoringLib.archive.{name}_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        archive = connect(protocol.format(f"127.0.0.1:{listener.getsockname()[1]}"), Access())
        with pytest.raises(ArchiveUnreachableError, match="does not answer"):
            archive.find_series(SeriesFilter())


def test_another_server_than_dicomweb_is_reported(store, tmp_path):
    with web_peer(store) as address:
        archive = connect(address.replace("dicom-web", "elsewhere"), Access())
        with pytest.raises(ArchiveError, match="not answer as a DICOMweb server"):
            archive.find_series(SeriesFilter(patient_id="Doe"))


class TestAccess:
    def test_the_token_is_shown_at_every_request(self, store, series, tmp_path):
        store.add(*series())
        (tmp_path / "token").write_text("right", encoding="utf-8")
        with web_peer(store, "right") as address:
            with pytest.raises(ArchiveUnauthorisedError, match="401"):
                matching_series(connect(address, Access()), SeriesFilter())
            assert store.tokens == [None], "refused at once"
            store.tokens.clear()
            archive = connect(address, Access(tmp_path / "token"))
            assert len(archive.find_series(SeriesFilter())) == 1
            assert set(store.tokens) == {"Bearer right"}
            (tmp_path / "token").write_text("renewed", encoding="utf-8")
            with pytest.raises(ArchiveUnauthorisedError, match="token"):
                archive.find_series(SeriesFilter())
            assert store.tokens[-1] == "Bearer renewed"

    def test_an_unknown_calling_title_is_reported(self, store):
        with dimse_peer(store, require_calling_aet=["KNOWN"]) as address:
            with pytest.raises(ArchiveUnauthorisedError, match=r"calling AE title CAC.*ae_title"):
                connect(address, Access()).find_series(SeriesFilter())
            assert connect(address, Access(ae_title="KNOWN")).find_series(SeriesFilter()) == []


@pytest.mark.long
class TestTls:
    @pytest.fixture
    def certificate(self, tmp_path_factory):
        folder = tmp_path_factory.mktemp("tls")
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
        command += ["-addext", "subjectAltName=DNS:localhost", "-keyout", "key.pem", "-out", "certificate.pem"]
        try:
            subprocess.run(command, cwd=folder, check=True, capture_output=True)
        except FileNotFoundError:
            pytest.skip("openssl is not installed")
        return folder / "certificate.pem"

    @pytest.fixture(params=[web_peer, dimse_peer])
    def secure(self, request, store, certificate):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, certificate.with_name("key.pem"))
        with request.param(store, tls=context) as address:
            yield address

    def test_a_trusted_archive_is_used(self, secure, store, series, certificate, tmp_path):
        archive = connect(secure, Access(authorities=certificate))
        assert push_all(archive, dicom_files(series()), Progress()) == 4
        assert pull_all(archive, archive.find_series(SeriesFilter()), tmp_path / "out", Progress()) == (1, 0)

    def test_an_untrusted_archive_is_not_used(self, secure, store):
        with pytest.raises(ArchiveError, match="trusted"):
            connect(secure, Access()).find_series(SeriesFilter())
        assert store.requests == []


class TestWhatComes:
    """Archives that send something else than the series."""

    class SendingArchive:
        def __init__(self, *contents):
            self.contents = contents

        def retrieve(self, series, receive):
            for content in self.contents:
                receive(content)

    @pytest.mark.parametrize(("is_dicom", "message"), [(False, "an incomplete DICOM"), (True, "another series")])
    def test_other_content_than_the_series_is_refused(self, series, tmp_path, is_dicom, message):
        content = series()[0].read_bytes() if is_dicom else b"<html>"
        with pytest.raises(CTError, match=message):
            pull(self.SendingArchive(content), SeriesSummary("1.2", "1.2.3", 1), tmp_path / "out" / "one")
        assert list((tmp_path / "out").iterdir()) == []

    def test_names_of_files_do_not_come_from_the_archive(self, series, tmp_path):
        dataset = pydicom.dcmread(series(SeriesInstanceUID="1.2.3")[0])
        dataset.SOPInstanceUID = "1.2.9"
        dataset["SOPInstanceUID"]._value = "../../escaped"
        content = BytesIO()
        pydicom.dcmwrite(content, dataset)
        pull(self.SendingArchive(content.getvalue()), SeriesSummary("1.2", "1.2.3", 1), tmp_path / "a" / "one")
        assert [file.name for file in (tmp_path / "a" / "one").iterdir()] == ["000001.dcm"]
        assert not list(tmp_path.rglob("*escaped*"))


def test_files_to_send(series, tmp_path):
    paths = series()
    folder = paths[0].parent
    (folder / "notes.txt").write_text("no DICOM", encoding="utf-8")
    (folder / ".partial.dcm").write_bytes(paths[0].read_bytes())
    assert len(dicom_files([folder, paths[0]])) == 4
    dataset = pydicom.dcmread(paths[0])
    del dataset.StudyInstanceUID
    (tmp_path / "odd.dcm").write_bytes(paths[0].read_bytes().replace(b"\x08\x00\x16\x00UI", b"\x08\x00\x16\x00CQ"))
    for path, message in (
        (folder / "notes.txt", "no DICOM file"),
        (tmp_path / "none", "does not exist"),
        (save(dataset, tmp_path / "lacking.dcm"), "lacks a UID"),
        (tmp_path / "odd.dcm", "broken DICOM file"),
    ):
        with pytest.raises(CTError, match=message):
            dicom_files([path])


def test_nothing_names_a_patient_in_logs_or_errors(archive, store, series, caplog, capfd, tmp_path):
    caplog.set_level(logging.DEBUG)
    paths = series(PatientID="SECRET-7", PatientName="Doe^Jane")
    push_all(archive, dicom_files(paths), Progress())
    summaries = archive.find_series(SeriesFilter(patient_id="SECRET-7"))
    pull(archive, summaries[0], tmp_path / "one")
    store.fail = 99
    with pytest.raises(ArchiveError) as error:
        archive.find_series(SeriesFilter(patient_id="SECRET-7"))
    for address in ("http://127.0.0.1:9/dicom-web", "dimse://PEER@127.0.0.1:9"):
        with pytest.raises(ArchiveUnreachableError):
            connect(address, Access()).find_series(SeriesFilter(patient_id="SECRET-7"))
    output = caplog.text + "".join(capfd.readouterr()) + str(error.value)
    for secret in ("SECRET-7", "Doe", uid(paths)):
        assert secret not in output
