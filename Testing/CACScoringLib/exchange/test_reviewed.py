"""A reader's lesions from DICOM: our own segmentations and those of other tools, and contours."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from dicom_files import save
from dicom_results import PRONE, SITES, chest_series, score
from pydicom import Dataset
from pydicom.uid import RTStructureSetStorage, generate_uid

from CACScoringLib.core.errors import CTError, MaskError, UnreadableError
from CACScoringLib.core.labels import NOT_CORONARY, Artery, NonCoronary
from CACScoringLib.exchange.reviewed import label_of, read_review_file, read_reviewed
from CACScoringLib.exchange.write import write_objects
from CACScoringLib.io.reading import read_ct


def write_structures(path: Path, image: sitk.Image, contours, frame_of_reference=None, kind="CLOSED_PLANAR"):
    """Write a structure set. contours: name and lists of corners (i, j, k) in the image."""
    structure_set = Dataset()
    structure_set.SOPClassUID, structure_set.SOPInstanceUID = RTStructureSetStorage, generate_uid()
    structure_set.Modality = "RTSTRUCT"
    structure_set.StructureSetROISequence, structure_set.ROIContourSequence = [], []
    for number, (name, corners) in enumerate(contours, 1):
        roi, drawn = Dataset(), Dataset()
        roi.ROINumber, roi.ROIName = number, name
        if frame_of_reference:
            roi.ReferencedFrameOfReferenceUID = frame_of_reference
        drawn.ReferencedROINumber, drawn.ContourSequence = number, []
        for points in corners:
            contour = Dataset()
            places = [image.TransformContinuousIndexToPhysicalPoint([float(n) for n in p]) for p in points]
            contour.ContourGeometricType, contour.NumberOfContourPoints = kind, len(points)
            contour.ContourData = [f"{value:.4f}" for place in places for value in place]
            drawn.ContourSequence.append(contour)
        structure_set.StructureSetROISequence.append(roi)
        structure_set.ROIContourSequence.append(drawn)
    return save(structure_set, path)


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    return chest_series(tmp_path_factory.mktemp("chest"))


@pytest.fixture(scope="module")
def scan(series):
    return read_ct(series.ct)


@pytest.fixture(scope="module")
def segmentation(series, tmp_path_factory):
    folder = tmp_path_factory.mktemp("objects")
    write_objects(folder, score(series))
    return folder / "segmentation.dcm"


@pytest.mark.long
@pytest.mark.parametrize("orientation", [(1.0, 0.0, 0.0, 0.0, 1.0, 0.0), PRONE])
def test_scores_from_our_segmentation_are_those_of_its_result(orientation, tmp_path):
    series = chest_series(tmp_path, orientation)
    first = score(series, calibration=0.75)
    write_objects(tmp_path, first)
    second = score(replace(series, lesions=tmp_path / "segmentation.dcm"), calibration=0.75)
    assert second.methods["threshold"].total == first.methods["threshold"].total
    assert second.methods["threshold"].arteries == first.methods["threshold"].arteries
    assert second.record.non_coronary.scores == first.record.non_coronary.scores
    assert second.warnings == first.warnings


def coded(value, scheme="SCT"):
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, "any"
    return [item]


@pytest.mark.parametrize(
    ("name", "codes", "label"),
    [
        ("RCA", coded("59438005"), Artery.LAD),  # a code decides, whatever the name
        ("Segment_1", coded("91748002"), Artery.LAD),  # its middle third
        ("Segment_1", coded("T-43200", "SRT"), Artery.RCA),
        ("Segment_1", coded("41801008"), Artery.OTHER),
        ("unassigned", coded("41801008"), Artery.UNASSIGNED),
        ("LAD", coded("41801008"), Artery.LAD),
        ("left anterior descending coronary artery", [], Artery.LAD),
        ("Segment_1", coded("91134007"), NonCoronary.MITRAL_ANNULUS),
        ("not-coronary: stent", coded("59438005"), NOT_CORONARY),
        ("Segment_1", coded("85756007"), None),
        ("", [], None),
    ],
)
def test_codes_decide_before_names(name, codes, label):
    assert label_of(name, codes) == label


@pytest.mark.parametrize("names", [("LAD", "not coronary"), ("not-coronary: valve", "RCA")])
def test_rejected_calcium_never_counts_as_an_artery(scan, names, tmp_path):
    contours = [(names[0], [square(9.6, 14.4, 5)]), (names[1], [square(12.6, 17.4, 5)])]
    with pytest.raises(MaskError, match=r"overlap: .*not-coronary.* 4 voxels"):
        read_reviewed(write_structures(tmp_path / "rt.dcm", scan.image, contours), scan)
    apart = [(names[0], [square(9.6, 14.4, 5)]), (names[1], [square(19.6, 24.4, 5)])]
    labels = read_reviewed(write_structures(tmp_path / "apart.dcm", scan.image, apart), scan)[0]
    assert np.count_nonzero(sitk.GetArrayFromImage(labels)) == 25


@pytest.mark.parametrize(("names", "moved_mm"), [(("LAD", "not-coronary"), 0.0), (("not-coronary", "LAD"), 1.2)])
def test_a_segmentation_with_rejected_calcium(segmentation, scan, tmp_path, names, moved_mm):
    dataset = pydicom.dcmread(segmentation)
    for item, name in zip(dataset.SegmentSequence, names, strict=False):
        item.SegmentLabel = name
        item.AnatomicRegionSequence = []
    groups = dataset.PerFrameFunctionalGroupsSequence
    for group in groups:
        x, y, z = group.PlanePositionSequence[0].ImagePositionPatient
        group.PlanePositionSequence[0].ImagePositionPatient = [float(x) + moved_mm, y, z]
    dataset.save_as(tmp_path / "apart.dcm")
    labels = sitk.GetArrayFromImage(read_reviewed(tmp_path / "apart.dcm", scan)[0])
    assert Artery.LAD in labels
    assert NOT_CORONARY not in labels
    numbers = [group.SegmentIdentificationSequence[0].ReferencedSegmentNumber for group in groups]
    pixels, last = dataset.Rows * dataset.Columns // 8, numbers.index(2)
    groups[last].PlanePositionSequence = groups[0].PlanePositionSequence
    data = bytearray(dataset.PixelData)
    data[last * pixels : (last + 1) * pixels] = data[:pixels]
    dataset.PixelData = bytes(data)
    dataset.save_as(tmp_path / "over.dcm")
    with pytest.raises(MaskError, match=r"overlap|separate segments"):
        read_reviewed(tmp_path / "over.dcm", scan)


def test_a_segmentation_off_the_grid_keeps_its_place(segmentation, series, scan, tmp_path):
    """Each labelled voxel lies where its frame places it, with different spacing of rows, columns and slices."""
    dataset = pydicom.dcmread(segmentation)
    measures = dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    measures.PixelSpacing = [1.1, 1.3]
    for group in dataset.PerFrameFunctionalGroupsSequence:
        x, y, z = group.PlanePositionSequence[0].ImagePositionPatient
        group.PlanePositionSequence[0].ImagePositionPatient = [float(x) + 1.2, float(y) + 2.4, z]
    dataset.save_as(tmp_path / "moved.dcm")
    assert "mask-resampled" in [w.code for w in score(replace(series, lesions=tmp_path / "moved.dcm")).warnings]
    labels = read_reviewed(tmp_path / "moved.dcm", scan)[0]
    k, j, i = np.nonzero(sitk.GetArrayFromImage(labels))
    places = [labels.TransformIndexToPhysicalPoint(index) for index in np.column_stack([i, j, k]).tolist()]
    expected = []
    for frame, group in zip(dataset.pixel_array, dataset.PerFrameFunctionalGroupsSequence, strict=True):
        x, y, z = map(float, group.PlanePositionSequence[0].ImagePositionPatient)
        expected += [(x + 1.3 * column, y + 1.1 * row, z) for row, column in np.argwhere(frame)]
    np.testing.assert_allclose(sorted(places), sorted(expected), atol=1e-3)


def test_a_ct_or_a_broken_file_is_no_review(segmentation, series, scan, tmp_path):
    with pytest.raises(MaskError, match="modality CT"):
        read_reviewed(next(series.ct.iterdir()), scan)
    (tmp_path / "half.dcm").write_bytes(segmentation.read_bytes()[:-200])
    with pytest.raises(CTError, match=r"half\.dcm"):
        read_reviewed(tmp_path / "half.dcm", scan)


def test_an_item_shorter_than_its_sequence_is_broken(segmentation, scan, tmp_path):
    content = segmentation.read_bytes()
    at = content.index(b"\x20\x00\x11\x91SQ") + 20  # in the first item of a frame's content
    (tmp_path / "s.dcm").write_bytes(content[:at] + content[at + 4 :])
    with pytest.raises(UnreadableError, match=r"s\.dcm is a broken DICOM file"):
        read_reviewed(tmp_path / "s.dcm", scan)


def square(low, high, k):
    return [(low, low, k), (high, low, k), (high, high, k), (low, high, k)]


def test_contours_are_filled_in_their_slices_and_inner_ones_are_holes(scan, tmp_path):
    contours = [("LAD", [square(9.6, 20.4, 5), square(13.6, 16.4, 5)]), ("aorta", [square(29.6, 32.4, 6)])]
    path = write_structures(tmp_path / "rt.dcm", scan.image, contours)
    labels = sitk.GetArrayFromImage(read_reviewed(path, scan)[0])
    expected = np.zeros_like(labels)
    expected[5, 10:21, 10:21] = Artery.LAD
    expected[5, 14:17, 14:17] = 0
    expected[6, 30:33, 30:33] = NonCoronary.THORACIC_AORTA
    assert (labels == expected).all()


def box(rows, columns, k=5):
    """Corners of the contour around pixels from the first to the last of rows and columns."""
    (j0, j1), (i0, i1) = ((low - 0.4, high + 0.4) for low, high in (rows, columns))
    return [(i0, j0, k), (i1, j0, k), (i1, j1, k), (i0, j1, k)]


@pytest.mark.parametrize(
    ("contours", "kind", "filled", "empty"),
    [
        ([box((10, 20), (10, 20)), box((15, 25), (15, 25))], "CLOSED_PLANAR", [(17, 17), (22, 22), (12, 12)], []),
        ([box((10, 20), (10, 20)), box((10.2, 20.2), (9.8, 19.8))], "CLOSED_PLANAR", [(15, 15), (15, 20)], []),
        ([box((10, 20), (10, 20)), box((5, 30), (14, 16))], "CLOSED_PLANAR", [(6, 15), (15, 15), (15, 11)], []),
        ([box((10, 20), (10, 20)), box((12, 18), (12, 18)), box((14, 16), (14, 16))], "CLOSED_PLANAR",
         [(15, 15), (11, 11)], [(13, 15)]),
        ([box((14, 16), (14, 16)), box((15, 25), (15, 25)), box((10, 20), (10, 20))], "CLOSED_PLANAR",
         [(22, 22), (11, 11)], [(14, 14)]),
        ([box((10, 20), (10, 20)), box((15, 25), (15, 25))], "CLOSEDPLANAR_XOR", [(12, 12), (22, 22)], [(17, 17)]),
        ([box((10, 20), (10, 20)), box((12, 18), (12, 18))], "CLOSEDPLANAR_XOR", [(11, 11)], [(15, 15)]),
    ],
)  # fmt: skip
def test_overlapping_contours_are_united(scan, contours, kind, filled, empty, tmp_path):
    path = write_structures(tmp_path / "rt.dcm", scan.image, [("LAD", contours)], kind=kind)
    labels = sitk.GetArrayFromImage(read_reviewed(path, scan)[0])[5]
    assert [bool(labels[place]) for place in filled + empty] == [True] * len(filled) + [False] * len(empty)


def test_open_contours_are_refused(scan, tmp_path):
    path = write_structures(tmp_path / "rt.dcm", scan.image, [("LAD", [square(9, 12, 5)])], kind="OPEN_PLANAR")
    with pytest.raises(MaskError, match=r"not closed \(OPEN_PLANAR\)"):
        read_reviewed(path, scan)


@pytest.mark.parametrize(
    ("corners", "pixels"),
    [
        ([square(10, 13, 5)], [(i, j) for i in range(10, 14) for j in range(10, 14)]),
        ([square(10.01, 12.99, 5)], [(i, j) for i in range(10, 14) for j in range(10, 14)]),
        ([square(9.5, 13.5, 5)], [(i, j) for i in range(10, 14) for j in range(10, 14)]),
        ([[(7, 8, 5)]], [(7, 8)]),
        ([[(7, 8, 5), (10, 8, 5)]], [(7, 8), (8, 8), (9, 8), (10, 8)]),
        ([[(7, 8, 5), (9, 10, 5)]], [(7, 8), (8, 9), (9, 10)]),
        ([[(10, 8, 5), (12, 10, 5), (10, 12, 5), (8, 10, 5)]], [(10, 8), (9, 9), (10, 9), (11, 9)]
         + [(i, 10) for i in range(8, 13)] + [(9, 11), (10, 11), (11, 11), (10, 12)]),
        ([square(10, 15, 5), square(11, 14, 5)], [(i, j) for i in range(10, 16) for j in range(10, 16)
         if not (i in (12, 13) and j in (12, 13))]),
        ([[(-2, 0, 5), (1, 0, 5)]], [(0, 0), (1, 0)]),
    ],
)  # fmt: skip
def test_pixels_on_a_contour_are_inside(scan, corners, pixels, tmp_path):
    """OpenCV's findContours and rt-utils draw contours through the centres of the outermost pixels."""
    path = write_structures(tmp_path / "rt.dcm", scan.image, [("LAD", corners)])
    labels = sitk.GetArrayFromImage(read_reviewed(path, scan)[0])
    assert {(i, j) for _k, j, i in np.argwhere(labels).tolist()} == set(pixels)


