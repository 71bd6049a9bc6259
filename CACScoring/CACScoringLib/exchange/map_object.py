"""The calcium map as a Parametric Map (PS3.3 A.75): HU above healthy tissue, exactly as computed.

Not a fractional segmentation, whose 8 bits state an occupancy or a probability: the map is neither, it is a quantity
with a unit. Slices without any of it have no frame, and frames are cropped to what all of them hold; elsewhere it is 0.
"""

from __future__ import annotations

import numpy as np
from highdicom import PixelMeasuresSequence, PlaneOrientationSequence, PlanePositionSequence, VOILUTTransformation
from highdicom.pm import ParametricMap, RealWorldValueMapping

from ..results import ScoreResult
from . import codes as cac
from .source import SourceSeries

SERIES = 4
"""Place of its series number."""


def parametric_map_of(result: ScoreResult, source: SourceSeries) -> ParametricMap | None:
    """The map of a result; None where there is none, or it is empty."""
    if result.decomposition is None:
        return None
    stored = source.stored(result.decomposition.calcium_map).astype(np.float32)
    held = np.nonzero(stored)
    if not held[0].size:
        return None
    (j, i), (rows, columns) = ((held[1].min(), held[2].min()), (held[1].max() + 1, held[2].max() + 1))
    slices = np.unique(held[0])
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
    made.Laterality = ""
    return source.finished(made)
