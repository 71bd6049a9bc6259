"""DICOM objects of a result: their content, patient and study, and their validity in other programs."""

from dataclasses import replace
from datetime import datetime, timezone

import dicom_results
import highdicom
import numpy as np
import panel_results
import pydicom
import pytest
import SimpleITK as sitk
from dicom_results import PATIENT, PRONE, SECRET, SITES, chest_series, dicom_errors, score
from pydicom.sr.codedict import codes
from pydicom.valuerep import DT

from CACScoringLib.core.errors import CTError
from CACScoringLib.core.files import RESULT_FILES, OutputFolder
from CACScoringLib.core.labels import Artery
from CACScoringLib.core.progress import Progress
from CACScoringLib.exchange.images import segment_label
from CACScoringLib.exchange.write import write_objects
from CACScoringLib.models.choice import LoadedModels
from CACScoringLib.record.findings import EpicardialFat
from CACScoringLib.run import RunSettings, run_scan, write_result


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    return chest_series(tmp_path_factory.mktemp("chest"))


@pytest.fixture(scope="module")
def result(series):
    """Reviewed result with known epicardial fat, and a known length of a lesion."""
    scored = score(series, calibration=0.75, networks=panel_results.known_networks())
    threshold = scored.methods["threshold"]
    first, *lesions = threshold.features.lesions
    features = replace(threshold.features, lesions=(replace(first, length_mm=7.25), *lesions))
    methods = {**scored.methods, "threshold": replace(threshold, features=features)}
    return scored.stating(methods=methods, epicardial_fat=EpicardialFat(98.125, -86.5, None, "given"))


@pytest.fixture(scope="module")
def objects(result, tmp_path_factory):
    """Folder with the objects of a reviewed result."""
    folder = tmp_path_factory.mktemp("objects")
    write_objects(folder, result)
    return folder


def numbers(report):
    """Return each group's numbers by code, by tracking identifier."""
    groups = report.content.get_volumetric_roi_measurement_groups() + report.content.get_image_measurement_groups()
    return {g.tracking_identifier: {m.name.value: m.value for m in g.get_measurements()} for g in groups}


def expected(score, features=None):
    numbers = {"122660": score.volume_mm3, "122661": score.mass_mg, "246206008": score.lesions}
    return numbers if features is None else numbers | densities(features)


def densities(features):
    names = {"112182": "median_hu", "112183": "sd_hu", "QG58": "p10_hu", "8DWT": "p90_hu"}
    return {code: getattr(features, name) for code, name in names.items()}


@pytest.mark.long
def test_numbers_read_back_are_the_scores_to_the_last_digit(result, objects):
    groups = numbers(highdicom.sr.srread(objects / "measurements.dcm"))
    threshold = result.methods["threshold"]
    assert groups["Coronary calcium: total"] == {
        **expected(threshold.total, threshold.features.total),
        "450360000": threshold.total.agatston,
        "122657": 130.0,
        "122659": 0.75,
    }
    for artery in (Artery.LM, Artery.LAD, Artery.LCX, Artery.RCA):
        scores, features = threshold.arteries[artery], threshold.features.arteries.get(artery.key)
        assert groups[f"Coronary calcium: {artery.key}"] == {**expected(scores, features), "450360000": scores.agatston}
    valve = result.record.non_coronary.scores[SITES[2]]
    assert valve.agatston > 0
    numbers_of_valve = {code: value for code, value in expected(valve).items() if value is not None}
    assert groups["Calcium: aortic valve and root"] == {**numbers_of_valve, "112058": valve.agatston}
    map_total = result.methods["decomposition"].total
    assert groups["Calcium map: total"]["agatston-equivalent"] == map_total.clinical_agatston


@pytest.mark.long
def test_features_and_fat_are_read_back(result, objects):
    report = highdicom.sr.srread(objects / "measurements.dcm")
    groups, lesions = numbers(report), result.methods["threshold"].features.lesions
    assert len(lesions) == 2
    first, second = (groups[f"Coronary calcium: lesion {lesion.id}"] for lesion in lesions)
    assert first == {**densities(lesions[0]), "410668003": 7.25}
    assert second == densities(lesions[1])
    assert groups["Epicardial fat"] == {"118565006": 98.125, "112181": -86.5}
    (fat,) = report.content.get_image_measurement_groups(finding_type=codes.SCT.AdiposeTissue)
    assert fat.finding_sites[0].value == codes.SCT.Pericardium


