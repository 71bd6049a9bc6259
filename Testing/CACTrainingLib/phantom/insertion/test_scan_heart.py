"""Arteries of fitted hearts in the fat that a scan shows."""

from types import SimpleNamespace

import numpy as np

from CACScoringLib.core.ct import Acquisition, CTScan
from CACTrainingLib.phantom.anatomy.hearts.placement import Placement
from CACTrainingLib.phantom.anatomy.hearts.shape import HIGH_MM, LOW_MM, STEP_MM
from CACTrainingLib.phantom.cohort.export import image_on
from CACTrainingLib.phantom.insertion.scan_heart import _settled, scan_fields
from CACTrainingLib.phantom.scanner.scanner import Grid

GRID = Grid((60, 90, 90), (1.2, 1.2, 2.0), (-54.0, -54.0, -60.0))


def ball(groove=True):
    """A ball of muscle of 40 mm in lung, with a groove of fat along x at y = -33, z = 0, a sternum in front, and the
    pericardium 3 mm farther out, as fields and HU."""
    z, y, x = np.ix_(GRID.z_mm(), GRID.y_mm(), GRID.x_mm())
    radius = np.sqrt(x**2 + y**2 + z**2)
    hu = np.where(radius < 40, 45.0, -850.0)
    if groove:
        hu[((y + 33) ** 2 + z**2 < 16) & (np.abs(x) < 18)] = -100
    counts = np.ceil((HIGH_MM - LOW_MM) / STEP_MM).astype(int)
    axes = [lo + STEP_MM * np.arange(n) for lo, n in zip(LOW_MM, counts, strict=True)]
    far = np.sqrt(sum(p**2 for p in np.meshgrid(*axes, indexing="ij")))
    place = Placement(np.eye(3), np.zeros(3), np.ones(3), np.zeros((1, 3), int), np.zeros((1, 3)))
    shape = SimpleNamespace(pericardium=(far - 43).astype(np.float32), low_mm=LOW_MM)
    fit = SimpleNamespace(placement=place, shape=shape)
    scan = CTScan(image_on(GRID, hu.astype(np.int16)), Acquisition("phantom"))
    return scan_fields(scan, radius < 43, fit)


def test_a_path_is_drawn_into_the_fat_beside_it():
    fields = ball()
    x = np.arange(-15, 15.1, 1.5)
    path = np.column_stack([x, np.full(len(x), -29.0), np.full(len(x), 3.5)])
    settled = _settled(path, fields)
    away = np.hypot(settled[:, 1] + 33, settled[:, 2])
    assert away.max() < 2.5
    assert np.abs(settled[:, 0] - x).max() < 1.5
    assert fields.holds(settled).all()
