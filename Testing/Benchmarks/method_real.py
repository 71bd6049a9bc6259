"""What the calcium map holds on real CTs: those without visible calcium, a coarse one with some, and a phantom.

Run from the repository's root, with the cards of the models (the bundled ones when none are named):

    PYTHONPATH=Testing/support .venv/bin/python Testing/Benchmarks/method_real.py [--heart CARD] [--slices CARD]
        [--decomposition CARD] [--pictures DIR]

Per scan: slices called positive, pseudo-mass (HU·mm³) and lesions of the map, with everything as shipped; with nothing
left out of the map; and with every slice decomposed. Beside them the candidates at 130 HU in the same heart. "No
calcium" is an engineer's reading, no expert's. Scans marked "seen" were backgrounds of training or validation.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from PIL import Image

from CACScoringLib.calcium_map.decomposition import healthy_image
from CACScoringLib.core.ct import CTError
from CACScoringLib.io.reading import read_ct
from CACScoringLib.models.cards import find_model, load_model
from CACScoringLib.pipeline import ScoreSettings, score_scan
from CACScoringLib.report.pictures import WINDOW_HU
from CACScoringLib.results import Networks, ScoreResult
from conftest import REAL_CT_DIR

SCANS = {
    "acrin_flt_breast/013_petct_B10f_5mm.nii.gz": "no calcium",
    "lidc_idri/LIDC-IDRI-0314_bin2_3mm_chest.nii.gz": "no calcium",
    "lidc_idri/LIDC-IDRI-0002_nc_1p25mm_heart.nii.gz": "no calcium, its 2.5 mm copy seen",
    "lidc_idri/LIDC-IDRI-0002_nc_bin2_2p5mm_chest.nii.gz": "no calcium, seen",
    "tcga_thca/TCGA-DE-A4MA_petct_B30f_5mm_sp2p5.nii.gz": "no calcium, seen",
    "lung_pet_ct_dx/A0001_philips_B_5mm.nii.gz": "no calcium, seen",
    "lung_pet_ct_dx/A0001_philips_L_5mm_heart.nii.gz": "no calcium, its other kernel seen",
    "cip_copdgene/ct-64.nrrd": "calcium, 4 mm voxels",
    "qrm_phantom/canon_large_rep1_120kVp_3mm.nii.gz": "nine inserts, 190.3 mg in all",
}
PICTURED = 12
NETWORKS = ("territories", "slices", "decomposition")

INSERT = (240, 221, 45.0)
"""The phantom's insert: its middle (i, j) in pixels, and a radius in mm that holds all nine inserts of calcium."""


def insert_mask(image: sitk.Image) -> sitk.Image:
    """The phantom's insert as a heart mask."""
    columns, rows, slices = image.GetSize()
    j, i = np.mgrid[:rows, :columns]
    inside = np.hypot((i - INSERT[0]) * image.GetSpacing()[0], (j - INSERT[1]) * image.GetSpacing()[1]) < INSERT[2]
    mask = sitk.GetImageFromArray(np.broadcast_to(inside, (slices, rows, columns)).astype(np.uint8))
    mask.CopyInformation(image)
    return mask


def summary(result: ScoreResult, method: str = "decomposition") -> str:
    total = result.methods[method].total
    return f"{total.pseudo_mass_hu_mm3:8.0f} in {total.lesions:3d}"


def pictures(result: ScoreResult, path: Path) -> None:
    """The scan and its healthy image around the heart, one over the other, in the slices with most of the map."""
    hu = np.stack(
        [
            result.scan.hu,
            sitk.GetArrayFromImage(healthy_image(result.scored_scan.image, result.decomposition.calcium_map)),
        ]
    ).astype(float)
    weight = sitk.GetArrayViewFromImage(result.decomposition.calcium_map).sum((1, 2))
    chosen = np.sort(np.argsort(-weight)[: min(PICTURED, np.count_nonzero(weight))])
    if not len(chosen):
        return
    _, rows, columns = np.nonzero(sitk.GetArrayViewFromImage(result.heart.mask))
    part = hu[:, chosen, rows.min() : rows.max(), columns.min() : columns.max()]
    low, high = WINDOW_HU
    grey = np.clip((part - low) / (high - low) * 255, 0, 255).astype(np.uint8)
    Image.fromarray(np.concatenate([np.concatenate(list(row), 1) for row in grey], 0)).save(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for network in NETWORKS:
        parser.add_argument(f"--{network}", type=Path, help=f"card of the model for {network}")
    parser.add_argument("--pictures", type=Path, metavar="DIR", help="write the slices with most of the map")
    options = parser.parse_args()
    loaded = {network: load_model(getattr(options, network) or find_model(network).path) for network in NETWORKS}
    networks = Networks(heart=None, **loaded)
    for name, what in SCANS.items():
        scan = read_ct(REAL_CT_DIR / name)
        heart = insert_mask(scan.image) if "qrm" in name else None
        print(f"{name} ({what})")
        try:
            result = score_scan(scan, heart=heart, networks=networks)
        except CTError as error:
            print(f"  refused: {error}")
            continue
        stored = result.decomposition.settings
        print(f"  heart {result.heart.source}, {result.decomposition.decomposed.sum()} of ", end="")
        print(f"{len(result.decomposition.decomposed)} slices positive; at 130 HU {summary(result, 'threshold')}")
        everything = replace(stored, most_not_coronary=1.0)
        changes = {
            "as shipped": stored,
            "nothing left out": everything,
            "every slice": replace(stored, slice_threshold=0.0),
            "every slice, nothing left out": replace(everything, slice_threshold=0.0),
        }
        for title, settings in changes.items():
            other = score_scan(scan, ScoreSettings(decomposition=settings), result.heart.mask, networks=networks)
            print(f"  {title:30s} {summary(other)}")
            if options.pictures:
                options.pictures.mkdir(parents=True, exist_ok=True)
                pictures(other, options.pictures / f"{Path(name).name.split('.')[0]}-{title.replace(' ', '-')}.png")


if __name__ == "__main__":
    main()
