"""How well a network, for territories or for the heart alone, finds the heart, beside the region found from the lungs.

Run from the repository's root, about 20 s a digital patient; with --cohort FOLDER those of a cohort, in about 6 s:

    PYTHONPATH=CACTraining:CACScoring:Testing python Testing/Benchmarks/heart_network.py MODEL.json [--real DATA]

Digital patients: whole chests whose true heart (the pericardium with its fat) and calcium are known; give numbers that
were not trained on. "calcium" is the share of the true calcium map's mass inside the mask, of the patients who have
any. Published, on real scans: Dice 0.95, Hausdorff distance 15 mm, surface distance 1.6 mm.

Real scans: two whose pericardium was outlined by hand for this (`heart_outlines.json`, every third to fourth slice,
before any network had seen them, by an engineer), and one of these also against TotalSegmentator's mask, which leaves
out the epicardial fat and the aortic root, so that only the share of it covered says much. Of all others it is told
what is found: volume, warnings, and how the network's heart and the region share their room.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from PIL import Image, ImageDraw
from scipy import ndimage

from CACScoringLib.anatomy.heart_network import HeartNetworkSettings, heart_mask, widened
from CACScoringLib.anatomy.heart_region import heart_region
from CACScoringLib.anatomy.territory_network import find_territories
from CACScoringLib.core.ct import Acquisition, CTScan, NoHeartError, ScanWarning, scan_from_image
from CACScoringLib.io.reading import read_ct
from CACScoringLib.models.cards import LoadedModel, load_model
from CACTrainingLib.data.datasets import find_scans
from CACTrainingLib.phantom.cohort.cohort import CohortSettings, make_scan
from CACTrainingLib.phantom.cohort.export import image_on
from CACTrainingLib.training.pseudo_masks import sheet
from conftest import REAL_CT_DIR

OUTLINES = Path(__file__).with_name("heart_outlines.json")
TOTALSEGMENTATOR = {
    "lidc_idri/LIDC-IDRI-0001_contrast_1p4x1p4x2p5mm.nii.gz": ("lidc_idri/LIDC-IDRI-0001_totalseg_labels.nii.gz", 51)
}
SCANS = (
    "lidc_idri/LIDC-IDRI-0001_contrast_1p4x1p4x2p5mm.nii.gz",
    "acrin_flt_breast/013_petct_B10f_5mm.nii.gz",
    "lidc_idri/LIDC-IDRI-0314_bin2_3mm_chest.nii.gz",
    "cip_copdgene/ct-64.nrrd",
    "nsclc_radiogenomics/R01-001_contrast_1mm_heart.nii.gz",
    "lidc_idri/LIDC-IDRI-0002_nc_bin2_2p5mm_chest.nii.gz",
    "lidc_idri/LIDC-IDRI-0002_nc_1p25mm_heart.nii.gz",
    "lung_pet_ct_dx/A0001_philips_B_5mm.nii.gz",
    "lung_pet_ct_dx/A0001_philips_L_5mm_heart.nii.gz",
    "tcga_thca/TCGA-DE-A4MA_petct_B30f_5mm_sp2p5.nii.gz",
    "totalsegmentator/aorta_report_ct_cropped.nii.gz",
    "totalsegmentator/abdomen_example_ct_sm.nii.gz",
)
RESAMPLINGS = 2000


@dataclass(frozen=True)
class Fit:
    """A mask beside the true one. Surface distances: greatest, 95th percentile, mean; of both surfaces' voxels, mm."""

    dice: float
    hausdorff_mm: float
    hausdorff95_mm: float
    distance_mm: float
    covered: float
    calcium: float


def fit(found: np.ndarray, true: np.ndarray, spacing_mm: tuple[float, ...], calcium: np.ndarray | None = None) -> Fit:
    """found, true: bool [k, j, i]. spacing_mm: (k, j, i). calcium: any unit, [k, j, i]."""
    if not found.any():
        return Fit(0.0, np.inf, np.inf, np.inf, 0.0, 0.0)
    box = ndimage.find_objects((found | true).astype(np.uint8))[0]
    a, b = (np.pad(mask[box], 1) for mask in (found, true))
    both = (a & b).sum()
    edges = [mask & ~ndimage.binary_erosion(mask) for mask in (a, b)]
    far = [ndimage.distance_transform_edt(~edge, spacing_mm) for edge in edges]
    distances = np.concatenate([far[1][edges[0]], far[0][edges[1]]])
    mass = 0.0 if calcium is None else calcium.sum()
    return Fit(
        dice=2 * both / (a.sum() + b.sum()),
        hausdorff_mm=distances.max(),
        hausdorff95_mm=np.percentile(distances, 95),
        distance_mm=distances.mean(),
        covered=both / b.sum(),
        calcium=calcium[found].sum() / mass if mass > 0 else np.nan,
    )


