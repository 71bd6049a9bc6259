"""Verdicts on changes of calcium by hand-made limits, and every reason to give none."""

import hashlib
import json
from dataclasses import asdict

import pytest
from calibrated_cards import repeatability_of
from whole_records import MEASURED, record_of

from CACScoringLib.core.acquisition import PSEUDONYM, Acquisition, with_pseudonym
from CACScoringLib.core.errors import CTError, ModelError, OtherPatientError, UnreadableError
from CACScoringLib.record.rules import ScoringRules
from CACScoringLib.record.score_record import read_result
from CACScoringLib.report.page import comparison_as_page
from CACScoringLib.scoring.comparison import CHANGED, UNKNOWN, WITHIN
from CACScoringLib.scoring.comparison import compare as compare_records

RULE, MAP = "threshold", "decomposition"
MODELS = {"heart": "aa", "slices": "bb", "decomposition": "cc"}
SETTINGS = {"slice_threshold": 0.2, "floor_hu": 40.0, "batch_size": 8}
RULES = json.loads(json.dumps(asdict(ScoringRules())))
TOTAL_LIMITS = {"intercept": 10.0, "slope": 0.1, "factor": 2.0, "pairs": 200, "highest": 1000.0}
ARTERY_LIMITS = {"intercept": 5.0, "slope": 0.1, "factor": 2.0, "pairs": 400, "highest": 500.0}


def score(agatston, scale=1.0):
    clinical = scale * agatston
    counted = {"volume_mm3": agatston, "pseudo_mass_hu_mm3": 10 * agatston, "lesions": int(agatston > 0)}
    return {"agatston": agatston, "clinical_agatston": clinical, **counted}


def method(lad, rca=0.0, reviewed=False, scale=1.0):
    scores = [score(agatston, scale) for agatston in (0.0, lad, 0.0, rca, lad + rca)]
    arteries = dict(zip(("LM", "LAD", "LCX", "RCA"), scores, strict=False))
    status = "reviewed" if reviewed else "automatic" if scale != 1 else "candidates"
    about = {"status": status, "reviewed": reviewed, "agatston_scale": None}
    place = {"id": 1, "voxels": 4, "peak_hu": 250.0, "mean_hu": 200.0, "centroid_ras_mm": [0.0, 1.0, 2.0]}
    lesions = [{**place, "components": [], "artery": a, **s} for a, s in arteries.items() if s["lesions"]]
    total = {**scores[-1], "lesions": len(lesions)}
    return {**about, "total": total, "arteries": arteries, "lesions": lesions}


