"""Whether a wider region, or a fit of the moving response, measures moving calcium better than the integrated mass.

    PYTHONPATH=CACTraining:CACScoring python Testing/Benchmarks/mass_motion.py [--positions 4]

One insert of 1, 3 or 5 mm and 25 to 800 mg/cm³ in uniform tissue, 120 kVp, soft kernel, 15 HU of noise, in a gated half
scan whose middle view is taken at the middle of the time: still, or moving along a line of any direction. Settings are
chosen at 0, 20, 40 and 60 mm/s and reported at 0, 10, 30 and 50 mm/s with other places, directions and noise.
wider: the region of the integrated mass by another reach, or by one that grows until a step of it adds no more than
noise does. fit: least squares of a cylinder in the slices' sum, with its place, width, speed, direction, mass and a
constant background free (a coarse grid, then refined), the gantry's angle known or free; a still cylinder unless moving
explains enough more. Then the same where the world is not as the fit has it: a path that turns by 60° in half a
rotation, fat beside, a lump of fat that moves along, a path that goes as fast along the table. At last the integrated
mass where the gantry stands elsewhere.
"""

from __future__ import annotations

import argparse
import itertools
import math
from dataclasses import dataclass, replace

import numpy as np
from calcium_mass import seeds
from scipy.special import j1, ndtr

from CACScoringLib.scoring import calcium_mass
from CACScoringLib.scoring.mass_calibration import MassCalibration
from CACTrainingLib.phantom.anatomy.points import PointCloud, cylinder
from CACTrainingLib.phantom.cohort.export import image_on
from CACTrainingLib.phantom.scanner.noise import NoiseSource
from CACTrainingLib.phantom.scanner.qrm import SIZES_MM, Insert
from CACTrainingLib.phantom.scanner.response import add_stamps, image_of_points
from CACTrainingLib.phantom.scanner.scanner import Grid, Scanner

NOISE_HU, TISSUE_HU, FAT_HU, FAT_MM = 15.0, 40.0, -90.0, 4.0
DENSITIES = (25, 50, 100, 200, 400, 800)
CHOSEN_AT, REPORTED_AT = (0.0, 20.0, 40.0, 60.0), (0.0, 10.0, 30.0, 50.0)
REACHES_MM = (1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0)
GAINS = (0.0, 30.0, 100.0, 300.0, 1000.0, 3000.0, math.inf)
"""What moving must explain more than standing still, in variances of the noise."""

WINDOW, NEAR_PIXELS = 64, 8
"""Pixels: the side of the window of a fit, and how far from the lesion's middle its place may be."""

FIT_MM_S = (8.0, 16.0, 24.0, 32.0, 40.0, 48.0, 56.0, 64.0)
FIT_DIRECTIONS, FIT_ANGLES, FIT_WIDTHS_MM = 12, 6, (0.7, 2.3, 3.7, 5.3)

GATE_PHASE = 0.75
SCANNER = Scanner(120.0, field_of_view_mm=250.0, half_scan=True, gate_phase=GATE_PHASE, rotation_s=0.35)
GRID = Grid((7, 97, 97), (SCANNER.pixel_mm, SCANNER.pixel_mm, 3.0), (0.0, 0.0, 0.0))
CALIBRATION = MassCalibration("given", 1 / SCANNER.calcium_hu_per_mg_cm3)


@dataclass(frozen=True)
class World:
    """What the fit does not know, or has otherwise.

    gantry: its angle mid-scan, turns. turning: of the path in half a rotation, radians. through: speed along the table,
    as a share of that in the slice. fat: still, 4 mm beside the insert's middle. lump: of fat, 10 mm, moving along.
    """

    gantry: float = 0.5
    turning: float = 0.0
    through: float = 0.0
    fat: bool = False
    lump: bool = False


