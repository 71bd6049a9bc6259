"""A sample patient's CT as one small file: the sample data that come with CAC for 3D Slicer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from PIL import Image
from scipy import ndimage

from CACScoringLib.core.files import whole_folder

from ..anatomy.patient import draw_patient, stream
from ..scanner.protocol import PROTOCOLS, draw_pair
from ..scanner.scanner import KERNELS
from ..scanner.simulation import DigitalScan, scan_grid, scan_patient
from .export import image_on
from .samples import SAMPLES

NAME = "CACDigitalPatient"

PIXEL_MM, MATRIX = 1.2, 240
"""A field of view of 29 cm: the lungs, which the heart is found by, but not all of the chest wall."""

NOISE_HU = 8.0
RANGE_MM = (-75.0, 87.0)
"""Holds this patient's heart, and what is taken for it."""

AIR_HU = -1000
_LUNG_HU = -500
"""Brighter is body."""

_THUMBNAIL_PIXELS = (280, 260)
_WINDOW_HU = (-160.0, 300.0)
_SLAB = 2
"""Slices above and below the thumbnail's that it shows too, so that more than one artery's calcium is seen."""


def write_compact_sample(directory: Path, name: str) -> Path:
    """Write a sample patient's CT (NRRD) and a picture of it (PNG) into a folder that does not exist yet.

    Small, because it shows the heart and little more, on pixels of 1.2 mm and with low noise, and because the air
    around the body has none. In breath-hold, slices of 3 mm. Returns the CT's path.
    """
    scan = _scan(SAMPLES[name].number)
    hu = np.where(_outside(scan.hu), np.int16(AIR_HU), scan.hu)
    image = image_on(scan.grid, hu)
    image.SetMetaData("description", "CAC digital patient: computed, not scanned; shows no person. Apache-2.0.")
    directory.parent.mkdir(parents=True, exist_ok=True)
    with whole_folder(directory) as half:
        sitk.WriteImage(image, half / f"{NAME}.nrrd", useCompression=True, compressionLevel=9)
        _picture(scan, hu).save(half / f"{NAME}.png", optimize=True)
    return directory / f"{NAME}.nrrd"


def _scan(number: int) -> DigitalScan:
    patient = draw_patient(number)
    scanner, pose = draw_pair(PROTOCOLS["radiotherapy"], stream(number, 20))[0]
    scanner = replace(
        scanner,
        field_of_view_mm=PIXEL_MM * MATRIX,
        matrix=MATRIX,
        noise_hu=NOISE_HU,
        kernel=KERNELS["soft"],
        slice_thickness_mm=3.0,
        slice_spacing_mm=3.0,
    )
    return scan_patient(patient, scanner, pose, 1, scan_grid(patient, scanner, pose, RANGE_MM), threads=1)


def _outside(hu: np.ndarray) -> np.ndarray:
    """Air before and behind the body, not where a lung reaches the side of the field of view: bool [k, j, i]."""
    body = ndimage.uniform_filter(hu.astype(np.float32), (0, 5, 5)) > _LUNG_HU
    outside = np.empty(hu.shape, bool)
    for k, plane in enumerate(body):
        air, _ = ndimage.label(np.pad(~plane, ((1, 1), (0, 0)), constant_values=True))
        outside[k] = np.isin(air, (air[0, 0], air[-1, 0]))[1:-1]
    return outside


def _picture(scan: DigitalScan, hu: np.ndarray) -> Image.Image:
    """The slab with most calcium, its brightest voxels along the body."""
    mass = scan.calcium_mg_cm3.sum((1, 2))
    middle = int(np.convolve(mass, np.ones(2 * _SLAB + 1), "same").argmax())
    slab = hu[max(0, middle - _SLAB) : middle + _SLAB + 1].max(0).astype(float)
    low, high = _WINDOW_HU
    grey = np.rint(np.clip((slab - low) / (high - low), 0, 1) * 255).astype(np.uint8)
    rows, columns = np.nonzero(scan.heart.any(0))
    width = MATRIX * 5 // 6
    height = width * _THUMBNAIL_PIXELS[1] // _THUMBNAIL_PIXELS[0]
    left, top = round(columns.mean() - width / 2), round(rows.mean() - height / 2)
    part = Image.fromarray(grey).crop((left, top, left + width, top + height))
    return part.resize(_THUMBNAIL_PIXELS, Image.Resampling.LANCZOS)
