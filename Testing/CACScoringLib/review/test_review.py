"""A reader's review of a method gives the numbers of `cac score`, whatever the order of the edits."""

from dataclasses import replace

import heart_with_territories
import numpy as np
import pytest
import SimpleITK as sitk
from calcified_heart import NETWORKS, calcified_scan

from CACScoringLib.anatomy.heart_region import HeartRegion
from CACScoringLib.core.acquisition import Acquisition
from CACScoringLib.core.ct import CTScan
from CACScoringLib.core.errors import MaskError
from CACScoringLib.core.labels import NOT_CORONARY, Artery, Labelled, NonCoronary
from CACScoringLib.facts.measurement import ScanFacts
from CACScoringLib.pipeline import score_scan
from CACScoringLib.record.rules import ScoringRules
from CACScoringLib.record.scores import LEFT_OUT
from CACScoringLib.report import files as report
from CACScoringLib.review.review import Review

SOURCE = Acquisition("memory")


def review_of(result, method, recorded=True, moved_mm=0.0):
    """Review a method. moved_mm: How much higher the run's lesions lie in their file."""
    scored_method = result.methods[method]
    calcium_map = None if method == "threshold" else result.decomposition.image()
    places = [(x, x.centroid_ras_mm) for x in scored_method.table.lesions]
    lesions = [replace(x, centroid_ras_mm=(r, a, s + moved_mm)) for x, (r, a, s) in places] if recorded else ()
    of_reader = (Artery,) if scored_method.reviewed else ()
    facts = ScanFacts(result.scan, HeartRegion(result.region.mask, None, "given"))
    review = Review(method, facts, scored_method.rules, calcium_map, lesions, of_reader)
    of_map = scored_method.lesion_set.label_image(result.scan.image)
    labels = report.site_labels(result) if method == "threshold" else of_map
    set_labels(review, sitk.GetArrayFromImage(labels))
    return review


def labels_of(review):
    """uint8 [k, j, i]: `Artery` labels, those of rejected lesions left out."""
    labels, labelled = np.zeros(review.image.GetSize()[::-1], np.uint8), review.labelled
    labels.reshape(-1)[labelled.flat] = np.where(labelled.values == NOT_CORONARY, 0, labelled.values)
    return labels


def set_labels(review, labels):
    flat = np.flatnonzero(labels)
    return review.set_labelled(Labelled(flat, labels.reshape(-1)[flat]))


def give(review, lesion_id, label):
    """Give a lesion to a label; returns its voxels."""
    labels, flat = labels_of(review), review.flat_voxels([lesion_id])
    labels.reshape(-1)[flat] = label
    set_labels(review, labels)
    return flat


def assert_same_numbers(result, expected):
    """To the last digit. Ids may differ: a review keeps them over edits."""
    assert result.total == expected.total
    assert result.arteries == expected.arteries
    assert [replace(x, id=0) for x in result.lesions] == [replace(x, id=0) for x in expected.lesions]
    np.testing.assert_array_equal(result.lesion_set.site_map(), expected.lesion_set.site_map())


@pytest.mark.parametrize("method", ["threshold", "decomposition"])
def test_labels_reached_by_many_edits_count_as_when_given_at_once(scored, method):
    """Boxes about labelled voxels are painted with an artery, with "not coronary" or with nothing."""
    rng = np.random.default_rng(7)
    review = review_of(scored, method)
    labels = labels_of(review)
    for _ in range(8):
        places = np.argwhere(labels)
        corner = places[rng.integers(len(places))] - 2
        part = tuple(slice(max(0, at), at + int(n)) for at, n in zip(corner, rng.integers(1, 7, 3), strict=True))
        labels[part] = np.uint8(rng.integers(0, NOT_CORONARY + 1))
        set_labels(review, labels.copy())
    for review.reviewed in (False, True):
        fresh = review_of(scored, method)
        set_labels(fresh, labels.copy())
        fresh.reviewed = review.reviewed
        assert_same_numbers(review.result(), fresh.result())
    assert len(review.result().lesions) > 2


def test_warnings_of_a_review(scored):
    review = review_of(scored, "threshold")
    assert review.warnings() == []
    review.reviewed = True
    assert [w.code for w in review.warnings()] == ["unassigned-left-out"]
    bright = scored.scan.hu.copy()
    bright[1, 4, 4:7] = 2500
    facts = ScanFacts(CTScan(sitk.GetImageFromArray(bright), SOURCE), review.facts.region)
    metal = Review("threshold", facts, ScoringRules(minimum_area_mm2=0))
    metal.reviewed = True
    marked = np.zeros(bright.shape, np.uint8)
    assert metal.warnings() == []
    marked[1, 4, 4:7] = Artery.RCA
    set_labels(metal, marked)
    assert [w.code for w in metal.warnings()] == ["label-outside-heart", "possible-metal"]


def test_a_lesion_keeps_its_id_while_its_voxels_stay(scored):
    review = review_of(scored, "threshold")
    before = {x.id: x.centroid_ras_mm for x in review.table.lesions}
    flat = give(review, 3, 0)
    assert {x.id for x in review.table.lesions} == before.keys() - {3}
    labels = labels_of(review)
    labels.reshape(-1)[flat] = Artery.LAD
    set_labels(review, labels)
    assert {x.id: x.centroid_ras_mm for x in review.table.lesions} == before


