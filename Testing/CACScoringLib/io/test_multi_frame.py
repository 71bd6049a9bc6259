"""Reading of Enhanced CT as single-frame slices."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_files import chest_hu, save, write_series
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import JPEGLSLossless, RLELossless, generate_uid
from reading_checks import reads, refuses

from CACScoringLib.core.ct import same_grid
from CACScoringLib.core.errors import (
    NotHounsfieldError,
    NotVolumeError,
    SeriesChoiceError,
    SliceGeometryError,
    UnreadableError,
)
from CACScoringLib.io.reading import read_ct

ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2.1"

_SHARED = {
    "PixelMeasuresSequence": ("PixelSpacing", "SliceThickness"),
    "PlaneOrientationSequence": ("ImageOrientationPatient",),
    "CTReconstructionSequence": ("ConvolutionKernel",),
    "CTXRayDetailsSequence": ("KVP",),
}
_PER_FRAME = {
    "PlanePositionSequence": ("ImagePositionPatient",),
    "PixelValueTransformationSequence": ("RescaleSlope", "RescaleIntercept", "RescaleType"),
    "CTExposureSequence": ("ExposureInmAs",),
    "CTImageFrameTypeSequence": ("FrameType",),
    "CardiacSynchronizationSequence": ("NominalPercentageOfCardiacPhase", "NominalCardiacTriggerDelayTime"),
    "FrameContentSequence": ("StackID", "InStackPositionNumber", "TemporalPositionIndex"),
}


def enhanced_of(
    paths: Sequence[Path],
    path: Path,
    *,
    syntax: str | None = None,
    edit: Callable[[Dataset, int], None] | None = None,
    tags: dict | None = None,
    shared: bool = True,
) -> Path:
    """Write one file with a frame for each slice, in the order of the paths.

    Args:
        path: Path of the file.
        paths: Paths of the slices.
        syntax: Transfer syntax of the compressed pixels.
        edit: Function of a slice and its index that changes the slice before it becomes a frame.
        tags: Attributes of the file.
        shared: Store groups that are equal in all frames once.
    """
    slices = [pydicom.dcmread(p) for p in paths]
    for n, ds in enumerate(slices):
        ds.StackID, ds.InStackPositionNumber, ds.TemporalPositionIndex = "1", n + 1, 1
        ds.FrameType, ds.ExposureInmAs = ds.ImageType, float(ds.Exposure)
        if edit:
            edit(ds, n)
    grouped = {keyword for group in (*_SHARED.values(), *_PER_FRAME.values()) for keyword in group}
    file = pydicom.dcmread(paths[0])
    for keyword in (*grouped, "Exposure"):
        if keyword in file:
            delattr(file, keyword)
    file.SOPClassUID, file.SOPInstanceUID, file.NumberOfFrames = ENHANCED_CT, generate_uid(), len(slices)
    file.PixelData = b"".join(ds.PixelData for ds in slices)
    if shared:
        file.SharedFunctionalGroupsSequence = Items([_groups(slices[0], _SHARED)])
    per_frame = _PER_FRAME if shared else {**_SHARED, **_PER_FRAME}
    file.PerFrameFunctionalGroupsSequence = Items([_groups(ds, per_frame) for ds in slices])
    for keyword, value in (tags or {}).items():
        setattr(file, keyword, value)
    if syntax:
        file.compress(syntax, generate_instance_uid=False)
    del file.file_meta.MediaStorageSOPClassUID
    path.parent.mkdir(parents=True, exist_ok=True)
    return save(file, path)


def _groups(ds: Dataset, groups: dict[str, tuple[str, ...]]) -> Dataset:
    item = Dataset()
    for name, keywords in groups.items():
        group = Dataset()
        for keyword in keywords:
            if keyword in ds:
                setattr(group, keyword, ds[keyword].value)
        setattr(item, name, Items([group]))
    return item


SHUFFLED = [3, 0, 5, 1, 4, 2]


def moved(n, mm):
    def edit(ds, k):
        if k == n:
            position = [float(value) for value in ds.ImagePositionPatient]
            ds.ImagePositionPatient = [*position[:2], position[2] + mm]

    return edit


@pytest.mark.long
@pytest.mark.parametrize(
    ("syntax", "signed", "shared"),
    [(None, False, True), (None, True, False), (RLELossless, True, True), (JPEGLSLossless, False, False)],
)
def test_the_scan_is_that_of_single_frames(tmp_path, syntax, signed, shared):
    paths = write_series(
        tmp_path / "single",
        chest_hu(),
        signed=signed,
        intercept=[-1024 + k for k in range(6)],
        orientation=(-1, 0, 0, 0, 1, 0),
        edit=lambda ds, k: setattr(ds, "Exposure", [90, 20, 40, 50, 60, 70][k]),
        tags={"ConvolutionKernel": ["I31f", "2"]},
    )
    path = enhanced_of([paths[k] for k in SHUFFLED], tmp_path / "multi" / "a.dcm", syntax=syntax, shared=shared)
    single = read_ct(tmp_path / "single")
    for given_path in (path, path.parent):
        multi = reads(given_path, single.hu)
        assert multi.hu.dtype == single.hu.dtype
        assert same_grid(multi.image, single.image)
        assert (multi.acquisition, multi.warnings) == (single.acquisition, single.warnings)
        assert multi.dicom_files == (path,)


@pytest.mark.parametrize(
    ("edit", "error", "match"),
    [
        (moved(3, 1.2), SliceGeometryError, r"unevenly spaced.*1\.20 mm off"),
        (lambda ds, k: setattr(ds, "ImageOrientationPatient", [2, 0, 0, 0, 2, 0]), SliceGeometryError, "perpendicular"),
        (lambda ds, _: delattr(ds, "PixelSpacing"), SliceGeometryError, "6 of 6 slices have no valid pixel spacing"),
        (lambda ds, k: k == 2 and delattr(ds, "ImagePositionPatient"), SliceGeometryError, r"position: a\.dcm frame 3"),
        (lambda ds, k: k == 2 and delattr(ds, "RescaleSlope"), NotHounsfieldError, r"no rescale slope.*a\.dcm frame 3"),
        (lambda ds, _: setattr(ds, "FrameType", ["ORIGINAL", "PRIMARY", "LOCALIZER"]), NotVolumeError, "localizer"),
    ],
)
def test_errors_are_those_of_single_frames(tmp_path, edit, error, match):
    path = enhanced_of(write_series(tmp_path / "single", chest_hu()), tmp_path / "a.dcm", edit=edit)
    refuses(path, error, match)


def test_facts_in_other_tags_of_enhanced_ct(tmp_path):
    paths = write_series(tmp_path / "single", chest_hu())
    agent = Dataset()
    agent.CodeMeaning = "Iopamidol"
    scan = read_ct(enhanced_of(paths, tmp_path / "a.dcm", tags={"ContrastBolusAgentSequence": Items([agent])}))
    assert scan.acquisition == replace(read_ct(tmp_path / "single").acquisition, contrast_agent="Iopamidol")


def test_private_groups_override_nothing(tmp_path):
    paths = write_series(tmp_path / "slices", chest_hu())
    single = read_ct(tmp_path / "slices")
    enhanced = enhanced_of(paths, tmp_path / "enhanced.dcm")
    file = pydicom.dcmread(enhanced)
    for frame in file.PerFrameFunctionalGroupsSequence:
        item = Dataset()
        item.KVP, item.PixelSpacing, item.ImagePositionPatient, item.RescaleIntercept = 80, [1.2, 1.2], [0, 0, 7], 0
        frame.private_block(0x2005, "Philips MR Imaging DD 005", create=True).add_new(0x0F, "SQ", [item])
    file.save_as(enhanced)
    scan = read_ct(enhanced)
    assert same_grid(scan.image, single.image)
    assert (scan.hu == single.hu).all()
    assert scan.acquisition.kvp == single.acquisition.kvp == 120


@pytest.mark.parametrize(("kvp", "read"), [(120, 120), (80, None)])
def test_an_additional_source_overrides_no_tube_voltage(tmp_path, kvp, read):
    enhanced = enhanced_of(write_series(tmp_path / "slices", chest_hu()), tmp_path / "enhanced.dcm")
    file = pydicom.dcmread(enhanced)
    item = Dataset()
    item.KVP = kvp
    file.SharedFunctionalGroupsSequence[0].CTAdditionalXRaySourceSequence = Items([item])
    file.save_as(enhanced)
    assert read_ct(enhanced).acquisition.kvp == read


@pytest.mark.parametrize(("syntax", "missing"), [(None, 10), (RLELossless, 300)])
def test_truncated(tmp_path, syntax, missing):
    path = enhanced_of(write_series(tmp_path / "single", chest_hu()), tmp_path / "a.dcm", syntax=syntax)
    path.write_bytes(path.read_bytes()[:-missing])
    refuses(path, UnreadableError, r"a\.dcm")


@pytest.mark.parametrize(
    ("tags", "match"),
    [
        ({"PixelData": bytes(2 + 2 * chest_hu().size)}, r"a\.dcm"),
        *(({"NumberOfFrames": n}, f"states {n} frames and describes 6") for n in (5, 10**9)),
    ],
    ids=["a buffer too long", "5 frames", "many frames"],
)
def test_pixels_that_are_not_those_of_the_frames(tmp_path, tags, match):
    path = enhanced_of(write_series(tmp_path / "single", chest_hu()), tmp_path / "a.dcm", tags=tags)
    refuses(path, UnreadableError, match)


@pytest.mark.parametrize(
    ("name", "keyword"),
    [("a.nii", "NominalPercentageOfCardiacPhase"), ("a.dcm", "NominalCardiacTriggerDelayTime")],
)
def test_a_phase_of_an_enhanced_ct_is_chosen(tmp_path, name, keyword):
    systole = write_series(tmp_path / "systole", chest_hu() + 5)
    diastole = write_series(tmp_path / "diastole", chest_hu())
    paths = [path for pair in zip(systole, diastole, strict=True) for path in pair]
    file = enhanced_of(paths, tmp_path / "multi" / name, edit=lambda ds, n: setattr(ds, keyword, [350.0, 750.0][n % 2]))
    for path in (file, file.parent):
        for choice, hu in (("3.1", chest_hu() + 5), ("3.2", chest_hu())):
            np.testing.assert_array_equal(read_ct(path, choice).hu, hu)
        refuses(path, SeriesChoiceError, "3.2", series="3.3")
    refuses(enhanced_of(paths, tmp_path / "unstated" / name), SliceGeometryError, "same position as another")


def test_a_stack_of_an_enhanced_ct_is_chosen(tmp_path):
    paths = [path for n in (0, 5) for path in write_series(tmp_path / str(n), chest_hu() + n)]
    options = {"edit": lambda ds, n: setattr(ds, "StackID", "AB"[n // 6]), "syntax": RLELossless}
    file = enhanced_of(paths, tmp_path / "multi" / "a.dcm", **options)
    for path in (file, file.parent):
        for choice, hu in (("3.1", chest_hu()), ("3.2", chest_hu() + 5)):
            np.testing.assert_array_equal(read_ct(path, choice).hu, hu)
        refuses(path, SeriesChoiceError, r"3\.1: .*stack A of a\.dcm.*\n.*stack B of a\.dcm.*6 slices")


def test_stacks_that_continue_each_other_are_joined_on_request(tmp_path):
    paths = write_series(tmp_path / "single", chest_hu())
    file = enhanced_of(paths, tmp_path / "a.dcm", edit=lambda ds, k: setattr(ds, "StackID", str(1 + k // 3)))
    reads(file, chest_hu(), series="all")
    np.testing.assert_array_equal(read_ct(file, "3.1").hu, chest_hu()[:3])
    refuses(file, SeriesChoiceError, "3.2")


def test_reconstructions_in_enhanced_files_of_a_series_are_chosen(tmp_path):
    for name in "ab":
        paths = write_series(tmp_path / name, chest_hu() + ord(name))
        tags = {"SeriesInstanceUID": "1.2.3", "StudyInstanceUID": "1.2"}
        file = enhanced_of(paths, tmp_path / "multi" / f"{name}.dcm", tags=tags)
    for choice, name in (("3.1", "a"), ("3.2", "b")):
        np.testing.assert_array_equal(read_ct(file.parent, choice).hu, chest_hu() + ord(name))
    refuses(file.parent, SeriesChoiceError, r"stack 1 of b\.dcm")


def test_phases_that_some_frames_lack_are_not_split(tmp_path):
    paths = [path for n in (0, 5) for path in write_series(tmp_path / str(n), chest_hu() + n)]

    def edit(ds, n):
        if n:
            ds.NominalPercentageOfCardiacPhase = [40.0, 75.0][n // 6]

    refuses(enhanced_of(paths, tmp_path / "a.dcm", edit=edit), SliceGeometryError, "same position as another")


def test_enhanced_files_of_a_stack_are_joined(tmp_path):
    paths = write_series(tmp_path / "single", chest_hu())
    for n in range(2):
        enhanced_of(paths[3 * n : 3 * n + 3], tmp_path / "multi" / f"{n}.dcm")
    reads(tmp_path / "multi", chest_hu())


def test_a_broken_enhanced_file_leaves_other_series_in_reach(tmp_path):
    paths = write_series(tmp_path / "single", chest_hu())
    enhanced_of(paths, tmp_path / "multi" / "a.dcm")
    broken = {"SeriesNumber": 9, "SeriesInstanceUID": "1.2.9", "NumberOfFrames": 5}
    enhanced_of(paths, tmp_path / "multi" / "b.dcm", tags=broken)
    np.testing.assert_array_equal(read_ct(tmp_path / "multi", "3").hu, chest_hu())
    refuses(tmp_path / "multi", UnreadableError, "states 5 frames", series="9")
