"""Why a lesion counts, from a result and its CT."""

import automatic_patient
import pytest
import SimpleITK as sitk
from PIL import Image

from CACScoringLib.cli import main as cli


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("explain")
    automatic_patient.write(folder / "out")
    sitk.WriteImage(automatic_patient.image(), str(folder / "ct.nii"))
    return folder


def test_an_explanation_names_probability_place_neighbours_and_effect(folder, capsys):
    assert cli.main(["explain", str(folder / "out"), "13"]) == 0
    text = capsys.readouterr().out
    assert "Lesion 13, Agatston 324.0\nLeft out of the score: looks like noise or bright tissue." in text
    assert "Coronary calcium with 24% by the networks." in text
    assert "Its place suggests LCX" in text
    assert "Agatston 5,508 (class > 400); with it 5,832 (class > 400)." in text
    assert "Near it: 2 (LAD) at 12 mm" in text
    assert cli.main(["explain", str(folder / "out"), "99"]) == cli.BAD_INPUT
    assert "has no lesion 99" in capsys.readouterr().err


def test_the_picture_shows_the_lesion_in_its_middle(folder, capsys):
    command = ["explain", str(folder / "out"), "3", "--ct", str(folder / "ct.nii"), "--output", str(folder / "3.jpg")]
    assert cli.main(command) == 0
    picture = Image.open(folder / "3.jpg")
    middle = picture.getpixel((picture.width // 2, picture.height // 2))
    assert min(middle) > 150 > min(picture.getpixel((5, 5)))
    assert cli.main(command) == cli.BAD_USAGE
    assert "exists. Name a new file" in capsys.readouterr().err
