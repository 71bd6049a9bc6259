"""Digital beside real chests: HU of blood, fat, lung and bone, spectrum and size of the noise, and a page of both.

    PYTHONPATH=CACTraining:CACScoring python Testing/Benchmarks/phantom_texture.py --page page.png

Regions are found alike in both: blood and myocardium as the inside of the heart region, fat and lung by HU range and
distance from edges, bone as the brightest of the spine. The real scans have other kernels, doses and patients: the
figures tell whether digital scans lie within the spread of real ones, not whether they equal one.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from PIL import Image
from scipy import ndimage

from CACScoringLib.core.ct import Acquisition, scan_from_image
from CACTrainingLib.phantom.cohort.cohort import CohortSettings, make_scan

DATA = Path(os.environ.get("CAC_REAL_CT_DIR", Path(__file__).parents[3] / "shared" / "data"))
# Scan, slice through the ventricles, slice through the roots of the great vessels.
REAL = (
    ("lung_pet_ct_dx/A0001_philips_B_5mm.nii.gz", 21, 29),
    ("tcga_thca/TCGA-DE-A4MA_petct_B30f_5mm_sp2p5.nii.gz", 27, 40),
    ("lidc_idri/LIDC-IDRI-0002_nc_bin2_2p5mm_chest.nii.gz", 40, 54),
    ("acrin_flt_breast/013_petct_B10f_5mm.nii.gz", 22, 29),
)
DIGITAL = ((39, 1), (22, 2), (8, 2), (5, 1))
DIGITAL_MM = (-8.0, 30.0)
"""Heights of the same two levels above the middle of a digital heart."""
WINDOW_HU = {"soft": (-160.0, 240.0), "lung": (-1350.0, 150.0)}


def figures(name: str, hu: np.ndarray, k: int, spacing: tuple[float, float, float]) -> str:
    """A line of figures from the slices around k."""
    part = hu[max(0, k - 3) : k + 4].astype(np.float32)

    def region(mask: np.ndarray, depth_mm: float) -> np.ndarray:
        steps = max(1, round(depth_mm / spacing[0]))
        return np.stack([ndimage.binary_erosion(m, iterations=steps) for m in mask])

    smooth = np.stack([ndimage.gaussian_filter(s, 2.0 / spacing[0]) for s in part])
    heart = region((smooth > 15) & (smooth < 75), 7)
    heart[:, part.shape[1] // 2 :] = False
    fat = region((smooth > -135) & (smooth < -75), 2)
    lung = region((smooth > -950) & (smooth < -700), 4)
    rows, columns = part.shape[1:]
    central = np.zeros_like(part, bool)
    central[:, rows // 2 : rows - rows // 8, columns // 2 - columns // 10 : columns // 2 + columns // 10] = True
    bone = (smooth > 130) & central
    values = []
    for label, mask in (("heart", heart), ("fat", fat), ("lung", lung), ("spine", bone)):
        v = part[mask]
        low, middle, high = np.percentile(v, [10, 50, 90]) if v.size else (np.nan,) * 3
        values.append(f"{label} {middle:.0f} ({low:.0f} to {high:.0f})")
    detail = part - smooth
    noise = detail[heart].std() if heart.any() else float("nan")
    spectrum = noise_spectrum(part, heart, spacing[0])
    return f"{name}: {'; '.join(values)}; noise {noise:.1f}; spectrum {spectrum}"


def noise_spectrum(part: np.ndarray, mask: np.ndarray, pixel_mm: float) -> str:
    """Share of noise power per band of 0.1 per mm, in squares of 24 mm inside the heart."""
    size = round(24 / pixel_mm)
    window = np.outer(np.hanning(size), np.hanning(size))
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(size, pixel_mm), np.fft.fftfreq(size, pixel_mm)))
    power, count = np.zeros((size, size)), 0
    for image, inside in zip(part, mask, strict=True):
        for j in range(0, image.shape[0] - size, size // 2):
            for i in range(0, image.shape[1] - size, size // 2):
                if inside[j : j + size, i : i + size].mean() > 0.97:
                    square = image[j : j + size, i : i + size]
                    power += np.abs(np.fft.fft2((square - square.mean()) * window)) ** 2
                    count += 1
    if not count:
        return "-"
    bands = [power[(frequency >= f) & (frequency < f + 0.1)].sum() for f in np.arange(0, 0.6, 0.1)]
    return " ".join(f"{b / sum(bands):.2f}" for b in bands)


def picture(hu: np.ndarray, pixel_mm: float, window: tuple[float, float]) -> np.ndarray:
    """A slice of 340 × 260 mm around the body at 1 mm, 8 bits."""
    body = ndimage.binary_opening(hu > -300, iterations=3)
    j, i = (int(np.mean([n.min(), n.max()])) for n in np.nonzero(body))
    grid = np.mgrid[-130:130, -175:175] / pixel_mm + np.array([j, i])[:, None, None]
    shown = ndimage.map_coordinates(hu.astype(np.float32), grid, order=1, cval=-1000)
    return np.uint8(np.clip((shown - window[0]) / (window[1] - window[0]), 0, 1) * 255)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--page", type=Path)
    arguments = parser.parse_args()
    pictures: list[tuple[np.ndarray, np.ndarray, float]] = []
    for name, middle, base in REAL:
        scan = scan_from_image(sitk.ReadImage(DATA / name), Acquisition("nifti"))
        hu, spacing = np.array(scan.hu), scan.image.GetSpacing()
        print(figures(name.split("/")[1][:24], hu, middle, spacing))
        pictures.append((hu[middle], hu[base], spacing[0]))
    for number, scan_number in DIGITAL:
        _, digital, _ = make_scan(number, scan_number, CohortSettings(z_range_mm=(-60.0, 60.0)), threads=2)
        height = digital.grid.z_mm() - digital.pose.table_shift_mm[2] + digital.pose.heart_drop_mm
        middle, base = (int(np.argmin(np.abs(height - z))) for z in DIGITAL_MM)
        spacing = digital.grid.spacing_mm
        print(figures(f"digital {number}/{scan_number} {digital.scanner.kernel.name}", digital.hu, middle, spacing))
        pictures.append((digital.hu[middle], digital.hu[base], spacing[0]))
    if arguments.page:
        rows = []
        for level, window in ((0, "soft"), (1, "soft"), (1, "lung")):
            for side in (pictures[: len(REAL)], pictures[len(REAL) :]):
                rows.append(np.hstack([picture(p[level], p[2], WINDOW_HU[window]) for p in side]))
        Image.fromarray(np.vstack(rows)).save(arguments.page)


if __name__ == "__main__":
    main()
