"""Verdicts on changes of calcium by hand-made limits, and every reason to give none."""

import copy
import json
from dataclasses import asdict

import pytest
from whole_records import MEASURED, record_of

from CACScoringLib.core.ct import CTError, UnreadableError
from CACScoringLib.models.cards import ModelError
from CACScoringLib.quality.calibration import Repeatability
from CACScoringLib.record.reading import is_result, read_result
from CACScoringLib.report.page import (
    comparison_as_page,
    comparison_as_text,
)
from CACScoringLib.scoring.comparison import (
    CHANGED,
    UNKNOWN,
    WITHIN,
    Change,
    _evaluated,
    comparison_as_json,
)
from CACScoringLib.scoring.comparison import compare as compare_records
from CACScoringLib.scoring.rules import ScoringRules

MODELS = {"heart": "aa", "slices": "bb", "decomposition": "cc"}
SETTINGS = {"slice_threshold": 0.2, "floor_hu": 40.0, "batch_size": 8}
RULES = json.loads(json.dumps(asdict(ScoringRules())))
TOTAL_LIMITS = {"intercept": 10.0, "slope": 0.1, "factor": 2.0, "pairs": 200, "highest": 1000.0}
ARTERY_LIMITS = {"intercept": 5.0, "slope": 0.1, "factor": 2.0, "pairs": 400, "highest": 500.0}


def score(agatston, scale=1.0):
    clinical = scale * agatston
    counted = {"pseudo_mass_hu_mm3": 10 * agatston, "lesions": int(agatston > 0)}
    return {"agatston": agatston, "clinical_agatston": clinical, **counted}


def method(lad, rca=0.0, reviewed=False, scale=1.0):
    scores = [score(agatston, scale) for agatston in (0.0, lad, 0.0, rca, lad + rca)]
    arteries = dict(zip(("LM", "LAD", "LCX", "RCA"), scores, strict=False))
    status = "reviewed" if reviewed else "automatic" if scale != 1 else "candidates"
    about = {"status": status, "reviewed": reviewed, "agatston_scale": None}
    return {**about, "total": scores[-1], "arteries": arteries}


def content(lad=100.0, rca=0.0):
    """`scores.json` of a reviewed clinical score, and an unreviewed map that holds ten times as much."""
    return {
        "schema": "cac-score/1",
        "input": {"name": "scan", "size": [512, 512, 60], "spacing_mm": [0.7, 0.7, 3.0]},
        "acquisition": {
            "file_format": "DICOM",
            "kvp": 120.0,
            "kernel": "B31f",
            "slice_thickness_mm": 3.0,
            "contrast_agent": None,
            "gating": None,
            "scanner_model": "One",
            "exposure_mas": 50.0,
            "patient_sex": "F",
        },
        "measured": MEASURED,
        "heart": {"source": "heart-net"},
        "warnings": [],
        "rules": {"threshold": RULES, "decomposition": RULES},
        "models": [{"name": f"{network}-net", "network": network, "sha256": sha} for network, sha in MODELS.items()],
        "methods": {
            "threshold": method(lad, rca, reviewed=True),
            "decomposition": method(10 * lad, 10 * rca, scale=0.1),
        },
        "slices_by_reader": {},
        "decomposition_settings": SETTINGS,
    }


def stored(**changes):
    parts = {"total": TOTAL_LIMITS, "artery": ARTERY_LIMITS}
    mass = {part: {**limits, "highest": 1e6} for part, limits in parts.items()}
    return {
        "digital": True,
        "data": "200 digital patients",
        "date": "2026-01-01",
        "models": MODELS,
        "settings": SETTINGS,
        "acquisition": {"kvp": [120, 120], "slice_thickness_mm": [3, 3], "slice_spacing_mm": [3, 3]},
        "limits": {name: {"agatston": parts, "pseudo_mass_hu_mm3": mass} for name in ("threshold", "decomposition")},
        **changes,
    }


LIMITS = Repeatability.of(stored())


def compare(earlier, later, limits):
    """Compare the content of two results."""
    return compare_records(record_of(earlier), record_of(later), limits)