def content(lad=100.0, rca=0.0):
    """Return `scores.json` of a reviewed clinical score, and an unreviewed map that holds ten times as much."""
    return {
        "schema": "cac-score/1",
        "input": {"name": "scan", "size": [512, 512, 60], "spacing_mm": [0.7, 0.7, 3.0], "voxels_sha256": ""},
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
            "patient_id": "Anna",
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


LIMITS = repeatability_of(stored())


def limits_of(**changes):
    return repeatability_of(stored(**changes))


def compare(earlier, later, limits=LIMITS, **options):
    """Compare the content of two results."""
    return compare_records(record_of(earlier), record_of(later), limits, **options)


def changes(comparison, name=RULE, quantity="agatston"):
    method = next(m for m in comparison.methods if m.method == name)
    return {change.part: change for change in method.changes if change.quantity == quantity}


def bars(comparison, name):
    return next(m for m in comparison.methods if m.method == name).bars


def codes(comparison):
    return {warning.code for warning in comparison.warnings}


def altered(**sections):
    """Return the content with some sections changed; values that are no dictionaries replace them."""
    result = content()
    for section, values in sections.items():
        result[section] = result[section] | values if isinstance(values, dict) else values
    return result


class TestVerdict:
    @pytest.mark.parametrize(
        ("earlier", "later", "verdict", "words"),
        [
            (100.0, 144.0, WITHIN, ""),  # limit 44.4
            (100.0, 145.0, CHANGED, ""),  # limit 44.5
            (100.0, 60.0, CHANGED, ""),  # limit 36.0
            (0.0, 0.0, WITHIN, ""),
            (20.0, 0.0, UNKNOWN, "exceed the limit"),  # limit 22 of a largest difference of 20
            (25.0, 0.0, CHANGED, ""),  # limit 22.5
            (1000.0, 1000.0, WITHIN, ""),  # the highest of the study
            (1000.0, 1001.0, UNKNOWN, "up to 1,000"),
        ],
    )
    def test_total_by_hand(self, earlier, later, verdict, words):
        """The limit is 2 · (10 + 0.1 · mean); beyond the study there is none."""
        total = changes(compare(content(earlier), content(later)))["total"]
        limit = None if later > 1000 else pytest.approx(20 + 0.1 * (earlier + later))
        assert (total.verdict, total.difference, total.limit) == (verdict, later - earlier, limit)
        assert words in total.text

    @pytest.mark.parametrize(("later", "verdict"), [(40.0, WITHIN), (40.1, CHANGED)])
    def test_a_difference_of_the_limit_is_no_change(self, later, verdict):
        """A limit of 20 whatever the mean."""
        limits = stored()["limits"]
        limits[RULE]["agatston"] = {"total": {**TOTAL_LIMITS, "slope": 0.0}, "artery": ARTERY_LIMITS}
        comparison = compare(content(20.0), content(later), limits_of(limits=limits))
        assert changes(comparison)["total"].verdict == verdict

    def test_arteries_have_limits_of_their_own(self):
        by_part = changes(compare(content(100, 0), content(100, 40)))
        assert by_part["RCA"].limit == pytest.approx(14)
        assert [by_part[part].verdict for part in ("RCA", "LAD", "total")] == [CHANGED, WITHIN, WITHIN]

    def test_adjusted_scores_are_compared_on_the_clinical_scale(self):
        comparison = compare(content(), content(150))
        total, mass = (changes(comparison, MAP, name)["total"] for name in ("agatston", "pseudo_mass_hu_mm3"))
        assert (total.earlier, total.later) == (100, pytest.approx(150))
        assert (mass.earlier, mass.later) == (10000, 15000)


def automatic(lad=100.0, network=0.5):
    changed = content(lad)
    changed["methods"][RULE] |= {"status": "automatic", "reviewed": False, "left_out": []}
    return {**changed, "candidate_evidence": {"network": network}}


def with_automatic_limits(network=0.5):
    """Narrower than those of a reader."""
    limits = stored()["limits"]
    parts = {part: {**TOTAL_LIMITS, "factor": 1.0} for part in ("total", "artery")}
    limits["automatic"] = {"agatston": parts, "pseudo_mass_hu_mm3": parts}
    return limits_of(limits=limits, candidate_evidence={"network": network})


def with_status(name, status):
    result = content()
    result["methods"][name] |= {"status": status, "reviewed": status == "reviewed"}
    return result


OTHER_RULE = {**RULES, "threshold_hu": 120.0}
CALIBRATED = {"reference": "a", "scans": 9, "patients": 9, "date": "2026-01-01"}
OTHER_MAP = {"name": "other", "network": "decomposition", "sha256": "xx"}
JUDGE, OTHER_JUDGE = ({"name": "judge", "network": "lesions", "sha256": sha} for sha in ("dd", "xx"))


def judged(*models):
    return {**automatic(), "models": list(models)}


class TestReasons:
    """Reasons for no verdict."""

    @pytest.mark.parametrize(
        ("later", "barred"),
        [
            (altered(acquisition={"slice_thickness_mm": 3.74}), False),
            (altered(acquisition={"slice_thickness_mm": 3.75}), True),  # a quarter more
            (altered(acquisition={"slice_thickness_mm": 2.4}), True),
            (altered(input={"spacing_mm": [0.7, 0.7, 3.74]}), False),
            (altered(input={"spacing_mm": [0.7, 0.7, 3.75]}), True),
            (altered(acquisition={"kvp": 119.4}), True),
            (altered(measured={"noise_hu": 39.9}), False),
            (altered(measured={"noise_hu": 40.0}), True),
            (altered(measured={"noise_hu": 0.0}), False),  # as of a smoothed image: nothing to compare
            (altered(acquisition={"kernel": "B70f"}), True),
            (altered(acquisition={"kernel": " b31F "}), False),
            (altered(acquisition={"gating": "prospective"}), False),  # of the earlier scan it is not known
            (altered(acquisition={"contrast_agent": "Ultravist"}), True),
            (altered(warnings=[{"code": "contrast-enhanced", "message": ""}]), True),
            (altered(rules={RULE: {**RULES, "calibration_mg_per_mm3_hu": 0.001, "name": "x"}}), False),
        ],
    )
    def test_limits_between_like_and_unlike_scans(self, later, barred):
        comparison = compare(content(), later)
        for name in (RULE, MAP):
            assert bool(bars(comparison, name)) == barred
            assert ({change.verdict for change in changes(comparison, name).values()} == {UNKNOWN}) == barred

    @pytest.mark.parametrize(
        ("name", "earlier", "later", "limits", "words"),
        [
            (RULE, content(), altered(acquisition={"contrast_agent": "Ultravist"}), LIMITS, "only the later scan"),
            (MAP, content(), content(), limits_of(models={**MODELS, MAP: "zz"}), "other models (decomposition)"),
            (MAP, content(), content(), limits_of(settings={**SETTINGS, "floor_hu": 2.0}), "other settings (floor_hu)"),
            (RULE, content(), altered(rules={RULE: OTHER_RULE}), LIMITS, "rules differ (threshold_hu)"),
            (RULE, content(), content(), None, "no repeatability limits are stored with the model"),
            (RULE, content(), with_status(RULE, "automatic"), LIMITS, "only the earlier scan's lesions were reviewed"),
            (MAP, content(), with_status(MAP, "candidates"), LIMITS, "the later scan's candidates were not evaluated"),
            (RULE, automatic(), automatic(network=0.4), with_automatic_limits(), "different calibrations"),
            (RULE, automatic(), automatic(), with_automatic_limits(0.4), "limits were found with candidates"),
            (RULE, judged(JUDGE), judged(OTHER_JUDGE), with_automatic_limits(), "models differ (lesions)"),
            (MAP, judged(JUDGE), judged(JUDGE), limits_of(models={"lesions": "zz"}), "cac evaluate reproducibility"),
            (MAP, automatic(), {**automatic(), "calibrated_on": CALIBRATED}, LIMITS, "calibrated on different scans"),
            (RULE, automatic(), automatic(), LIMITS, "no limits of automatic scores are stored"),
        ],
    )
    def test_reason(self, name, earlier, later, limits, words):
        assert words in bars(compare(earlier, later, limits), name)[0]

    def test_a_scan_is_not_compared_with_itself(self):
        record = content()
        record["input"]["voxels_sha256"] = "1" * 64
        for name in (RULE, MAP):
            assert "same scan" in bars(compare(record, record), name)[0]
        assert bars(compare(record, content()), RULE) == ()

    def test_batch_sizes_are_no_other_settings(self):
        assert not bars(compare(content(), content(), limits_of(settings={**SETTINGS, "batch_size": 1})), MAP)

    def test_limits_of_a_reader_hold_whatever_networks_were_used(self):
        foreign = limits_of(models=dict.fromkeys(MODELS, "zz"), settings={"floor_hu": 1.0})
        comparison = compare(content(), content(150), foreign)
        assert [changes(comparison, name)["total"].verdict for name in (RULE, MAP)] == [CHANGED, UNKNOWN]

    def test_automatic_clinical_scores_do_not_depend_on_the_map(self):
        changed = {**judged(JUDGE, OTHER_MAP), "decomposition_settings": {"floor_hu": 1.0}}
        comparison = compare(judged(JUDGE), changed, with_automatic_limits())
        assert not bars(comparison, RULE)
        assert "other settings" in bars(comparison, MAP)[0]

    def test_limits_are_of_the_clinical_rule(self):
        scans = [altered(rules={RULE: {**RULES, "threshold_hu": 90.0}}) for _ in range(2)]
        comparison = compare(*scans)
        assert bars(comparison, RULE) == ("the stored limits hold for the clinical rule only",)
        assert not bars(comparison, MAP)

    def test_a_scan_without_the_map(self):
        later = content()
        del later["methods"][MAP]
        comparison = compare(content(), later)
        assert bars(comparison, MAP) == ("the later scan was not scored by this method",)
        assert not changes(comparison, MAP)


def test_automatic_scores_have_limits_of_their_own():
    total = changes(compare(automatic(), automatic(130.0), with_automatic_limits()))["total"]
    assert total.limit == pytest.approx(10 + 0.1 * 115)
    assert total.verdict == CHANGED
    assert changes(compare(content(), content(130.0), with_automatic_limits()))["total"].verdict == WITHIN


def with_intervals(result, total):
    """Return the content with an interval of the clinical total."""
    result["methods"][RULE]["total"]["interval_90"] = total
    return result


EARLIER = with_intervals(automatic(), [40.0, 130.0])


@pytest.mark.parametrize(
    ("later", "verdict"),
    [
        ([130.0, 250.0], WITHIN),
        ([130.1, 250.0], CHANGED),
        ([0.0, 39.9], CHANGED),
        ([0.0, 40.0], WITHIN),
    ],
)
def test_overlap_of_intervals_without_limits(later, verdict):
    comparison = compare(EARLIER, with_intervals(automatic(200.0), later))
    total, lad = (changes(comparison)[part] for part in ("total", "LAD"))
    assert (total.verdict, total.limit, total.based_on) == (verdict, None, "intervals")
    assert total.interval == (max(later[0] - 130.0, -100.0), later[1] - 40.0)
    assert bars(comparison, RULE) == ()
    assert lad.verdict == UNKNOWN
    assert changes(comparison, quantity="pseudo_mass_hu_mm3")["total"].verdict == UNKNOWN


def test_the_basis_of_a_verdict_is_written():
    comparison = compare(EARLIER, with_intervals(automatic(200.0), [150.0, 300.0]), None)
    document = json.loads(json.dumps(comparison.as_json()))["methods"][RULE]
    assert document["no_limits"] == ["no repeatability limits are stored with the model"]
    total = document["agatston"]["total"]
    assert (total["intervals_90"], total["based_on"]) == ([[40, 130], [150, 300]], "intervals")
    assert document["pseudo_mass_hu_mm3"]["total"]["intervals_90"] is None


def made_on(date):
    return altered(acquisition={"study_date": date})


def of_patient(patient_id, date="2024-01-01", lad=100.0, **person):
    """Return the content of a result that keeps the pseudonym, not ID and date."""
    facts = vars(with_pseudonym(Acquisition("DICOM", patient_id=patient_id, study_date=date, **person)))
    acquisition = {n: facts[n] for n in (*PSEUDONYM, "identity_digests")} | {"patient_id": None}
    return altered(acquisition=acquisition) | {"methods": content(lad)["methods"]}


def with_identity(patient_id=None, issuer=None, name=None, birth_date=None):
    return of_patient(patient_id, patient_id_issuer=issuer, patient_name=name, patient_birth_date=birth_date)


@pytest.mark.parametrize(
    ("earlier", "later", "message"),
    [
        (of_patient("Anna"), of_patient("Berta"), "differ in patient ID"),
        (content(), altered(acquisition={"patient_id": "Berta"}), "differ in patient ID"),
        (with_identity("P1", "A"), with_identity("P1", "B"), "differ in patient ID issuer"),
        (with_identity("P1", None, "Roe^Jane"), with_identity("P1", "B", "Doe^Jane"), "patient ID issuer and .* name"),
        (with_identity("0", None, "Roe^Jane"), with_identity("0", None, "Doe^John"), "differ in patient name"),
        (with_identity(None, None, "Roe", "1950-08-17"), with_identity("P1", None, "Roe", "1951-08-17"), "birth date"),
        (content(), altered(acquisition={"patient_sex": "M"}), "different sexes"),
    ],
)
def test_two_people_are_compared_on_request_alone_and_not_named(earlier, later, message):
    with pytest.raises(OtherPatientError, match=message):
        compare(earlier, later)
    comparison = compare(earlier, later, different_patients=True)
    assert "comparison-patients" in codes(comparison)
    assert changes(comparison)["total"].verdict == WITHIN
    assert "Anna" not in json.dumps(comparison.as_json()) + comparison_as_page(comparison)


@pytest.mark.parametrize(
    ("earlier", "later", "is_unchecked"),
    [
        (("P1", None, "Roe^Jane", "1950-08-17"), ("P1", None, "Doe^Jane", "1950-08-17"), False),
        (("P1", None, "Roe^Jane", "1950-08-17"), ("P1", "Clinic", "ROE^JANE", "1950-08-17"), False),
        (("0", None, "Roe^Jane", "1950-08-17"), ("", None, "Roe, Jane", "1950-08-17"), False),
        (("P1", None, "Anonymous", "1900-01-01"), ("P1", None, "Roe^Jane", "1950-08-17"), False),
        (("P1", None, "Yamada=山田", "1950-08-17"), ("P1", None, "Yamada^", "1950-08-17"), False),
        (("P1", None, "=山田^太郎", "1950-08-17"), ("P1", None, None, "1950-08-17"), False),
        (("000000", None, "Roe^Jane"), ("UNKNOWN", None, "Roe^Jane"), True),
    ],
)
def test_a_person_is_known_by_two_facts_and_never_by_a_placeholder(earlier, later, is_unchecked):
    comparison = compare(with_identity(*earlier), with_identity(*later))
    texts = [warning.message for warning in comparison.warnings if warning.code == "comparison-unchecked"]
    assert any("patient ID" in text for text in texts) == is_unchecked


def test_pseudonyms_of_different_keys_are_not_compared(monkeypatch, tmp_path):
    earlier = of_patient("Anna")
    (tmp_path / "key").write_text(hashlib.sha256(b"other").hexdigest(), encoding="utf-8")
    monkeypatch.setenv("CAC_PATIENT_KEY", str(tmp_path / "key"))
    comparison = compare(earlier, of_patient("Anna", "2025-01-01"))
    assert "comparison-patient-keys" in codes(comparison)
    assert comparison.days is None
    assert "comparison-patient-keys" not in codes(compare(of_patient("Anna"), of_patient("Anna")))


def test_order_and_time_are_known_without_dates():
    earlier, later = of_patient("Anna", "2024-01-01"), of_patient("Anna", "2026-01-01", 160.0)
    exchanged = compare(later, earlier)
    assert (exchanged.days, "comparison-order" in codes(exchanged)) == (-731, True)
    assert changes(exchanged)["total"].per_year == ()
    comparison = compare(earlier, later)
    total, limit, years = changes(comparison)["total"], 20 + 0.2 * 130, 731 / 365.25
    assert comparison.days == 731
    assert total.interval == pytest.approx((60 - limit, 60 + limit))
    assert total.per_cent == pytest.approx((60, 60 - limit, 60 + limit))
    assert total.per_year == pytest.approx((60 / years, (60 - limit) / years, (60 + limit) / years))
    assert total.difference_of_roots == pytest.approx(160**0.5 - 10)
    assert changes(compare(content(0.0), content(50.0)))["total"].per_cent == ()


def test_study_dates_are_stated_on_request():
    pair = made_on("2024-01-01"), made_on("2025-01-01")
    for identify in (False, True):
        page = comparison_as_page(compare(*pair, identify=identify))
        assert ("2024-01-01" in page, "366 days" in page) == (identify, True)


def spaced(spacing_mm):
    return altered(input={"spacing_mm": [0.7, 0.7, spacing_mm]})


@pytest.mark.parametrize(
    ("earlier", "later", "warned"),
    [
        *((content(), altered(acquisition={name: None}), ["unchecked"]) for name in ("kernel", "patient_id")),
        (content(), altered(acquisition={"scanner_model": "Two"}), ["scanners"]),
        # Noise from one and a half times, up to twice, which bars.
        *((content(), altered(measured={"noise_hu": hu}), ["noise"]) for hu in (30.0, 39.9)),
        *((content(), altered(measured={"noise_hu": hu}), []) for hu in (29.9, 40.0)),
        (altered(measured={"noise_hu": 39.0}), content(), ["noise"]),
        (made_on("2025-01-01"), made_on("2024-12-31"), ["order"]),
        (made_on("2025-01-01"), made_on("2025-01-01"), []),  # two scans of one day have no order
        # Spacings within a twentieth of the study's.
        *((spaced(mm), spaced(mm), ["beyond-study"]) for mm in (2.85, 3.16)),
        *((spaced(mm), spaced(mm), []) for mm in (2.86, 3.14)),
        (content(), altered(slices_by_reader={"3": "off"}), ["map-reviewed"]),
        (content(), altered(heart={"source": "lungs"}), ["hearts"]),
    ],
)
def test_warning(earlier, later, warned):
    always = codes(compare(content(), content()))
    assert codes(compare(earlier, later)) - always == {f"comparison-{code}" for code in warned}


def test_names_are_escaped():
    bad = altered(input={"name": "<script>alert(1)</script>"}, acquisition={"kernel": "<b>"})
    comparison = compare(bad, altered(acquisition={"kernel": "<i>"}), limits_of(data="<script>"))
    page = comparison_as_page(comparison, {"<u>": "later/report.html"})
    assert not [tag for tag in ("<script", "<i>", "<u>") if tag in page]


def test_bad_limits_are_refused():
    for total in ({"slope": 1}, {**TOTAL_LIMITS, "slope": float("nan")}):
        with pytest.raises(ModelError, match="Store it again"):
            limits_of(limits={RULE: {"agatston": {"total": total}}})


def test_other_folders_and_versions_are_refused(tmp_path):
    with pytest.raises(UnreadableError, match="cac score"):
        read_result(tmp_path)
    (tmp_path / "scores.json").write_text('{"schema": "cac-score/0"}', encoding="utf-8")
    with pytest.raises(CTError, match="Score the scan again"):
        read_result(tmp_path)


OUT_OF_RANGE = "the later scan is out of the calibration range of the models (metal among the arteries)"


@pytest.mark.parametrize(("distance", "verdict", "barred"), [(0.5, CHANGED, ()), (2.0, UNKNOWN, (OUT_OF_RANGE,))])
def test_no_verdict_on_automatic_scores_of_a_scan_out_of_the_calibration_range(distance, verdict, barred):
    """Metal in one scan's arteries empties its map, and no study measured such scans."""
    rating = {"distance": distance, "causes": ["metal among the arteries"], "limit": 1.0}
    comparison = compare(content(400, 100), {**content(0, 0), "familiarity": rating})
    assert changes(comparison, MAP)["total"].verdict == verdict
    assert bars(comparison, MAP) == barred
    assert changes(comparison)["total"].verdict == CHANGED, "the clinical scores are reviewed"