@pytest.mark.long
@pytest.mark.parametrize(("spacing_mm", "copies"), [(1.0, 1), (1.5, 2), (2.5, 1), (3.0, 1), (4.0, 2), (5.0, 1)])
def test_contours_of_other_slices_reach_the_slices_of_the_ct(scan, spacing_mm, copies, tmp_path):
    """A column of square section with a hole, drawn from 15 to 45 mm on slices of another spacing."""
    places = np.arange(15, 45 + 1e-6, spacing_mm) / scan.slice_spacing_mm
    contours = [square(*corners, k) for k in places for corners in ((9.6, 20.4), (13.6, 16.4))] * copies
    labels, warnings = read_reviewed(write_structures(tmp_path / "rt.dcm", scan.image, [("LAD", contours)]), scan)
    expected = np.zeros(scan.hu.shape, np.uint8)
    expected[5 : round(places[-1]) + 1, 10:21, 10:21] = Artery.LAD
    expected[:, 14:17, 14:17] = 0
    assert (sitk.GetArrayFromImage(labels) == expected).all()
    assert [w.code for w in warnings] == ([] if spacing_mm == 3.0 else ["contours-between-slices"])


def test_lesions_of_slices_without_contours_between_them_stay_apart(scan, tmp_path):
    path = write_structures(tmp_path / "rt.dcm", scan.image, [("LAD", [square(9.6, 12.4, k) for k in (3, 5)])])
    labels = sitk.GetArrayFromImage(read_reviewed(path, scan)[0])
    assert np.flatnonzero(labels.any((1, 2))).tolist() == [3, 5]


