"""Normalisation of scans to the reference protocol before they are scored, if their kernel is sharper or their slices
are thinner than the calibration range, or thin slices are noisier than it holds in.

Kernels are linear filters in the slice, so one is turned into another by their ratio in the frequency plane. The scan's
own is measured in it, the reference is the simulated scanner's soft kernel, measured alike. The ratio is 1 at zero
frequency, so that the mean of a slice and the mass of a lesion stay as they are, and never above 1, so that nothing is
made sharper. Thin slices are averaged with their neighbours to the reference thickness. Grid and type of the scan stay,
so that masks, maps and the rule of slice spacing are those of the scan.

The modulation transfer function (MTF) in the slice is measured without a phantom. Steps between tissues have a power
spectrum that falls with f³ in the plane, whatever the patient. So the power of the body times f³, relative to that of
coarse structure, is the MTF squared. Where noise outweighs the edges it continues their curve: noise passed the ramp
filter, which gives it power proportional to f, and then the same kernel (Riederer, Pelc, Chesler 1978,
10.1088/0031-9155/23/3/008), but not the blur of focal spot and detector.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from scipy import fft, ndimage

from ..core.ct import AIR_HU, CTScan
from ..core.errors import CTError
from ..core.grid import Grid
from ..core.warning_codes import ScanWarning
from ..record.findings import Normalisation

MODES = ("auto", "on", "off")
"""auto: where the kernel is sharper, or slices are thinner or noisier, than known; on: always, off: never."""

COARSE_PER_MM = (0.037, 0.068)
"""Frequencies at which no kernel alters the image: there the MTF is taken as 1."""

STEP_PER_MM = 0.025
HIGHEST_PER_MM = 0.7
"""Step and end of the curve, beyond which there is little but noise."""

MIN_NYQUIST_PER_MM = 0.45
"""Larger pixels (1.1 mm) do not show how sharp the kernel was."""

BODY_WINDOW_MM = 60.0
NOISE_WINDOW_MM = 20.0
MAX_SLICES = 12
MIN_WINDOWS = 24
"""Least number of windows of either kind."""

WINDOW_HU = (-1000.0, 400.0)
"""Values beyond are cut off, so that metal and bone do not outweigh all else."""

BODY_MEAN_HU = -800.0
"""Windows with a lower mean are mostly air."""

NOISE_TISSUE_HU = (-10.0, 90.0)
"""Mean of the windows in which noise is measured: muscle, blood and liver."""

PURE_NOISE = 0.3
"""Proportion of these that is used: those with the least coarse structure for their fine one."""

APERTURE_SIGMA_MM = 0.47
"""Blur of focal spot and detector, which noise does not see (fitted to a Canon scan; see the simulated scanner)."""

RAMP_FLOOR_PER_MM = 0.05
"""Measured noise does not vanish at zero frequency as the ideal ramp does."""

EDGES_SEEN = 0.5
"""Proportion of the power that has to be edges for them to be measured."""

REFERENCE_MTF = (
    *(1.000, 1.000, 0.891, 0.812, 0.788, 0.771, 0.735, 0.659, 0.590, 0.524, 0.467, 0.397, 0.330, 0.262),
    *(0.209, 0.168, 0.140, 0.115, 0.095, 0.077, 0.063, 0.050, 0.041, 0.036, 0.033, 0.030, 0.030),
)
"""MTF of the soft kernel by `measured_sharpness` at multiples of STEP_PER_MM: median of six digital patients."""

JUDGED_PER_MM = (0.25, 0.3, 0.35)
SHARPEST_KNOWN = 0.83
"""Mean MTF at these frequencies: soft kernels have about 0.38, the sharpest that CAC was calibrated with up to 0.76,
edge-enhancing ones 0.89 and more."""

REFERENCE_THICKNESS_MM = 3.0
"""Slice thickness that the Agatston score was made for."""

THINNEST_KNOWN_MM = 0.95
"""Calibration scans had slices of 1 mm and more."""

NOISIEST_KNOWN_HU = 70.0
"""Noise (`tissue_noise`) from which thin slices are averaged and filtered, because it swells plaque and makes more.
Chosen on ten digital patients of protocol "noisy": below it, averaging lost plaque in two and helped in one."""

CALM_TISSUE = 0.1
"""Proportion of windows in soft tissue that show noise alone."""


def normalisation_of(scan: CTScan, mode: str = "auto") -> Normalisation:
    """Measure a scan's kernel, and choose what is done about it and about its slices.

    Args:
        scan: The CT.
        mode: One of MODES.

    Raises:
        CTError: There is no such mode, or the kernel is to be normalised and cannot be measured.
    """
    if mode not in MODES:
        raise CTError(f"There is no normalisation {mode!r}. Choose one of {', '.join(MODES)}.")
    measured = measured_sharpness(scan)
    thickness = max(scan.acquisition.slice_thickness_mm or 0.0, scan.slice_spacing_mm)
    to_reference = slice_weights(thickness, scan.slice_spacing_mm)
    is_noisy = mode == "auto" and bool(to_reference) and (tissue_noise(scan) or 0.0) >= NOISIEST_KNOWN_HU
    is_averaged = mode == "on" or is_noisy or (mode == "auto" and thickness < THINNEST_KNOWN_MM)
    weights = to_reference if is_averaged else ()
    if measured is None:
        if mode == "on":
            raise CTError(
                "The kernel cannot be normalised, because the scan shows too little to measure it, or has pixels of "
                "more than 1.1 mm. Do not switch normalisation on."
            )
        return Normalisation(mode, None, SHARPEST_KNOWN, (), STEP_PER_MM, weights)
    sharpness = round(float(measured.at(np.array(JUDGED_PER_MM)).mean()), 4)
    normalisation = Normalisation(mode, sharpness, SHARPEST_KNOWN, (), STEP_PER_MM, weights)
    if mode == "on" or is_noisy or (mode == "auto" and normalisation.out_of_range):
        return replace(normalisation, gain=_gain(measured))
    return normalisation


def normalised(scan: CTScan, normalisation: Normalisation | None) -> CTScan:
    """Return a scan as scored: filtered on its own grid, or itself if nothing was done."""
    if normalisation is None or not normalisation.changes:
        return scan
    hu, acquisition = scan.hu, scan.acquisition
    if normalisation.slice_weights:
        hu = averaged(hu, normalisation.slice_weights)
        acquisition = replace(acquisition, slice_thickness_mm=REFERENCE_THICKNESS_MM)
    if gain := normalisation.gain:
        frequency = normalisation.step_per_mm * np.arange(len(gain) + 1)
        hu = filtered(hu, scan.image.GetSpacing(), frequency, np.array([1.0, *gain]))
    return replace(scan, image=Grid.of(scan.image).image(hu), acquisition=acquisition)


def normalisation_warnings(normalisation: Normalisation) -> list[ScanWarning]:
    """Report what was done to a scan before it was scored, or was left undone."""
    warnings = []
    if normalisation.slice_weights:
        message = (
            "The slices are thin, or thin and noisy, so each was averaged with its neighbours to "
            f"{REFERENCE_THICKNESS_MM:g} mm before scoring. All scores are those of the averaged scan; the pictures "
            "show the original."
        )
        warnings.append(ScanWarning("slices-averaged", message))
    mtf, limit = normalisation.sharpness or 0.0, normalisation.limit
    sharper = f"because its kernel is sharper than the calibration range (MTF {mtf:.2f} at 0.3/mm, limit {limit:.2f})"
    if normalisation.gain:
        reason = f", {sharper}" if normalisation.out_of_range else ""
        message = (
            f"The scan was filtered to a soft kernel before scoring{reason}. All scores are those of the filtered "
            "scan; the pictures show the original."
        )
        warnings.append(ScanWarning("kernel-normalised", message))
    elif normalisation.out_of_range:
        message = f"The scan was scored as it is, {sharper}. Streaks and noise may be counted as calcium."
        warnings.append(ScanWarning("kernel-sharp", message))
    return warnings


def _gain(measured: Sharpness) -> tuple[float, ...]:
    reference = np.array(REFERENCE_MTF)
    frequency = STEP_PER_MM * np.arange(1, len(reference) + 1)
    ratio = measured.at(frequency) / reference
    # Sharp kernels alter a little also the coarse structure to which both curves are normalised: about as exp(c f²).
    coarse, fine = 0.05, 0.15
    growth = np.log(np.interp(fine, frequency, ratio)) / (fine**2 - coarse**2)
    ratio *= np.exp(growth * np.minimum(frequency, coarse) ** 2)
    return tuple(np.minimum(1.0, 1.0 / ratio).round(5).tolist())


def slice_weights(thickness_mm: float, spacing_mm: float) -> tuple[float, ...]:
    """Weigh a slice and its neighbours so that slices of this thickness have the reference's.

    The mean over a width w of slices that are boxes of thickness t is a profile of variance (w² + t²) / 12; that of the
    reference is t_ref² / 12.

    Returns:
        Weights, which add up to 1; empty where slices are as thick, or too far apart.
    """
    width = math.sqrt(max(0.0, REFERENCE_THICKNESS_MM**2 - thickness_mm**2)) / spacing_mm
    reach = math.ceil(width / 2 - 0.5)
    if reach < 1:
        return ()
    ends = np.clip(np.arange(-reach, reach + 2) - 0.5, -width / 2, width / 2)
    return tuple((np.diff(ends) / width).round(6).tolist())


def averaged(hu: np.ndarray, weights: tuple[float, ...]) -> np.ndarray:
    """Return slices [k, j, i] as weighted means of themselves and their neighbours; of the same type.

    The scan's last slice stands for those beyond it.
    """
    result, kernel = np.empty_like(hu), np.array(weights, np.float32)
    for j in range(hu.shape[1]):  # row by row, so that a long scan needs no copy in floating point
        rows = ndimage.correlate1d(hu[:, j].astype(np.float32), kernel, axis=0, mode="nearest")
        result[:, j] = rows if hu.dtype.kind == "f" else np.rint(rows)
    return result


def filtered(
    hu: np.ndarray, spacing_mm: tuple[float, float, float], frequency_per_mm: np.ndarray, gain: np.ndarray
) -> np.ndarray:
    """Multiply slices by a gain in the frequency plane, mirrored at their borders; of the same type, nothing below air.

    Args:
        hu: [k, j, i].
        spacing_mm: i j k.
        frequency_per_mm: Rising, from 0 on.
        gain: At these frequencies; beyond them the last one.
    """
    rows, columns = (
        np.arange(count) / (2 * count * step) for count, step in zip(hu.shape[1:], spacing_mm[1::-1], strict=True)
    )
    plane = np.interp(np.hypot(rows[:, None], columns[None]), frequency_per_mm, gain).astype(np.float32)
    result = np.empty_like(hu)
    for k, plane_hu in enumerate(hu):
        # The cosine transform is the Fourier transform of a slice that is mirrored at its borders.
        values = fft.idctn(fft.dctn(plane_hu.astype(np.float32), norm="ortho") * plane, norm="ortho")
        values = np.maximum(values, AIR_HU)
        result[k] = values if hu.dtype.kind == "f" else np.rint(values)
    return result


@dataclass(frozen=True)
class Sharpness:
    """MTF of a kernel.

    Attributes:
        frequency_per_mm: Frequencies of the curve, [n].
        mtf: MTF at these, [n]; 1 at the coarsest frequency.
    """

    frequency_per_mm: np.ndarray
    mtf: np.ndarray

    def at(self, frequency_per_mm: np.ndarray | float) -> np.ndarray:
        """Interpolate the MTF at frequencies of any shape; beyond the curve it keeps its last value."""
        return np.interp(frequency_per_mm, self.frequency_per_mm, self.mtf)


def measured_sharpness(scan: CTScan) -> Sharpness | None:
    """Measure the MTF of a scan in the slice; None if its pixels are too large, or it shows too little."""
    spacing = scan.image.GetSpacing()[:2]
    highest = min(HIGHEST_PER_MM, 0.95 * 0.5 / max(spacing))
    if 0.5 / max(spacing) < MIN_NYQUIST_PER_MM:
        return None
    frequency = np.arange(STEP_PER_MM, highest, STEP_PER_MM)
    slices = _measured_slices(scan)
    body = _body_power(scan.hu, slices, spacing, frequency)
    noise = _noise_power(scan.hu, slices, spacing, frequency)
    if body is None or noise is None:
        return None
    mtf = _mtf(frequency, body, noise)
    return None if mtf is None else Sharpness(frequency, mtf)


def tissue_noise(scan: CTScan) -> float | None:
    """Measure the SD of the noise in soft tissue, HU; None if the scan shows too little of it."""
    windows = _tissue_windows(scan.hu, _measured_slices(scan), scan.image.GetSpacing()[:2])
    return None if windows is None else float(np.quantile(windows.std(axis=(1, 2)), CALM_TISSUE))


def _measured_slices(scan: CTScan) -> np.ndarray:
    """Return the indices of up to MAX_SLICES slices, evenly spread."""
    return np.unique(np.linspace(0, len(scan.hu) - 1, min(MAX_SLICES, len(scan.hu))).round().astype(int))


def _mtf(frequency: np.ndarray, body: np.ndarray, noise: np.ndarray) -> np.ndarray | None:
    """Compute the MTF from the power of body and noise, [n]; None if there is nothing but noise."""
    # At the highest frequencies there is nothing but noise, which is another in the whole body than where it was pure.
    noise = noise * float(np.min((body / noise)[-3:]))
    edges = (body - noise) * frequency**3
    has_edges = body - noise >= EDGES_SEEN * body
    coarse = (frequency >= COARSE_PER_MM[0]) & (frequency <= COARSE_PER_MM[1])
    if not has_edges[frequency <= COARSE_PER_MM[1]].all():
        return None
    last = len(has_edges) - 1 if has_edges.all() else int(np.argmin(has_edges)) - 1
    aperture = np.exp(-2 * (np.pi * APERTURE_SIGMA_MM * frequency) ** 2)
    by_noise = noise / (frequency + RAMP_FLOOR_PER_MM) * aperture**2
    square = np.where(np.arange(len(has_edges)) <= last, edges, by_noise * (edges[last] / by_noise[last]))
    mtf = np.sqrt(square / square[coarse].mean())
    smooth = np.exp(np.convolve(np.pad(np.log(mtf), 1, mode="edge"), np.ones(3) / 3, mode="valid"))
    smooth[frequency <= COARSE_PER_MM[1]] = 1.0
    return smooth


def _body_power(
    hu: np.ndarray, slices: np.ndarray, spacing: tuple[float, float], frequency: np.ndarray
) -> np.ndarray | None:
    """Return the mean power of windows that show the body, at each frequency."""
    total, count, shape = np.zeros(()), 0, (1, 1)
    for windows in _windows(hu, slices, spacing, BODY_WINDOW_MM):
        shape = windows.shape[1:]
        windows = np.clip(windows, *WINDOW_HU)
        mean = windows.mean((1, 2), keepdims=True)
        shows_body = mean.reshape(-1) > BODY_MEAN_HU
        count += int(shows_body.sum())
        total = total + _power(windows[shows_body] - mean[shows_body], spacing).sum(0)
    return None if count < MIN_WINDOWS else _radial(total[None] / count, shape, spacing, frequency)[0]


def _noise_power(
    hu: np.ndarray, slices: np.ndarray, spacing: tuple[float, float], frequency: np.ndarray
) -> np.ndarray | None:
    """Return the mean power of the purest noise in soft tissue, at each frequency, on an arbitrary scale."""
    windows = _tissue_windows(hu, slices, spacing)
    if windows is None:
        return None
    power = _radial(_power(windows, spacing), windows.shape[1:], spacing, frequency)
    fine = power[:, frequency > 0.25].mean(1)
    coarse = power[:, (frequency > 0.04) & (frequency < 0.13)].mean(1)
    noisy = fine > 0
    if not noisy.any():
        return None
    power, fine, coarse = power[noisy], fine[noisy], coarse[noisy]
    purity = coarse / fine
    used = purity <= np.quantile(purity, PURE_NOISE)
    mean = (power[used] / fine[used, None]).mean(0)
    return mean if np.isfinite(mean).all() and (mean > 0).all() else None


def _tissue_windows(hu: np.ndarray, slices: np.ndarray, spacing: tuple[float, float]) -> np.ndarray | None:
    """Return windows of soft tissue, detrended, float32 [n, rows, columns]; None if there are too few."""
    tissue_windows = []
    for windows in _windows(hu, slices, spacing, NOISE_WINDOW_MM):
        mean = windows.mean((1, 2))
        tissue_windows.append(windows[(mean > NOISE_TISSUE_HU[0]) & (mean < NOISE_TISSUE_HU[1])])
    if sum(map(len, tissue_windows)) < MIN_WINDOWS:
        return None
    return _detrended(np.concatenate(tissue_windows))


def _windows(hu: np.ndarray, slices: np.ndarray, spacing: tuple[float, float], side_mm: float) -> Iterator[np.ndarray]:
    """Yield the windows of each slice, half a side apart, float32 [n, rows, columns]."""
    columns, rows = (2 * round(side_mm / (2 * step)) for step in spacing)
    if rows > hu.shape[1] or columns > hu.shape[2]:
        return
    for k in slices:
        view = np.lib.stride_tricks.sliding_window_view(hu[k], (rows, columns))
        yield view[:: rows // 2, :: columns // 2].reshape(-1, rows, columns).astype(np.float32)


def _detrended(windows: np.ndarray) -> np.ndarray:
    """Subtract from each window the plane that fits it best."""
    y, x = (np.linspace(-1, 1, n, dtype=np.float32) for n in windows.shape[1:])
    flat = windows - windows.mean((1, 2), keepdims=True)
    for axis in (np.broadcast_to(y[:, None], flat.shape[1:]), np.broadcast_to(x[None], flat.shape[1:])):
        flat -= ((flat * axis).sum((1, 2)) / np.square(axis).sum())[:, None, None] * axis
    return flat


def _power(windows: np.ndarray, spacing: tuple[float, float]) -> np.ndarray:
    """Return power spectra of windows [n, rows, columns] under a Hann window, HU² mm²: [n, rows, columns / 2 + 1]."""
    taper = np.outer(*(np.hanning(n + 2)[1:-1] for n in windows.shape[1:])).astype(np.float32)
    spectrum = fft.rfft2(windows * taper)
    return (spectrum.real**2 + spectrum.imag**2) * (spacing[0] * spacing[1] / float(np.square(taper).sum()))


def _radial(
    power: np.ndarray, shape: tuple[int, int], spacing: tuple[float, float], frequency: np.ndarray
) -> np.ndarray:
    """Average spectra over rings around each frequency, [n, frequencies]."""
    fy, fx = np.fft.fftfreq(shape[0], spacing[1]), np.fft.rfftfreq(shape[1], spacing[0])
    plane = np.hypot(fy[:, None], fx[None]).reshape(-1)
    width = max(STEP_PER_MM, 1.0 / min(shape[0] * spacing[1], shape[1] * spacing[0]))
    weights = np.maximum(0.0, 1.0 - np.abs(plane[None] - frequency[:, None]) / width).astype(np.float32)
    weights /= weights.sum(1, keepdims=True)
    return power.reshape(len(power), -1) @ weights.T
