"""A reader's review gives the numbers of `cac score`, whatever the order of the edits."""

from dataclasses import replace

import heart_with_territories
import numpy as np
import pytest
import SimpleITK as sitk
from calcified_heart import NETWORKS, calcified_scan

from CACScoringLib import pipeline
from CACScoringLib.anatomy.arteries import ArterySuggestion, suggest_arteries
from CACScoringLib.calcium_map.decomposition import DecompositionSettings
from CACScoringLib.core.ct import MaskError
from CACScoringLib.core.labels import NOT_CORONARY, Artery, Labelled, NonCoronary
from CACScoringLib.pipeline import ScoreSettings, score_scan
from CACScoringLib.report import files as report
from CACScoringLib.results import STATUSES, categories_of
from CACScoringLib.review.review import Review, known_lesions, result_as_copied_text, review_warnings
from CACScoringLib.scoring.lesions import ScoringRules, find_lesions


@pytest.fixture(scope="module")
def scored():
    """A scan with lesions of all sizes and noise specks, its heart, and what `cac score` makes of it."""
    scan, heart = calcified_scan()
    return scan, heart, score_scan(scan, heart=heart, networks=NETWORKS)


def review_of(scored, method, known=True):
    scan, heart, result = scored
    found = result.methods[method]
    image, peaks = (scan.image, None) if method == "threshold" else (result.decomposition.calcium_map, scan.image)
    recorded = known_lesions(report.result_as_json(result, {})["methods"][method]) if known else None
    review = Review(method, image, found.rules, peaks, heart, recorded)
    set_labels(review, found.lesions.artery_map())
    return review


def labels_of(review):
    """uint8 [k, j, i]: `Artery` labels, those of rejected lesions left out."""
    labels, labelled = np.zeros(review.image.GetSize()[::-1], np.uint8), review.labelled
    labels.reshape(-1)[labelled.flat] = np.where(labelled.values == NOT_CORONARY, 0, labelled.values)
    return labels


def set_labels(review, labels):
    flat = np.flatnonzero(labels)
    return review.set_labelled(Labelled(flat, labels.reshape(-1)[flat]))


def assert_same_numbers(found, expected):
    """To the last digit. Ids may differ: a review keeps them over edits."""
    assert found.total == expected.total
    assert found.arteries == expected.arteries
    assert [replace(x, id=0) for x in found.lesions.lesions] == [replace(x, id=0) for x in expected.lesions.lesions]
    np.testing.assert_array_equal(found.lesions.artery_map(), expected.lesions.artery_map())


@pytest.mark.parametrize("method", ["threshold", "decomposition"])
class TestEqualsCacScore:
    def test_before_any_edit(self, scored, method):
        """Lesions with their ids, order, suggestions and all."""
        found, expected = review_of(scored, method).result(reviewed=False), scored[2].methods[method]
        assert expected.total.lesions > 5
        assert_same_numbers(found, expected)
        assert found.lesions.lesions == expected.lesions.lesions
        np.testing.assert_array_equal(found.lesions.id_map, expected.lesions.id_map)
        assert (found.reviewed, found.rules, found.scaled_agatston) == (False, expected.rules, expected.scaled_agatston)
        for own, theirs in zip(found.suggestions, expected.suggestions, strict=True):
            assert (own.lesion_id, own.artery) == (theirs.lesion_id, theirs.artery)
            assert own.confidence == pytest.approx(theirs.confidence, abs=5e-4)
            assert own.not_coronary_probability == pytest.approx(theirs.not_coronary_probability, abs=5e-4)

    def test_order_matters_to_the_last_digit(self, scored, method):
        """What the test above would not see if it did not: sums in another order differ."""
        lesions = scored[2].methods[method].lesions.lesions
        areas = [c.sum_hu / 3 for lesion in lesions for c in lesion.components]
        assert len({sum_plainly(areas), sum_plainly(sorted(areas)), sum_plainly(areas[::-1])}) > 1

    def test_after_random_edits(self, scored, method):
        """Found bit by bit, the same as found at once."""
        rng = np.random.default_rng(7)
        review = review_of(scored, method)
        labels = labels_of(review)
        for _ in range(25):
            edit_at_random(rng, labels)
            set_labels(review, labels.copy())
            for reviewed in (False, True):
                fresh = review_of(scored, method)
                set_labels(fresh, labels.copy())
                assert_same_numbers(review.result(reviewed), fresh.result(reviewed))
        assert len(review.result(True).lesions.lesions) > 3


