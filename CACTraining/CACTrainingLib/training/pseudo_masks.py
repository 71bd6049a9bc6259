"""Heart masks for scans that have none, carried over from an outlined scan by registration.

An affine and then a B-spline registration bring the outlined scan onto the other, near the heart. Both are clamped to
LOW_HU to HIGH_HU, where lung, fat and tissue differ and blood with contrast agent looks like tissue. The mask is then
kept inside the region found from the lungs, which is good at the sides, while registration is good above and below.
Such masks are not the truth: look at the picture written beside each, and leave out or correct what is wrong.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from PIL import Image
from scipy import ndimage
from scipy.spatial import ConvexHull, Delaunay

from CACScoringLib.anatomy.heart_region import heart_region
from CACScoringLib.core.ct import AIR_HU, CTScan, MaskError, ScanWarning, mask_on_scan_grid
from CACScoringLib.core.output import OutputError
from CACScoringLib.core.progress import Progress
from CACScoringLib.core.tables import write_table
from CACScoringLib.io.reading import read_ct, read_mask

LOW_HU, HIGH_HU = -250.0, 60.0
GRID_MM = 3.0
KNOTS_MM = 40.0
NEAR_MM = 25.0
"""How far around the heart region of the scan the registration looks."""

SMOOTHING_MM = 3.0
MIN_CORRELATION = 0.8
"""Of the clamped scans near the heart, after registration; 0.89 to 0.90 in three that were looked at and kept."""

OUTLINE_GRID_MM = 1.5
VESSEL_MM = 9.0
"""Radius below which a part of the chambers' mask is taken for a vessel that leaves the heart."""

GAP_MM = 25.0
FAT_MM = 4.5
ROOT_MM = 7.5


def carried_heart(scan: CTScan, atlas: CTScan, atlas_heart: sitk.Image) -> tuple[sitk.Image, float]:
    """The heart of an outlined scan, brought to another: uint8 0/1 on the scan's grid; and the correlation reached.

    atlas_heart: 0/1 on the atlas's grid. Raises NoHeartError where either scan shows no heart.
    """
    region = heart_region(scan).mask
    box = sitk.LabelShapeStatisticsImageFilter()
    box.Execute(region)
    start, size = np.split(np.array(box.GetBoundingBox(1), float), 2)
    spacing = np.array(scan.image.GetSpacing())
    low = np.maximum(0, start - NEAR_MM / spacing).astype(int)
    high = np.minimum(scan.image.GetSize(), start + size + NEAR_MM / spacing).astype(int)
    fixed = _clamped(scan.image[tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))])
    near = sitk.BinaryDilate(sitk.Resample(region, fixed, sitk.Transform(), sitk.sitkNearestNeighbor), [6, 6, 6])
    moving = _clamped(atlas.image)

    affine = _first_guess(region, heart_region(atlas).mask)
    method = _method(near)
    method.SetOptimizerAsRegularStepGradientDescent(1.0, 1e-3, 120)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetInitialTransform(affine, True)
    method.Execute(fixed, moving)

    sides_mm = [n * s for n, s in zip(fixed.GetSize(), fixed.GetSpacing(), strict=True)]
    bending = sitk.BSplineTransformInitializer(fixed, [max(2, round(mm / KNOTS_MM)) for mm in sides_mm], 3)
    method = _method(near)
    method.SetOptimizerAsLBFGSB(1e-5, 40)
    method.SetMovingInitialTransform(affine)
    method.SetInitialTransform(bending, True)
    method.Execute(fixed, moving)

    depth = sitk.SignedMaurerDistanceMap(atlas_heart, squaredDistance=False, useImageSpacing=True)
    whole = sitk.CompositeTransform([affine, bending])
    carried = sitk.GetArrayFromImage(sitk.Resample(depth, scan.image, whole, sitk.sitkLinear, 100.0)) < 0
    allowed = sitk.GetArrayViewFromImage(region) != 0
    if not (carried & allowed).any():
        raise MaskError("Registration brought the heart to where there is none. Outline this scan by hand.")
    heart = _hull_by_slice(_largest(carried & allowed)) & allowed
    soft = ndimage.gaussian_filter(heart.astype(np.float32), SMOOTHING_MM / spacing[::-1])
    return _as_mask(_largest(soft >= 0.5), scan.image), -method.GetMetricValue()


