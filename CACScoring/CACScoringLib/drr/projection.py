"""Digitally reconstructed radiographs: a CT as a chest stand would show it.

HU are converted to attenuation by their definition, μ = μ_water · (1 + HU/1000), never below 0, without a copy of the
CT.

Mass attenuation coefficients: Hubbell and Seltzer, NIST Standard Reference Database 126 (physics.nist.gov/xaamdi),
tables of liquid water, cortical bone (ICRU-44) and aluminium; between its energies log–log.

Values are interpolated linearly in each plane that a ray meets, and planes are summed (Joseph 1982,
doi:10.1109/TMI.1982.4307572), compiled by Numba if installed, else by SciPy: several times slower, with the same
results. `cac drr` and the panel need no extra, and Numba comes with the studies.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from ..core.ct import AIR_HU
from ..core.errors import ProjectionError
from ..core.grid import Grid
from ..core.slice_checks import BODY_HU
from ..core.version import core_count
from ..core.voxels import voxels_of
from .geometry import Geometry, Rays, in_lps_order, rays_through

CT_EFFECTIVE_KEV = 70.0
"""Energy at which HU are assumed to be measured: the mean of a filtered 120 kVp spectrum behind a body."""

BONE_ABOVE_HU = 100.0
"""HU above which the excess counts as calcium, whose attenuation falls faster with energy than water's, as bone's."""

_KEV = (10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 80.0, 100.0, 150.0)
_CM2_PER_G = {
    "water": (5.329, 1.673, 0.8096, 0.3756, 0.2683, 0.2269, 0.2059, 0.1837, 0.1707, 0.1505),
    "bone": (28.51, 9.032, 4.001, 1.331, 0.6655, 0.4242, 0.3148, 0.2229, 0.1855, 0.1480),
    "aluminium": (26.23, 7.955, 3.441, 1.128, 0.5685, 0.3681, 0.2778, 0.2018, 0.1704, 0.1378),
}
_ALUMINIUM_G_PER_CM3, _FILTER_MM = 2.699, 3.0

WINDOW_PERCENTILES = 1.0, 99.7
"""Percentiles of the body shown black and white; bone is white."""

SCATTER_MM = 40.0
"""Standard deviation of the scatter on the detector."""

_RAYS = 16384
"""Most rays that a thread processes at once, within the processor's cache."""


@dataclass(frozen=True)
class Spectrum:
    """Photon energies, and their parts of the unattenuated signal, which sum up to 1."""

    kev: tuple[float, ...] = (CT_EFFECTIVE_KEV,)
    weights: tuple[float, ...] = (1.0,)


@dataclass(frozen=True)
class Film:
    """Display of a radiograph.

    Attributes:
        linear: True if grey follows the intensity, False for its logarithm, as on film.
        scatter_fraction: Scattered part of the signal behind the patient.
        photons: Photons per pixel without a patient, for Poisson noise; None for no noise.
    """

    linear: bool = False
    scatter_fraction: float = 0.0
    photons: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.scatter_fraction < 1:
            raise ProjectionError("Give a scatter fraction from 0 to below 1.")
        if self.photons is not None and not 0 < self.photons <= 1e12:
            raise ProjectionError(f"{self.photons:g} photons per pixel cannot form an image. Give 1 to 1e12.")


def attenuation_per_mm(material: str, kev: float) -> float:
    """Return the attenuation of water, or of bone and aluminium at a density of 1 g/cm³.

    Raises ProjectionError outside 10 to 150 keV.
    """
    if not _KEV[0] <= kev <= _KEV[-1]:
        raise ProjectionError(f"The energy is {kev:g} keV. Give {_KEV[0]:g} to {_KEV[-1]:g} keV.")
    return float(np.exp(np.interp(math.log(kev), np.log(_KEV), np.log(_CM2_PER_G[material])))) / 10


