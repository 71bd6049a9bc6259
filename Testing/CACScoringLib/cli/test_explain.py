"""Why a lesion counts, from a result and its CT."""

import automatic_patient
import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from CACScoringLib.cli import main as cli
from CACScoringLib.record.scores import LesionVoxels
from CACScoringLib.report.explanation import gaps_mm


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
    assert "Coronary calcium with 25% by the networks, 31 points below the limit of 56%." in text
    assert "Its place suggests LCX" in text
    assert "Agatston 5,508 (class > 400); with it 5,832 (class > 400)." in text
    # Two slices of 3 mm lie between those in a column, five voxels between those in a row.
    assert "Near it: 11 (RCA) at 6 mm, 2 (LAD) at 6 mm, 14 (LCX) at 15 mm." in text
    assert cli.main(["explain", str(folder / "out"), "99"]) == cli.BAD_INPUT
    assert "has no lesion 99" in capsys.readouterr().err


def test_distances_are_those_between_surfaces():
    """A long lesion touches one at its end, whose middle is far; voxels are 1 × 2 × 3 mm."""
    labels = np.zeros((4, 6, 60), np.uint16)
    labels[0, 0, :50], labels[1, 1, 50], labels[0, 4, 0], labels[3, 0, 49], labels[0, 0, 59] = 1, 2, 3, 4, 5
    flat = np.flatnonzero(labels)
    gaps = gaps_mm(LesionVoxels(labels.shape, flat, labels.reshape(-1)[flat]), (1.0, 2.0, 3.0))
    assert gaps[1] == {2: 0.0, 3: 6.0, 4: 6.0, 5: 9.0}
    assert gaps[2] == pytest.approx({1: 0.0, 4: 3.0, 5: 8.0})
    assert gaps[3] == pytest.approx({1: 6.0})
    assert gaps_mm(LesionVoxels(labels.shape, flat[:0], flat[:0]), (1.0, 2.0, 3.0)) == {}


def test_the_picture_shows_the_lesion_in_its_middle(folder, capsys):
    command = ["explain", str(folder / "out"), "3", "--ct", str(folder / "ct.nii"), "--output", str(folder / "3.jpg")]
    assert cli.main(command) == 0
    picture = Image.open(folder / "3.jpg")
    middle = picture.getpixel((picture.width // 2, picture.height // 2))
    assert min(middle) > 150 > min(picture.getpixel((5, 5)))
    assert cli.main(command) == cli.BAD_USAGE
    assert "exists. Name a new file" in capsys.readouterr().err
