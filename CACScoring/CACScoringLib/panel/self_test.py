"""Parts of the module's self test: a small synthetic chest, and a worker in the foreground."""

# Slicer's naming.
# ruff: noqa: N802, N803

from __future__ import annotations

import subprocess
from collections.abc import Callable

import numpy as np
import SimpleITK as sitk

from .process import workerCommand


class ForegroundProcess:
    """A `Process` whose `start` returns when it has ended, so that a test needs no event loop."""

    def start(self, arguments: list[str], onLine: Callable[[str], None], onEnd: Callable[[int], None]) -> None:
        python, environment = workerCommand()
        done = subprocess.run(
            [python, *arguments], env=environment, capture_output=True, encoding="utf-8", timeout=300, check=False
        )
        for line in done.stderr.splitlines():
            onLine(line)
        onEnd(done.returncode)

    def kill(self) -> None:
        raise AssertionError("it has ended when start() returns")


def syntheticChest() -> tuple[sitk.Image, np.ndarray]:
    """Return a body with lungs, spine, sternum and heart with one calcification, and the calcification's mask."""
    k, j, i = np.ogrid[0:80, 0:150, 0:190]
    x, y, z = (i - 95) * 2.0, (j - 75) * 2.0, (k - 40) * 3.0  # mm towards left, posterior, superior

    def ellipsoid(centre: tuple[float, float, float], radii: tuple[float, float, float]) -> np.ndarray:
        return np.less_equal(sum(((p - c) / r) ** 2 for p, c, r in zip((x, y, z), centre, radii, strict=True)), 1)

    hu = np.full((80, 150, 190), -1000.0)
    hu[np.broadcast_to((x / 180) ** 2 + (y / 120) ** 2 <= 1, hu.shape)] = 30
    for side in (-1, 1):
        hu[ellipsoid((side * 90, 5, 10), (58, 82, 125))] = -850  # the chest wall is 15 mm thick
    hu[ellipsoid((20, -20, -25), (62, 55, 58))] = 40
    hu[np.broadcast_to((x / 18) ** 2 + ((y - 88) / 18) ** 2 <= 1, hu.shape)] = 500
    hu[np.broadcast_to((abs(x) <= 16) & (abs(y + 105) <= 5) & (z > -60), hu.shape)] = 400
    hu += np.random.default_rng(0).normal(0, 8, hu.shape)
    calcium = np.zeros(hu.shape, bool)
    calcium[36:38, 58:62, 108:112] = True
    hu[calcium] = 350
    image = sitk.GetImageFromArray(np.rint(hu).astype(np.int16))
    image.SetSpacing((2.0, 2.0, 3.0))
    image.SetOrigin((-190.0, -150.0, -120.0))
    return image, calcium