@pytest.mark.long
def test_groups_refer_to_the_segments_of_their_arteries(objects):
    segmentation = highdicom.seg.segread(objects / "segmentation.dcm")
    report = highdicom.sr.srread(objects / "measurements.dcm")
    labels = {item.SegmentNumber: item.SegmentLabel for item in segmentation.SegmentSequence}
    referred = {}
    for group in report.content.get_volumetric_roi_measurement_groups():
        ((item,),) = [[i for i in group.reference_type and group[0].ContentSequence if i.name.value == "121191"]]
        reference = item.ReferencedSOPSequence[0]
        assert reference.ReferencedSOPInstanceUID == segmentation.SOPInstanceUID
        referred[group.tracking_identifier] = labels[reference.ReferencedSegmentNumber]
    assert referred == {
        "Coronary calcium: LAD": "LAD",
        "Coronary calcium: RCA": "RCA",
        "Calcium: aortic valve and root": "aortic valve and root",
    }


@pytest.mark.long
@pytest.mark.parametrize("orientation", [dicom_results.AXIAL, PRONE])
def test_segments_are_the_lesions_voxel_by_voxel_in_the_slices_they_were_read_from(orientation, tmp_path):
    series = chest_series(tmp_path, orientation)
    scored = score(series)
    write_objects(tmp_path, scored)
    segmentation = highdicom.seg.segread(tmp_path / "segmentation.dcm")
    labels = scored.methods["threshold"].lesion_set.site_map() + scored.methods["threshold"].outside_set.site_map()
    assert [item.SegmentLabel for item in segmentation.SegmentSequence] == [segment_label(site) for site in SITES]
    slices = {ds.SOPInstanceUID: ds for ds in (pydicom.dcmread(path) for path in sorted(series.ct.iterdir()))}
    segments = np.zeros_like(labels)
    frames = zip(segmentation.get_stored_frames(), segmentation.PerFrameFunctionalGroupsSequence, strict=True)
    for frame, group in frames:
        number = group.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        source = group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        assert group.PlanePositionSequence[0].ImagePositionPatient == slices[source].ImagePositionPatient
        assert frame.any(), "OHIF issue 3991: no segment may be empty"
        k = slices[source].InstanceNumber - 1
        upright = frame if orientation == dicom_results.AXIAL else frame[::-1, ::-1]
        segments[k][upright == 1] = SITES[number - 1]
    assert (segments == labels).all()
    shared = segmentation.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0]
    assert shared.ImageOrientationPatient == slices[source].ImageOrientationPatient


@pytest.mark.long
def test_a_scan_without_calcium_has_no_segmentation(series, tmp_path):
    empty = sitk.ReadImage(series.lesions) * 0
    sitk.WriteImage(empty, tmp_path / "none.nrrd")
    scan_input = replace(series, lesions=tmp_path / "none.nrrd")
    run_scan(scan_input, RunSettings(dicom=True), LoadedModels(), OutputFolder(tmp_path / "out"))
    assert not (tmp_path / "out" / "segmentation.dcm").exists()
    groups = numbers(highdicom.sr.srread(tmp_path / "out" / "measurements.dcm"))
    assert groups["Coronary calcium: total"]["450360000"] == 0


@pytest.mark.long
def test_patient_and_study_are_those_of_the_series_and_nothing_private_is_copied(objects, series):
    source = pydicom.dcmread(next(series.ct.iterdir()), stop_before_pixels=True)
    keys = (*(key for key in PATIENT if key != "SpecificCharacterSet"), "StudyInstanceUID", "StudyDate")
    for path in objects.iterdir():
        dataset = pydicom.dcmread(path)
        assert [dataset[key].value for key in keys] == [source[key].value for key in keys]
        assert dataset.SeriesInstanceUID != source.SeriesInstanceUID
        assert SECRET.encode() not in path.read_bytes()


@pytest.mark.long
def test_uids_follow_from_the_content(result, objects, tmp_path):
    def uids(folder):
        return {path.name: pydicom.dcmread(path).SOPInstanceUID for path in sorted(folder.iterdir())}

    first = uids(objects)
    assert all(uid.startswith("2.25.") and len(uid) <= 64 for uid in first.values())
    assert len(set(first.values())) == len(first)
    renamed = replace(result, scan=replace(result.scan, source=tmp_path / "elsewhere"))
    renamed = renamed.stating(seconds={"scores": 1.5})
    for name, scored in (("same", renamed), ("other", result.stating(categories=None))):
        (tmp_path / name).mkdir()
        write_objects(tmp_path / name, scored)
    assert uids(tmp_path / "same") == first
    assert not set(uids(tmp_path / "other").values()) & set(first.values())


