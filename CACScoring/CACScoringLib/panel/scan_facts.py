"""Facts about a scan from a volume's header, its DICOM tags and Slicer's DICOM database, read within milliseconds.

The database also offers reviews of the scan's study, and takes results.
"""

# Slicer's naming.
# ruff: noqa: N802

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk
import slicer
from slicer import vtkMRMLScalarVolumeNode
from slicer.i18n import tr as _
from vtk.util.numpy_support import vtk_to_numpy

from ..core.ct import CTScan
from ..core.errors import CTError
from ..core.text import printable

if TYPE_CHECKING:
    from ..core.acquisition import Acquisition

_AFTER_SCORING = ("blood-unmeasured", "not-120-kvp")
"""Codes of warnings that depend on the heart or on the rules."""

_MODALITY, _DATE, _TIME = "0008,0060", "0008,0023", "0008,0033"
_FRAME_OF_REFERENCE = "0020,0052"
_REVIEWS = ("SEG", "RTSTRUCT")


def scanFacts(volume: vtkMRMLScalarVolumeNode) -> tuple[list[str], list[str]]:
    """Return lines of facts, and messages about what makes the score doubtful.

    Both are known without the heart.
    """
    from ..quality.examination import examine

    data = volume.GetImageData()
    if data is None or data.GetPointData().GetScalars() is None:
        return [], []
    acquisition = acquisitionOf(volume)
    size = " × ".join(str(n) for n in data.GetDimensions())
    spacing = " × ".join(f"{mm:.3g}" for mm in volume.GetSpacing())
    hu = _voxelsOf(data)
    facts = [_("{size} voxels of {spacing} mm, {low:.0f} to {high:.0f} HU").format(
        size=size, spacing=spacing, low=hu.min(), high=hu.max()
    )]  # fmt: skip
    if acquisition is None:
        facts.append(_("Not loaded through the DICOM module: tube voltage, slice thickness and kernel are unknown."))
        return facts, []
    acquisition_facts = [
        acquisition.kvp and f"{acquisition.kvp:g} kVp",
        acquisition.slice_thickness_mm and _("{mm:.3g} mm thick").format(mm=acquisition.slice_thickness_mm),
        acquisition.kernel and _("kernel {name}").format(name=acquisition.kernel),
        " ".join(filter(None, [acquisition.manufacturer, acquisition.scanner_model])),
        acquisition.gating and _("gating: {kind}").format(kind=acquisition.gating),
    ]
    facts.append(" · ".join(filter(None, acquisition_facts)))
    grid = sitk.Image([1, 1, 1], sitk.sitkInt16)
    grid.SetSpacing([1.0, 1.0, _sliceSpacingMm(volume)])
    doubts = examine(CTScan(grid, acquisition), None)
    return facts, [doubt.message for doubt in doubts if doubt.code not in _AFTER_SCORING]


def problemOf(volume: vtkMRMLScalarVolumeNode) -> str:
    """Return the reason why a volume is certainly no CT that can be scored, or an empty text."""
    data = volume.GetImageData()
    if data is None or data.GetPointData().GetScalars() is None or data.GetNumberOfScalarComponents() != 1:
        return _("{name} holds no grey-level volume. Choose a CT.").format(name=volume.GetName())
    quantity = volume.GetVoxelValueQuantity()
    if quantity is not None and quantity.GetCodeValue() not in (None, "", "112031"):
        return _("{name} holds {quantity}, not attenuation in HU. Choose a CT.").format(
            name=volume.GetName(), quantity=quantity.GetCodeMeaning()
        )
    if min(data.GetDimensions()) < 2:
        return _("{name} is a single image. Choose a CT of several slices.").format(name=volume.GetName())
    if volume.GetParentTransformNode() is not None:
        return _("{name} lies under a transform. Harden the transform or take the volume out of it.").format(
            name=volume.GetName()
        )
    if _voxelsOf(data).min() >= 0:
        return _("{name} holds no value below 0, so it is not in HU (air is −1000 HU).").format(name=volume.GetName())
    return ""


def _voxelsOf(data) -> np.ndarray:
    """Return the voxels of an image, in which NumPy finds the extremes much faster than VTK."""
    return vtk_to_numpy(data.GetPointData().GetScalars())