@pytest.mark.parametrize("error_mm", [-1e-6, 1e-6])
def test_ids_do_not_depend_on_the_last_digits_of_a_stored_position(scored, error_mm):
    image, to_edge_mm = sitk.Image(scored.scan.image), 0.00685841  # of 0.01 mm, less π / 1000
    x, y, z = image.GetOrigin()
    image.SetOrigin((x, y, z + to_edge_mm))
    moved = replace(scored, scan=replace(scored.scan, image=image))
    for method, score in scored.methods.items():
        review = review_of(moved, method, moved_mm=to_edge_mm + error_mm)
        assert list(review.table.ids) == list(score.table.ids)


def test_lesions_that_no_run_knew_have_no_suggestion(scored):
    review = review_of(scored, "threshold", recorded=False)
    assert len(review.result().lesions) > 5
    assert [lesion.verdict for lesion in review.result().lesions if lesion.verdict] == []
    assert not any(map(review.suggested_site, review.table.lesions))


def test_unassigned_ones_beside_an_automatic_score_are_left_out(scored):
    review = review_of(scored, "threshold", recorded=False)
    review.unreviewed = "automatic"
    left_out = review.table.of_status(LEFT_OUT).lesions
    assert len(left_out) > 5
    for lesion in left_out:
        assert (lesion.verdict.artery, lesion.verdict.counts) == (Artery.UNASSIGNED, False)
        assert lesion.verdict.reason == "not assigned to an artery"


def test_the_centre_of_a_ring_lies_in_the_ring():
    hu = np.full((3, 12, 12), 40, np.int16)
    hu[1, 2:9, 2:9] = 300
    hu[1, 3:8, 3:8] = 40
    facts = ScanFacts(CTScan(sitk.GetImageFromArray(hu), SOURCE), HeartRegion(hu > 0, None, "given"))
    review = Review("threshold", facts, ScoringRules())
    set_labels(review, (hu > 130).astype(np.uint8))
    centre = review.centre_of(1)
    assert hu[centre] == 300
    assert np.abs(np.array(centre) - (1, 5, 5)).max() == 3


def test_a_label_of_no_site_is_refused(scored):
    labels = np.zeros(scored.scan.hu.shape, np.uint8)
    labels[0, 0, 0] = 12
    with pytest.raises(MaskError, match="is 12"):
        set_labels(review_of(scored, "threshold"), labels)


@pytest.fixture(scope="module")
def with_territories():
    """The same scan with territories: strips of arteries and valves."""
    scan, heart = calcified_scan()
    names = {"LAD": slice(0, 40), "RCA": slice(40, 56), "aortic valve and root": slice(56, 66)}
    strips = {name: (slice(None), slice(None), part) for name, part in names.items()}
    strips["mitral annulus"] = (slice(None), slice(None), slice(66, None))
    region = heart_with_territories.region_of(scan.image, strips, heart)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("CACScoringLib.anatomy.heart_search.find_heart", lambda *_: region)
        return score_scan(scan, networks=NETWORKS)


def test_the_runs_site_is_a_suggestion_until_a_reader_gives_another(with_territories):
    review = review_of(with_territories, "threshold")
    lesions = review.table.lesions
    assert all(review.suggested_site(lesion) == lesion.site for lesion in lesions)
    give(review, lesions[0].id, NonCoronary.THORACIC_AORTA)
    suggestions = {x.id: review.suggested_site(x) for x in review.table.lesions}
    assert suggestions.pop(lesions[0].id) is None
    assert all(suggestions.values())
    give(review, lesions[0].id, Artery.UNASSIGNED)
    again = next(x for x in review.table.lesions if x.id == lesions[0].id)
    assert review.suggested_site(again) == lesions[0].site
    review.reviewed = True
    assert not any(map(review.suggested_site, review.table.lesions))


def test_nothing_is_a_suggestion_of_a_run_with_a_readers_labels(with_territories):
    scan, heart = calcified_scan()
    labels = with_territories.methods["threshold"].lesion_set.label_image(scan.image)
    review = review_of(score_scan(scan, heart=heart, lesions=labels), "threshold")
    assert review.table.lesions
    assert not any(map(review.suggested_site, review.table.lesions))


@pytest.mark.parametrize(
    ("of_reader", "knows_elsewhere", "is_reviewed"),
    [((), True, True), ((Artery,), True, False), ((Artery, NonCoronary), True, True), ((Artery,), False, True)],
)
def test_labels_of_arteries_alone_leave_other_sites_unreviewed(scored, of_reader, knows_elsewhere, is_reviewed):
    """A run that separated no calcium elsewhere leaves all of it to the reader."""
    review = review_of(scored, "threshold")
    review.of_reader, review.knows_elsewhere, review.reviewed = of_reader, knows_elsewhere, True
    assert (review.result().non_coronary is None) == (not knows_elsewhere)
    give(review, review.table.ids[0], NonCoronary.AORTIC_VALVE)
    assert review.result().non_coronary.reviewed == is_reviewed
