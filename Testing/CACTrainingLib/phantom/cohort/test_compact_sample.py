"""The sample data for 3D Slicer can be made again, to the voxel."""

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from CACScoringLib.mrml.sample_data import sample_file
from CACTrainingLib.cli import main as cli
from CACTrainingLib.phantom.cohort.compact_sample import AIR_HU, NAME


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compact") / "patient"
    assert cli.main(["sample", "vessels", str(folder), "--compact"]) == 0
    return folder


def test_the_bundled_file_is_what_the_command_makes(made):
    again, bundled = sitk.ReadImage(made / f"{NAME}.nrrd"), sitk.ReadImage(sample_file())
    for image in (again, bundled):
        assert image.GetMetaData("description").startswith("CAC digital patient")
    assert (again.GetSpacing(), again.GetOrigin()) == (bundled.GetSpacing(), bundled.GetOrigin())
    difference = np.abs(sitk.GetArrayFromImage(again).astype(int) - sitk.GetArrayFromImage(bundled))
    # Other processors and libraries may round a voxel here and there the other way.
    assert difference.max() <= 1
    assert (difference > 0).mean() < 1e-3
    with Image.open(made / f"{NAME}.png") as picture, Image.open(sample_file().with_suffix(".png")) as thumbnail:
        assert np.abs(np.asarray(picture).astype(int) - np.asarray(thumbnail)).max() <= 2


def test_only_air_outside_the_body_is_without_noise(made):
    hu = sitk.GetArrayFromImage(sitk.ReadImage(made / f"{NAME}.nrrd"))
    middle = hu[len(hu) // 2]
    assert (middle[:5] == AIR_HU).all()
    assert (middle == AIR_HU).mean() < 0.4
    lung = middle[(middle < -700) & (middle != AIR_HU)]
    assert lung.size > 5000
    assert lung.std() > 5


def test_an_existing_folder_is_kept(made, capsys):
    assert cli.main(["sample", "vessels", str(made), "--compact"]) == 2
    assert "exists already" in capsys.readouterr().err