def acquisitionOf(volume: vtkMRMLScalarVolumeNode) -> Acquisition | None:
    """Return the acquisition from the first DICOM file of a volume; None if that file is unknown or gone."""
    from ..io.dicom import read_slice
    from ..io.multi_frame import single_frames
    from ..io.series_acquisition import acquisition_of

    uids, database = instanceUIDs(volume), openDatabase()
    path = database.fileForInstance(uids[0]) if uids and database is not None else ""
    if not path or not Path(path).is_file():
        return None
    try:
        first_image = read_slice(Path(path))
        return None if first_image is None else acquisition_of(single_frames([first_image]))
    except CTError:
        return None


def _sliceSpacingMm(volume: vtkMRMLScalarVolumeNode) -> float:
    """Return the spacing along the volume axis closest to the body axis, as `CTScan` does."""
    axes = [[0.0] * 3 for _axis in range(3)]
    volume.GetIJKToRASDirections(axes)
    return volume.GetSpacing()[int(np.argmax(np.abs(axes[2])))]


# Slicer's DICOM database


def openDatabase():
    """Return Slicer's DICOM database; None if the DICOM module is missing or no database is open."""
    database = getattr(slicer, "dicomDatabase", None)
    return database if database is not None and database.isOpen else None


def instanceUIDs(volume: vtkMRMLScalarVolumeNode | None) -> list[str]:
    """Return the UIDs of the images that a volume was loaded from; none if it did not come from DICOM."""
    return [] if volume is None else (volume.GetAttribute("DICOM.instanceUIDs") or "").split()


def filesOf(volume: vtkMRMLScalarVolumeNode) -> tuple[Path, ...]:
    """Return the files that a volume was loaded from. Raises CTError if they are unknown or no longer exist."""
    uids, database, name = instanceUIDs(volume), openDatabase(), volume.GetName()
    if not uids:
        raise CTError(
            _(
                "{name} was not loaded through the DICOM module, and DICOM objects have to refer to its images. Load "
                "the CT with this module."
            ).format(name=name)
        )
    if database is None:
        raise CTError(_("Slicer's DICOM database is not open. Open it in the DICOM module."))
    paths = [database.fileForInstance(uid) for uid in uids]
    files = tuple(dict.fromkeys(Path(path) for path in paths if path and Path(path).is_file()))
    missing = sum(not (path and Path(path).is_file()) for path in paths)
    if missing:
        text = _("{missing} of {count} images of {name} are no longer in Slicer's DICOM database. Import the CT again.")
        raise CTError(text.format(missing=missing, count=len(uids), name=name))
    return files


def frameOfReference(volume: vtkMRMLScalarVolumeNode | None) -> str:
    """Return the UID of a volume's frame of reference; empty if unknown."""
    uids, database = instanceUIDs(volume), openDatabase()
    return "" if not uids or database is None else database.instanceValue(uids[0], _FRAME_OF_REFERENCE)


def reviewsOf(volume: vtkMRMLScalarVolumeNode | None) -> list[tuple[str, str]]:
    """Return the segmentations and structure sets of a volume's study as (label, file), newest first."""
    uids, database = instanceUIDs(volume), openDatabase()
    if not uids or database is None:
        return []
    study = database.studyForSeries(database.seriesForFile(database.fileForInstance(uids[0])))
    reviews = []
    for series in database.seriesForStudy(study):
        first = next(iter(database.filesForSeries(series, 1)), "")
        if not first or database.fileValue(first, _MODALITY) not in _REVIEWS:
            continue
        for path in database.filesForSeries(series):
            timestamp = database.fileValue(path, _DATE), database.fileValue(path, _TIME)
            reviews.append((timestamp, _reviewLabel(database, series, path, timestamp), path))
    return [(text, path) for _timestamp, text, path in sorted(reviews, reverse=True)]


def addFolder(folder: Path) -> str:
    """Copy the DICOM files of a folder into the database. Returns a message for the user."""
    database = openDatabase()
    if database is None:
        return _("Slicer's DICOM database is not open, so they were not added to it.")
    from DICOMLib import DICOMUtils

    # Copied, so that the folder may be moved or deleted afterwards.
    if not DICOMUtils.importDicom(str(folder), database, True):
        return _("They could not be added to Slicer's DICOM database; import the folder there.")
    return _("They were added to Slicer's DICOM database.")


def _reviewLabel(database, series: str, path: str, timestamp: tuple[str, str]) -> str:
    description = printable(database.descriptionForSeries(series)) or _("no description")
    date, time = timestamp
    written = f"{date[:4]}-{date[4:6]}-{date[6:8]} {time[:2]}:{time[2:4]}" if len(date) == 8 else _("no date")
    modality = database.fileValue(path, _MODALITY)
    return _("{description} ({modality}, {written})").format(
        description=description, modality=modality, written=written
    )
