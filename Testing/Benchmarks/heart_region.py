"""How well the heart region fits, and what is measured in it, on the real CTs.

Run from the repository's root:

    PYTHONPATH=Testing/support .venv/bin/python Testing/Benchmarks/heart_region.py

Where a heart mask exists (TotalSegmentator's; it holds neither the aortic root nor the epicardial fat), Dice and the
share of it that the region covers are printed, as a whole and in its lower three quarters, about the part below the
pulmonary bifurcation. The two cropped scans with a mask show the same patient. These scans are the ones the method
was developed on: the figures say that it does what it was made to do, not how it does on others. The seconds are the
processor's, the least of three runs.
"""

import time

import numpy as np
import SimpleITK as sitk

from CACScoringLib.anatomy.heart_region import heart_region
from CACScoringLib.core.ct import Acquisition, ContrastError, NoHeartError, scan_from_image
from CACScoringLib.scoring.acquisition import examine, measure_blood, require_unenhanced
from CACTrainingLib.statistics.masks import dice
from conftest import REAL_CT_DIR

SCANS = {
    "lung_pet_ct_dx/A0001_philips_B_5mm.nii.gz": None,
    "lung_pet_ct_dx/A0001_philips_L_5mm_heart.nii.gz": None,
    "acrin_flt_breast/013_petct_B10f_5mm.nii.gz": None,
    "lidc_idri/LIDC-IDRI-0001_contrast_1p4x1p4x2p5mm.nii.gz": ("lidc_idri/LIDC-IDRI-0001_totalseg_labels.nii.gz", 51),
    "lidc_idri/LIDC-IDRI-0002_nc_1p25mm_heart.nii.gz": None,
    "lidc_idri/LIDC-IDRI-0002_nc_bin2_2p5mm_chest.nii.gz": None,
    "lidc_idri/LIDC-IDRI-0314_bin2_3mm_chest.nii.gz": None,
    "tcga_thca/TCGA-DE-A4MA_petct_B30f_5mm_sp2p5.nii.gz": None,
    "nsclc_radiogenomics/R01-001_contrast_1mm_heart.nii.gz": None,
    "qrm_phantom/canon_large_rep1_120kVp_3mm.nii.gz": None,
    "cip_copdgene/ct-64.nrrd": None,
    "totalsegmentator/pulmonary_report_ct_cropped.nii.gz": ("totalsegmentator/pulmonary_report_heart.nii.gz", 1),
    "totalsegmentator/aorta_report_ct_cropped.nii.gz": ("totalsegmentator/aorta_report_heart.nii.gz", 1),
    "totalsegmentator/abdomen_example_ct_sm.nii.gz": None,
}


def overlap(mask: np.ndarray, truth: np.ndarray) -> str:
    """Dice, share covered, share covered of the lower three quarters of the truth's slices."""
    slices = np.nonzero(truth.any((1, 2)))[0]
    lower = slice(slices[0], slices[0] + 3 * len(slices) // 4)
    shares = [(mask & truth)[part].sum() / truth[part].sum() for part in (slice(None), lower)]
    return f"{dice(mask, truth):5.2f} {shares[0]:7.3f} {shares[1]:7.3f}"


def line(name: str, reference: tuple[str, int] | None) -> str:
    # Voltage and thickness are unknown in these files; they are set to keep their warnings out of the table.
    known = Acquisition("NIfTI", kvp=120.0, slice_thickness_mm=3.0)
    scan = scan_from_image(sitk.ReadImage(str(REAL_CT_DIR / name)), known)
    seconds = []
    for _ in range(3):
        start = time.process_time()
        try:
            region = heart_region(scan)
        except NoHeartError as error:
            return f"refused: {error}"
        seconds.append(time.process_time() - start)
    mask = sitk.GetArrayViewFromImage(region.mask) != 0
    fit = " " * 21
    if reference is not None:
        labels = sitk.DICOMOrient(sitk.ReadImage(str(REAL_CT_DIR / reference[0])), "LPS")
        fit = overlap(mask, sitk.GetArrayViewFromImage(labels) == reference[1])
    blood = measure_blood(scan, region.mask)
    codes = [warning.code for warning in (*region.warnings, *examine(scan, blood))]
    try:
        require_unenhanced(scan, blood)
    except ContrastError:
        codes.append("REFUSED: contrast")
    slices = np.nonzero(mask.any((1, 2)))[0]
    volume_ml = mask.sum() * scan.voxel_volume_mm3 / 1000
    measured = f"{blood.median_hu:5.0f} {blood.bright_hu:6.0f} {blood.noise_hu:5.1f}" if blood else "not measured"
    where = f"{slices[0]:3d}-{slices[-1]:3d} of {len(mask):3d}"
    return f"{where} {volume_ml:6.0f} {fit} {measured} {min(seconds):5.2f}  {', '.join(codes)}"


def main() -> None:
    columns = "slices         mL     Dice covered lower75 blood bright noise    s  warnings"
    print(f"{'scan':52s} {columns}")
    for name, reference in SCANS.items():
        print(f"{name.split('/')[1][:52]:52s} {line(name, reference)}")


if __name__ == "__main__":
    main()
