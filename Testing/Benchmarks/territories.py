"""How well a territory network finds the heart, and the artery to which calcium belongs.

Run from the repository's root, about 15 s a digital patient:

    PYTHONPATH=CACTraining:CACScoring:Testing python Testing/Benchmarks/territories.py MODEL.json [--patients N]
        [--real DATA] [--pictures DIR]

Digital patients with anatomical hearts, of numbers that no training takes, each scanned as a whole chest ("varied")
and as a gated calcium scan of 180 to 220 mm without lungs ("dedicated"). The network sees the scan as in use, noise
and motion included. Dice is of the likeliest territory; "calcium" is the share of each artery's true mass, at the
places of the plaques' points in the middle of diastole, that is given to the artery: by the likeliest territory
("outside" left aside), and "of labels" by the true territories, which differ from the plaques' own artery near ostia.

Real scans: none has a truth; volumes and seconds are printed, and pictures are written to be looked at.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from PIL import Image
from scipy import ndimage

from CACScoringLib.anatomy.territory_network import find_territories
from CACScoringLib.core.ct import Acquisition, CTScan, NoHeartError, scan_from_image
from CACScoringLib.core.labels import TERRITORIES
from CACScoringLib.io.reading import read_ct
from CACScoringLib.models.cards import LoadedModel, load_model
from CACTrainingLib.phantom.anatomy.heart import posed_frame
from CACTrainingLib.phantom.anatomy.hearts.territories import territories
from CACTrainingLib.phantom.anatomy.patient import Patient, draw_patient, stream
from CACTrainingLib.phantom.cohort.export import image_on
from CACTrainingLib.phantom.scanner.motion import ScanPose
from CACTrainingLib.phantom.scanner.protocol import PROTOCOLS, draw_pair
from CACTrainingLib.phantom.scanner.scanner import Grid, centred_grid
from CACTrainingLib.phantom.scanner.simulation import CHEST_MM, scan_patient
from CACTrainingLib.training.territories import FIRST_NUMBERS

ARTERIES = TERRITORIES[1:5]
REAL = (
    "lung_pet_ct_dx/A0001_philips_B_5mm.nii.gz",
    "lidc_idri/LIDC-IDRI-0002_nc_bin2_2p5mm_chest.nii.gz",
    "lidc_idri/LIDC-IDRI-0002_nc_1p25mm_heart.nii.gz",
    "tcga_thca/TCGA-DE-A4MA_petct_B30f_5mm_sp2p5.nii.gz",
    "acrin_flt_breast/013_petct_B10f_5mm.nii.gz",
    "lidc_idri/LIDC-IDRI-0314_bin2_3mm_chest.nii.gz",
    "acrin_flt_breast/001_upper_heart_cut.nii.gz",
    "lung_pet_ct_dx/A0001_philips_L_5mm_heart.nii.gz",
    "4d_lung/113_HM10395_40pct_3mm.nii.gz",
    "cip_copdgene/ct-64.nrrd",
)
SIDE = 220
"""Of a picture's tiles, pixels."""
COLOURS = np.array(
    [
        *((0, 0, 0), (255, 215, 0), (0, 255, 0), (0, 255, 255), (255, 0, 0), (255, 0, 255)),
        *((0, 0, 255), (255, 165, 0), (165, 42, 42), (30, 144, 255), (128, 128, 128)),
    ]
)


def digital_scan(number: int, kind: str, matrix: int) -> tuple[Patient, ScanPose, CTScan, Grid, np.ndarray]:
    """A test patient's scan: patient, pose, scan, grid, and the true heart."""
    g = stream(number, 70, kind == "dedicated")
    patient = draw_patient(number, prevalence=1.0, heart_shape="anatomical")
    scanner, pose = draw_pair(PROTOCOLS["varied" if kind == "chest" else "cardiac"], g)[0]
    heights, middle = CHEST_MM, (0.0, 6.0)
    if kind == "dedicated":
        x, y, z = posed_frame(patient.body, pose).centre_mm
        scanner = replace(scanner, field_of_view_mm=float(g.uniform(180, 220)))
        heights, middle = (
            (z - g.uniform(65, 80), z + g.uniform(60, 75)),
            (x + g.uniform(-10, 10), y + g.uniform(-10, 10)),
        )
    scanner = replace(scanner, matrix=matrix)
    grid = centred_grid(scanner, heights, middle)
    made = scan_patient(patient, scanner, pose, 1, grid)
    image = image_on(grid, made.hu)
    return patient, pose, scan_from_image(image, Acquisition("simulation")), grid, made.heart


