"""The calcium map as a Parametric Map (PS3.3 A.75): HU above healthy tissue, exactly as computed.

Not a fractional segmentation, whose 8 bits state an occupancy or a probability: the map is neither, it is a quantity
with a unit. It is the smallest box of voxels that holds all of it; elsewhere the map is 0. Its frames have no gaps and
run along the normal of the slices, because dcmqi (1.5), by which 3D Slicer opens such objects, takes them for a stack
as they come; it does not survive one without Frame Anatomy either.
"""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk
from highdicom import PixelMeasuresSequence, PlaneOrientationSequence, PlanePositionSequence, VOILUTTransformation
from highdicom.pm import ParametricMap, RealWorldValueMapping
from highdicom.sr import CodedConcept
from pydicom import Dataset

from . import codes as cac
from .source import SourceSeries, with_creator

SERIES = 4
"""Place of its series number."""


def parametric_map_of(calcium_map: sitk.Image, source: SourceSeries) -> ParametricMap | None:
    """The object of a map on the scan's grid; None where it is empty."""
    stored = source.stored(calcium_map).astype(np.float32)
    held = np.nonzero(stored)
    if not held[0].size:
        return None
    (j, i), (rows, columns) = ((held[1].min(), held[2].min()), (held[1].max() + 1, held[2].max() + 1))
    slices = np.arange(held[0].min(), held[0].max() + 1)
    direction = np.reshape(source.grid.GetDirection(), (3, 3))
    across, down, thickness = source.grid.GetSpacing()
    images = source.images if len(source.images) == 1 else [source.images[k] for k in slices]
    positions = [source.grid.TransformIndexToPhysicalPoint((int(i), int(j), int(k))) for k in slices]
    frames = stored[slices, j:rows, i:columns]
    mapping = RealWorldValueMapping(
        lut_label="CALCIUM_MAP",
        lut_explanation="HU above healthy tissue",
        unit=cac.HOUNSFIELD,
        value_range=(float(min(0, frames.min())), float(frames.max())),
        slope=1.0,
        intercept=0.0,
        quantity_definition=cac.MAP_QUANTITY,
    )
    made = ParametricMap(
        source_images=images,
        pixel_array=frames,
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[mapping],
        voi_lut_transformations=[VOILUTTransformation(window_center=100.0, window_width=200.0)],
        pixel_measures=PixelMeasuresSequence((down, across), thickness, thickness),
        plane_orientation=PlaneOrientationSequence("PATIENT", [*direction[:, 0], *direction[:, 1]]),
        plane_positions=[PlanePositionSequence("PATIENT", position) for position in positions],
        content_label="CALCIUM_MAP",
        content_description="Calcium map: HU above healthy tissue",
        series_description="CAC: calcium map",
        **source.identity(SERIES, "calcium map"),
    )
    _along_normal(made)
    anatomy = Dataset()
    anatomy.FrameLaterality, anatomy.AnatomicRegionSequence = "U", [CodedConcept.from_code(cac.HEART)]
    made.SharedFunctionalGroupsSequence[0].FrameAnatomySequence = [anatomy]
    return with_creator(source.finished(made))


def _along_normal(made: ParametricMap) -> None:
    """Reverse the frames, which highdicom sorts against the normal."""
    pixels = np.frombuffer(made.FloatPixelData, np.float32).reshape(-1, made.Rows, made.Columns)
    made.FloatPixelData = pixels[::-1].tobytes()
    made.PerFrameFunctionalGroupsSequence = list(made.PerFrameFunctionalGroupsSequence)[::-1]
    for number, group in enumerate(made.PerFrameFunctionalGroupsSequence, 1):
        group.FrameContentSequence[0].DimensionIndexValues = number
