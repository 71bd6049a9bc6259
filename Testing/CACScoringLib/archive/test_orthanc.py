"""Tests with a real archive: Orthanc, with temporary storage on free loopback ports. Skipped if not installed."""

import dicom_results
import panel_results
import pydicom
import pytest
from archive_peers import stub_scorer
from dicom_files import chest_hu, write_series
from dicomweb_client import DICOMwebClient
from in_this_process import InThisProcess
from orthanc import Orthanc, missing

from CACScoringLib.archive import watch as watching
from CACScoringLib.archive.address import Access
from CACScoringLib.archive.journal import WatchSettings
from CACScoringLib.archive.series import SeriesFilter
from CACScoringLib.archive.transfer import connect, dicom_files, push_all
from CACScoringLib.archive.watch import Watch, open_watch
from CACScoringLib.core.progress import Progress
from CACScoringLib.exchange.write import write_objects

pytestmark = [pytest.mark.long, pytest.mark.skipif(missing() is not None, reason=missing() or "")]

PROTOCOLS = ("dicomweb", "dimse")


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory):
    server = Orthanc(tmp_path_factory.mktemp("orthanc")).start()
    yield server
    server.stop()


@pytest.fixture(params=PROTOCOLS)
def archive(request, orthanc):
    return connect(orthanc.web_address if request.param == "dicomweb" else orthanc.dimse_address, Access())


@pytest.fixture
def series_files(tmp_path, request):
    """A series of a patient for this test alone; the brackets in the ID are percent-encoded in URLs."""
    return write_series(tmp_path / "given", chest_hu(), tags={"PatientID": request.node.name[-60:]})


def fetch_series(orthanc, study_uid, series_uid):
    return DICOMwebClient(orthanc.web_address).retrieve_series(study_uid, series_uid)


def test_a_study_is_pushed_watched_and_scored(orthanc, archive, series_files, tmp_path, monkeypatch):
    monkeypatch.setattr(watching, "Workers", InThisProcess)
    push_all(archive, dicom_files(series_files), Progress())
    source = pydicom.dcmread(series_files[0])
    series_filter = SeriesFilter(patient_id=source.PatientID)
    states = []
    for folder in ("first", "first", "second"):
        with open_watch(tmp_path / folder, {}) as journal:
            settings = WatchSettings(0.2, 0.5, once=True)
            watch = Watch(archive, tmp_path / folder, series_filter, settings, journal, print)
            states += [entry.state for entry in watch.run(stub_scorer(tmp_path / "log"))]
    assert states == ["done", "done", "present"]
    assert len((tmp_path / "log").read_text(encoding="utf-8").splitlines()) == 1
    (report,) = archive.find_series(SeriesFilter(study_uid=source.StudyInstanceUID, modality="SR"))
    sent = pydicom.dcmread(tmp_path / "first" / "000001" / "measurements.dcm")
    (back,) = fetch_series(orthanc, report.study_uid, report.series_uid)
    assert back == sent
    assert not list((tmp_path / "first" / "series").iterdir())


def test_every_object_comes_back_unchanged(orthanc, archive, tmp_path):
    """Send segmentation and report, and fetch them with another client."""
    (tmp_path / "sent").mkdir()
    series_files = dicom_results.chest_series(tmp_path)
    write_objects(tmp_path / "sent", dicom_results.score(series_files, 1 / 3, panel_results.known_networks()))
    sent = {path.name: pydicom.dcmread(path) for path in (tmp_path / "sent").iterdir()}
    assert len(sent) == 2
    push_all(archive, dicom_files([series_files.ct, tmp_path / "sent"]), Progress())
    for dataset in sent.values():
        series = fetch_series(orthanc, dataset.StudyInstanceUID, dataset.SeriesInstanceUID)
        (back,) = [candidate for candidate in series if candidate.SOPInstanceUID == dataset.SOPInstanceUID]
        assert back == dataset
