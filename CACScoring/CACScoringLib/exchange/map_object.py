"""Calcium map as a Parametric Map (PS3.3 A.75): HU above healthy tissue, exactly as computed.

A fractional segmentation would not do: its 8 bits are an occupancy or a probability, the map is a quantity with a unit.
The object is the smallest box of voxels that holds the map, which is 0 elsewhere. Its frames have no gaps and run along
the normal of the slices, because dcmqi (1.5), with which 3D Slicer opens such objects, stacks them in their order.
dcmqi crashes without Frame Anatomy.
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
"""Last digit of its series number."""


def parametric_map_of(calcium_map: sitk.Image, source: SourceSeries) -> ParametricMap | None:
    """Return the object of a map on the scan's grid, or None if the map is empty."""
    stored = source.stored(calcium_map).astype(np.float32)
    k, j, i = np.nonzero(stored)
    if not k.size:
        return None
    slices, row, column = np.arange(k.min(), k.max() + 1), j.min(), i.min()
    direction = np.reshape(source.grid.GetDirection(), (3, 3))
    across, down, thickness = source.grid.GetSpacing()
    positions = [source.grid.TransformIndexToPhysicalPoint((int(column), int(row), int(n))) for n in slices]
    frames = stored[slices, row : j.max() + 1, column : i.max() + 1]
    mapping = RealWorldValueMapping(
        lut_label="CALCIUM_MAP",
        lut_explanation="HU above healthy tissue",
        unit=cac.HOUNSFIELD,
        value_range=(float(min(0, frames.min())), float(frames.max())),
        slope=1.0,
        intercept=0.0,
        quantity_definition=cac.MAP_QUANTITY,
    )
    parametric_map = ParametricMap(
        source_images=[source.images[n] for n in slices],
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
    _sort_along_normal(parametric_map)
    anatomy = Dataset()
    anatomy.FrameLaterality, anatomy.AnatomicRegionSequence = "U", [CodedConcept.from_code(cac.HEART)]
    parametric_map.SharedFunctionalGroupsSequence[0].FrameAnatomySequence = [anatomy]
    return with_creator(source.complete(parametric_map))


def _sort_along_normal(parametric_map: ParametricMap) -> None:
    """Reverse the frames, which highdicom sorts against the normal."""
    pixels = np.frombuffer(parametric_map.FloatPixelData, np.float32).reshape(
        -1, parametric_map.Rows, parametric_map.Columns
    )
    parametric_map.FloatPixelData = pixels[::-1].tobytes()
    parametric_map.PerFrameFunctionalGroupsSequence = list(parametric_map.PerFrameFunctionalGroupsSequence)[::-1]
    for number, group in enumerate(parametric_map.PerFrameFunctionalGroupsSequence, 1):
        group.FrameContentSequence[0].DimensionIndexValues = number