def calcium_by_territory(labels: np.ndarray, patient: Patient, pose: ScanPose, grid: Grid) -> np.ndarray:
    """mg of each artery by the label at its plaques' points: [4, 11]; what lies outside the grid is left out."""
    frame, mass = posed_frame(patient.body, pose), np.zeros((4, len(TERRITORIES)))
    for row, artery in enumerate(ARTERIES):
        cloud = patient.calcium(artery)
        if not len(cloud.weights):
            continue
        places = frame.to_lps(cloud.positions_mm) + pose.table_shift_mm
        index = np.rint((places - grid.origin_mm) / grid.spacing_mm).astype(int)[:, ::-1]
        inside = ((index >= 0) & (index < grid.shape)).all(1)
        np.add.at(mass[row], labels[tuple(index[inside].T)], cloud.weights[inside])
    return mass


def digital(model: LoadedModel, kind: str, first: int, patients: int, matrix: int) -> None:
    """Print how the network does on digital patients of one kind of scan."""
    dice, hearts, found_mass, true_mass, seconds, failed = [], [], np.zeros((4, 11)), np.zeros((4, 11)), [], []
    for number in range(first, first + patients):
        patient, pose, scan, grid, heart = digital_scan(number, kind, matrix)
        true = territories(patient, pose, grid)
        true_mass += calcium_by_territory(true, patient, pose, grid)
        start = time.perf_counter()
        try:
            found = find_territories(scan, model)
        except NoHeartError:
            failed.append(number)
            continue
        labels = sitk.GetArrayFromImage(found.labels(scan.image))
        mask = sitk.GetArrayFromImage(found.heart_mask(scan.image)) > 0
        seconds.append(time.perf_counter() - start)
        hearts.append(_dice(mask, heart))
        dice.append([_dice(labels == n, true == n) if (true == n).any() else np.nan for n in range(1, 11)])
        # Where the network says outside, the second-best counts, as for calcium that was found all the same.
        likeliest = replace(found, probability=np.concatenate([found.probability[:1] * 1e-4, found.probability[1:]]))
        inner = sitk.GetArrayFromImage(likeliest.labels(scan.image))
        found_mass += calcium_by_territory(inner, patient, pose, grid)
    print(f"\n{kind}: {patients} patients, heart not found in {failed or 'none'}")
    if not hearts:
        return
    print(f"heart: Dice median {np.median(hearts):.3f}, lowest {min(hearts):.3f}; {np.median(seconds):.1f} s a scan")
    for name, values in zip(TERRITORIES[1:], np.array(dice).T, strict=True):
        print(f"{name:24s} Dice median {np.nanmedian(values):.3f}, lowest {np.nanmin(values):.3f}")
    for row, artery in enumerate(ARTERIES):
        total = max(1e-9, found_mass[row].sum())
        given = ", ".join(
            f"{name} {share:.1%}"
            for name, share in zip(TERRITORIES, found_mass[row] / total, strict=True)
            if share >= 0.005 and name != artery
        )
        of_labels = true_mass[row, row + 1] / max(1e-9, true_mass[row].sum())
        share = found_mass[row, row + 1] / total
        print(
            f"calcium of {artery}: {total:.0f} mg, right {share:.1%} (of labels {of_labels:.1%}); else {given or '-'}"
        )
    right = found_mass[range(4), range(1, 5)].sum() / found_mass.sum()
    print(
        f"calcium of all: right {right:.1%} (of labels {true_mass[range(4), range(1, 5)].sum() / true_mass.sum():.1%})"
    )