def sum_plainly(numbers):
    total = 0.0
    for number in numbers:
        total += number
    return total


def edit_at_random(rng, labels):
    """Paint a box with an artery, with "not coronary" or with nothing; in one of three edits only what is labelled."""
    corner = [int(rng.integers(0, size - 6)) for size in labels.shape]
    if rng.random() < 0.7:
        filled = np.argwhere(labels)
        corner = filled[rng.integers(len(filled))] - 2
    part = tuple(slice(max(0, at), at + int(n)) for at, n in zip(corner, rng.integers(1, 7, 3), strict=True))
    label = np.uint8(rng.integers(0, NOT_CORONARY + 1))
    if rng.random() < 0.33:
        labels[part][labels[part] > 0] = label
    else:
        labels[part] = label


class TestReviewed:
    """After a review the numbers are those of `cac score --lesions` with the exported labels."""

    @pytest.fixture
    def labels(self, scored):
        labels = scored[2].methods["threshold"].lesions.artery_map()
        ids = scored[2].methods["threshold"].lesions.id_map
        for number, artery in enumerate([Artery.LM, Artery.LAD, Artery.LAD, Artery.RCA, NOT_CORONARY], start=1):
            labels[ids == number] = artery
        labels[5:9, 20:40, 20:40] = Artery.LCX  # painted with a brush, tissue and all
        return labels

    def test_threshold(self, scored, labels):
        scan, heart, _ = scored
        review = review_of(scored, "threshold")
        set_labels(review, labels)
        found = review.result(reviewed=True)
        exported = found.lesions.label_image(scan.image)
        rerun = score_scan(scan, heart=heart, lesions=exported, networks=NETWORKS)
        assert_same_numbers(found, rerun.methods["threshold"])
        assert found.suggestions == rerun.methods["threshold"].suggestions == ()
        assert categories_of(found) == rerun.categories
        assert {lesion.artery for lesion in found.lesions.lesions} >= {Artery.LM, Artery.LAD, Artery.RCA}

    def test_unassigned_and_rejected_lesions_do_not_count(self, scored, labels):
        review = review_of(scored, "threshold")
        set_labels(review, labels)
        before, after = review.result(reviewed=False), review.result(reviewed=True)
        assert Artery.UNASSIGNED in {lesion.artery for lesion in before.lesions.lesions}
        assert after.arteries[Artery.UNASSIGNED].lesions == 0
        assert after.total.lesions == before.total.lesions - before.arteries[Artery.UNASSIGNED].lesions
        rejected = labels == NOT_CORONARY
        assert rejected.any()
        assert not before.lesions.id_map[rejected].any()
        assert not labels_of(review)[rejected].any()

    def test_categories_wait_for_the_review(self, scored):
        assert categories_of(review_of(scored, "threshold").result(reviewed=False)) is None

    def test_warnings(self, scored, labels):
        scan, heart, _ = scored
        review = review_of(scored, "threshold")
        set_labels(review, labels)
        assert review_warnings(review, False, heart) == ()
        assert [w.code for w in review_warnings(review, True, heart)] == ["unassigned-left-out"]
        bright = sitk.GetArrayFromImage(scan.image)
        bright[1, 4, 4:7] = 2500
        metal = Review("threshold", sitk.GetImageFromArray(bright), ScoringRules(minimum_area_mm2=0))
        marked = np.zeros(bright.shape, np.uint8)
        marked[1, 4, 4:7] = Artery.RCA
        set_labels(metal, marked)
        assert [w.code for w in review_warnings(metal, True, heart)] == ["label-outside-heart", "metal-labelled"]


