"""A lesion of the calcium map that joins two clinical lesions follows what is decided about each of them."""

import numpy as np
import panel_results
import pytest
from scene_edits import paint

from CACScoringLib.core.files import OutputFolder
from CACScoringLib.core.grid import Grid
from CACScoringLib.core.labels import NOT_CORONARY, Artery
from CACScoringLib.core.progress import Progress
from CACScoringLib.review.scan_review import ScanReview
from CACScoringLib.review.state import ReviewFolder
from CACScoringLib.run import RunSettings, write_result

PLACES = tuple((slice(12, 14), slice(26, 29), slice(start, start + 3)) for start in (38, 44))
"""Boxes [k, j, i] of two calcifications, with a faint one of the same size between them."""


@pytest.fixture(scope="module")
def joined():
    chest = panel_results.chest_image()
    hu = panel_results.sitk.GetArrayFromImage(chest)
    hu[12:14, 26:29, 38:47] = 350
    hu[12:14, 26:29, 41:44] = 120
    return panel_results.scored(Grid.of(chest).image(hu))


@pytest.fixture(params=["scene", "folder"])
def review(request, joined, opened, tmp_path):
    """The panel keeps a review in a scene, the browser in memory."""
    if request.param == "scene":
        review = opened(joined)
    else:
        write_result(OutputFolder(tmp_path / "result", overwrite=True), joined, RunSettings(), Progress())
        review = ScanReview(ReviewFolder(tmp_path / "result", joined.scan))
    for lesion in review.lesions("threshold"):
        review.assign("threshold", [lesion.id], Artery.LAD)
    assert len({lesion_at(review, "threshold", place) for place in PLACES}) == 2
    assert len({lesion_at(review, "decomposition", place) for place in PLACES}) == 1
    return review


def lesion_at(review, method, place):
    """ID of a method's only lesion at a box."""
    (number,) = review.review(method).lesions_at(flat_voxels(review, place))
    return number


def flat_voxels(review, place):
    mask = np.zeros(review.scan.hu.shape, bool)
    mask[place] = True
    return np.flatnonzero(mask)


def labels(review):
    """Labels of the map in the slice of the calcifications, from one to the other."""
    volume = np.zeros(review.scan.hu.shape, np.uint8)
    labelled = review.review("decomposition").labelled
    volume.reshape(-1)[labelled.flat] = labelled.values
    return volume[12, 27, 38:47].tolist()


LAD, LCX, NONE = int(Artery.LAD), int(Artery.LCX), NOT_CORONARY


def test_a_rejected_lesion_takes_its_part_of_the_map_along(review):
    first, second = (lesion_at(review, "threshold", place) for place in PLACES)
    before = review.result("decomposition").total.agatston
    assert labels(review) == [LAD] * 9
    review.reject("threshold", [first])
    assert labels(review)[:4] == [NONE] * 4, "nearer to the rejected lesion"
    assert labels(review)[5:] == [LAD] * 4
    assert 0 < review.result("decomposition").total.agatston < before
    review.assign("threshold", [second], Artery.LCX)
    assert (labels(review)[:4], labels(review)[5:]) == ([NONE] * 4, [LCX] * 4)
    review.assign("threshold", [first], Artery.LAD)
    assert (labels(review)[:4], labels(review)[5:]) == ([LAD] * 4, [LCX] * 4), "taken back"
    for _ in range(3):
        assert review.undo()
    assert labels(review) == [LAD] * 9, "one step each"
    assert review.result("decomposition").total.agatston == before


def test_both_rejected_leave_nothing_of_the_map(review):
    for place in PLACES:
        review.reject("threshold", [lesion_at(review, "threshold", place)])
    assert labels(review) == [NONE] * 9
    review.assign("threshold", [lesion_at_rejected(review, PLACES[1])], Artery.LAD)
    assert (labels(review)[:4], labels(review)[5:]) == ([NONE] * 4, [LAD] * 4)


def lesion_at_rejected(review, place):
    voxels = review.review("threshold").rejected().voxels
    (number,) = np.unique(voxels.ids[np.isin(voxels.flat, flat_voxels(review, place))]).tolist()
    return number


def test_what_was_decided_otherwise_about_the_map_stays(review):
    review.assign("decomposition", [lesion_at(review, "decomposition", PLACES[0])], Artery.RCA)
    review.reject("threshold", [lesion_at(review, "threshold", PLACES[0])])
    assert labels(review) == [int(Artery.RCA)] * 9


def test_the_eraser_decides_nothing(review):
    review.give("threshold", flat_voxels(review, PLACES[0]), 0)
    assert labels(review) == [LAD] * 9


def test_the_map_follows_edits_by_slicers_segment_editor(joined, opened):
    review = opened(joined)
    numbers = [lesion_at(review, "threshold", place) for place in PLACES]
    review.assign("threshold", numbers, Artery.LAD)
    segment_ids = review.nodes.calcium.GetSegmentation().GetSegmentIDs()
    rejected = next(n for n in segment_ids if n.startswith("not-coronary"))
    paint(review, rejected, PLACES[1])
    assert review.refresh()
    assert (labels(review)[:4], labels(review)[5:]) == ([LAD] * 4, [NONE] * 4)
    review.undo()
    assert labels(review) == [LAD] * 9


def test_labels_that_a_review_begins_with_decide_nothing(review):
    labelled = review.review("threshold").labelled
    review.give_all("threshold", labelled.where(~np.isin(labelled.flat, flat_voxels(review, PLACES[0]))))
    assert labels(review) == [LAD] * 9
