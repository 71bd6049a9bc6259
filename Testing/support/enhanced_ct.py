"""Enhanced (multi-frame) CT made from the files of a single-frame series."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pydicom
from dicom_files import save
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import generate_uid

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

    syntax: Transfer syntax to compress to. edit(slice, n): changes a slice before it becomes a frame. tags: attributes
    of the file. shared: whether groups that all frames have alike are stored once.
    """
    slices = [pydicom.dcmread(p) for p in paths]
    for n, ds in enumerate(slices):
        ds.StackID, ds.InStackPositionNumber, ds.TemporalPositionIndex = "1", n + 1, 1
        ds.FrameType, ds.ExposureInmAs = ds.ImageType, float(ds.Exposure)
        if edit:
            edit(ds, n)
    grouped = {keyword for group in (*_SHARED.values(), *_PER_FRAME.values()) for keyword in group}
    made = pydicom.dcmread(paths[0])
    for keyword in (*grouped, "Exposure"):
        if keyword in made:
            delattr(made, keyword)
    made.SOPClassUID, made.SOPInstanceUID, made.NumberOfFrames = ENHANCED_CT, generate_uid(), len(slices)
    made.PixelData = b"".join(ds.PixelData for ds in slices)
    if shared:
        made.SharedFunctionalGroupsSequence = Items([_groups(slices[0], _SHARED)])
    per_frame = _PER_FRAME if shared else {**_SHARED, **_PER_FRAME}
    made.PerFrameFunctionalGroupsSequence = Items([_groups(ds, per_frame) for ds in slices])
    for keyword, value in (tags or {}).items():
        setattr(made, keyword, value)
    if syntax:
        made.compress(syntax, generate_instance_uid=False)
    del made.file_meta.MediaStorageSOPClassUID
    path.parent.mkdir(parents=True, exist_ok=True)
    return save(made, path)


def _groups(ds: Dataset, groups: dict[str, tuple[str, ...]]) -> Dataset:
    item = Dataset()
    for name, keywords in groups.items():
        group = Dataset()
        for keyword in keywords:
            if keyword in ds:
                setattr(group, keyword, ds[keyword].value)
        setattr(item, name, Items([group]))
    return item