class TestIds:
    def test_a_lesion_keeps_its_id_while_its_voxels_stay(self, scored):
        review = review_of(scored, "threshold")
        before = {x.id: x.centroid_ras_mm for x in review.result(False).lesions.lesions}
        labels = labels_of(review)
        flat = review.flat_voxels([3])
        labels.reshape(-1)[flat] = 0
        set_labels(review, labels)
        after = {x.id: x.centroid_ras_mm for x in review.result(False).lesions.lesions}
        assert after == {number: place for number, place in before.items() if number != 3}
        labels.reshape(-1)[flat] = Artery.LAD
        set_labels(review, labels)
        back = {x.id: x.centroid_ras_mm for x in review.result(False).lesions.lesions}
        assert back == before

    def test_ids_are_those_of_the_run_also_where_it_left_lesions_out(self, scored):
        scan, heart, _ = scored
        limit = np.median([s.not_coronary_probability for s in scored[2].methods["decomposition"].suggestions])
        settings = ScoreSettings(decomposition=DecompositionSettings(most_not_coronary=float(limit)))
        fewer = scan, heart, score_scan(scan, settings, heart, networks=NETWORKS)
        expected = fewer[2].methods["decomposition"]
        ids = [lesion.id for lesion in expected.lesions.lesions]
        assert ids != list(range(1, len(ids) + 1))
        found = review_of(fewer, "decomposition").result(reviewed=False)
        assert found.lesions.lesions == expected.lesions.lesions
        assert_same_numbers(found, expected)

    def test_part_of_a_lesion_is_a_new_one(self, scored):
        review = review_of(scored, "threshold")
        labels, highest = labels_of(review), max(x.id for x in review.result(False).lesions.lesions)
        flat = review.flat_voxels([1])
        slices = flat // labels[0].size
        assert slices[0] < slices[-1]
        labels.reshape(-1)[flat[slices == slices[0]]] = 0
        set_labels(review, labels)
        ids = {x.id for x in review.result(False).lesions.lesions}
        assert 1 not in ids
        assert highest + 1 in ids
        shortened = labels.copy()
        labels.reshape(-1)[flat] = Artery.UNASSIGNED
        set_labels(review, labels)
        assert {x.id for x in review.result(False).lesions.lesions} == ids - {highest + 1} | {1}
        set_labels(review, shortened)
        assert {x.id for x in review.result(False).lesions.lesions} == ids


class TestSuggestions:
    def test_of_lesions_that_no_run_knew_are_by_place(self, scored):
        scan, heart, _ = scored
        found = review_of(scored, "threshold", known=False).result(reviewed=False)
        expected = suggest_arteries(found.lesions, scan.image, heart)
        assert len(expected) > 5
        for own, theirs in zip(found.suggestions, expected, strict=True):
            assert (own.lesion_id, own.artery) == (theirs.lesion_id, theirs.artery)
            assert own.confidence == pytest.approx(theirs.confidence, rel=1e-9)
            assert own.not_coronary_probability == pytest.approx(theirs.not_coronary_probability, rel=1e-9)

    def test_of_the_run_are_kept(self, scored):
        """They may rest on more than the place, which a scene does not hold."""
        review = review_of(scored, "decomposition")
        recorded = known_lesions(report.result_as_json(scored[2], {})["methods"]["decomposition"])
        key, lesion = next(iter(recorded.items()))
        recorded[key] = replace(lesion, suggestion=ArterySuggestion(lesion.id, Artery.RCA, 0.123, 0.456))
        told = Review("decomposition", review.image, review.rules, review.peaks, scored[1], recorded)
        set_labels(told, labels_of(review))
        suggestions = {s.lesion_id: s for s in told.result(False).suggestions}
        assert suggestions[lesion.id] == ArterySuggestion(lesion.id, Artery.RCA, 0.123, 0.456)

    def test_none_without_a_heart(self, scored):
        review = review_of(scored, "threshold", known=False)
        blind = Review("threshold", review.image, review.rules)
        set_labels(blind, labels_of(review))
        assert blind.result(False).suggestions == ()
        assert blind.result(False).total == review.result(False).total


