"""Study of people: the table that it writes, and the figures in short."""

import csv

import numpy as np
import pytest
import SimpleITK as sitk
from digital_pairs import CALCIFIED, scored_in_this_process

from CACScoringLib.core.errors import BadReferenceError
from CACScoringLib.core.grid import Grid
from CACScoringLib.io.reading import read_ct
from CACTrainingLib.references.people import Person
from CACTrainingLib.truth import people
from CACTrainingLib.truth.people import PeopleSettings, agatston_of_voxels, evaluate_people
from CACTrainingLib.truth.people_summary import figures_of, is_right

HEADER = ("scan", "reading", "automatic", "interval", "map", "false", "missed", "right artery", "false severe warnings")


def row(*cells):
    return dict(zip(HEADER, cells, strict=True))


ROWS = (
    row("a", "100", "119.0", "90 to 130", "140.0", "5", "2", "0.90", ""),
    row("b", "40", "51.0", "withheld", "10.0", "11", "0", "1.00", "metal"),
    row("c", "0", "0.9", "0 to 0", "0.0", "", "", "", ""),
    row("d", "0", "1.0", "0 to 2", "0.0", "", "", "", ""),
    row("e", "7", "", "", "", "", "", "", ""),
)


def test_a_total_is_right_within_a_fifth_or_ten_and_a_zero_below_one():
    assert [is_right(row) for row in ROWS] == [True, False, True, False, False]


def test_figures_count_what_the_rows_say():
    assert [answer for _, answer in figures_of(ROWS)] == [
        "2 of 5 scans",
        "1 of 2",
        "1; 1 of 4",
        "0.95, 0.90",
        "3 of 3 (1 withheld)",
        "1.4",
        "1 of 2 with calcium",
        "16; 2 of 140",
    ]


def test_figures_without_calcium_and_without_scores_need_nothing():
    assert figures_of(ROWS[2:3])[0][1] == "1 of 1 scans"
    assert figures_of(ROWS[4:])[0][1] == "0 of 1 scans"


def test_voxels_share_the_score_of_their_component():
    hu = np.zeros((2, 5, 5), np.int16)
    hu[0, 1:3, 1] = (150, 420)
    hu[1, 4, 4] = 500
    parts = agatston_of_voxels(hu, hu >= 130, (0.9, 1.0, 1.5))
    assert parts.sum() == pytest.approx(2 * 0.9 * 4 / 2), "the third voxel is smaller than 1 mm²"
    assert parts[0, 1, 1] == parts[0, 2, 1]


@pytest.fixture
def person(digital_pairs):
    """The calcified digital patient as a person whose reading is her regions."""
    ct = read_ct(digital_pairs / f"patient_{CALCIFIED}" / "scan_1" / "ct.nii.gz")
    grid = Grid.of(ct.image)
    return Person("P", "ct.nii.gz", "C", "", "", "", "", "CC BY", "", grid, 100.0, True, (), "")


@pytest.mark.long
def test_scans_in_the_folder_are_scored_and_tabulated(digital_pairs, tmp_path, person, monkeypatch):
    scored = scored_in_this_process(monkeypatch)
    folder = digital_pairs / f"patient_{CALCIFIED}" / "scan_1"
    monkeypatch.setattr(people, "people", lambda: (person,))
    regions = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / "regions.nii.gz")))
    monkeypatch.setattr(Person, "labels", lambda _: regions)
    for _ in range(2):
        page, figures = evaluate_people(PeopleSettings(folder, tmp_path / "out", workers=1))
    assert len(scored) == 1
    assert page.is_file()
    assert figures[0][1].endswith("of 1 scans")
    with (tmp_path / "out" / "people.csv").open(encoding="utf-8", newline="") as stream:
        (row,) = csv.DictReader(stream)
    assert row["scan"] == "P"
    assert float(row["automatic"]) > 0
    assert all(row[name] for name in ("command", "date", "commit"))
    assert {path.name for path in (tmp_path / "out" / "figures").iterdir()} == {
        "against_reading.png",
        "against_reading.svg",
    }


def test_a_folder_without_these_scans_is_refused(digital_pairs, tmp_path):
    with pytest.raises(BadReferenceError, match="none of the 17 scans"):
        evaluate_people(PeopleSettings(digital_pairs, tmp_path / "out", workers=1))