def with_interval(values: np.ndarray) -> str:
    """Mean and its 95 % interval, by resampling patients."""
    values = values[~np.isnan(values)]
    drawn = np.random.default_rng(0).choice(values, (RESAMPLINGS, len(values))).mean(1)
    low, high = np.percentile(drawn, (2.5, 97.5))
    return f"{values.mean():.3f} [{low:.3f}, {high:.3f}] n={len(values)}"


def simulated(patients: range) -> Iterator[tuple[CTScan, np.ndarray, np.ndarray]]:
    """First scans of digital patients, each with its heart, bool, and its calcium map, [k, j, i]."""
    for number in patients:
        _, made, _ = make_scan(number, 1, CohortSettings())
        image = image_on(made.grid, made.hu)
        yield scan_from_image(image, Acquisition("digital patient", kvp=120.0)), made.heart, made.calcium_mg_cm3


def written(cohort: Path, patients: int) -> Iterator[tuple[CTScan, np.ndarray, np.ndarray]]:
    """The same from a cohort's folder."""
    for one in [one for one in find_scans([cohort]) if one.ct.parent.name == "scan_1"][:patients]:
        heart, calcium = (sitk.GetArrayFromImage(sitk.ReadImage(str(path))) for path in (one.heart, one.calcium_map))
        yield read_ct(one.ct), heart != 0, calcium


def digital(
    model: LoadedModel, patients: Iterable[tuple[CTScan, np.ndarray, np.ndarray]], margins_mm: list[float]
) -> None:
    """The table of digital patients, with intervals."""
    fits: dict[str, list[Fit]] = {}
    seconds = []
    for scan, heart, calcium in patients:
        region = heart_region(scan).mask
        start = time.perf_counter()
        masks = {f"network +{m:g} mm": found(scan, model, region, m) for m in margins_mm}
        seconds.append((time.perf_counter() - start) / len(masks))
        masks |= {"lung region": array(region), "true heart": heart}
        for name, mask in masks.items():
            result = fit(mask, heart, scan.image.GetSpacing()[::-1], np.maximum(calcium, 0))
            fits.setdefault(name, []).append(result)
    print(f"Digital patients, {np.median(seconds):.1f} s each for the network")
    for name, rows in fits.items():
        print(f"  {name}")
        for column, values in zip(fields(Fit), np.array([astuple(row) for row in rows]).T, strict=True):
            lowest = f"worst {np.nanmax(values) if 'mm' in column.name else np.nanmin(values):.3f}"
            print(f"    {column.name:15s} {with_interval(values)}, {lowest}")


def real(model: LoadedModel, folder: Path, pictures: Path | None) -> None:
    """The outlined scans, and what is found in all of them."""
    outlines = json.loads(OUTLINES.read_text(encoding="utf-8"))
    for name in SCANS:
        scan = scan_from_image(sitk.ReadImage(str(folder / name)), Acquisition("NIfTI"))
        print(name)
        try:
            region = heart_region(scan).mask
            mask, warnings = heart_by(model, scan, region, 0.0)
        except NoHeartError as error:
            print(f"  refused: {error}")
            continue
        regions = {"network": array(mask), "lungs": array(region)}
        for source, one in regions.items():
            print(f"  {source}: {one.sum() * scan.voxel_volume_mm3 / 1000:.0f} ml")
        both = (regions["network"] & regions["lungs"]).sum()
        shares = [both / regions[source].sum() for source in ("network", "lungs")]
        print(f"  {shares[0]:.0%} of the network's heart in the region, {shares[1]:.0%} of the region in the heart")
        print(f"  parts: {ndimage.label(regions['network'])[1]}, warnings: {[w.code for w in warnings]}")
        references = {"outline": outlined(scan, outlines[name])} if name in outlines else {}
        if name in TOTALSEGMENTATOR:
            path, label = TOTALSEGMENTATOR[name]
            labels = sitk.DICOMOrient(sitk.ReadImage(str(folder / path)), "LPS")
            references["TotalSegmentator"] = sitk.GetArrayFromImage(labels) == label
        for reference, true in references.items():
            for source, mask in regions.items():
                result = fit(mask, true, scan.image.GetSpacing()[::-1])
                print(f"  {source} against {reference}: {readable(result)}")
        if pictures:
            path = pictures / (Path(name).name.split(".")[0] + ".png")
            sheet(scan, [*([references["outline"]] if "outline" in references else []), *regions.values()]).save(path)


