"""Lesions of another frame of reference, series or patient than the scan's are refused or doubted severely."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from dicom_results import PATIENT, chest_series, score
from pydicom import Dataset
from pydicom.datadict import tag_for_keyword
from pydicom.uid import generate_uid

from CACScoringLib.core.errors import MaskError
from CACScoringLib.core.files import LAST_FILE
from CACScoringLib.core.grid import Grid
from CACScoringLib.exchange.belonging import check_image_file, check_origin, frames_of, origin_of
from CACScoringLib.exchange.reviewed import read_review_file
from CACScoringLib.exchange.write import write_objects
from CACScoringLib.io.reading import read_ct
from CACScoringLib.record.score_record import InputRecord
from CACScoringLib.report.files import write_json
from CACScoringLib.run import read_lesions

FOREIGN = "1.2.3"
OTHER = {"PatientID": "8", "PatientName": "Else^Some", "PatientBirthDate": "19330101"}
SAME = {name: PATIENT[name] for name in OTHER}


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    return chest_series(tmp_path_factory.mktemp("chest"))


@pytest.fixture(scope="module")
def scan(series):
    return read_ct(series.ct)


@pytest.fixture(scope="module")
def uids(series):
    """UIDs of the CT by the letters of the cases."""
    header = pydicom.dcmread(next(iter(sorted(Path(series.ct).iterdir()))))
    return {"frame": header.FrameOfReferenceUID, "series": header.SeriesInstanceUID, "image": header.SOPInstanceUID}


def items(**values):
    item = Dataset()
    for name, value in values.items():
        if value is not None:
            setattr(item, name, value)
    return [item]


def structure_set(roi_frame, frame, series, image, patient):
    """A structure set with a drawn structure. UIDs that are None are left out."""
    data = Dataset()
    data.StructureSetROISequence = items(ROINumber=1, ROIName="LAD", ReferencedFrameOfReferenceUID=roi_frame)
    images = items(ReferencedSOPInstanceUID=image)
    data.ROIContourSequence = items(ReferencedROINumber=1, ContourSequence=items(ContourImageSequence=images))
    of_series = items(SeriesInstanceUID=series, ContourImageSequence=images)
    studies = items(ReferencedSOPInstanceUID=generate_uid(), RTReferencedSeriesSequence=of_series)
    data.ReferencedFrameOfReferenceSequence = items(FrameOfReferenceUID=frame, RTReferencedStudySequence=studies)
    for name, value in patient.items():
        setattr(data, name, value)
    return data


@pytest.mark.parametrize(
    ("roi_frame", "frame", "series_uid", "image", "patient", "outcome"),
    [
        ("frame", "frame", "series", "image", SAME, []),
        ("frame", None, None, None, {}, []),
        (None, None, None, None, SAME, []),
        (None, "frame", "series", None, {"PatientID": PATIENT["PatientID"]}, []),
        ("frame", "frame", FOREIGN, "image", SAME, []),  # sorted into another series
        (None, FOREIGN, "series", "image", SAME, MaskError),
        (FOREIGN, "frame", "series", "image", SAME, MaskError),
        ("frame", FOREIGN, "series", "image", SAME, []),
        ("frame", "frame", FOREIGN, FOREIGN, SAME, ["labels-other-series"]),
        ("frame", "frame", FOREIGN, None, SAME, ["labels-other-series"]),
        ("frame", "frame", None, FOREIGN, SAME, ["labels-other-series"]),
        (None, None, FOREIGN, None, SAME, MaskError),
        (None, None, None, FOREIGN, SAME, MaskError),
        ("frame", "frame", "series", "image", OTHER, ["labels-other-patient"]),
        ("frame", "frame", FOREIGN, "image", OTHER, ["labels-other-patient"]),
        ("frame", "frame", FOREIGN, FOREIGN, OTHER, MaskError),
        ("frame", "frame", None, None, OTHER, MaskError),
        (None, None, None, None, {"PatientBirthDate": "19330101"}, MaskError),
        (None, None, None, None, {"PatientID": "ANONYMOUS", "PatientName": "Anonymous"}, []),
    ],
)
def test_what_contours_state_of_their_scan(scan, uids, roi_frame, frame, series_uid, image, patient, outcome):
    data = structure_set(*(uids.get(uid, uid) for uid in (roi_frame, frame, series_uid, image)), patient)
    if outcome is MaskError:
        with pytest.raises(MaskError, match=r"rt\.dcm"):
            check_origin(origin_of(data, "rt.dcm"), scan, "rt.dcm")
    else:
        warnings = check_origin(origin_of(data, "rt.dcm"), scan, "rt.dcm")
        assert [(warning.code, warning.severe) for warning in warnings] == [(code, True) for code in outcome]


def test_of_a_structure_set_only_drawn_structures_and_what_lacks_its_own_frame_count():
    data = structure_set("1.1", "1.2", None, None, {})
    data.StructureSetROISequence += items(ROINumber=2, ReferencedFrameOfReferenceUID="1.3")
    assert frames_of(data) == ({"1.1"}, {"1.1"})
    del data.StructureSetROISequence[0].ReferencedFrameOfReferenceUID
    assert frames_of(data) == ({"1.2"}, set())


@pytest.fixture(scope="module")
def segmentation(series, tmp_path_factory):
    folder = tmp_path_factory.mktemp("objects")
    write_objects(folder, score(series))
    return folder / "segmentation.dcm"


def test_our_own_segmentation_belongs_to_its_scan_and_no_other(segmentation, series, scan, uids, tmp_path):
    data = pydicom.dcmread(segmentation)
    assert check_origin(origin_of(data, "seg.dcm"), scan, "seg.dcm") == ()
    assert read_review_file(segmentation).frames_of_reference == (uids["frame"],)
    series = chest_series(tmp_path / "series", FrameOfReferenceUID=uids["frame"])
    (warning,) = check_origin(origin_of(data, "seg.dcm"), read_ct(series.ct), "seg.dcm")
    assert warning.code == "labels-other-series"
    person = chest_series(tmp_path / "person", FrameOfReferenceUID=uids["frame"], **OTHER)
    with pytest.raises(MaskError, match="another patient"):
        check_origin(origin_of(data, "seg.dcm"), read_ct(person.ct), "seg.dcm")


def label_file(scan, path, **elements):
    """Write a label map with DICOM elements as ITK keeps them, by keyword."""
    labels = Grid.of(scan.image).image(np.zeros(scan.hu.shape, np.uint8))
    for keyword, value in elements.items():
        tag = tag_for_keyword(keyword)
        labels.SetMetaData(f"{tag >> 16:04x}|{tag & 0xFFFF:04x}", str(value))
    sitk.WriteImage(labels, str(path))
    return path


@pytest.mark.parametrize("ending", ["nrrd", "mha"])
def test_label_files_with_elements_of_dicom(scan, uids, tmp_path, ending):
    """Series, image and frame of the CT, and the patient, in turn foreign."""
    own = {"SeriesInstanceUID": uids["series"], "FrameOfReferenceUID": uids["frame"], **SAME}

    def read(**elements):
        path = label_file(scan, tmp_path / f"labels.{ending}", **elements)
        return [w.code for w in read_lesions(path, scan, "Ann")[2] if w.severe]

    assert read() == []
    assert read(**own) == []
    assert read(**own | {"Modality": "SEG", "SeriesInstanceUID": FOREIGN}) == []
    assert read(**own | {"SeriesInstanceUID": FOREIGN}) == ["labels-other-series"]
    assert read(**own | OTHER) == ["labels-other-patient"]
    for foreign in (OTHER, {"FrameOfReferenceUID": FOREIGN}, {"SeriesInstanceUID": FOREIGN}):
        with pytest.raises(MaskError):
            read(**foreign)


def test_a_mask_may_be_of_another_series_in_the_frame_but_of_no_other_patient(scan, uids, tmp_path):
    path = tmp_path / "heart.nrrd"
    in_frame = {"SeriesInstanceUID": FOREIGN, "FrameOfReferenceUID": uids["frame"]}
    for kind in ("heart", "pericardium", "calibration insert"):
        assert check_image_file(label_file(scan, path, **in_frame), scan, kind) == ()
        for foreign in (in_frame | OTHER, {"SeriesInstanceUID": FOREIGN}, {"FrameOfReferenceUID": FOREIGN}):
            with pytest.raises(MaskError, match=kind):
                check_image_file(label_file(scan, path, **foreign), scan, kind)


def test_files_of_a_result_are_of_its_scan(series, scan, tmp_path):
    """Labels of a result, which state nothing themselves, beside its own scan, another series, another patient."""
    result = tmp_path / "result"
    result.mkdir()
    write_json(result / LAST_FILE, score(series).record, {})
    path = label_file(scan, result / "lesions.nii.gz")
    brighter = replace(scan, image=scan.image + 1)

    def of(**acquisition):
        return brighter.stating(acquisition=replace(scan.acquisition, **acquisition))

    assert check_image_file(path, scan) == ()
    assert check_image_file(path, brighter, recorded=InputRecord.of(scan)) == ()
    assert [warning.code for warning in check_image_file(path, brighter)] == ["labels-other-series"]
    assert check_image_file(path, brighter, "heart") == ()
    with pytest.raises(MaskError, match="patient"):
        check_image_file(path, of(patient_id="8", patient_name="Else^Some"))


def test_what_a_restored_scan_knows_is_its_series(scan, uids):
    """Its files are not at hand, but the hash of its series is."""
    restored = replace(scan, dicom_files=())
    for uid, outcome in (("series", None), (FOREIGN, MaskError)):
        origin = origin_of(structure_set("frame", "frame", uids.get(uid, uid), None, SAME), "rt.dcm")
        if outcome is None:
            assert check_origin(origin, restored, "rt.dcm", recorded=InputRecord.of(scan)) == ()
        else:
            with pytest.raises(MaskError):
                check_origin(origin, restored, "rt.dcm", recorded=InputRecord.of(scan))
