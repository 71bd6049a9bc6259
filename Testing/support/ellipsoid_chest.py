"""A chest of ellipsoids whose heart, vessels and bones are known."""

import numpy as np
from images import image_of

from CACScoringLib.anatomy.between_lungs import heart_region
from CACScoringLib.core.acquisition import Acquisition
from CACScoringLib.core.ct import scan_from_image

SPACING_MM = (2.5, 2.5, 3.0)
SIZE = (148, 92, 90)


class Chest:
    """A chest of ellipsoids and tubes with noise: x to the left, y to the back, z upwards, in mm from its middle."""

    def __init__(self, blood_hu: float = 40.0, fluid_mm: float = 0.0, gas: bool = False, aorta_y: float = 42.0):
        """fluid_mm: height of fluid in the right lung above its base. gas: in the stomach. aorta_y: of its middle."""
        axes = [(np.arange(n) - (n - 1) / 2) * s for n, s in zip(SIZE, SPACING_MM, strict=True)]
        x, y, z = axes[0][None, None, :], axes[1][None, :, None], axes[2][:, None, None]

        def ball(cx, cy, cz, rx, ry, rz):
            return ((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 + ((z - cz) / rz) ** 2 <= 1

        def tube(cx, cy, radius, low=-999, high=999):
            return ((x - cx) ** 2 + (y - cy) ** 2 <= radius**2) & (z >= low) & (z <= high)

        body = ((x / 175) ** 2 + (y / 108) ** 2 <= 1) & (z > -999)
        self.heart = ball(22, -28, -8, 56, 48, 50)
        self.aorta = tube(18, aorta_y, 12)
        self.spine = tube(0, 68, 17) | ((abs(x) < 6) & (y > 68) & (y < 102) & (z > -999))
        self.sternum = (abs(x) < 18) & (y > -100) & (y < -90) & (z > -50) & (z < 110)
        self.spur = (abs(x - 12) < 2) & (y >= -90) & (y < -76) & (abs(z - 10) < 2)
        self.plaque = (abs(x - 30) < 4) & (abs(y + 68) < 3) & (abs(z - 10) < 5)
        self.arch = ball(8, 0, 100, 18, 48, 14)
        vessels = tube(-5, -28, 18, 0, 100) | tube(25, -28, 18, 0, 70) | self.arch
        base = -17.0
        below = ball(-78, 0, -135, 88, 90, 118) | ball(78, 0, -145, 88, 90, 118)
        self.liver = body & below
        lungs = (ball(-64, 0, 0, 66, 84, 150) | ball(64, 0, 0, 66, 84, 150)) & (abs(x) > 4)
        solid = self.heart | self.aorta | self.spine | vessels | below
        fluid = (x < 0) & (z < base + fluid_mm) & (fluid_mm > 0)
        hu = np.full(SIZE[::-1], -1000.0)
        hu[body] = 30
        hu[lungs & ~solid & ~fluid] = -850
        hu[self.liver] = 60
        hu[self.heart | self.aorta | vessels] = blood_hu
        hu[self.spine | self.sternum] = 250
        hu[self.plaque] = 500
        hu[tube(0, 68, 17) & (z % 24 < 6)] = 90  # discs
        self.bone = hu == 250
        hu += np.random.default_rng(0).normal(0, 15, hu.shape)
        hu[self.spur] = 140
        if gas:
            hu[ball(75, 10, -75, 28, 28, 22)] = -980
        self.y, self.z = y, z
        origin_mm = (-180.5, -119.5, 55.0)  # the midline lies between voxels of the working grid
        self.image = image_of(np.rint(hu).astype(np.int16), SPACING_MM, origin_mm)

    def scan(self):
        return scan_from_image(self.image, Acquisition("test"))

    def region(self):
        return heart_region(self.scan())