def changes(comparison, name="threshold", quantity="agatston"):
    method = next(m for m in comparison.methods if m.method == name)
    return {change.part: change for change in method.changes if change.quantity == quantity}


def bars(comparison, name):
    return next(m for m in comparison.methods if m.method == name).bars


def codes(comparison):
    return {warning.code for warning in comparison.warnings}


class TestVerdict:
    @pytest.mark.parametrize(("later", "verdict"), [(144.0, WITHIN), (145.0, CHANGED), (66.0, WITHIN), (60.0, CHANGED)])
    def test_total_by_hand(self, later, verdict):
        """From 100: limit 2 · (10 + 0.1 · mean), so 44.4 at 144 and 44.5 at 145; 36.6 at 66 and 36.0 at 60."""
        total = changes(compare(content(), content(later), LIMITS))["total"]
        assert total.verdict == verdict
        assert total.difference == later - 100
        assert total.limit == pytest.approx(20 + 0.1 * (100 + later))

    @pytest.mark.parametrize(
        ("earlier", "later", "verdict"),
        [
            (10.0, 0.0, UNKNOWN),  # limit 21, of a mean of 5
            (0.0, 0.0, WITHIN),
            (100.0, 140.0, WITHIN),
            (20.0, 0.0, UNKNOWN),  # limit 22 of a largest difference of 20
            (25.0, 0.0, CHANGED),  # limit 22.5
            (1000.0, 1000.0, WITHIN),  # the highest of the study
            (1000.0, 1001.0, UNKNOWN),
        ],
    )
    def test_limits_at_their_ends(self, earlier, later, verdict):
        assert changes(compare(content(earlier), content(later), LIMITS))["total"].verdict == verdict

    @pytest.mark.parametrize(("later", "verdict"), [(40.0, WITHIN), (40.1, CHANGED)])
    def test_a_difference_of_the_limit_is_no_change(self, later, verdict):
        """A limit of 20 whatever the mean."""
        limits = stored()["limits"]
        limits["threshold"]["agatston"] = {"total": {**TOTAL_LIMITS, "slope": 0.0}, "artery": ARTERY_LIMITS}
        repeatability = Repeatability.of(stored(limits=limits))
        assert changes(compare(content(20.0), content(later), repeatability))["total"].verdict == verdict

    def test_arteries_have_limits_of_their_own(self):
        by_part = changes(compare(content(100, 0), content(100, 40), LIMITS))
        assert by_part["RCA"].limit == pytest.approx(14)
        assert by_part["RCA"].verdict == CHANGED
        assert by_part["LAD"].verdict == WITHIN
        assert by_part["total"].verdict == WITHIN

    def test_adjusted_scores_are_compared_on_the_clinical_scale(self):
        total = changes(compare(content(), content(150), LIMITS), "decomposition")["total"]
        assert (total.earlier, total.later) == (100, pytest.approx(150))
        mass = changes(compare(content(), content(150), LIMITS), "decomposition", "pseudo_mass_hu_mm3")["total"]
        assert (mass.earlier, mass.later) == (10000, 15000)

    def test_no_word_where_every_difference_would_repeat(self):
        """The mean of 4 and 12 is 8: the limit is 21.6, and no difference of such scores exceeds 16."""
        total = changes(compare(content(4), content(12), LIMITS))["total"]
        assert (total.verdict, total.limit) == (UNKNOWN, pytest.approx(21.6))
        assert "exceed the limit" in total.text

    def test_no_word_beyond_the_study(self):
        total = changes(compare(content(900), content(1200), LIMITS))["total"]
        assert (total.verdict, total.limit) == (UNKNOWN, None)
        assert "up to 1,000" in total.text


def altered(**sections):
    """Return the content with some sections changed; values that are no dictionaries replace them."""
    result = content()
    for section, values in sections.items():
        result[section] = result[section] | values if isinstance(values, dict) else values
    return result


