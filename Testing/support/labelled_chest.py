"""A small CT with three lesions of known sizes, and reading nodes back, for the tests of scenes."""

import math

import numpy as np
import SimpleITK as sitk
import slicer
from images import image_of

from CACScoringLib.core.grid import Grid
from CACScoringLib.core.labels import Artery, label_called
from CACScoringLib.mrml.segments import voxels_of_segments

OBLIQUE = tuple(
    float(x) for x in sitk.Euler3DTransform((0, 0, 0), math.radians(7), math.radians(-4), math.radians(11)).GetMatrix()
)
DIRECTIONS = {
    "axial": (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0),
    "sagittal, upside down": (0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, -1.0, 0.0),
    "oblique": OBLIQUE,
}


def ct_image(direction=DIRECTIONS["axial"], pixel_type=sitk.sitkInt16) -> sitk.Image:
    values = np.random.default_rng(5).integers(-1000, 90, (7, 12, 10)).astype(np.int16)
    values[0, 0, 0] = 1400
    values[2:4, 4, 3:6] = 250  # left main, 6 voxels
    values[3:5, 7:9, 2:4] = 480  # left anterior descending, 8 voxels
    values[5, 2:4, 7:9] = 135  # unassigned, 4 voxels
    return sitk.Cast(image_of(values, (0.75, 1.1, 2.5), (-31.25, 12.5, -204.125), direction), pixel_type)


def labels_of(image: sitk.Image) -> np.ndarray:
    labels = np.zeros(image.GetSize()[::-1], np.uint8)
    labels[2:4, 4, 3:6] = Artery.LM
    labels[3:5, 7:9, 2:4] = Artery.LAD
    labels[5, 2:4, 7:9] = Artery.UNASSIGNED
    return labels


def arteries_of(segmentation, grid: sitk.Image) -> np.ndarray:
    """Labels of the segments by their names, as a review reads them."""
    labelled = voxels_of_segments(segmentation, grid, label_called)
    labels = np.zeros(grid.GetSize()[::-1], np.uint8)
    labels.reshape(-1)[labelled.flat] = labelled.values
    return labels


def on_grid_of(image: sitk.Image, values: np.ndarray) -> sitk.Image:
    return Grid.of(image).image(values.astype(np.uint8))


def rows_of(table: slicer.vtkMRMLTableNode) -> list[dict]:
    columns = [table.GetTable().GetColumn(n) for n in range(table.GetNumberOfColumns())]
    return [{c.GetName(): c.GetValue(row) for c in columns} for row in range(table.GetNumberOfRows())]