def images(
    size: str, centre_mm: tuple[float, float, float], speed: float, direction: float, world: World
) -> tuple[np.ndarray, np.ndarray]:
    """HU [k, j, i] that an insert of 1 mg/cm³ adds, and those that the lump adds. direction, mid-scan, in radians."""
    at = GATE_PHASE * SCANNER.beat_s
    scanner = replace(SCANNER, start_phase=(world.gantry - at / SCANNER.rotation_s) % 1)
    rate = max(world.turning, 1e-6) / (SCANNER.rotation_s / 2)

    def path(times: np.ndarray) -> np.ndarray:
        place = speed / rate * (np.exp(1j * rate * (times - at)) - 1) / 1j * np.exp(1j * direction)
        return np.stack([place.real, place.imag, world.through * speed * (times - at)], -1)

    def image(cloud: PointCloud, factor: float) -> np.ndarray:
        values = np.zeros(GRID.shape, np.float32)
        add_stamps(values, image_of_points(cloud, GRID, scanner, path if speed else None), factor)
        return values

    x, y, z = centre_mm
    lump = cylinder((x + 9 * math.sin(3 * direction), y + 9 * math.cos(3 * direction), z), (0, 0, 1), 10.0, 12.0, 1.0)
    insert = image(Insert(size, "HD", centre_mm).cloud(), 1000.0 / 800 * scanner.calcium_hu_per_mg_cm3)
    return insert, image(lump, FAT_HU - TISSUE_HU) if world.lump else np.zeros_like(insert)


WORLDS = {
    "a path that turns by 60°": World(turning=math.pi / 3),
    "fat beside": World(fat=True),
    "fat moving along": World(lump=True),
    "as fast along the table": World(through=1.0),
}


def tissue(direction: float | None) -> np.ndarray:
    """HU [j, i], with fat in a direction, radians, or nowhere."""
    if direction is None:
        return np.full(GRID.shape[1:], TISSUE_HU)
    j, i = (np.mgrid[: GRID.shape[1], : GRID.shape[2]] - 48) * SCANNER.pixel_mm
    edge = i * math.cos(direction) + j * math.sin(direction) - FAT_MM
    blur = math.hypot(SCANNER.aperture_sigma_mm, SCANNER.kernel.sigma_mm)
    return TISSUE_HU + (FAT_HU - TISSUE_HU) * ndtr(edge / blur)


