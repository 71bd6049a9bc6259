"""Test the order of a source's images."""

import pytest
import SimpleITK as sitk

from CACScoringLib.exchange.source import SourceSeries


@pytest.mark.parametrize(("from_feet", "image"), [(True, 1), (False, 3)])
def test_a_slice_is_found_in_series_from_feet_and_from_head(from_feet, image):
    grid = sitk.Image(2, 2, 5, sitk.sitkUInt8)
    grid.SetDirection((1, 0, 0, 0, 1, 0, 0, 0, 1) if from_feet else (1, 0, 0, 0, -1, 0, 0, 0, -1))
    series = SourceSeries(
        (), (), grid, sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(grid.GetDirection()), ""
    )
    assert series.slice_of(1) == image