def tube_spectrum(kvp: float) -> Spectrum:
    """Return the signal of an energy-integrating detector under a tube: Kramers' bremsstrahlung behind a filter (1923,
    doi:10.1080/14786442308565244), without characteristic lines and heel effect.

    Raises ProjectionError outside 40 to 150 kVp.
    """
    if not 40 <= kvp <= 150:
        raise ProjectionError(f"The tube is at {kvp:g} kVp. Give 40 to 150 kVp.")
    edges = np.linspace(15.0, kvp, 17)
    kev = (edges[1:] + edges[:-1]) / 2
    filtered = [attenuation_per_mm("aluminium", e) * _ALUMINIUM_G_PER_CM3 * _FILTER_MM for e in kev]
    weights = (kvp - kev) * np.exp(-np.array(filtered))
    return Spectrum(tuple(kev.tolist()), tuple((weights / weights.sum()).tolist()))


def intensity(soft_mm: np.ndarray, excess_mm: np.ndarray | None, spectrum: Spectrum) -> np.ndarray:
    """Compute the signal behind a patient, 1 without one, float32 [row, column].

    Args:
        soft_mm: Water-equivalent path of values up to BONE_ABOVE_HU.
        excess_mm: Path of the excess, by its attenuation at CT_EFFECTIVE_KEV; None if all counts as water.
        spectrum: The photons' spectrum.
    """
    total = np.zeros(soft_mm.shape, np.float32)
    for kev, weight in zip(spectrum.kev, spectrum.weights, strict=True):
        path = attenuation_per_mm("water", kev) * soft_mm
        if excess_mm is not None:
            path += calcium_per_mm(kev) * excess_mm
        total += weight * np.exp(-path)
    return total


def calcium_per_mm(kev: float) -> float:
    """Return the attenuation at an energy of calcium that attenuates like water at CT_EFFECTIVE_KEV."""
    water = attenuation_per_mm("water", CT_EFFECTIVE_KEV)
    return water * attenuation_per_mm("bone", kev) / attenuation_per_mm("bone", CT_EFFECTIVE_KEV)


def detect(signal: np.ndarray, film: Film, pixel_mm: Sequence[float]) -> np.ndarray:
    """Add scatter and noise to a signal, float32 [row, column]."""
    if film.scatter_fraction:
        image = sitk.GetImageFromArray(signal.astype(np.float32))
        image.SetSpacing(tuple(pixel_mm))
        # The recursive filter's cost does not grow with the width; it needs four pixels.
        spread = image if min(signal.shape) < 4 else sitk.SmoothingRecursiveGaussian(image, SCATTER_MM)
        share = film.scatter_fraction
        signal = (1 - share) * signal + share * sitk.GetArrayFromImage(spread)
    if film.photons is not None:
        signal = np.random.default_rng(0).poisson(np.maximum(signal, 0) * film.photons) / film.photons
    return signal.astype(np.float32)


def display(signal: np.ndarray, body: np.ndarray, film: Film) -> tuple[np.ndarray, tuple[float, float]]:
    """Convert a signal to display values.

    Args:
        signal: Signal at the detector, 1 without a patient.
        body: Pixels that set the window, bool.
        film: Display settings.

    Returns:
        Display values, brighter for more absorption, float32 [row, column], and the window: the values shown black and
        white.
    """
    floor = 0.5 / film.photons if film.photons else 1e-12
    dark = 1 - signal if film.linear else -np.log(np.maximum(signal, np.float32(floor)))
    low, high = np.percentile(dark[body] if body.any() else dark, WINDOW_PERCENTILES)
    return dark, (float(low), float(max(high, low + 1e-6)))


BODY_PATH_MM = 20.0
"""Water-equivalent path in mm above which a ray passes the body."""

_NO_LIMIT = 1e9


