"""Hearts carried over by registration, on two chests of ellipsoids of which one is the other, stretched."""

import numpy as np
import pytest
import SimpleITK as sitk

from CACScoringLib.cli import main as scoring
from CACScoringLib.core.ct import Acquisition, scan_from_image
from CACTrainingLib.cli import main as cli
from CACTrainingLib.training import pseudo_masks
from CACTrainingLib.training.heart import read_pairs

SPACING_MM = (3.0, 3.0, 4.0)
SIZE = (124, 78, 64)


def chest(stretch=(1.0, 1.0, 1.0), blood_hu=40.0, shift_mm=(0.0, 0.0, 0.0)):
    """A scan; its heart with a rim of fat, and the blood in it, bool [k, j, i]. Millimetres from the chest's middle."""
    axes = [
        ((np.arange(n) - (n - 1) / 2) * s - d) / r
        for n, s, d, r in zip(SIZE, SPACING_MM, shift_mm, stretch, strict=True)
    ]
    x, y, z = axes[0][None, None, :], axes[1][None, :, None], axes[2][:, None, None]

    def ball(cx, cy, cz, rx, ry, rz):
        return ((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 + ((z - cz) / rz) ** 2 <= 1

    body = ((x / 165) ** 2 + (y / 103) ** 2 <= 1) & (z > -999)
    heart, blood = ball(22, -28, -8, 56, 48, 50), ball(22, -28, -8, 50, 42, 44)
    spine = (x**2 + (y - 68) ** 2 <= 17**2) & (z > -999)
    sternum = (abs(x) < 18) & (y > -100) & (y < -90) & (z > -50) & (z < 110)
    vessels = ((x - 10) ** 2 + (y + 28) ** 2 <= 20**2) & (z >= 0) & (z <= 100)
    below = ball(-78, 0, -135, 88, 90, 118) | ball(78, 0, -145, 88, 90, 118)
    lungs = (ball(-64, 0, 0, 66, 84, 150) | ball(64, 0, 0, 66, 84, 150)) & (abs(x) > 4)
    hu = np.full(SIZE[::-1], -1000.0)
    hu[body] = 30
    hu[lungs & ~(heart | spine | vessels | below)] = -850
    hu[body & below] = 60
    hu[heart] = -90
    hu[blood | vessels] = blood_hu
    hu[spine | sternum] = 250
    hu += np.random.default_rng(0).normal(0, 10, hu.shape)
    image = sitk.GetImageFromArray(np.rint(hu).astype(np.int16))
    image.SetSpacing(SPACING_MM)
    image.SetOrigin((-180.0, -110.0, 50.0))
    return scan_from_image(image, Acquisition("memory")), heart, blood | (vessels & (z < 60))


def mask_of(array, scan):
    mask = sitk.GetImageFromArray(array.astype(np.uint8))
    mask.CopyInformation(scan.image)
    return mask


def dice(mask, true):
    found = sitk.GetArrayViewFromImage(mask) != 0
    return 2 * (found & true).sum() / (found.sum() + true.sum())


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """What the command makes of an enhanced atlas and a larger, shifted, unenhanced patient; and the latter's heart."""
    folder = tmp_path_factory.mktemp("hearts")
    atlas, atlas_heart, _ = chest(blood_hu=300.0)
    scan, heart, _ = chest((1.06, 0.95, 1.1), shift_mm=(8, 5, -6))
    for name, image in (("atlas", atlas.image), ("scan", scan.image), ("mask", mask_of(3 * atlas_heart, atlas))):
        sitk.WriteImage(image, str(folder / f"{name}.nii.gz"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pseudo_masks, "GRID_MM", 6.0)  # as exact here, in a quarter of the time
        assert cli.main(command(folder)) == 0
    return folder, heart


def command(folder):
    paths = {name: str(folder / f"{name}.nii.gz") for name in ("atlas", "scan", "mask")}
    words = ["propagate-hearts", paths["scan"], "--atlas", paths["atlas"], "--heart", paths["mask"], "--label", "3"]
    return [*words, "--output", str(folder / "out"), "--progress", "none"]


def test_heart_is_carried_over(written):
    folder, heart = written
    mask = sitk.ReadImage(str(folder / "out" / "scan.nii.gz"))
    assert mask.GetPixelID() == sitk.sitkUInt8
    assert dice(mask, heart) > 0.88
    assert (folder / "out" / "scan.png").stat().st_size > 1000


def test_table_is_one_to_train_with(written):
    folder, _ = written
    pairs = read_pairs(folder / "out" / "pairs.csv")
    assert [(scan.patient, scan.heart_label, use) for scan, use in pairs] == [
        ("atlas", 1, "training"),
        ("scan", 1, "training"),
    ]


def test_nothing_is_overwritten(written):
    folder, _ = written
    before = (folder / "out" / "scan.nii.gz").stat().st_mtime_ns
    assert cli.main(command(folder)) == scoring.BAD_USAGE
    assert (folder / "out" / "scan.nii.gz").stat().st_mtime_ns == before


def test_chambers_are_filled_to_the_pericardium():
    """A hole (the aortic root) is filled, the vessel that leaves is taken off, and the fat is added."""
    scan, heart, chambers = chest(blood_hu=300.0)
    k, j, i = np.indices(heart.shape)
    x, y, z = ((n - (m - 1) / 2) * s for n, m, s in zip((i, j, k), SIZE, SPACING_MM, strict=True))
    root = ((x - 15) ** 2 + (y + 28) ** 2 < 14**2) & (z > -10)
    leaving = (abs(x + 45) < 35) & (abs(y + 10) < 6) & (abs(z - 10) < 6)
    mask = pseudo_masks.pericardium(scan, mask_of(chambers & ~root | leaving, scan))
    found = sitk.GetArrayViewFromImage(mask) != 0
    assert dice(mask, heart) > 0.9
    assert found[root & heart].mean() > 0.9
    assert not found[leaving & (x < -50)].any()