def pericardium(scan: CTScan, chambers: sitk.Image) -> sitk.Image:
    """The outline with epicardial fat and aortic root, from a mask of the chambers as TotalSegmentator gives it.

    Vessels that leave the heart are taken off, gaps closed and every slice filled to its convex hull, widened by
    FAT_MM, all within the region found from the lungs. Returns uint8 0/1 on the scan's grid.
    """
    size = [round(n * s / OUTLINE_GRID_MM) for n, s in zip(scan.image.GetSize(), scan.image.GetSpacing(), strict=True)]
    grid = sitk.Image(size, sitk.sitkUInt8)
    grid.SetOrigin(scan.image.GetOrigin())
    grid.SetDirection(scan.image.GetDirection())
    grid.SetSpacing([OUTLINE_GRID_MM] * 3)
    masks = (chambers, heart_region(scan).mask)
    inside, region = (
        sitk.GetArrayFromImage(sitk.Resample(m, grid, sitk.Transform(), sitk.sitkNearestNeighbor)) != 0 for m in masks
    )
    # What lies further from the chambers than fat and smoothing reach stays empty.
    margin = math.ceil(FAT_MM / OUTLINE_GRID_MM) + 7
    box = ndimage.find_objects(inside.astype(np.uint8))[0]
    near = [slice(max(0, s.start - margin), min(n, s.stop + margin)) for s, n in zip(box, size[::-1], strict=True)]
    inside, region, grid = inside[tuple(near)], region[tuple(near)], grid[tuple(near[::-1])]
    pad = math.ceil(GAP_MM / OUTLINE_GRID_MM) + 2
    inside = np.pad(inside, pad)
    inside &= _within(_largest(_beyond(inside, VESSEL_MM)), VESSEL_MM + 1)
    closed = _beyond(_within(inside, GAP_MM), GAP_MM)[pad:-pad, pad:-pad, pad:-pad]
    filled = np.nonzero(closed.any((1, 2)))[0]
    # The aortic root rises out of the chambers between atria and pulmonary trunk.
    lower = closed.copy()
    for k in range((filled[0] + filled[-1]) // 2, filled[-1] + 1):
        lower[k] |= closed[max(0, k - round(ROOT_MM / OUTLINE_GRID_MM)) : k].any(0)
    heart = _largest(_within(_hull_by_slice(lower), FAT_MM) & region)
    soft = ndimage.gaussian_filter(heart.astype(np.float32), 1.5) >= 0.5
    return sitk.Resample(_as_mask(soft, grid), scan.image, sitk.Transform(), sitk.sitkNearestNeighbor)


def sheet(scan: CTScan, masks: list[np.ndarray]) -> Image.Image:
    """Twelve slices through the first mask, from above to below; red, green and blue outlines in the masks' order."""
    slices = np.nonzero(masks[0].any((1, 2)))[0]
    spacing = scan.image.GetSpacing()
    size = tuple(round(n * s) for n, s in zip(scan.hu.shape[:0:-1], spacing[:2], strict=True))
    result = Image.new("RGB", (4 * size[0], 3 * size[1]))
    for number, k in enumerate(np.linspace(slices[-1], slices[0], 12).round().astype(int)):
        grey = (np.clip((scan.hu[k] + 160) / 400, 0, 1) * 255).astype(np.uint8)
        tile = Image.fromarray(grey).resize(size).convert("RGB")
        for mask, colour in zip(masks, ("red", "lime", "dodgerblue"), strict=False):
            inside = np.asarray(Image.fromarray(mask[k].astype(np.uint8) * 255).resize(size)) > 127
            edge = inside & ~ndimage.binary_erosion(inside)
            tile.paste(colour, mask=Image.fromarray(edge.astype(np.uint8) * 255))
        result.paste(tile, (number % 4 * size[0], number // 4 * size[1]))
    return result


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `cac propagate-hearts`."""
    add = parser.add_argument
    add("cts", type=Path, nargs="+", metavar="CT", help="scans without a heart mask")
    add("--atlas", type=Path, required=True, metavar="CT", help="a scan with one")
    add("--heart", type=Path, required=True, metavar="MASK", help="the atlas's heart")
    add("--label", type=int, help="its value in the mask (default: any but 0)")
    add("--chambers", action="store_true", help="the mask holds the chambers alone: fill it to the pericardium")
    add("--output", type=Path, required=True, metavar="DIR", help="for masks, pictures, and a table to train with")


def run(options: argparse.Namespace, progress: Progress) -> Path:
    """Write NAME.nii.gz and NAME.png for the atlas and every scan, and pairs.csv. Raises CTError, OutputError."""
    if options.output.exists() and any(options.output.iterdir()):
        raise OutputError(f"{options.output} is not empty. Choose another --output.")
    progress.begin(["atlas", "scans"])
    with progress.step("atlas"):
        atlas = read_ct(options.atlas)
        mask = read_mask(options.heart)
        mask, _ = mask_on_scan_grid(mask if options.label is None else mask == options.label, atlas, "heart mask")
        heart = pericardium(atlas, mask > 0) if options.chambers else mask > 0
        options.output.mkdir(parents=True, exist_ok=True)
        rows = [_written(options.output, options.atlas, atlas, heart)]
    with progress.step("scans"):
        for number, path in enumerate(options.cts, 1):
            scan = read_ct(path)
            carried, correlation = carried_heart(scan, atlas, heart)
            if correlation < MIN_CORRELATION:
                message = f"{path}: the registered scans correlate by only {correlation:.2f}. The mask is likely wrong."
                progress.warning(ScanWarning("registration-poor", message))
            rows.append(_written(options.output, path, scan, carried))
            progress.counted(number, len(options.cts))
    table = options.output / "pairs.csv"
    write_table(table, ("patient", "ct", "heart", "label", "use"), rows)
    progress.done(table)
    print(f"{table}: {len(rows)} hearts. Look at each picture, and take out of the table what is wrong.")
    return table


def _written(folder: Path, path: Path, scan: CTScan, heart: sitk.Image) -> list[str]:
    name = path.name.split(".")[0]
    target = folder / f"{name}.nii.gz"
    if target.exists():
        raise OutputError(f"Two scans are called {name}. Give them one after the other, to two folders.")
    sitk.WriteImage(heart, str(target), useCompression=True)
    sheet(scan, [sitk.GetArrayViewFromImage(heart) != 0]).save(folder / f"{name}.png")
    return [name, str(path.resolve()), target.name, "1", "training"]


def _clamped(image: sitk.Image) -> sitk.Image:
    smooth = sitk.SmoothingRecursiveGaussian(sitk.Cast(image, sitk.sitkFloat32), 1.0)
    size = [round(n * s / GRID_MM) for n, s in zip(image.GetSize(), image.GetSpacing(), strict=True)]
    grid = (image.GetOrigin(), [GRID_MM] * 3, image.GetDirection())
    coarse = sitk.Resample(smooth, size, sitk.Transform(), sitk.sitkLinear, *grid, AIR_HU)
    return sitk.Clamp(coarse, sitk.sitkFloat32, LOW_HU, HIGH_HU)


def _first_guess(region: sitk.Image, atlas_region: sitk.Image) -> sitk.AffineTransform:
    """Centre onto centre, sides onto sides, of the regions found from the lungs."""
    centres, sides = [], []
    for mask in (region, atlas_region):
        shape = sitk.LabelShapeStatisticsImageFilter()
        shape.Execute(mask)
        centres.append(np.array(shape.GetCentroid(1)))
        sides.append(np.array(shape.GetBoundingBox(1)[3:]) * mask.GetSpacing())
    affine = sitk.AffineTransform(3)
    affine.SetCenter(centres[0])
    affine.SetMatrix(np.diag(sides[1] / sides[0]).ravel())
    affine.SetTranslation(centres[1] - centres[0])
    return affine


def _method(near: sitk.Image) -> sitk.ImageRegistrationMethod:
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsCorrelation()
    method.SetMetricFixedMask(near)
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentage(0.3, seed=1)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetShrinkFactorsPerLevel([2, 1])
    method.SetSmoothingSigmasPerLevel([3, 0])
    method.SetSmoothingSigmasAreSpecifiedInPhysicalUnits(True)
    return method


def _hull_by_slice(mask: np.ndarray) -> np.ndarray:
    result = np.zeros_like(mask)
    pixels = np.stack(np.indices(mask.shape[1:]), -1)
    for k in np.nonzero(mask.sum((1, 2)) >= 10)[0]:
        points = np.argwhere(mask[k])
        if np.ptp(points, axis=0).min() > 0:
            result[k] = Delaunay(points[ConvexHull(points).vertices]).find_simplex(pixels) >= 0
    return result


def _largest(mask: np.ndarray) -> np.ndarray:
    labels, _ = ndimage.label(mask)
    return labels == 1 + np.bincount(labels.ravel())[1:].argmax()


def _within(mask: np.ndarray, reach_mm: float) -> np.ndarray:
    return ndimage.distance_transform_edt(~mask) * OUTLINE_GRID_MM <= reach_mm


def _beyond(mask: np.ndarray, depth_mm: float) -> np.ndarray:
    return ndimage.distance_transform_edt(mask) * OUTLINE_GRID_MM > depth_mm


def _as_mask(array: np.ndarray, grid: sitk.Image) -> sitk.Image:
    mask = sitk.GetImageFromArray(array.astype(np.uint8))
    mask.CopyInformation(grid)
    return mask
