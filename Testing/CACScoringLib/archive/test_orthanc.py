"""A real archive: Orthanc, with storage of its own on free loopback ports. Skipped where it is not installed."""

from dataclasses import replace

import dicom_results
import panel_results
import pydicom
import pytest
from archive_peers import stub_scorer
from dicom_files import chest_hu, write_series
from dicomweb_client import DICOMwebClient
from in_this_process import InThisProcess
from orthanc import Orthanc, missing
from second_readers import check_objects

from CACScoringLib.archive import watch as watching
from CACScoringLib.archive.address import Access, connect
from CACScoringLib.archive.files import dicom_files
from CACScoringLib.archive.journal import WatchSettings
from CACScoringLib.archive.series import SeriesFilter
from CACScoringLib.archive.transfer import push_all
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
def given(tmp_path, request):
    """A series of a patient who is this test's alone; the brackets in the number are encoded in addresses."""
    return write_series(tmp_path / "given", chest_hu(), tags={"PatientID": request.node.name[-60:]})


def fetched(orthanc, study_uid, series_uid):
    return DICOMwebClient(orthanc.web_address).retrieve_series(study_uid, series_uid)


def test_a_study_is_pushed_watched_scored_and_its_results_are_fetched(orthanc, archive, given, tmp_path, monkeypatch):
    monkeypatch.setattr(watching, "Workers", InThisProcess)
    push_all(archive, dicom_files(given), Progress())
    source = pydicom.dcmread(given[0])
    wanted = SeriesFilter(patient_id=source.PatientID)
    states = []
    for folder in ("first", "first", "second"):
        with open_watch(tmp_path / folder, {}) as journal:
            settings = WatchSettings(0.2, 0.5, once=True)
            watch = Watch(archive, tmp_path / folder, wanted, settings, journal, print)
            states += [entry.state for entry in watch.run(stub_scorer(tmp_path / "log"))]
    assert states == ["done", "done", "present"]
    assert len((tmp_path / "log").read_text().splitlines()) == 1
    (report,) = archive.find_series(SeriesFilter(study_uid=source.StudyInstanceUID, modality="SR"))
    sent = pydicom.dcmread(tmp_path / "first" / "000001" / "measurements.dcm")
    (back,) = fetched(orthanc, report.study_uid, report.series_uid)
    assert back == sent
    assert not list((tmp_path / "first" / "series").iterdir())


def test_every_object_comes_back_and_is_read_by_others(orthanc, archive, tmp_path):
    """Segmentation, both reports, PDF, key slices and calcium map: sent by CAC, fetched by the clients of others, read
    by dcmqi, dcmtk and GDCM, with equal voxels and numbers."""
    for name in ("sent", "back", "scratch"):
        (tmp_path / name).mkdir()
    given = dicom_results.chest_series(tmp_path)
    result = dicom_results.score(given, 1 / 3, panel_results.known_networks())
    write_objects(tmp_path / "sent", result)
    sent = {path.name: pydicom.dcmread(path) for path in (tmp_path / "sent").iterdir()}
    assert len(sent) >= 6
    push_all(archive, dicom_files([given.ct, tmp_path / "sent"]), Progress())
    for name, made in sent.items():
        series = fetched(orthanc, made.StudyInstanceUID, made.SeriesInstanceUID)
        (back,) = [each for each in series if each.SOPInstanceUID == made.SOPInstanceUID]
        assert back == made
        back.save_as(tmp_path / "back" / name, enforce_file_format=True)
    check_objects(tmp_path / "back", result, tmp_path / "scratch")
    again = dicom_results.score(replace(given, lesions=tmp_path / "back" / "segmentation.dcm"), 1 / 3)
    assert again.methods["threshold"].total == result.methods["threshold"].total
    assert again.methods["threshold"].arteries == result.methods["threshold"].arteries
