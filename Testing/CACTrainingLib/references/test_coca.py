"""Test the import of COCA as published: scans with regions and slice labels in the right places."""

import numpy as np
import pytest
from coca_files import (
    LM,
    ORIGIN_MM,
    SPACING_MM,
    labelled,
    region,
    write_gated,
    write_nongated,
    write_regions,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from CACScoringLib.core.errors import BadReferenceError, CTError
from CACScoringLib.core.labels import Artery
from CACScoringLib.io.reading import read_ct
from CACTrainingLib.project.annotation_files import SliceLabel
from CACTrainingLib.references.coca import draw_regions, read_regions
from CACTrainingLib.references.folder import find_new_scans

SQUARE = [(4.5, 3.5), (7.5, 3.5), (7.5, 5.5), (4.5, 5.5)]
"""Columns 4 to 7 and rows 3 to 5."""


def _annotations(root, number=0):
    (scan,) = (s for s in find_new_scans(root)[0] if s.name == f"coca-gated-{number}")
    return scan.annotations()


def test_regions_and_slices_of_a_gated_scan(tmp_path):
    """Slices are counted from the feet; the third one is at 36 mm, and is the fourth image of the list."""
    regions = [region(3, 36.0, SQUARE), region(0, 45.0, [(8.5, 6.5)], LM), region(1, 42.0, [])]
    write_gated(tmp_path, 12, regions)
    imported = _annotations(tmp_path, 12)
    assert imported.annotator == "COCA"
    square = [(2, j, i, int(Artery.LAD)) for j in (3, 4, 5) for i in (4, 5, 6, 7)]
    assert labelled(imported.regions) == [*square, (5, 6, 8, int(Artery.LM))]
    visible = [k for k, label in imported.slices.items() if label is SliceLabel.VISIBLE]
    assert visible == [2, 5]
    assert [imported.slices[k] for k in (0, 1, 3, 4)] == [SliceLabel.NOT_VISIBLE] * 4


def test_index_counts_from_the_feet_where_points_in_mm_are_missing(tmp_path):
    write_gated(tmp_path, 0, [region(1, None, SQUARE)])
    assert {k for k, *_ in labelled(_annotations(tmp_path).regions)} == {1}
    write_gated(tmp_path, 1, [region(1, None, SQUARE)], name="a{:03d}.dcm".format)
    assert {k for k, *_ in labelled(_annotations(tmp_path, 1).regions)} == {1}, "whatever the files are called"
    write_gated(tmp_path, 2, [region(6, None, SQUARE)])
    with pytest.raises(BadReferenceError, match="image 6 is beyond the 6 slices"):
        _annotations(tmp_path, 2)


@pytest.mark.parametrize("turned", ["rows run to the right", "slices run downwards", "oblique"])
def test_regions_lie_on_the_same_tissue_however_the_slices_are_stored(tmp_path, turned):
    """The outlined pixels are those of 400 HU and more, in every slice."""
    angle = np.deg2rad(20)
    orientation, origin = {
        "rows run to the right": ((-1.0, 0, 0, 0, -1.0, 0), ORIGIN_MM),
        "slices run downwards": ((1.0, 0, 0, 0, -1.0, 0), ORIGIN_MM),
        "oblique": ((1.0, 0, 0, 0, np.cos(angle), np.sin(angle)), ORIGIN_MM),
    }[turned]
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    calcium = (5.5, 5.5)
    place = np.array(origin) + calcium[0] * SPACING_MM[0] * row + calcium[1] * SPACING_MM[1] * column
    place = place + 4 * SPACING_MM[2] * np.cross(row, column)
    index, roi = region(0, 0.0, [calcium])
    roi["Point_mm"] = ["({:f}, {:f}, {:f})".format(*place)]
    folder = write_gated(tmp_path, 0, [(index, roi)], orientation=orientation, origin_mm=origin)
    ((k, j, i, _),) = labelled(_annotations(tmp_path).regions)
    assert read_ct(folder).hu[k, j, i] == 440


def test_of_two_series_the_outlined_one_gets_the_regions(tmp_path):
    write_gated(tmp_path, 0, [region(0, 33.0, SQUARE)], series="a", origin_mm=(-60.0, -120.0, 30.0))
    write_gated(tmp_path, 0, series="b", seed=1)
    (first, second), _ = find_new_scans(tmp_path)
    assert (first.ct.name, second.ct.name) == ("a", "b")
    assert first.annotations is None
    assert {k for k, *_ in labelled(second.annotations().regions)} == {1}
    write_gated(tmp_path, 0, series="c", seed=2)
    scans, warnings = find_new_scans(tmp_path)
    assert [s.annotations for s in scans] == [None] * 3
    assert any("0.xml fits 2 of the 3 series" in warning for warning in warnings)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'<!DOCTYPE a [<!ENTITY b "c">]><plist><dict><key>Images</key><string>&b;</string></dict></plist>', "entity"),
        (b"<plist><dict><key>Images</key><array><string>x</string></array></dict></plist>", "not a list of regions"),
    ],
)
def test_broken_property_list_is_reported_and_its_scan_has_no_annotations(tmp_path, content, message):
    write_gated(tmp_path, 0, [])
    (tmp_path / "Gated_release_final" / "calcium_xml" / "0.xml").write_bytes(content)
    (scan,), warnings = find_new_scans(tmp_path)
    assert scan.annotations is None
    assert any("0.xml" in warning and message in warning.lower() for warning in warnings)