class TestReasons:
    """Why nothing can be said; the later scan differs from the earlier one in one thing."""

    @pytest.mark.parametrize(
        ("later", "word"),
        [
            (altered(acquisition={"kernel": "B70f"}), "kernels"),
            (altered(acquisition={"kvp": 100.0}), "tube voltages"),
            (altered(acquisition={"slice_thickness_mm": 1.0}), "thicknesses"),
            (altered(input={"spacing_mm": [0.7, 0.7, 1.5]}), "spacings"),
            (
                altered(acquisition={"contrast_agent": "Ultravist"}),
                "only the later scan's DICOM tag names a contrast agent",
            ),
            (altered(measured={"noise_hu": 40.0}), "noise differs too much (20 and 40 HU)"),
            (
                altered(warnings=[{"code": "contrast-enhanced", "message": ""}]),
                "later scan was acquired with contrast",
            ),
            (altered(acquisition={"patient_sex": "M"}), "man and a woman"),
        ],
    )
    def test_scans_too_different_bar_both_methods(self, later, word):
        comparison = compare(content(), later, LIMITS)
        for name in ("threshold", "decomposition"):
            assert word in " ".join(bars(comparison, name))
            assert {change.verdict for change in changes(comparison, name).values()} == {UNKNOWN}

    @pytest.mark.parametrize(
        ("later", "barred"),
        [
            (altered(acquisition={"slice_thickness_mm": 3.74}), False),
            (altered(acquisition={"slice_thickness_mm": 3.75}), True),  # a quarter more
            (altered(acquisition={"slice_thickness_mm": 2.4}), True),
            (altered(acquisition={"slice_thickness_mm": 2.41}), False),
            (altered(input={"spacing_mm": [0.7, 0.7, 3.74]}), False),
            (altered(input={"spacing_mm": [0.7, 0.7, 3.75]}), True),
            (altered(acquisition={"kvp": 120.5}), False),
            (altered(acquisition={"kvp": 119.4}), True),
            (altered(measured={"noise_hu": 39.9}), False),
            (altered(measured={"noise_hu": 40.0}), True),
            (altered(measured={"noise_hu": 10.0}), True),
            (altered(measured={"noise_hu": 0.0}), False),  # as of a smoothed image: nothing to compare
            (altered(acquisition={"kernel": " b31F "}), False),
            (altered(acquisition={"kernel": None}), False),
            (altered(acquisition={"gating": "prospective"}), False),  # of the earlier scan it is not known
            (altered(acquisition={"contrast_agent": "NONE"}), False),
        ],
    )
    def test_limits_between_like_and_unlike_scans(self, later, barred):
        assert bool(bars(compare(content(), later, LIMITS), "threshold")) == barred

    def test_different_patients_are_not_named(self):
        a, b = altered(acquisition={"patient_id": "Anna"}), altered(acquisition={"patient_id": "Berta"})
        comparison = compare(a, b, LIMITS)
        assert "different patients" in bars(comparison, "threshold")[0]
        assert "Anna" not in json.dumps(comparison_as_json(comparison)) + comparison_as_page(comparison)

    def test_limits_of_other_models_or_settings(self):
        foreign = Repeatability.of(stored(models={**MODELS, "decomposition": "zz"}))
        assert (
            "limits were found with other models (decomposition)"
            in bars(compare(content(), content(), foreign), "decomposition")[0]
        )
        foreign = Repeatability.of(stored(settings={**SETTINGS, "floor_hu": 20.0, "batch_size": 1}))
        assert bars(compare(content(), content(), foreign), "decomposition") == (
            "the stored limits were found with other settings (floor_hu)",
        )

    def test_limits_of_a_reader_hold_whatever_networks_were_used(self):
        foreign = Repeatability.of(stored(models=dict.fromkeys(MODELS, "zz"), settings={"floor_hu": 1.0}))
        comparison = compare(content(), content(150), foreign)
        assert changes(comparison)["total"].verdict == CHANGED
        assert changes(comparison, "decomposition")["total"].verdict == UNKNOWN

    def test_limits_are_of_the_clinical_rule(self):
        scans = [altered(rules={"threshold": {**RULES, "threshold_hu": 90.0}}) for _ in range(2)]
        comparison = compare(*scans, LIMITS)
        assert bars(comparison, "threshold") == ("the stored limits hold for the clinical rule only",)
        assert not bars(comparison, "decomposition")

    def test_other_rules_but_not_another_calibration(self):
        later = content()
        later["rules"] = {**later["rules"], "threshold": {**RULES, "calibration_mg_per_mm3_hu": 0.001, "name": "x"}}
        assert not bars(compare(content(), later, LIMITS), "threshold")
        later["rules"]["threshold"]["threshold_hu"] = 120.0
        assert "rules differ (threshold_hu)" in bars(compare(content(), later, LIMITS), "threshold")[0]

    def test_no_limits(self):
        comparison = compare(content(), content(150), None)
        assert all("no repeatability limits" in bars(comparison, name)[0] for name in ("threshold", "decomposition"))
        assert "No repeatability limits are stored" in comparison_as_page(comparison)

    def test_one_scan_without_the_map(self):
        later = content()
        del later["methods"]["decomposition"]
        comparison = compare(content(), later, LIMITS)
        assert bars(comparison, "decomposition") == ("the later scan was not scored by this method",)
        assert not changes(comparison, "decomposition")
        assert "not scored by this method" in comparison_as_text(comparison)

    @pytest.mark.parametrize(
        ("name", "status", "words"),
        [
            ("threshold", "automatic", "only the earlier scan's lesions were reviewed"),
            ("threshold", "candidates", "only the earlier scan's lesions were reviewed"),
            ("decomposition", "reviewed", "only the later scan's lesions were reviewed"),
            ("decomposition", "candidates", "the later scan's candidates were not evaluated"),
        ],
    )
    def test_scores_of_another_status(self, name, status, words):
        later = content()
        later["methods"][name] |= {"status": status, "reviewed": status == "reviewed"}
        assert words in bars(compare(content(), later, LIMITS), name)[0]