def test_an_element_of_unknown_kind_is_broken(scan, tmp_path):
    path = write_structures(tmp_path / "rt.dcm", scan.image, [("LAD", [square(9, 12, 5)])])
    content = path.read_bytes()
    for kind in (b"\x06\x30\x42\x00CS", b"\x06\x30\x26\x00LO"):  # of a contour's type, and of a structure's name
        path.write_bytes(content.replace(kind, kind[:4] + b"CQ"))
        with pytest.raises(UnreadableError, match=r"rt\.dcm is a broken DICOM file"):
            read_reviewed(path, scan)
    with pytest.raises(UnreadableError, match=r"rt\.dcm is a broken DICOM file"):
        read_review_file(path)


def moved(contours, shift, sign):
    """Return contours moved by a multiple of a shift along columns and rows."""
    steps = sign * shift[0], sign * shift[1]
    return [
        (name, [[(x + steps[0], y + steps[1], k) for x, y, k in points] for points in slices])
        for name, slices in contours
    ]


@pytest.mark.parametrize(
    ("shift", "edge"),
    [
        *(((0.0, 0.0), 0.3), ((0.2, -0.2), 0.0), ((0.5, 0.5), 2.0)),
        *(((0.5, 0.5), 0.0), ((-0.5, -0.5), 0.3), ((0.5, -0.5), 0.3), ((-0.5, 0.5), 0.0)),
    ],
)
def test_contours_half_a_pixel_off_the_calcium(series, scan, tmp_path, shift, edge):
    """Contours through the centres of the outermost dense pixels, just outside them, and far around them."""
    reviewed = sitk.GetArrayFromImage(sitk.ReadImage(series.lesions))
    contours = []
    for site, name in zip(SITES, ("LAD", "RCA", "aortic valve"), strict=True):
        k, j, i = (sorted(set(axis)) for axis in np.nonzero((reviewed == site) & (scan.hu >= 130)))
        corners = box((j[0] + 0.4, j[-1] - 0.4), (i[0] + 0.4, i[-1] - 0.4))
        centre = np.mean(corners, axis=0)
        spread = [np.sign(np.array(corner) - centre) * edge + corner for corner in corners]
        contours.append((name, [[(x, y, n) for x, y, _ in spread] for n in k]))
    contours = moved(contours, shift, 1)
    path = write_structures(tmp_path / "rt.dcm", scan.image, contours)
    messages = {warning.code: warning.message for warning in read_reviewed(path, scan)[1]}
    is_off = abs(shift[0]) == 0.5 and edge < 0.5
    assert list(messages) == (["labels-off-calcium"] if is_off else [])
    if (shift, edge) == ((0.0, 0.0), 0.3):
        result, expected = score(replace(series, lesions=path)), score(series)
        assert result.methods["threshold"].arteries == expected.methods["threshold"].arteries
        assert result.record.non_coronary.scores == expected.record.non_coronary.scores
    if is_off:
        sides = f"{'anterior' if shift[1] > 0 else 'posterior'} and {'right' if shift[0] > 0 else 'left'}"
        assert f"half a pixel further {sides}" in messages["labels-off-calcium"]
        in_place = write_structures(tmp_path / "in_place.dcm", scan.image, moved(contours, shift, -1))
        agatston = [
            score(replace(series, lesions=file)).methods["threshold"].total.agatston for file in (path, in_place)
        ]
        assert agatston[0] < agatston[1]
        assert re.findall(r"Agatston (\d+).*?, (\d+), half", messages["labels-off-calcium"]) == [
            tuple(f"{value:.0f}" for value in agatston)
        ]


