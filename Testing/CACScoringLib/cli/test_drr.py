"""`cac drr` from end to end, on a small chest-like block."""

import json

import dicom_files
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from images import image_of
from PIL import Image

from CACScoringLib.cli import main as cli

SIZE, SPACING_MM = (48, 40, 30), (8.0, 8.0, 10.0)


@pytest.fixture
def ct(tmp_path):
    """A body with two lungs and a dense ball in the right one, 8 × 8 × 10 mm voxels, as a file."""
    _, j, i = np.ogrid[: SIZE[2], : SIZE[1], : SIZE[0]]
    body = ((i - 23.5) / 18) ** 2 + ((j - 19.5) / 14) ** 2 < 1
    lungs = ((abs(i - 23.5) - 8) / 5) ** 2 + ((j - 19.5) / 9) ** 2 < 1
    hu = np.broadcast_to(np.where(lungs, -850, np.where(body, 40, -1000)), SIZE[::-1]).astype(np.int16)
    hu[8:11, 18:21, 14:17] = 1200
    sitk.WriteImage(image_of(hu, SPACING_MM), tmp_path / "ct.nii.gz")
    return tmp_path / "ct.nii.gz"


def drr(ct, output, *options):
    return cli.main(["drr", str(ct), "--output", str(output), "--pixels", "64", "--progress", "none", *options])


PARALLEL = ["--settings", '{"parallel": true}']


def picture(path):
    return np.asarray(Image.open(path)).astype(float)


@pytest.mark.long
def test_png_is_a_16_bit_picture_with_dark_lungs(ct, tmp_path):
    assert drr(ct, tmp_path / "pa.png") == cli.DONE
    grey = picture(tmp_path / "pa.png")
    assert grey.shape == (64, 64)
    assert grey.max() == 65535
    assert grey[0, 0] == 0  # air
    assert grey[30, 32] > grey[30, 42] + 10000  # mediastinum and left lung
    assert grey[40:50, 15:30].max() > grey[40:50, 36:49].max() + 5000  # the ball: the patient's right, below the middle


@pytest.mark.long
def test_line_integrals_are_kept_as_they_are(ct, tmp_path):
    assert drr(ct, tmp_path / "pa.mha", *PARALLEL) == cli.DONE
    image = sitk.ReadImage(tmp_path / "pa.mha")
    assert image.GetSpacing()[:2] == pytest.approx((430 / 64,) * 2)
    assert image.GetPixelID() == sitk.sitkFloat32
    values = sitk.GetArrayFromImage(image)[0]
    assert values[32, 31] == pytest.approx(28 * 8 * 1.04 * 0.0192, rel=0.02)  # through the mediastinum


def test_dicom_is_a_derived_digital_radiograph(tmp_path):
    hu = np.full((8, 40, 40), -1000, np.int16)
    hu[:, 8:32, 6:34], hu[0, 0, 0], hu[3, 20, 20] = 40, -1024, 1400
    dicom_files.write_series(tmp_path / "ct", hu, spacing_mm=(6.0, 6.0, 9.0))
    for name, options in (("pa.dcm", []), ("named.dcm", ["--identify"]), ("pa.png", [])):
        assert drr(tmp_path / "ct", tmp_path / name, *options) == cli.DONE
    ds = pydicom.dcmread(tmp_path / "pa.dcm")
    assert ds.SOPClassUID == pydicom.uid.DigitalXRayImageStorageForPresentation
    assert (ds.Modality, ds.PresentationIntentType, ds.ViewPosition) == ("DX", "FOR PRESENTATION", "PA")
    assert list(ds.ImageType) == ["DERIVED", "PRIMARY"]
    assert ds.PhotometricInterpretation == "MONOCHROME2"
    assert list(ds.PatientOrientation) == ["L", "F"]
    assert list(ds.ImagerPixelSpacing) == pytest.approx([430 / 64] * 2)
    assert list(ds.PixelSpacing) == pytest.approx([430 / 64 * 1600 / 1800] * 2)
    assert ds.pixel_array.shape == (64, 64)
    assert ds.pixel_array.max() == 65535
    assert (ds.pixel_array == picture(tmp_path / "pa.png")).all()
    named = pydicom.dcmread(tmp_path / "named.dcm")
    for header, identity in ((ds, ("", "", "", "YES")), (named, ("Doe^Jane", "P1", "20240131", "NO"))):
        names = ("PatientName", "PatientID", "StudyDate", "PatientIdentityRemoved")
        assert tuple(str(header[name].value) for name in names) == identity


@pytest.mark.long
@pytest.mark.parametrize(("view", "position"), [("AP", "AP"), ("lateral", "LL"), ("30", None)])
def test_dicom_names_the_view(ct, tmp_path, view, position):
    drr(ct, tmp_path / "x.dcm", "--view", view)
    ds = pydicom.dcmread(tmp_path / "x.dcm")
    assert ds.get("ViewPosition") == position
    assert ds.PositionerPrimaryAngle == {"AP": -180, "lateral": 90, "30": 30}[view]
    assert list(ds.PatientOrientation) == {"AP": ["L", "F"], "lateral": ["P", "F"], "30": ["L", "F"]}[view]


@pytest.mark.long
def test_settings_change_the_picture(ct, tmp_path):
    pictures = {}
    for name, settings in {
        "plain": {},
        "noise": {"photons": 2000},
        "scatter": {"scatter_fraction": 0.4},
        "linear": {"linear": True},
        "tube": {"kvp": 110},
        "tilt": {"tilt_degrees": 20},
    }.items():
        assert drr(ct, tmp_path / f"{name}.png", "--settings", json.dumps(settings)) == cli.DONE
        pictures[name] = picture(tmp_path / f"{name}.png")
    assert len({values.tobytes() for values in pictures.values()}) == len(pictures)


def test_calcium_map_shows_calcium_alone(ct, tmp_path):
    calcium = np.zeros(SIZE[::-1], np.int16)
    calcium[8:11, 18:21, 14:17] = 800
    sitk.WriteImage(image_of(calcium, SPACING_MM), tmp_path / "calcium_map.nii.gz")
    assert drr(ct, tmp_path / "c.nii.gz", "--calcium-map", str(tmp_path / "calcium_map.nii.gz"), *PARALLEL) == cli.DONE
    values = sitk.GetArrayFromImage(sitk.ReadImage(tmp_path / "c.nii.gz"))[0]
    where = np.argwhere(values > 0)
    assert values.max() == pytest.approx(3 * 8 * 0.8 * 0.0192, rel=0.03)
    assert where[:, 1].max() < 32 < where[:, 0].min()


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (["--view", "upwards"], cli.BAD_INPUT),
        (["--kvp", "5"], cli.BAD_INPUT),
        (["--settings", '{"tilt": 20}'], cli.BAD_USAGE),
        (["--calcium-map", "nowhere.nii.gz"], cli.BAD_INPUT),
    ],
)
def test_bad_options_write_nothing(ct, tmp_path, options, code, capsys):
    assert drr(ct, tmp_path / "x.png", *options) == code
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not list(tmp_path.glob("*x.png*"))


def test_nothing_is_replaced_unasked(ct, tmp_path):
    (tmp_path / "x.png").write_text("mine", encoding="utf-8")
    assert drr(ct, tmp_path / "x.png") == cli.BAD_USAGE
    assert (tmp_path / "x.png").read_text(encoding="utf-8") == "mine"
    assert drr(ct, tmp_path / "x.png", "--overwrite") == cli.DONE
    assert picture(tmp_path / "x.png").max() == 65535
