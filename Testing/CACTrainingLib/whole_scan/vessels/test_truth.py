"""Location of true calcium in the input of a network for vessel scores."""

import json

import numpy as np
import SimpleITK as sitk
from images import image_of

from CACScoringLib.anatomy.heart_region import HeartRegion
from CACScoringLib.core.acquisition import Acquisition
from CACScoringLib.core.ct import scan_from_image
from CACScoringLib.networks.configs import VesselNetConfig
from CACScoringLib.whole_scan.vessels import vessel_input
from CACTrainingLib.whole_scan.vessels.fitting import MAP, REGIONS, TRUTH, true_calcium

CONFIG = VesselNetConfig(kind="voxel-sum", slices=10, size=32, field="heart", field_mm=32.0, slice_mm=2.0)
SPACING = (1.0, 1.0, 2.0)
PER_MG = 1.5


def write(folder, calcium, regions, mass=None):
    """Write a heart of 40 HU with calcium, and its truth. Returns the scan and the heart."""
    hu = np.full(calcium.shape, -800, np.float32)
    hu[5:15, 14:26, 14:26] = 40
    heart = (hu > 0).astype(np.uint8)
    hu[:, 0, 0] = 1500 - np.arange(len(hu))  # or it would look cut off, with lost slices
    arrays = {"ct.nii.gz": (hu + PER_MG * calcium).astype(np.int16), MAP: calcium, REGIONS: regions}
    for name, array in arrays.items():
        sitk.WriteImage(image_of(array, SPACING), folder / name)
    truth = {"patient": "1", "slices": [], "calcium_hu_per_mg_cm3": PER_MG, "mass_mg_by_artery": mass or {}}
    (folder / TRUTH).write_text(json.dumps(truth), encoding="utf-8")
    path, region = folder / "ct.nii.gz", HeartRegion(image_of(heart, SPACING), None, "given")
    return scan_from_image(sitk.ReadImage(path), Acquisition("made up"), path), region


def test_calcium_as_the_network_sees_it(tmp_path):
    calcium, regions = np.zeros((20, 40, 40), np.float32), np.zeros((20, 40, 40), np.uint8)
    calcium[8, 16:18, 16:18], regions[8, 16, 16] = 400, 2
    calcium[12, 24, 20], regions[12, 24, 20] = 200, 4
    scan, region = write(tmp_path, calcium, regions)
    truth = true_calcium(scan, region, CONFIG)
    x = vessel_input(scan.image, region.mask, CONFIG)
    plain = vessel_input(
        scan.image - sitk.Cast(sitk.ReadImage(tmp_path / MAP) * PER_MG, sitk.sitkInt16), region.mask, CONFIG
    )
    amount, artery = np.zeros(x.shape), np.zeros(x.shape)
    amount.ravel()[truth["calcium_at"]] = truth["calcium"]
    artery.ravel()[truth["calcium_at"]] = truth["calcium_artery"]
    np.testing.assert_allclose(amount, x - plain, atol=5e-3)  # less than MIN_HU is not stored
    is_bright = amount > 0.1
    assert sorted(artery[is_bright].tolist()) == [1, 1, 1, 1, 3], "also where the region does not reach"