def found(scan: CTScan, model: LoadedModel, region: sitk.Image, margin_mm: float) -> np.ndarray:
    """The network's heart, bool [k, j, i]; empty where it finds none."""
    try:
        return array(heart_by(model, scan, region, margin_mm)[0])
    except NoHeartError:
        return np.zeros(scan.hu.shape, bool)


def heart_by(
    model: LoadedModel, scan: CTScan, region: sitk.Image, margin_mm: float
) -> tuple[sitk.Image, tuple[ScanWarning, ...]]:
    """The network's heart, widened. Raises NoHeartError."""
    if model.card.network == "heart":
        return heart_mask(scan, model, HeartNetworkSettings(margin_mm=margin_mm), region)
    found = find_territories(scan, model)
    return widened(found.heart_mask(scan.image), margin_mm), found.warnings


def outlined(scan: CTScan, outline: dict) -> np.ndarray:
    """A heart outlined by hand, bool [k, j, i]: polygons (i, j) in some slices, and between them their mean shape.

    At the ends the nearest polygon is shrunk by so many pixels. Lung is taken out.
    """

    def depth(corners: list[list[int]]) -> np.ndarray:
        canvas = Image.new("1", scan.hu.shape[:0:-1])
        ImageDraw.Draw(canvas).polygon([tuple(c) for c in corners], fill=1, outline=1)
        inside = np.asarray(canvas)
        return ndimage.distance_transform_edt(inside) - ndimage.distance_transform_edt(~inside)

    depths = {int(k): depth(corners) for k, corners in outline["slices"].items()}
    drawn = sorted(depths)
    depths |= {k: depths[drawn[n]] - shrunk for n, (k, shrunk) in zip((0, -1), outline["ends"], strict=True)}
    drawn = np.array(sorted(depths))
    heart = np.zeros(scan.hu.shape, bool)
    for k in range(drawn[0], drawn[-1] + 1):
        below, above = drawn[drawn <= k][-1], drawn[drawn >= k][0]
        share = (k - below) / max(1, above - below)
        heart[k] = (1 - share) * depths[below] + share * depths[above] > 0
    return heart & (ndimage.gaussian_filter(scan.hu.astype(np.float32), 0.7) > -300)


def readable(result: Fit) -> str:
    return ", ".join(f"{f.name} {v:.3f}" for f, v in zip(fields(Fit), astuple(result), strict=True) if not np.isnan(v))


def array(mask: sitk.Image) -> np.ndarray:
    return sitk.GetArrayFromImage(mask) != 0


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path, help="the network's card")
    parser.add_argument("--patients", type=int, default=24, help="digital patients; 0 for none")
    parser.add_argument("--first", type=int, default=30_000, help="number of the first")
    parser.add_argument("--cohort", type=Path, metavar="DIR", help="take the patients from here instead")
    parser.add_argument("--margins", type=float, nargs="+", default=[0.0, HeartNetworkSettings().margin_mm], help="mm")
    parser.add_argument("--real", type=Path, default=REAL_CT_DIR, metavar="DATA", help="folder of the real scans")
    parser.add_argument("--pictures", type=Path, metavar="DIR", help="where to put a picture of each real scan")
    options = parser.parse_args()
    model = load_model(options.model, "cpu")
    if options.real and options.real.is_dir():
        real(model, options.real, options.pictures)
    if options.patients:
        numbers = range(options.first, options.first + options.patients)
        patients = written(options.cohort, options.patients) if options.cohort else simulated(numbers)
        digital(model, patients, options.margins)


if __name__ == "__main__":
    main()