@dataclass(frozen=True)
class Radiograph:
    """Radiograph; arrays are float32 [row, column], row 0 at the head.

    Attributes:
        geometry: View.
        film: How the signal is displayed.
        line_integrals: ∫μ ds, without unit; for several energies the negative logarithm of the noise-free signal.
        signal: Intensity at the detector, 1 without a patient.
        dark: Displayed signal, brighter where more was absorbed: the negative logarithm or, for a linear film, the
            absorbed part.
        window: Values of `dark` that are shown black and white.
    """

    geometry: Geometry
    film: Film
    line_integrals: np.ndarray = field(repr=False)
    signal: np.ndarray = field(repr=False)
    dark: np.ndarray = field(repr=False)
    window: tuple[float, float]

    @property
    def grey(self) -> np.ndarray:
        """Picture from 0 (black) to 1 (white), float32 [row, column]."""
        low, high = self.window
        return np.clip((self.dark - low) / (high - low), 0, 1).astype(np.float32)


def water_equivalent_mm(image: sitk.Image, geometry: Geometry) -> np.ndarray:
    """Compute the length of water that attenuates as the body along each ray, mm, float32 [row, column].

    Args:
        image: HU, three-dimensional, any axis order and direction; copied to LPS order if it has another.
        geometry: The view.

    Raises:
        ProjectionError: The view cannot be projected.
    """
    return _sums(image, geometry, -1000.0, _NO_LIMIT) / np.float32(1000)


def calcium_path(calcium_map: sitk.Image, geometry: Geometry, kev: float = CT_EFFECTIVE_KEV) -> np.ndarray:
    """Compute ∫μ ds of calcium alone. calcium_map: HU of calcium, 0 elsewhere, as from `pipeline`."""
    hu_mm = _sums(calcium_map, geometry, 0.0, _NO_LIMIT)
    return hu_mm * np.float32(calcium_per_mm(kev) / 1000)


def path_length_mm(mask: sitk.Image, geometry: Geometry) -> np.ndarray:
    """Compute the length of each ray within a mask (any label above 0), mm, float32 [row, column]."""
    return _sums(mask, geometry, 0.0, 1.0)


def radiograph(
    image: sitk.Image,
    geometry: Geometry,
    spectrum: Spectrum | None = None,
    film: Film | None = None,
    calcium_map: sitk.Image | None = None,
) -> Radiograph:
    """Compute the radiograph of a CT.

    Args:
        image: As in `water_equivalent_mm`.
        geometry: The view.
        spectrum: None for CT_EFFECTIVE_KEV. At other energies the excess over BONE_ABOVE_HU attenuates as calcium.
        film: Display settings.
        calcium_map: HU of calcium to project instead of the CT.

    Raises:
        ProjectionError: The view cannot be projected.
    """
    spectrum, film = spectrum or Spectrum(), film or Film()
    if calcium_map is not None:
        soft, excess = np.zeros(geometry.pixels[::-1], np.float32), _sums(calcium_map, geometry, 0, _NO_LIMIT)
    elif spectrum.kev == (CT_EFFECTIVE_KEV,):
        soft, excess = _sums(image, geometry, -1000.0, _NO_LIMIT), None
    else:
        soft = _sums(image, geometry, -1000.0, BONE_ABOVE_HU)
        excess = _sums(image, geometry, BONE_ABOVE_HU, _NO_LIMIT)
    soft /= 1000
    if excess is not None:
        excess /= 1000
    clean = intensity(soft, excess, spectrum)
    signal = detect(clean, film, geometry.pixel_mm)
    body = soft > BODY_PATH_MM if calcium_map is None or excess is None else excess > 0
    integrals = -np.log(np.maximum(clean, np.finfo(np.float32).tiny))
    return Radiograph(geometry, film, integrals, signal, *display(signal, body, film))