def real(model: LoadedModel, data: Path, pictures: Path | None) -> None:
    """Print what is found in real scans, and draw it."""
    for name in REAL:
        if not (data / name).exists():
            print(f"{name}: not there")
            continue
        scan = read_ct(data / name)
        start = time.perf_counter()
        try:
            found = find_territories(scan, model)
        except NoHeartError as error:
            print(f"{name}: {error}")
            continue
        labels, heart = found.labels(scan.image), found.heart_mask(scan.image)
        seconds = time.perf_counter() - start
        ml = float(np.prod(scan.image.GetSpacing())) / 1000
        counts = np.bincount(sitk.GetArrayViewFromImage(labels).ravel(), minlength=len(TERRITORIES)) * ml
        volumes = ", ".join(f"{n} {v:.0f}" for n, v in zip(TERRITORIES[1:], counts[1:], strict=True))
        print(f"{name}: {seconds:.1f} s; ml: heart {sitk.GetArrayViewFromImage(heart).sum() * ml:.0f}, {volumes}")
        if pictures:
            pictures.mkdir(parents=True, exist_ok=True)
            picture(scan.image, labels, heart).save(pictures / f"territories-{Path(name).name.split('.')[0]}.jpg")


def picture(image: sitk.Image, labels: sitk.Image, heart: sitk.Image) -> Image.Image:
    """Ten slices through the heart and a frontal cut, each plain and with territories; the heart's outline is white."""
    hu, names, inside = (sitk.GetArrayFromImage(each) for each in (image, labels, heart))
    k, j, i = np.nonzero(inside)
    spacing = image.GetSpacing()
    side = round(105 / spacing[0])
    middle = (int(np.median(j)), int(np.median(i)))
    rows, columns = (slice(max(0, m - side), m + side) for m in middle)
    top = min(hu.shape[0] - 1, k.max() + round(24 / spacing[2]))
    cuts = [(int(n), rows, columns) for n in np.linspace(k.min() + 2, top, 10)]
    cuts += [(slice(None, None, -1), middle[0], columns), (slice(None, None, -1), rows, middle[1])]
    tiles = []
    for cut in cuts:
        grey = np.clip((hu[cut].astype(float) + 160) * (255 / 400), 0, 255)
        plain = np.repeat(grey[..., None], 3, -1)
        over = np.where(names[cut][..., None] > 0, 0.65 * plain + 0.35 * COLOURS[names[cut]], plain)
        heart_cut = inside[cut].astype(bool)
        over[heart_cut & ~ndimage.binary_erosion(heart_cut)] = 255
        size = (SIDE, SIDE)
        both = [Image.fromarray(a.astype(np.uint8)).resize(size) for a in (plain, over)]
        tile = Image.new("RGB", (SIDE, 2 * SIDE))
        tile.paste(both[0], (0, 0))
        tile.paste(both[1], (0, SIDE))
        tiles.append(tile)
    sheet = Image.new("RGB", (SIDE * 6, SIDE * 4))
    for n, tile in enumerate(tiles):
        sheet.paste(tile, (SIDE * (n % 6), 2 * SIDE * (n // 6)))
    return sheet


def _dice(found: np.ndarray, true: np.ndarray) -> float:
    return 2 * float((found & true).sum()) / max(1, int(found.sum()) + int(true.sum()))


def main() -> None:
    """Print all of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="card of a model for 'territories'")
    parser.add_argument("--patients", type=int, default=10)
    parser.add_argument("--first", type=int, default=FIRST_NUMBERS["test"])
    parser.add_argument("--matrix", type=int, default=256, help="pixels of a slice's side")
    parser.add_argument("--kinds", nargs="*", default=["chest", "dedicated"])
    parser.add_argument("--real", type=Path, help="folder of real scans")
    parser.add_argument("--pictures", type=Path)
    options = parser.parse_args()
    model = load_model(options.model, "cpu")
    for kind in options.kinds:
        digital(model, kind, options.first, options.patients, options.matrix)
    if options.real:
        real(model, options.real, options.pictures)


if __name__ == "__main__":
    main()
