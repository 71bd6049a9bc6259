"""Territories at known places, for tests of code that uses them."""

import numpy as np

from CACScoringLib.anatomy.territories import Territories
from CACScoringLib.core.labels import TERRITORIES
from CACScoringLib.core.scan_grid import ScanGrid


def territories_of(names: np.ndarray, sure: float = 1.0) -> Territories:
    """Territories on a scan's own grid: labels [k, j, i] of TERRITORIES, each with the probability `sure`."""
    probability = np.full((len(TERRITORIES), *names.shape), (1 - sure) / (len(TERRITORIES) - 1), np.float32)
    np.put_along_axis(probability, names[None].astype(np.int64), np.float32(sure), 0)
    grid = ScanGrid((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), names.shape[::-1])
    return Territories(grid, (names > 0).astype(np.float32), probability, "known")


def label_of(name: str) -> int:
    return TERRITORIES.index(name)
