"""A score of 0 can be checked by its page: the heart in three planes, and what was left out."""

import io
import re
from dataclasses import replace

import heart_with_territories
import numpy as np
import pytest
from made_results import make_result
from negative_result import make_negative
from PIL import Image

from CACScoringLib.anatomy.courses import artery_courses
from CACScoringLib.core.grid import Grid
from CACScoringLib.core.labels import HEART_COLOUR
from CACScoringLib.report.page import largest_pictures, result_as_html
from CACScoringLib.report.pictures import left_out_pictures, plane_pictures
from CACScoringLib.scoring.doubt import left_out_candidates
from CACScoringLib.scoring.scores import method_score


def test_candidates_left_out_stand_open_with_reason_and_picture():
    html = result_as_html(make_negative((0.2, 0.01, 0.05)))
    assert '<details class="section listed" open>' in html
    captions = re.findall(r"<figcaption>Left out: ([^<]*)</figcaption>", html)
    assert [caption.split(": ")[-1] for caption in captions] == [f"because of {hu} HU" for hu in (210, 210, 450, 310)]
    assert "probability 20%" in captions[0]


def test_candidates_left_out_are_ordered_by_the_score_at_stake():
    result = make_negative((0.2, 0.1, 0.15))
    candidates = left_out_candidates(result.methods["threshold"])
    assert [lesion.peak_hu for lesion, _ in candidates] == [450, 210, 310]
    assert [lesion.agatston for lesion, _ in candidates] == pytest.approx([16, 8, 12])
    assert len(left_out_pictures(result, 2)) == 2


def test_each_plane_shows_the_outlined_heart_and_its_surroundings():
    axial, *upright = plane_pictures(make_result(no_calcium=True))
    for picture, height_mm, heart_mm in ((axial, 50, (34, 34)), *((picture, 30, (24, 34)) for picture in upright)):
        drawn = np.asarray(Image.open(io.BytesIO(picture.jpeg))).astype(int)
        height, width, _ = drawn.shape
        assert height / width == pytest.approx(height_mm / 50, rel=0.01)
        outline = np.abs(drawn - HEART_COLOUR).max(2) < 30
        outline &= drawn[..., 2] - drawn[..., 0] > 15
        rows, columns = np.nonzero(outline)
        extent_mm = np.array((np.ptp(rows), np.ptp(columns))) * height_mm / height
        assert extent_mm == pytest.approx(heart_mm, abs=1.5)


def test_pictures_of_coronal_and_sagittal_slices_have_the_feet_below():
    result = make_result(no_calcium=True)
    values = result.scan.hu.copy()
    values[:5] = -150
    image = Grid.of(result.scan.image).image(values.astype(np.int16))
    for picture in plane_pictures(replace(result, scan=replace(result.scan, image=image)))[1:]:
        grey = np.asarray(Image.open(io.BytesIO(picture.jpeg))).astype(int).mean((1, 2))
        assert grey[: len(grey) // 2].mean() > 2 * grey[len(grey) // 2 :].mean()


@pytest.mark.parametrize("part", [0.05, 0.5, 0.95])
def test_a_zero_shows_each_artery_along_its_course(part):
    """Calcium anywhere along the course is in the picture of its artery."""
    result = heart_with_territories.score()
    method = result.methods["threshold"]
    empty = method_score(method.status, method.rules, method.table.part([]))
    courses = artery_courses(result.territory_labels, result.scan.image.GetSpacing())
    artery, course = next(iter(courses.items()))
    along = (course.distances_mm >= course.first_mm) & (course.distances_mm <= course.last_mm)
    places = np.rint(course.places_mm[along] / (3, 1, 1)).astype(int)
    hu = np.full(result.scan.hu.shape, 40, np.int16)
    order = np.argsort(course.distances_mm[along])
    hu[tuple(places[order[int(part * len(order))]])] = 1000
    scan = replace(result.scan, image=Grid.of(result.scan.image).image(hu))
    zero = replace(result.stating(methods={"threshold": empty}), scan=scan)
    drawn = {p.caption.split()[0]: p for p in largest_pictures(zero) if p.wide}
    assert set(drawn) == {key.key for key in courses}
    assert np.asarray(Image.open(io.BytesIO(drawn[artery.key].jpeg)).convert("L")).max() > 150