class TestSlicesSwitchedOff:
    def test_their_voxels_do_not_count_and_come_back(self, scored):
        review = review_of(scored, "decomposition")
        before = review.result(False)
        k = before.lesions.lesions[0].slice_indices[1]
        review.set_slices_off([k])
        off = review.result(False)
        assert off.total.agatston < before.total.agatston
        assert not off.lesions.id_map[k].any()
        without = review_of(scored, "decomposition")
        labels = labels_of(without)
        labels[k] = 0
        set_labels(without, labels)
        assert_same_numbers(off, without.result(False))
        np.testing.assert_array_equal(labels_of(review), scored[2].methods["decomposition"].lesions.artery_map())
        review.set_slices_off([])
        assert_same_numbers(review.result(False), before)


class TestLookingUp:
    def test_voxels_of_lesions(self, scored):
        review = review_of(scored, "threshold")
        found = review.result(reviewed=False)
        for lesion in found.lesions.lesions:
            expected = np.flatnonzero(found.lesions.id_map == lesion.id)
            np.testing.assert_array_equal(review.flat_voxels([lesion.id]), expected)
        ids = [lesion.id for lesion in found.lesions.lesions[:2]]
        np.testing.assert_array_equal(review.flat_voxels(ids), np.flatnonzero(np.isin(found.lesions.id_map, ids)))

    def test_centre_lies_in_the_lesion(self, scored):
        """The centre of mass of a ring does not."""
        hu = np.full((3, 12, 12), 40, np.int16)
        hu[1, 2:9, 2:9] = 300
        hu[1, 3:8, 3:8] = 40
        review = Review("threshold", sitk.GetImageFromArray(hu), ScoringRules())
        set_labels(review, (hu > 130).astype(np.uint8))
        centre = review.centre_of(1)
        assert hu[centre] == 300
        assert np.abs(np.array(centre) - (1, 5, 5)).max() == 3

    def test_lesion_that_is_gone(self, scored):
        review = review_of(scored, "threshold")
        with pytest.raises(MaskError, match="no lesion 999"):
            review.flat_voxels([1, 999])


class TestLabels:
    def test_what_changed_is_told(self, scored):
        review = review_of(scored, "threshold")
        labels = labels_of(review)
        labels[4, 5, 6], labels.reshape(-1)[review.flat_voxels([1])] = Artery.RCA, NOT_CORONARY
        before = labels_of(review)
        difference = set_labels(review, labels)
        dense = before.copy()
        dense.reshape(-1)[difference.flat] = difference.after
        np.testing.assert_array_equal(dense, labels)
        np.testing.assert_array_equal(before.reshape(-1)[difference.flat], difference.before)
        assert not set_labels(review, labels).flat.size

    def test_of_no_site(self, scored):
        review = review_of(scored, "threshold")
        labels = labels_of(review)
        labels[0, 0, 0] = 12
        with pytest.raises(MaskError, match="is 12"):
            set_labels(review, labels)

    def test_nothing_labelled(self, scored):
        review = review_of(scored, "threshold")
        set_labels(review, np.zeros_like(labels_of(review)))
        assert review.result(True).total.agatston == 0
        assert review.result(False).lesions.lesions == ()


