"""Digital patients in the formats of published references, with their names, fields and units."""

from pathlib import Path

import numpy as np
import SimpleITK as sitk
from coca_files import region, write_regions, write_scores
from dicom_files import write_series

from CACScoringLib.core.grid import Grid

NAMES = {
    1: "Left Coronary Artery",
    2: "Left Anterior Descending Artery",
    3: "Left Circumflex Artery",
    4: "Right Coronary Artery",
}


def write_denser(scan: Path, folder: Path) -> Path:
    """Write a copy of a digital scan's CT and regions, with calcium of at least 130 HU in every region."""
    ct, regions, calcium = (sitk.ReadImage(str(scan / f"{n}.nii.gz")) for n in ("ct", "regions", "calcium_map"))
    hu, labels, added = (sitk.GetArrayFromImage(image) for image in (ct, regions, calcium))
    for label in set(np.unique(labels).tolist()) - {0}:
        inside = labels == label
        hu[inside & (added > 0.3 * added[inside].max())] += 400
    folder.mkdir(parents=True)
    sitk.WriteImage(Grid.of(ct).image(hu), str(folder / "ct.nii.gz"))
    sitk.WriteImage(regions, str(folder / "regions.nii.gz"))
    return folder


def regions_of(scan: Path) -> sitk.Image:
    """Read the regions of a digital scan's folder, uint8, without voxels below 130 HU."""
    ct = sitk.ReadImage(str(scan / "ct.nii.gz"))
    labels = sitk.GetArrayFromImage(sitk.ReadImage(str(scan / "regions.nii.gz")))
    labels[sitk.GetArrayFromImage(ct) < 130] = 0
    return Grid.of(ct).image(labels)


def write_dicom(scan: Path, folder: Path, patient: str = "anonymous") -> Path:
    """Write a digital scan's CT as a DICOM series, with files numbered from the head down as in COCA."""
    ct = sitk.ReadImage(str(scan / "ct.nii.gz"))
    hu = np.clip(sitk.GetArrayFromImage(ct), -1024, 3071)
    write_series(
        folder,
        hu,
        spacing_mm=ct.GetSpacing(),
        origin_mm=ct.GetOrigin(),
        name=lambda k: f"IM-0001-{len(hu) - k:04d}.dcm",
        tags={"PatientID": patient, "SliceThickness": ct.GetSpacing()[2]},
    )
    return folder


def write_coca_gated(root: Path, scans: dict[int, Path]) -> Path:
    """Gated_release_final: patient/N/SERIES/*.dcm and calcium_xml/N.xml."""
    release = root / "Gated_release_final"
    (release / "calcium_xml").mkdir(parents=True)
    for number, scan in scans.items():
        write_dicom(scan, release / "patient" / str(number) / "Pro_Gated_CS_3.0_I30f_3_70%")
        write_regions(release / "calcium_xml" / f"{number}.xml", contours(regions_of(scan)))
    return release


def contours(regions: sitk.Image) -> list[tuple[int, dict]]:
    """Make the ROIs of each image as OsiriX exports them: a contour around each run of labelled pixels in a row.

    An outlined image has an empty ROI for each artery without calcium.
    """
    spacing_mm, origin_mm = regions.GetSpacing(), regions.GetOrigin()
    rois = []
    for k, plane in enumerate(sitk.GetArrayFromImage(regions)):
        z_mm = origin_mm[2] + k * spacing_mm[2]
        of_image = [
            region(k, z_mm, _ends(j, i, length), NAMES[label], origin_mm, spacing_mm)
            for j, i, length, label in _runs(plane)
        ]
        used = {roi["Name"] for _, roi in of_image}
        rois += of_image
        rois += [region(k, z_mm, [], name) for name in NAMES.values() if of_image and name not in used]
    return rois


def _ends(j: int, i: int, length: int) -> list[tuple[float, float]]:
    """Corners of a contour around a run of pixels, (column, row) from the first pixel's corner."""
    x_low, x_high, y_low, y_high = i + 0.1, i + length - 0.1, j + 0.1, j + 0.9
    return [(x_low, y_low), (x_high, y_low), (x_high, y_high), (x_low, y_high)]


def _runs(plane: np.ndarray):
    """Row, first column, length and label of each run of one label."""
    for j in np.flatnonzero(plane.any(1)):
        columns = np.flatnonzero(plane[j])
        for part in np.split(columns, np.flatnonzero((np.diff(columns) > 1) | (np.diff(plane[j, columns]) != 0)) + 1):
            yield int(j), int(part[0]), len(part), int(plane[j, part[0]])


def write_coca_nongated(root: Path, scans: dict[int, Path], scores: dict[str, tuple]) -> Path:
    """deidentified_nongated: N/N/*.dcm and scores.xlsx. scores: LCA, LAD, LCX, RCA and total by id ("1A")."""
    release = root / "deidentified_nongated"
    for number, scan in scans.items():
        write_dicom(scan, release / str(number) / str(number))
    write_scores(release / "scores.xlsx", [[name, *row] for name, row in scores.items()])
    return release


def write_orcascore(root: Path, scans: dict[str, Path]) -> Path:
    """TRV1P1CTI.mhd, TRV1P1CTAI.mhd and TRV1P1R.mhd with its raw files. scans: by case ("TRV1P1")."""
    root.mkdir(parents=True, exist_ok=True)
    for case, scan in scans.items():
        ct, regions = sitk.ReadImage(str(scan / "ct.nii.gz")), regions_of(scan)
        labels = sitk.ChangeLabel(regions, {1: 1, 2: 1, 3: 2, 4: 3})
        for suffix, image in (("CTI", ct), ("CTAI", ct), ("R", labels)):
            for key in image.GetMetaDataKeys():
                image.EraseMetaData(key)
            sitk.WriteImage(image, str(root / f"{case}{suffix}.mhd"))
    return root


def write_label_maps(root: Path, scans: dict[str, Path]) -> Path:
    """NAME.nii.gz and NAME-lesions.nii.gz with CAC's own labels."""
    root.mkdir(parents=True, exist_ok=True)
    for name, scan in scans.items():
        sitk.WriteImage(sitk.ReadImage(str(scan / "ct.nii.gz")), str(root / f"{name}.nii.gz"))
        sitk.WriteImage(regions_of(scan), str(root / f"{name}-lesions.nii.gz"))
    return root