class Fit:
    """Spectra of moving cylinders [cylinder, row, column], the first `still` of which stand still."""

    def __init__(self, angles: int) -> None:
        moving = itertools.product(FIT_MM_S, np.arange(FIT_DIRECTIONS) / FIT_DIRECTIONS, np.arange(angles) / angles)
        self.angle_free = angles > 1
        motions = [(0.0, 0.0, 0.0), *moving]
        self.still = len(FIT_WIDTHS_MM)
        self.shapes = [(width, *motion) for motion in motions for width in FIT_WIDTHS_MM]
        images = np.stack([self._image(*shape) for shape in self.shapes])
        self.norms = np.square(images, dtype=np.float64).sum((1, 2))
        self.spectra = np.fft.rfft2(images).astype(np.complex64)

    @staticmethod
    def _image(width: float, speed: float, direction: float, angle: float) -> np.ndarray:
        """Per mm², less its mean, about pixel 0, 0. direction in turns; angle: of the middle view, from 1/2 turn on."""
        size, pixel = 2 * WINDOW, SCANNER.pixel_mm
        fy, fx = np.fft.fftfreq(size, pixel)[:, None], np.fft.fftfreq(size, pixel)[None, :]
        radial = np.hypot(fx, fy)
        x = np.maximum(math.pi * width * radial, 1e-9)
        spectrum = SCANNER.transfer(radial) * 2 * j1(x) / x
        if speed:
            along = speed * SCANNER.rotation_s * (fx * math.cos(2 * math.pi * direction))
            along = along + speed * SCANNER.rotation_s * fy * math.sin(2 * math.pi * direction)
            turn = np.arctan2(fy, fx) / (2 * math.pi)
            total = np.zeros(spectrum.shape, complex)
            for half in (0.0, 0.5):
                lag = np.mod(turn + half - 0.5 - angle + 0.5, 1.0) - 0.5
                total += np.clip((0.25 - np.abs(lag)) / 0.1 + 0.5, 0, 1) * np.exp(-2j * math.pi * along * lag)
            total[0, 0] = 1.0
            spectrum = spectrum * total
        image = np.fft.ifft2(spectrum).real / pixel**2
        half = WINDOW // 2
        cropped = np.fft.fftshift(image)[size // 2 - half : size // 2 + half, size // 2 - half : size // 2 + half]
        return np.fft.ifftshift(cropped - cropped.mean()).astype(np.float32)

    def masses(self, hu: np.ndarray, id_map: np.ndarray, noise_hu: float) -> list[float]:
        """mg, by each of GAINS."""
        k, j, i = np.nonzero(id_map)
        first, last = max(0, k.min() - 1), min(hu.shape[0], k.max() + 2)
        total = (hu[first:last].sum(0) * GRID.spacing_mm[2]).astype(np.float32)
        half = WINDOW // 2
        row, column = (int(np.clip(round(a.mean()), half, hu.shape[1] - half)) for a in (j, i))
        data = total[row - half : row + half, column - half : column + half]
        spectrum = np.fft.rfft2(np.fft.ifftshift(data - data.mean()))
        near = np.arange(-NEAR_PIXELS, NEAR_PIXELS + 1)
        products = np.fft.irfft2(spectrum * self.spectra.conj(), s=(WINDOW, WINDOW))[:, near[:, None], near]
        best = products.reshape(len(products), -1).max(1)
        explained = np.square(np.maximum(best, 0)) / self.norms
        still, moving = int(explained[: self.still].argmax()), self.still + int(explained[self.still :].argmax())
        fits = []
        for n in (still, moving):
            row, column = divmod(int(products[n].argmax()), near.size)
            fits.append(self._refined(spectrum, self.shapes[n], (int(near[row]), int(near[column]))))
        gain = (fits[1][0] - fits[0][0]) / ((last - first) * (GRID.spacing_mm[2] * noise_hu) ** 2)
        return [fits[int(gain > least)][1] for least in GAINS]

    def _refined(self, spectrum: np.ndarray, shape: tuple, place: tuple[int, int]) -> tuple[float, float]:
        """What the best cylinder near this one explains, HU² mm², and its mass in mg."""
        steps = [0.4, *((4.0, 0.04) if shape[1] else ()), *((0.08,) if shape[1] and self.angle_free else ())]
        best = (*self._explained(spectrum, shape, place), shape)
        for _ in range(4):
            for n, step in enumerate(steps):
                for sign in (-1, 1):
                    tried = list(best[2])
                    tried[n] = max(0.1, tried[n] + sign * step) if n < 2 else tried[n] + sign * step
                    best = max(best, (*self._explained(spectrum, tuple(tried), place), tuple(tried)))
            steps = [step / 1.6 for step in steps]
        return best[:2]

    def _explained(self, spectrum: np.ndarray, shape: tuple, place: tuple[int, int]) -> tuple[float, float]:
        """The same of one cylinder, at the best fraction of a pixel about a pixel."""
        image = self._image(*shape)
        norm = float(np.square(image, dtype=np.float64).sum())
        both = spectrum * np.fft.rfft2(image).conj()
        both[:, 1:-1] *= 2
        shifts = np.linspace(-0.9, 0.9, 10)
        left = np.exp(2j * math.pi * np.outer(place[0] + shifts, np.fft.fftfreq(WINDOW)))
        right = np.exp(2j * math.pi * np.outer(np.fft.rfftfreq(WINDOW), place[1] + shifts))
        product = max(0.0, float((left @ both @ right).real.max()) / WINDOW**2)
        return product**2 / norm, product / norm * CALIBRATION.mg_per_cm3_per_hu / 1000


def integrated(hu: np.ndarray, found: calcium_mass.LesionSet) -> dict[str, float]:
    """mg, by each reach, and by the growing one."""
    usual, values, errors = calcium_mass.REACH_MM, [], []
    try:
        for calcium_mass.REACH_MM in REACHES_MM:
            mass = calcium_mass.lesion_masses(hu, GRID.spacing_mm, found, CALIBRATION, None)[1]
            values.append(mass.integrated_mass_mg or 0.0)
            errors.append(mass.mass_standard_error_mg or math.inf)
    finally:
        calcium_mass.REACH_MM = usual
    steps = (n for n in range(len(values) - 1) if values[n + 1] - values[n] <= errors[n])
    grown = values[next(steps, len(values) - 1)]
    return {**{f"reach {mm} mm": v for mm, v in zip(REACHES_MM, values, strict=True)}, "growing reach": grown}


def measured(speeds: tuple, positions: int, seed: int, fits: dict[str, Fit], world: World) -> list[dict]:
    """A row for each insert."""
    random, rows = np.random.default_rng(seed), []
    for speed, (size, mm), n in itertools.product(speeds, SIZES_MM.items(), range(positions)):
        x, y = 48 * SCANNER.pixel_mm + random.uniform(-0.5, 0.5, 2)
        centre = (float(x), float(y), float(9 + random.uniform(-1.5, 1.5)))
        image, lump = images(size, centre, speed, random.uniform(0, 2 * math.pi), world)
        background = lump + tissue(random.uniform(0, 2 * math.pi) if world.fat else None)
        for density in DENSITIES:
            source = NoiseSource((seed, n, round(speed), round(mm), density), GRID, SCANNER)
            noise = np.stack([source.slice_field(k) for k in range(GRID.shape[0])])
            hu = np.rint(background + density * image + NOISE_HU * noise).astype(np.float32)
            place = tuple(c / s for c, s in zip(centre, GRID.spacing_mm, strict=True))
            found, rule, _ = seeds(image_on(GRID, hu), [(place, mm / 2, mm, 16)], CALIBRATION)
            values = {"130 HU rule": rule[0], **integrated(hu, found)}
            for name, fit in fits.items():
                by_gain = zip(GAINS, fit.masses(hu, found.id_map, NOISE_HU), strict=True)
                values.update({f"{name}, gain {gain:g}": mass for gain, mass in by_gain})
            rows.append(
                {"speed": speed, "dense": density >= 200, "true": math.pi * mm**3 / 4 * density / 1000, **values}
            )
    return rows


def rmse(rows: list[dict], name: str) -> tuple[float, float]:
    """RMSE and mean error, mg."""
    off = np.array([row[name] - row["true"] for row in rows])
    return float(np.sqrt(np.mean(off**2))), float(off.mean())


def table(rows: list[dict], names: list[str]) -> None:
    groups = [(dense, speed) for dense in (True, False) for speed in sorted({row["speed"] for row in rows})]
    print("RMSE (mean error), mg | " + " | ".join(f"{'200-800' if d else '25-100'} at {s:g}" for d, s in groups))
    for name in names:
        cells = []
        for dense, speed in groups:
            own = [row for row in rows if row["dense"] == dense and row["speed"] == speed]
            cells.append("{:.2f} ({:+.2f})".format(*rmse(own, name)))
        print(f"{name} | " + " | ".join(cells))
    print(f"inserts of a cell: {len(rows) // len(groups)}", flush=True)


def without_noise(fits: dict[str, Fit]) -> None:
    """How well the fit's response is that of the simulator."""
    centre = (48 * SCANNER.pixel_mm, 48 * SCANNER.pixel_mm, 9.0)
    for speed in (0.0, 30.0):
        image = 400 * images("medium", centre, speed, 0.4, World())[0]
        found, _, _ = seeds(image_on(GRID, TISSUE_HU + image), [((48, 48, 3), 1.5, 3.0, 16)], CALIBRATION)
        masses = {name: fit.masses(image, found.id_map, NOISE_HU)[0] for name, fit in fits.items()}
        print(f"without noise at {speed:g} mm/s, true {math.pi * 27 / 4 * 0.4:.2f} mg: {masses}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--positions", type=int, default=4, help="places of each insert; half but of the report")
    options = parser.parse_args()
    fits = {"fit, gantry known": Fit(1), "fit, gantry free": Fit(FIT_ANGLES)}
    without_noise(fits)
    rows = measured(CHOSEN_AT, options.positions // 2, 1, fits, World())
    names = [name for name in rows[0] if name not in ("speed", "dense", "true")]
    print("\nchoosing")
    table(rows, names)
    kept = ["130 HU rule", "reach 1.5 mm"]
    for kind in ("reach", "growing", *fits):
        # Still and moving inserts weigh the same.
        own = [name for name in names if name.startswith(kind)]
        kept.append(min(own, key=lambda n: sum(rmse([r for r in rows if r["speed"] == s], n)[0] for s in CHOSEN_AT)))
    print(f"chosen: {kept[2:]}\n\nreported")
    kept = list(dict.fromkeys(kept))
    kept = list(dict.fromkeys(kept))
    table(measured(REPORTED_AT, options.positions, 2, fits, World()), kept)
    for seed, (label, world) in enumerate(WORLDS.items(), 4):
        print(f"\n{label}")
        table(measured(REPORTED_AT, options.positions // 2, seed, fits, world), kept)
    print("\nthe gantry elsewhere")
    for gantry in (0.5, 0.25, 0.0, 0.75):
        print(f"gantry at {gantry:g} turns")
        table(measured((10.0, 30.0), 2, 3, {}, World(gantry)), ["130 HU rule", "reach 1.5 mm"])


if __name__ == "__main__":
    main()