def test_copied_text_is_a_table(scored):
    methods = scored[2].methods
    lines = [line.split("\t") for line in result_as_copied_text(methods).splitlines()]
    assert {len(line) for line in lines} == {9}
    assert len(lines) == 1 + 2 * 7
    totals = [line for line in lines if line[1] == "total"]
    assert [float(line[3]) for line in totals] == [pytest.approx(m.total.agatston, abs=1e-3) for m in methods.values()]
    assert totals[0][5] == ""  # no mass without a calibration
    assert totals[0][8] == STATUSES["candidates"]


def test_the_fixture_is_hard_enough(scored):
    """Lesions of several slices and components that touch others, specks too small to count, and some left alone."""
    scan, heart, result = scored
    lesions = result.methods["threshold"].lesions.lesions
    assert any(len(lesion.components) > len(lesion.slice_indices) for lesion in lesions)
    everything = (sitk.GetArrayFromImage(heart) > 0).astype(np.uint8)
    specks = find_lesions(scan.image, everything, ScoringRules(minimum_area_mm2=0))
    assert len(specks.lesions) > len(lesions)


@pytest.fixture(scope="module")
def scored_by_territories():
    """The same scan with territories: strips of arteries and valves."""
    scan, heart = calcified_scan()
    names = {"LAD": slice(0, 40), "RCA": slice(40, 56), "aortic valve and root": slice(56, 66)}
    strips = {name: (slice(None), slice(None), part) for name, part in names.items()}
    strips["mitral annulus"] = (slice(None), slice(None), slice(66, None))
    region = heart_with_territories.region_of(scan.image, strips, heart)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "find_heart", lambda *_: region)
        return scan, heart, score_scan(scan, networks=NETWORKS)


def review_with_sites(scored, method):
    scan, heart, result = scored
    found, content = result.methods[method], report.result_as_json(result, {})
    image, peaks = (scan.image, None) if method == "threshold" else (result.decomposition.calcium_map, scan.image)
    elsewhere = content["non_coronary"] if method == "threshold" else None
    known = known_lesions(content["methods"][method], elsewhere)
    review = Review(method, image, found.rules, peaks, heart, known, by_territory=True)
    labels = report.site_labels(result) if method == "threshold" else found.lesions.label_image(scan.image)
    set_labels(review, sitk.GetArrayFromImage(labels))
    return review


