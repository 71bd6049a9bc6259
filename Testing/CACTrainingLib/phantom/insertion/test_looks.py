"""Looks of a scan by other scanners, calcium included."""

from dataclasses import replace

import numpy as np
import pytest

from CACScoringLib.core.grid import Grid
from CACTrainingLib.phantom.anatomy.points import PointCloud
from CACTrainingLib.phantom.insertion.looks import Look
from CACTrainingLib.phantom.scanner.response import add_stamps, image_of_points
from CACTrainingLib.phantom.scanner.scanner import Kernel, Scanner

GRID = Grid((140, 120, 40), (0.8, 0.8, 1.25), (-56.0, -48.0, -25.0))
SCANNER = Scanner(
    kernel=Kernel("measured", 0.7), aperture_sigma_mm=0.0, slice_thickness_mm=1.25, slice_spacing_mm=1.25, matrix=140
)
UNCHANGED = Look(
    roll_degrees=0.0,
    pivot_mm=(-0.4, -0.4),
    centre_mm=(0.0, 0.0),
    field_of_view_mm=80.0,
    matrix=100,
    first_slice_mm=-25.0,
    slices=40,
    slice_spacing_mm=1.25,
    averaged_mm=0.0,
    softened_mm=0.0,
    boost=0.0,
    boost_frequency_per_mm=0.35,
    noise_hu=0.0,
    air_hu=-1024.0,
)


def image(cloud, grid, scanner):
    volume = np.zeros(grid.shape, np.float32)
    add_stamps(volume, image_of_points(cloud, grid, scanner), 1000.0)
    return volume


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"roll_degrees": 5.0, "centre_mm": (6.0, -4.0)},
        {"field_of_view_mm": 60.0, "matrix": 150},
        {"softened_mm": 0.8},
        {"boost": 1.0},
        {"averaged_mm": 3.0, "slice_spacing_mm": 2.0, "slices": 24, "first_slice_mm": -23.6},
        {"averaged_mm": 5.0, "slice_spacing_mm": 2.5, "slices": 18, "first_slice_mm": -22.0, "softened_mm": 0.4},
    ],
)
def test_calcium_looks_the_same_inserted_before_or_after(change):
    """Inserted calcium is as sharp and as bright as calcium scanned with that look."""
    look = replace(UNCHANGED, **change)
    g = np.random.default_rng(0)
    cloud = PointCloud(np.array([9.0, -7.0, 1.0]) + g.normal(0, (0.5, 0.8, 1.2), (400, 3)), np.full(400, 0.02))
    before = look.apply(image(cloud, GRID, SCANNER), GRID, 0.0)
    after = image(PointCloud(look.to_look(cloud.positions_mm), cloud.weights), look.grid(), look.scanner(SCANNER))
    assert before.sum() == pytest.approx(after.sum(), rel=0.02)
    assert before.max() == pytest.approx(after.max(), rel=0.08)
    assert np.abs(before - after).max() < 0.1 * after.max()
