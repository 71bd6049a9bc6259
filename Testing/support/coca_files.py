"""Small files in the format of COCA: DICOM series with property lists and a table."""

import plistlib
from pathlib import Path

import numpy as np
from dicom_files import chest_hu, write_series
from openpyxl import Workbook

SPACING_MM = (0.7, 0.8, 3.0)
ORIGIN_MM = (-100.0, -120.0, 30.0)
LAD, LM = "Left Anterior Descending Artery", "Left Coronary Artery"


def region(image_index: int, z_mm: float | None, pixels, name: str = LAD, origin_mm=ORIGIN_MM, spacing_mm=SPACING_MM):
    """Make a region with its image's index, from (column, row) relative to the first pixel's corner; it has no points
    in mm if z_mm is None."""
    roi = {
        "Area": 1.0,
        "IndexInImage": 0,
        "Max": 400.0,
        "Mean": 300.0,
        "Name": name,
        "NumberOfPoints": len(pixels),
        "Point_px": [f"({x:f}, {y:f})" for x, y in pixels],
    }
    if z_mm is not None:
        places = [(origin_mm[0] + x * spacing_mm[0], origin_mm[1] + y * spacing_mm[1], z_mm) for x, y in pixels]
        roi["Point_mm"] = [f"({x:f}, {y:f}, {z:f})" for x, y, z in places]
    return image_index, roi


def write_regions(path: Path, regions) -> Path:
    """Write a property list of regions made by `region`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    images = {}
    for image_index, roi in regions:
        images.setdefault(image_index, []).append(roi)
    content = [{"ImageIndex": n, "NumberOfROIs": len(rois), "ROIs": rois} for n, rois in images.items()]
    path.write_bytes(plistlib.dumps({"Images": content}, fmt=plistlib.FMT_XML))
    return path


def write_gated(root: Path, number: int, regions=None, series: str = "Pro_Gated_CS_3.0", seed: int = 0, **settings):
    """Write a gated scan of six slices, the lowest at 30 mm, with a property list unless regions is None; return its
    folder."""
    folder = root / "Gated_release_final" / "patient" / str(number) / series
    # As published: file names count from the head down.
    name = settings.pop("name", lambda k: f"IM-{number:04d}-{6 - k:04d}.dcm")
    write_series(folder, chest_hu(seed=seed), spacing_mm=SPACING_MM, name=name, **settings)
    (root / "Gated_release_final" / "calcium_xml").mkdir(exist_ok=True)
    if regions is not None:
        write_regions(root / "Gated_release_final" / "calcium_xml" / f"{number}.xml", regions)
    return folder


def write_nongated(root: Path, scores: dict[int, tuple[float, ...]], seed: int = 50):
    """Write non-gated scans with a workbook of scores for LCA, LAD, LCX, RCA and in total, as published."""
    folder = root / "deidentified_nongated"
    for number in scores:
        write_series(folder / str(number) / str(number), chest_hu(seed=seed + number), spacing_mm=SPACING_MM)
    write_scores(folder / "scores.xlsx", [[f"{number}A", *columns] for number, columns in scores.items()])
    return folder


def write_scores(path: Path, rows) -> Path:
    """Write a workbook of scores as published, from rows of scan, LCA, LAD, LCX, RCA, total; None is an empty cell."""
    book = Workbook()
    for row in (["filename", "LCA", "LAD", "LCX", "RCA", "total"], *rows):
        book.active.append(row)
    book.create_sheet("notes").append(["other", "things"])
    book.save(path)
    return path


def labelled(image) -> list[tuple[int, ...]]:
    """Voxels [k, j, i] of a label map that are not 0, with their labels."""
    import SimpleITK as sitk

    values = sitk.GetArrayFromImage(image)
    return [(*map(int, place), int(values[tuple(place)])) for place in np.argwhere(values)]