def automatic(lad=100.0, evidence=0.5):
    changed = content(lad)
    changed["methods"]["threshold"] |= {"status": "automatic", "reviewed": False, "left_out": []}
    return {**changed, "candidate_evidence": {"most_not_coronary": evidence}}


def with_automatic_limits(evidence=0.5):
    """Narrower than those of a reader."""
    limits = stored()["limits"]
    parts = {part: {**TOTAL_LIMITS, "factor": 1.0} for part in ("total", "artery")}
    limits["automatic"] = {"agatston": parts, "pseudo_mass_hu_mm3": parts}
    return Repeatability.of(stored(limits=limits, candidate_evidence={"most_not_coronary": evidence}))


class TestAutomatic:
    def test_limits_of_a_reader_do_not_hold(self):
        comparison = compare(automatic(), automatic(200.0), LIMITS)
        assert bars(comparison, "threshold") == (
            "the stored limits are those of a reader, and do not hold for automatic scores",
        )
        assert changes(comparison)["total"].difference == 100
        assert changes(comparison)["total"].verdict == UNKNOWN
        assert not bars(comparison, "decomposition")

    def test_limits_of_its_own(self):
        total = changes(compare(automatic(), automatic(130.0), with_automatic_limits()))["total"]
        assert total.limit == pytest.approx(10 + 0.1 * 115)
        assert total.verdict == CHANGED
        assert changes(compare(content(), content(130.0), with_automatic_limits()))["total"].verdict == WITHIN

    def test_the_same_evidence_and_models_made_both(self):
        limits = with_automatic_limits()
        assert "different evidence" in bars(compare(automatic(), automatic(evidence=0.4), limits), "threshold")[0]
        calibrated = {
            **automatic(),
            "calibrated_on": {"reference": "a", "scans": 9, "patients": 9, "date": "2026-01-01"},
        }
        assert bars(compare(automatic(), calibrated, limits), "decomposition") == (
            "the models were calibrated on different scans",
        )
        limits = with_automatic_limits(0.4)
        assert "limits were found with candidates" in bars(compare(automatic(), automatic(), limits), "threshold")[0]
        models = {**automatic(), "models": [{"name": "other", "network": "slices", "sha256": "xx"}]}
        assert "models differ" in bars(compare(automatic(), models, limits), "threshold")[0]


