"""Digitally reconstructed radiographs: a CT as a chest stand would show it.

HU become attenuation by their definition, μ = μ_water · (1 + HU/1000), never below 0. Nothing is copied: the CT is
read where it lies.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

from ..core.ct import AIR_HU
from .geometry import Geometry, ProjectionError, in_lps_order, rays_through
from .planes import sums_along
from .xray import BONE_ABOVE_HU, CT_EFFECTIVE_KEV, Film, Spectrum, calcium_per_mm, detected, displayed, intensity

BODY_HU = -300.0
BODY_PATH_MM = 20.0
"""Rays through more water than this have met the body."""

_NO_LIMIT = 1e9


@dataclass(frozen=True)
class Radiograph:
    """A radiograph, float32 [row, column], row 0 at the head.

    line_integrals: ∫μ ds, without unit; of many energies, the logarithm of the signal without scatter and noise.
    signal: at the detector, 1 without a patient. dark: what is shown of it, brighter where more was absorbed: its
    negative logarithm or, of a linear film, the absorbed part. window: dark that is shown black, and white.
    """

    geometry: Geometry
    film: Film
    line_integrals: np.ndarray
    signal: np.ndarray
    dark: np.ndarray
    window: tuple[float, float]

    @property
    def grey(self) -> np.ndarray:
        """From 0 (black) to 1 (white), float32 [row, column]."""
        low, high = self.window
        return np.clip((self.dark - low) / (high - low), 0, 1).astype(np.float32)


def water_equivalent_mm(image: sitk.Image, geometry: Geometry, backend: str | None = None) -> np.ndarray:
    """Length of water that attenuates as the body does along each ray, mm, float32 [row, column].

    Args:
        image: HU, three-dimensional, any axis order and direction; turned to LPS order where it is not (a copy).
        geometry: The view.
        backend: As of `sums_along`.

    Raises:
        ProjectionError: The view cannot be projected.
    """
    return _sums(image, geometry, -1000.0, _NO_LIMIT, backend) / np.float32(1000)


def calcium_path(
    calcium_map: sitk.Image, geometry: Geometry, kev: float = CT_EFFECTIVE_KEV, backend: str | None = None
) -> np.ndarray:
    """∫μ ds of calcium alone. calcium_map: HU of calcium, 0 elsewhere, as `pipeline` gives it."""
    hu_mm = _sums(calcium_map, geometry, 0.0, _NO_LIMIT, backend)
    return hu_mm * np.float32(calcium_per_mm(kev) / 1000)


def path_length_mm(mask: sitk.Image, geometry: Geometry, backend: str | None = None) -> np.ndarray:
    """Length of each ray within a mask (any label above 0), mm, float32 [row, column]."""
    return _sums(mask, geometry, 0.0, 1.0, backend)


def radiograph(
    image: sitk.Image,
    geometry: Geometry,
    spectrum: Spectrum | None = None,
    film: Film | None = None,
    calcium_map: sitk.Image | None = None,
    backend: str | None = None,
) -> Radiograph:
    """A radiograph of a CT.

    Args:
        image: As of `water_equivalent_mm`.
        geometry: The view.
        spectrum: None is CT_EFFECTIVE_KEV alone. At other energies what exceeds BONE_ABOVE_HU attenuates as calcium.
        film: How the signal becomes grey values.
        calcium_map: Project this instead, HU of calcium.
        backend: As of `water_equivalent_mm`.

    Raises:
        ProjectionError: The view cannot be projected.
    """
    spectrum, film = spectrum or Spectrum(), film or Film()
    if calcium_map is not None:
        soft, excess = np.zeros(geometry.pixels[::-1], np.float32), _sums(calcium_map, geometry, 0, _NO_LIMIT, backend)
    elif spectrum.kev == (CT_EFFECTIVE_KEV,):
        soft, excess = _sums(image, geometry, -1000.0, _NO_LIMIT, backend), None
    else:
        soft = _sums(image, geometry, -1000.0, BONE_ABOVE_HU, backend)
        excess = _sums(image, geometry, BONE_ABOVE_HU, _NO_LIMIT, backend)
    soft /= 1000
    if excess is not None:
        excess /= 1000
    clean = intensity(soft, excess, spectrum)
    signal = detected(clean, film, geometry.pixel_mm)
    body = excess > 0 if calcium_map is not None else soft > BODY_PATH_MM
    integrals = -np.log(np.maximum(clean, np.finfo(np.float32).tiny))
    return Radiograph(geometry, film, integrals, signal, *displayed(signal, body, film))


def body_only(image: sitk.Image) -> sitk.Image:
    """A copy of a CT with air for the table and all else that is not connected with the body.

    The body is the largest part above BODY_HU after an opening of 6 mm, with all that it encloses in each slice.
    """
    coarse = [max(1, round(3.0 / spacing)) for spacing in image.GetSpacing()]
    small = sitk.BinShrink(image, coarse)
    radius = [max(1, round(6.0 / spacing)) for spacing in small.GetSpacing()]
    radius[2] = 0  # slices may be thick
    # Filled first, so that a thin wall about the lungs is not opened.
    parts = sitk.BinaryMorphologicalOpening(_filled(small > BODY_HU), radius)
    body = sitk.RelabelComponent(sitk.ConnectedComponent(parts)) == 1
    if not sitk.GetArrayViewFromImage(body).any():
        return sitk.Image(image)
    body = sitk.BinaryDilate(body, [max(1, round(4.0 / spacing)) for spacing in small.GetSpacing()[:2]] + [0])
    body = _filled(body)
    body = sitk.Resample(body, image, sitk.Transform(), sitk.sitkNearestNeighbor, 0)
    if small.GetDepth() != image.GetDepth():  # the rim that the coarse grid does not reach
        values = sitk.GetArrayFromImage(body)
        filled = np.flatnonzero(values.any((1, 2)))
        values[: filled[0]], values[filled[-1] + 1 :] = values[filled[0]], values[filled[-1]]
        whole = sitk.GetImageFromArray(values)
        whole.CopyInformation(image)
        body = whole
    return sitk.Mask(image, body, AIR_HU)


def _filled(mask: sitk.Image) -> sitk.Image:
    """With what it encloses in each slice."""
    whole = sitk.JoinSeries([sitk.BinaryFillhole(mask[:, :, k]) for k in range(mask.GetDepth())])
    whole.CopyInformation(mask)
    return whole


def _sums(image: sitk.Image, geometry: Geometry, low: float, high: float, backend: str | None) -> np.ndarray:
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        raise ProjectionError("The image is not one three-dimensional grey-level volume. Give the CT itself.")
    oriented = in_lps_order(image)
    return sums_along(sitk.GetArrayViewFromImage(oriented), rays_through(oriented, geometry), low, high, backend)
