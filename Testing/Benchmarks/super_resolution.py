"""What thinner slices do for a radiograph: three ways against the projection of a thin scan without noise.

    PYTHONPATH=CACTraining:CACScoring python Testing/Benchmarks/super_resolution.py MODEL.training/pairs NUMBER …

Prints, by patient and view, how far the box about the heart is from the truth, mm of water: everywhere in the heart's
shadow; there without what is wider than WIDE_MM, as a lung's or rib's edge is; and the mean where calcium of at least
CALCIUM_MM shows, where fine structure too low means calcium lost.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from CACScoringLib.drr.projection import calcium_path, path_length_mm, water_equivalent_mm
from CACScoringLib.drr.xray import CT_EFFECTIVE_KEV, attenuation_per_mm
from CACTrainingLib.radiograph.cases import view_geometry
from CACTrainingLib.radiograph.cohort import ANGLES
from CACTrainingLib.radiograph.super_resolution import interpolated, learned, super_resolution_model
from CACTrainingLib.radiograph.thin_slice_views import as_projected
from CACTrainingLib.radiograph.thin_slices import FACTOR, SlicePair, read_pair

WIDE_MM = 8.0
CALCIUM_MM = 0.3
WAYS = ("as it is", "interpolated", "learned")


def image_of(hu: np.ndarray, pair: SlicePair) -> sitk.Image:
    image = sitk.GetImageFromArray(np.maximum(hu.astype(np.float32), -1000))
    image.SetSpacing((*pair.spacing_mm[:2], pair.spacing_mm[2] / FACTOR))
    return image


def compared(pair: SlicePair, angle: float, thin: dict[str, np.ndarray]) -> dict[str, tuple[float, ...]]:
    truth = image_of(pair.thin, pair)
    centre = truth.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in truth.GetSize()])
    geometry = view_geometry(angle, 0.0, centre)
    heart = path_length_mm(image_of(np.repeat(pair.heart, FACTOR, 0), pair) > 0, geometry) > 20
    calcium = sitk.GetImageFromArray(pair.calcium.astype(np.float32))
    calcium.CopyInformation(truth)
    shown = calcium_path(calcium, geometry) / attenuation_per_mm("water", CT_EFFECTIVE_KEV) > CALCIUM_MM
    wanted = water_equivalent_mm(truth, geometry)
    found = {}
    for way, hu in thin.items():
        difference = water_equivalent_mm(image_of(hu, pair), geometry) - wanted
        fine = difference - ndimage.gaussian_filter(difference, WIDE_MM)
        lost = float(fine[shown & heart].mean()) if (shown & heart).any() else float("nan")
        found[way] = rms(difference[heart]), rms(fine[heart]), lost
    return found


def rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.square(values, dtype=np.float64).mean()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("numbers", type=int, nargs="+")
    options = parser.parse_args()
    model = super_resolution_model(FACTOR)
    everything: dict[tuple[str, str], list[tuple[float, ...]]] = {}
    print("patient view way rms fine lost_at_calcium (mm of water)")
    for number in options.numbers:
        pair = read_pair(options.folder / f"patient_{number:05d}.npz")
        made = (as_projected(pair.thick, FACTOR), interpolated(pair.thick, FACTOR), learned(pair.thick, model))
        for view, angle in ANGLES.items():
            for way, values in compared(pair, angle, dict(zip(WAYS, made, strict=True))).items():
                everything.setdefault((view, way), []).append(values)
                print(number, view, way, *(f"{value:.3f}" for value in values), flush=True)
    for (view, way), values in everything.items():
        print("mean", view, way, *(f"{value:.3f}" for value in np.nanmean(values, 0)))


if __name__ == "__main__":
    main()