def with_intervals(result, name, total, lad=None):
    """The content with intervals of a method's total, and of its LAD."""
    result["methods"][name]["total"]["interval_90"] = total
    result["methods"][name]["arteries"]["LAD"]["interval_90"] = lad
    return result


class TestIntervals:
    @pytest.mark.parametrize(
        ("later", "verdict", "words"),
        [
            ([130.0, 250.0], WITHIN, "no change shown: the 90 % intervals of both scans overlap"),
            ([131.0, 250.0], CHANGED, "changed: the 90 % intervals of both scans do not overlap"),
            ([0.0, 39.0], CHANGED, "changed: the 90 % intervals of both scans do not overlap"),
            ([0.0, 300.0], WITHIN, "no change shown: the 90 % intervals of both scans overlap"),
        ],
    )
    def test_overlap_where_no_limits_hold(self, later, verdict, words):
        earlier = with_intervals(automatic(), "threshold", [40.0, 130.0])
        comparison = compare(earlier, with_intervals(automatic(200.0), "threshold", later), LIMITS)
        total = changes(comparison)["total"]
        assert (total.verdict, total.limit, total.based_on, total.text) == (verdict, None, "intervals", words)
        assert bars(comparison, "threshold") == ()
        assert changes(comparison)["LAD"].verdict == UNKNOWN
        assert "limits are those of a reader" in changes(comparison)["LAD"].text
        assert changes(comparison, quantity="pseudo_mass_hu_mm3")["total"].verdict == UNKNOWN

    def test_what_it_was_based_on_is_written(self):
        earlier = with_intervals(automatic(), "threshold", [40.0, 130.0])
        later = with_intervals(automatic(200.0), "threshold", [150.0, 300.0])
        comparison = compare(earlier, later, None)
        document = json.loads(json.dumps(comparison_as_json(comparison)))["methods"]["threshold"]
        assert document["no_limits"] == ["no repeatability limits are stored with the model"]
        total = document["agatston"]["total"]
        assert (total["intervals_90"], total["based_on"]) == ([[40, 130], [150, 300]], "intervals")
        assert document["pseudo_mass_hu_mm3"]["total"]["intervals_90"] is None
        html = comparison_as_page(comparison)
        assert "so the intervals of the scores can tell a change" in html
        note = "The intervals, found on digital patients, are compared because no limits hold: no repeatability limits"
        assert note in html
        assert html.count("no repeatability limits are stored with the model") == 1, "above the table, not in each row"
        assert "do not overlap" in comparison_as_text(comparison)


class TestWarnings:
    @pytest.mark.parametrize(
        ("noise_hu", "code"),
        [(29.9, set()), (30.0, {"comparison-noise"}), (39.9, {"comparison-noise"}), (40.0, set()), (13.4, set())],
    )
    def test_noise_that_differs_but_does_not_bar(self, noise_hu, code):
        """From one and a half times 20 HU, up to twice."""
        assert (
            codes(compare(content(), altered(measured={"noise_hu": noise_hu}), LIMITS)) & {"comparison-noise"} == code
        )

    @pytest.mark.parametrize(("later", "warned"), [("20250101", False), ("20250102", False), ("20241231", True)])
    def test_the_later_scan_was_made_first(self, later, warned):
        """Two scans of one day have no order."""
        scans = (altered(acquisition={"study_date": date}) for date in ("20250101", later))
        assert ("comparison-order" in codes(compare(*scans, LIMITS))) == warned

    @pytest.mark.parametrize(
        ("spacing_mm", "is_beyond"), [(3.0, False), (3.14, False), (3.16, True), (2.86, False), (2.85, True)]
    )
    def test_scans_of_the_study_within_a_twentieth(self, spacing_mm, is_beyond):
        scans = [altered(input={"spacing_mm": [0.7, 0.7, spacing_mm]}) for _ in range(2)]
        assert ("comparison-beyond-study" in codes(compare(*scans, LIMITS))) == is_beyond

    @pytest.mark.parametrize(
        ("earlier", "later", "code"),
        [
            (content(), altered(acquisition={"kernel": None}), "comparison-unchecked"),
            (content(), altered(acquisition={"scanner_model": "Two"}), "comparison-scanners"),
            (content(), altered(measured={"noise_hu": 31.0}), "comparison-noise"),
            (altered(measured={"noise_hu": 39.0}), content(), "comparison-noise"),
            (
                altered(acquisition={"study_date": "20250101"}),
                altered(acquisition={"study_date": "20240101"}),
                "comparison-order",
            ),
            (
                altered(input={"spacing_mm": [0.7, 0.7, 1.0]}),
                altered(input={"spacing_mm": [0.7, 0.7, 1.0]}),
                "comparison-beyond-study",
            ),
            (content(), altered(slices_by_reader={"3": "off"}), "comparison-map-reviewed"),
            (content(), altered(heart={"source": "lungs"}), "comparison-hearts"),
        ],
    )
    def test_warning(self, earlier, later, code):
        assert codes(compare(earlier, later, LIMITS)) - codes(compare(content(), content(), LIMITS)) == {code}