@pytest.mark.long
def test_a_named_reader_verifies_the_report_at_the_time_of_confirmation(result, objects, tmp_path):
    """A run names the reader only if results identify, and no other than its record does."""
    for identify in (True, False):
        settings = RunSettings(dicom=True, identify=identify, reader="Reader^Rita")
        write_result(OutputFolder(tmp_path / f"{identify}"), result, settings, Progress())
    assert b"Reader^A" not in (tmp_path / "False" / "measurements.dcm").read_bytes()
    report = pydicom.dcmread(tmp_path / "True" / "measurements.dcm")
    assert report.VerificationFlag == "VERIFIED"
    (verifier,) = report.VerifyingObserverSequence
    assert verifier.VerifyingObserverName == "Reader^A"
    confirmed = datetime.fromisoformat(result.record.review.confirmations["threshold"].time)
    assert DT(verifier.VerificationDateTime).astimezone(timezone.utc) == confirmed
    assert "observer" in str(report).lower()
    unnamed = pydicom.dcmread(objects / "measurements.dcm")
    assert unnamed.VerificationFlag == "UNVERIFIED"


@pytest.mark.long
def test_objects_without_series_or_name_are_refused_before_scoring(tmp_path):
    def expect(message, scan_input, **settings):
        with pytest.raises(CTError, match=message):
            run_scan(scan_input, RunSettings(dicom=True, **settings), LoadedModels(), OutputFolder(tmp_path / "out"))
        assert not (tmp_path / "out").exists()

    sitk.WriteImage(panel_results.chest_image(), tmp_path / "ct.nrrd")
    expect("was not read from a DICOM series", dicom_results.ScanInput(tmp_path / "ct.nrrd"))
    series = chest_series(tmp_path)
    for name in ("  ", "a\\b", "a\nb", "x" * 65):
        expect("no DICOM person name", series, identify=True, reader=name)
    for path in series.ct.iterdir():
        dataset = pydicom.dcmread(path)
        del dataset.FrameOfReferenceUID
        dataset.save_as(path)
    expect("no frame of reference UID", series)


@pytest.mark.long
def test_a_reviewed_report_is_final_and_an_automatic_preliminary(result, objects, tmp_path):
    method = replace(result.methods["threshold"], status="automatic", non_coronary=None)
    automatic = result.stating(methods={"threshold": method}, models=())
    write_objects(tmp_path, automatic)
    reports = [pydicom.dcmread(folder / "measurements.dcm") for folder in (objects, tmp_path)]
    assert [report.PreliminaryFlag for report in reports] == ["FINAL", "PRELIMINARY"]
    segmentations = [pydicom.dcmread(folder / "segmentation.dcm") for folder in (objects, tmp_path)]
    kinds = [{item.SegmentAlgorithmType for item in segmentation.SegmentSequence} for segmentation in segmentations]
    assert kinds == [{"SEMIAUTOMATIC"}, {"AUTOMATIC"}]


@pytest.mark.long
def test_all_files_are_known_as_results_so_that_they_are_replaced_together(result, tmp_path):
    output = OutputFolder(tmp_path / "out", overwrite=True)
    write_result(output, result, RunSettings(dicom=True), Progress())
    assert {path.name for path in output.path.iterdir()} <= set(RESULT_FILES)
    write_result(output, result, RunSettings(), Progress())
    assert not list(output.path.glob("*.dcm"))


@pytest.mark.long
def test_dciodvfy_finds_no_error(objects):
    errors = {path.name: dicom_errors(path) for path in sorted(objects.glob("*.dcm"))}
    assert errors == {name: [] for name in errors}


@pytest.mark.long
def test_pixelmed_finds_no_error_in_the_measurement_report(objects, tmp_path):
    # Version 20220618 takes all groups for regions of interest (TID 1411) if one is: each kind is validated alone.
    for kind in ("1411", "1501"):
        report = pydicom.dcmread(objects / "measurements.dcm")
        (groups,) = [i for i in report.ContentSequence if i.ConceptNameCodeSequence[0].CodeValue == "126010"]
        groups.ContentSequence = [
            g for g in groups.ContentSequence if g.ContentTemplateSequence[0].TemplateIdentifier == kind
        ]
        assert groups.ContentSequence
        report.save_as(tmp_path / f"{kind}.dcm")
        messages = dicom_results.validated(tmp_path / f"{kind}.dcm")
        assert "Found Root Template TID_1500" in messages
        assert [line for line in messages.splitlines() if line.startswith("Error")] == []