def test_contours_across_slices_of_another_scan_or_of_unknown_name_are_refused(scan, tmp_path):
    tilted = [(10, 10, 5), (20, 10, 5), (20, 20, 8), (10, 20, 8)]
    with pytest.raises(MaskError, match="do not lie in the slices"):
        read_reviewed(write_structures(tmp_path / "a.dcm", scan.image, [("LAD", [tilted])]), scan)
    with pytest.raises(MaskError, match=r"GTV \(structure 1\)"):
        read_reviewed(write_structures(tmp_path / "b.dcm", scan.image, [("GTV", [square(9, 12, 5)])]), scan)
    with pytest.raises(MaskError, match="another scan"):
        read_reviewed(
            write_structures(tmp_path / "c.dcm", scan.image, [("LAD", [square(9, 12, 5)])], generate_uid()), scan
        )


@pytest.mark.parametrize(("kind", "warned"), [("AUTOMATIC", True), ("SEMIAUTOMATIC", False)])
def test_lesions_of_an_algorithm_alone_are_known(segmentation, kind, warned, tmp_path):
    dataset = pydicom.dcmread(segmentation)
    for item in dataset.SegmentSequence:
        item.SegmentAlgorithmType = kind
    dataset.save_as(tmp_path / "segmentation.dcm")
    review = read_review_file(tmp_path / "segmentation.dcm")
    assert review.automatic == warned
    assert review.status == ("automatic" if warned else "reviewed"), "as CAC wrote it"


@pytest.mark.long
def test_results_refer_to_their_series_in_an_archive(segmentation, series, tmp_path):
    archive = Path(shutil.make_archive(str(tmp_path / "scan"), "zip", series.ct))
    write_objects(tmp_path, score(replace(series, ct=archive)))
    written, expected = pydicom.dcmread(tmp_path / "segmentation.dcm"), pydicom.dcmread(segmentation)
    assert written.SOPInstanceUID == expected.SOPInstanceUID
    assert (read_reviewed(tmp_path / "segmentation.dcm", read_ct(archive))[1]) == ()