def body_only(image: sitk.Image) -> sitk.Image:
    """Copy a CT with air in place of the table and other objects not connected with the body.

    The body is the largest part above BODY_HU after an opening of 6 mm, filled in each slice.
    """
    coarse = [max(1, round(3.0 / spacing)) for spacing in image.GetSpacing()]
    small = sitk.BinShrink(image, coarse)
    radius = [max(1, round(6.0 / spacing)) for spacing in small.GetSpacing()]
    radius[2] = 0  # slices may be thick
    # Filling first keeps a thin wall around the lungs.
    parts = sitk.BinaryMorphologicalOpening(_fill_slices(small > BODY_HU), radius)
    body = sitk.RelabelComponent(sitk.ConnectedComponent(parts)) == 1
    if not voxels_of(body).any():
        return sitk.Image(image)
    body = sitk.BinaryDilate(body, [max(1, round(4.0 / spacing)) for spacing in small.GetSpacing()[:2]] + [0])
    body = _fill_slices(body)
    body = sitk.Resample(body, image, sitk.Transform(), sitk.sitkNearestNeighbor, 0)
    if small.GetDepth() != image.GetDepth():  # the rim outside the coarse grid
        values = sitk.GetArrayFromImage(body)
        slices = np.flatnonzero(values.any((1, 2)))
        values[: slices[0]], values[slices[-1] + 1 :] = values[slices[0]], values[slices[-1]]
        body = Grid.of(image).image(values)
    return sitk.Mask(image, body, AIR_HU)


def cropped(image: sitk.Image) -> sitk.Image:
    """Crop an image to non-zero voxels with a rim of one voxel; an empty image stays unchanged."""
    boxes = ndimage.find_objects((voxels_of(image) != 0).astype(np.uint8))
    if not boxes:
        return image
    # Arrays are [k, j, i].
    return image[tuple(slice(max(0, part.start - 1), part.stop + 1) for part in boxes[0][::-1])]


def _fill_slices(mask: sitk.Image) -> sitk.Image:
    """Fill holes in each slice."""
    filled_mask = sitk.JoinSeries([sitk.BinaryFillhole(mask[:, :, k]) for k in range(mask.GetDepth())])
    filled_mask.CopyInformation(mask)
    return filled_mask


def _sums(image: sitk.Image, geometry: Geometry, low: float, high: float) -> np.ndarray:
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        raise ProjectionError("The image is not one three-dimensional grey-level volume. Give the CT itself.")
    oriented = in_lps_order(image)
    return sums_along(voxels_of(oriented), rays_through(oriented, geometry), low, high)


def sums_along(volume: np.ndarray, rays: Rays, low: float, high: float) -> np.ndarray:
    """Compute Σ (value - low) · mm along each ray, float32 [row, column].

    Args:
        volume: [k, j, i], real.
        rays: The rays of the view.
        low: Lower limit of values, counted as 0.
        high: Upper limit of values.
    """
    add_planes = add_planes_compiled if importlib.util.find_spec("numba") else add_planes_by_scipy
    return add_planes(volume, rays, np.float32(low), np.float32(high)) * rays.step_mm


def add_planes_compiled(volume: np.ndarray, rays: Rays, low: np.float32, high: np.float32) -> np.ndarray:
    """Sum the values where rays meet planes, float32 [row, column], in parts of the picture on all cores."""
    from . import kernels

    rows, columns = rays.step_mm.shape
    out = np.empty((rows, columns), np.float32)
    planes = np.moveaxis(volume, 2 - rays.main, 1)  # [second, plane, first]
    depth = kernels.PLANES_AT_ONCE if rays.main == 0 else 1

    def add(part: slice) -> None:
        tables = (rays.first[part], rays.first_slope[part], rays.second[part], rays.second_slope[part])
        kernels.add_planes(planes, depth, low, high, *tables, out[part])

    count = max(1, _RAYS // columns)
    with ThreadPoolExecutor(core_count()) as pool:
        list(pool.map(add, [slice(begin, begin + count) for begin in range(0, rows, count)]))
    return out


def add_planes_by_scipy(volume: np.ndarray, rays: Rays, low: np.float32, high: np.float32) -> np.ndarray:
    """Sum the values where rays meet planes, float32 [row, column]."""
    axis = 2 - rays.main
    out = np.zeros(rays.step_mm.shape, np.float32)
    for n in range(volume.shape[axis]):
        plane = np.clip(volume.take(n, axis).astype(np.float32), low, high) - low
        if plane.any():
            places = [rays.second + n * rays.second_slope, rays.first + n * rays.first_slope]
            out += ndimage.map_coordinates(plane, places, order=1, mode="grid-constant")
    return out