class TestShown:
    def test_names_are_escaped(self):
        bad = content()
        bad["input"]["name"] = "<script>alert(1)</script>"
        bad["acquisition"]["kernel"] = "<b>"
        comparison = compare(bad, altered(acquisition={"kernel": "<i>"}), Repeatability.of(stored(data="<script>")))
        page = comparison_as_page(comparison, {"<u>": "later/report.html"})
        assert not [tag for tag in ("<script", "<i>", "<u>") if tag in page]


class TestStored:
    def test_bad_limits_are_refused(self):
        for change in ({"limits": {"threshold": {"agatston": {"total": {"slope": 1}}}}}, {"models": None}):
            with pytest.raises(ModelError, match="Store them again"):
                Repeatability.of(stored(**change))
        infinite = copy.deepcopy(stored())
        infinite["limits"]["threshold"]["agatston"]["total"]["slope"] = float("nan")
        with pytest.raises(ModelError, match=r"slope\. Store them again"):
            Repeatability.of(infinite)


class TestReading:
    def test_folder_or_file(self, tmp_path):
        (tmp_path / "scores.json").write_text(json.dumps(content()), encoding="utf-8")
        assert read_result(tmp_path) == read_result(tmp_path / "scores.json") == record_of(content())
        assert is_result(tmp_path)
        assert not is_result(tmp_path / "ct.nii.gz")

    def test_what_is_none(self, tmp_path):
        with pytest.raises(UnreadableError, match="cac score"):
            read_result(tmp_path)
        (tmp_path / "scores.json").write_text('{"schema": "cac-score/0"}', encoding="utf-8")
        with pytest.raises(CTError, match="Score the scan again"):
            read_result(tmp_path)


@pytest.mark.parametrize(("low", "high", "verdict"), [(20.0, 30.0, WITHIN), (20.1, 30.0, CHANGED), (1.0, 5.0, WITHIN)])
def test_intervals_that_touch_show_no_change(low, high, verdict):
    change = Change("agatston", "total", 10.0, 25.0, None, UNKNOWN, intervals=((5.0, 20.0), (low, high)))
    assert _evaluated(change, "no limits").verdict == verdict


@pytest.mark.parametrize("distance", [0.5, 2.0])
def test_no_verdict_on_automatic_scores_of_a_scan_out_of_the_calibration_range(distance):
    """Metal in one scan's arteries empties its map, and no study measured such scans."""
    earlier, later = content(400, 100), content(0, 0)
    rating = {"distance": distance, "causes": ["metal among the arteries"], "limit": 1.0}
    comparison = compare(earlier, {**later, "familiarity": rating}, LIMITS)
    verdict = changes(comparison, "decomposition")["total"].verdict
    assert verdict == (CHANGED if distance < 1 else UNKNOWN)
    if distance > 1:
        (bar,) = bars(comparison, "decomposition")
        assert bar == "the later scan is out of the calibration range of the models (metal among the arteries)"
    assert changes(comparison, "threshold")["total"].verdict == CHANGED, "the clinical scores are reviewed"