@given(st.binary(max_size=60), st.integers(0, 900), st.integers(0, 60))
@settings(max_examples=100, deadline=None)
def test_damaged_files_give_regions_or_an_error(tmp_path_factory, noise, at, cut):
    path = write_regions(tmp_path_factory.mktemp("xml") / "0.xml", [region(0, 30.0, [(1.0, 1.0)])])
    content = path.read_bytes()
    path.write_bytes(content[:at] + noise + content[at + cut :])
    regions, message = [], "0.xml"
    try:
        regions = read_regions(path)
    except BadReferenceError as error:
        message = str(error)
    assert "0.xml" in message
    assert all(found.image_index >= 0 and (np.abs(found.pixels) < 1e6).all() for found in regions)


@pytest.mark.parametrize(
    ("roi", "message"),
    [
        (region(0, 90.0, SQUARE), "at 90.0 mm, where the series has no slice"),
        (region(0, 30.0, SQUARE, origin_mm=(-20.0, -120.0, 30.0)), "80 mm from where its pixels are"),
        (region(0, 30.0, [(13.5, 3.5), (14.5, 3.5)]), "reaches out of the 14×12 pixels"),
    ],
)
def test_region_of_another_scan_is_refused(tmp_path, roi, message):
    folder = write_gated(tmp_path, 0)
    path = write_regions(tmp_path / "0.xml", [roi])
    with pytest.raises(CTError, match=message):
        draw_regions(folder, None, read_regions(path), read_ct(folder))


def test_scans_that_are_not_gated(tmp_path):
    folder = write_nongated(tmp_path, {1: (0, 0, 0, 0, 0), 2: (0, 12.5, 0, 0, 12.5)})
    (clean, scored), warnings = find_new_scans(tmp_path)
    assert (clean.name, clean.patient, scored.annotations) == ("coca-nongated-1A", "coca-nongated-1", None)
    assert set(clean.annotations().slices.items()) == {(k, SliceLabel.NOT_VISIBLE) for k in range(6)}
    assert warnings == ["Without labels in COCA, scans that are not gated: 2A. Its score is above 0: label its slices."]
    (folder / "scores.csv").write_text("filename,total\n1A,7\n2A,0\n", encoding="utf-8")
    (scored, clean), _ = find_new_scans(tmp_path)
    assert (scored.annotations, clean.name) == (None, "coca-nongated-2A"), "a CSV takes the workbook's place"
    assert clean.annotations().slices


@pytest.mark.parametrize(
    ("table", "clean"),
    [
        ("Datei;LAD;total\n1A;3,5;7,25\n2A;0;0\n", {"2A"}),
        ("filename,LCA,LAD,total\n1A,0,0,0\n2A,0,3.5,0\n3A,,,\n,,,\n", {"1A"}),
        ('filename,total\n1A,"1,234"\n2A,0\n', set()),
        ("filename,LAD\n1A,0\n", set()),
    ],
    ids=["of a German spreadsheet", "that do not sum to their total", "that may be thousands", "without totals"],
)
def test_scans_without_calcium_by_scores(tmp_path, table, clean):
    folder = write_nongated(tmp_path, {1: (0,) * 5, 2: (0,) * 5, 3: (0,) * 5})
    (folder / "scores.csv").write_text(table, encoding="cp1252")
    scans = {scan.name.removeprefix("coca-nongated-"): scan.annotations for scan in find_new_scans(tmp_path)[0]}
    assert {name for name, annotations in scans.items() if annotations} == clean
    assert len(scans) == 3
