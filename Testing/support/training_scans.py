"""Small scans with known calcium, in folders that training reads."""

import json
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from images import image_of

SPACING_MM = (4.0, 4.0, 3.0)
SHAPE = (10, 48, 48)
HEART_SLICES = slice(1, 9)
CALCIUM_HU = {3: 400.0, 4: 200.0}
"""HU of the calcium by slice."""
CONTRAST = 6.0
"""Contrast-to-noise ratio on the labels, barely visible."""
CORONARY = (slice(16, 18), slice(32, 34))
"""Rows and columns of coronary calcium."""
VALVE = (slice(24, 26), slice(23, 25))
"""Rows and columns of non-coronary calcium."""
HU_PER_MG_CM3 = 1.25


def write_scan(folder: Path, patient: int | str, coronary: bool, valve: bool, with_map: bool = True) -> Path:
    """Write a scan with calcium of 8×8×3 mm in each slice of CALCIUM_HU; return its folder."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(list(str(patient).encode()))
    j, i = np.mgrid[: SHAPE[1], : SHAPE[2]] - 23.5
    body, disc = np.hypot(j, i) < 22, np.hypot(j, i) < 14
    hu = np.where(body, np.where(disc, 45.0, -90.0), -1000.0) + generator.normal(0, 8, SHAPE)
    hu[0, 0, 0] = 1500
    heart = np.zeros(SHAPE, np.uint8)
    heart[HEART_SLICES] = disc
    calcium = np.zeros(SHAPE, np.float32)
    for k, added_hu in CALCIUM_HU.items():
        if coronary:
            calcium[k][CORONARY] = added_hu / HU_PER_MG_CM3
        if valve:
            hu[k][VALVE] += added_hu
    hu += calcium * HU_PER_MG_CM3
    arrays = {"ct": np.rint(hu).astype(np.int16), "heart": heart}
    if with_map:
        arrays["calcium_map"] = calcium
    for name, array in arrays.items():
        image = image_of(array, SPACING_MM)
        sitk.WriteImage(image, folder / f"{name}.nii.gz")
    labels = [{"k": k, "visible": coronary and k in CALCIUM_HU} for k in range(*HEART_SLICES.indices(10))]
    if with_map:
        labels = [{**label, "contrast_to_noise": CONTRAST * label["visible"]} for label in labels]
    truth = {
        "patient": patient,
        "mass_mg": 1.0 if coronary else 0.0,
        "distractors": [{"kind": "aortic valve", "mass_mg": 5.0, "metal": False}] if valve else [],
        "calcium_hu_per_mg_cm3": HU_PER_MG_CM3,
        "slices": labels,
    }
    (folder / "truth.json").write_text(json.dumps(truth), encoding="utf-8")
    return folder


def write_cohort(folder: Path, patients: int = 8) -> Path:
    """Write a cohort: of every four patients, two have coronary calcium (one with, one without valve calcium), one only
    valve calcium, and one none. Patient 0 has two scans."""
    for number in range(patients):
        sort = number % 4
        for scan in (1, 2) if number == 0 else (1,):
            write_scan(folder / f"patient_{number}" / f"scan_{scan}", number, sort < 2, sort in (1, 2))
    return folder