class TestSites:
    """Calcium outside the coronary arteries is counted apart, and can be moved there and back."""

    @pytest.mark.parametrize("method", ["threshold", "decomposition"])
    def test_before_any_edit(self, scored_by_territories, method):
        expected = scored_by_territories[2].methods[method]
        review = review_with_sites(scored_by_territories, method)
        found = review.result(reviewed=False)
        assert {lesion.artery for lesion in expected.lesions.lesions} == {Artery.LAD, Artery.RCA}
        assert_same_numbers(found, expected)
        assert found.lesions.lesions == expected.lesions.lesions

    def test_numbers_elsewhere_are_those_of_cac_score(self, scored_by_territories):
        review, expected = review_with_sites(scored_by_territories, "threshold"), scored_by_territories[2].non_coronary
        found = review.non_coronary(reviewed=False)
        assert expected.scores[NonCoronary.AORTIC_VALVE].lesions
        assert expected.scores[NonCoronary.MITRAL_ANNULUS].lesions
        assert (found.scores, found.lesions.lesions) == (expected.scores, expected.lesions.lesions)
        np.testing.assert_array_equal(found.lesions.id_map, expected.lesions.id_map)
        every = review.lesions(reviewed=False)
        assert len(every.lesions) == len(expected.lesions.lesions) + review.result(reviewed=False).total.lesions

    @pytest.mark.parametrize("method", ["threshold", "decomposition"])
    def test_a_lesion_moves_to_a_site_and_back(self, scored_by_territories, method):
        review = review_with_sites(scored_by_territories, method)
        before, labels = review.result(reviewed=False), labels_of(review)
        lesion = before.lesions.lesions[0]
        sites_before = review.non_coronary(reviewed=False).scores
        flat = review.flat_voxels([lesion.id])
        moved = labels.copy()
        moved.reshape(-1)[flat] = NonCoronary.THORACIC_AORTA
        set_labels(review, moved)
        after, sites = review.result(reviewed=True), review.non_coronary(reviewed=True)
        assert after.total.lesions == before.total.lesions - 1
        assert after.total.agatston < before.total.agatston
        assert [x.id for x in sites.lesions.lesions if x.artery == NonCoronary.THORACIC_AORTA] == [lesion.id]
        assert sites.reviewed
        np.testing.assert_array_equal(review.flat_voxels([lesion.id]), flat)
        set_labels(review, labels)
        assert_same_numbers(review.result(reviewed=False), before)
        assert review.non_coronary(reviewed=False).scores == sites_before

    def test_the_runs_site_is_a_suggestion_until_a_reader_gives_another(self, scored_by_territories):
        review = review_with_sites(scored_by_territories, "threshold")
        lesions, labels = review.lesions(reviewed=False).lesions, labels_of(review)
        assert {lesion.artery for lesion in lesions} >= {Artery.LAD, NonCoronary.AORTIC_VALVE}
        assert all(review.suggested_site(lesion) == lesion.artery for lesion in lesions)
        flat = review.flat_voxels([lesions[0].id])
        labels.reshape(-1)[flat] = NonCoronary.THORACIC_AORTA
        set_labels(review, labels)
        other = {x.id: review.suggested_site(x) for x in review.lesions(reviewed=False).lesions}
        assert other.pop(lesions[0].id) is None
        assert all(other.values())
        labels.reshape(-1)[flat] = Artery.UNASSIGNED
        set_labels(review, labels)
        again = next(x for x in review.lesions(reviewed=False).lesions if x.id == lesions[0].id)
        assert review.suggested_site(again) == lesions[0].artery
        assert not any(map(review.suggested_site, review.lesions(reviewed=True).lesions))

    def test_nothing_is_a_suggestion_of_a_run_with_a_readers_labels(self, scored_by_territories):
        scan, heart, result = scored_by_territories
        labels = result.methods["threshold"].lesions.label_image(scan.image)
        again = score_scan(scan, heart=heart, lesions=labels)
        review = review_with_sites((scan, heart, again), "threshold")
        assert review.lesions(reviewed=False).lesions
        assert not any(map(review.suggested_site, review.lesions(reviewed=False).lesions))

    def test_what_was_rejected_is_of_no_site(self, scored_by_territories):
        review = review_with_sites(scored_by_territories, "threshold")
        lesion = review.non_coronary(reviewed=False).lesions.lesions[0]
        before = review.non_coronary(reviewed=False).scores[lesion.artery].lesions
        flat = review.flat_voxels([lesion.id])
        values = review.labelled.values.copy()
        values[np.isin(review.labelled.flat, flat)] = NOT_CORONARY
        review.set_labelled(Labelled(review.labelled.flat, values))
        assert review.non_coronary(reviewed=False).scores[lesion.artery].lesions == before - 1
        assert lesion.id not in [x.id for x in review.lesions(reviewed=False).lesions]

    def test_sites_are_copied_below_the_methods(self, scored_by_territories):
        result = scored_by_territories[2]
        rows = result_as_copied_text(result.methods, result.non_coronary).splitlines()
        valve = result.non_coronary.scores[NonCoronary.AORTIC_VALVE]
        cells = next(row for row in rows if "aortic valve" in row).split("\t")
        assert cells[:4] == [
            "Outside the coronary arteries",
            "aortic valve and root",
            str(valve.lesions),
            f"{valve.agatston:.3f}",
        ]
        assert cells[-1] == "not reviewed"
        assert len(rows) == len(result_as_copied_text(result.methods).splitlines()) + 4
