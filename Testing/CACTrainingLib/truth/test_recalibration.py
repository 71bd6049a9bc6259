"""Recalibration on a user's scans: cross-fitted, stored under a name, used and removed."""

import json
from dataclasses import asdict, replace

import automatic_patient
import handmade_records
import numpy as np
import pytest
import SimpleITK as sitk
from compared_scans import compared_scan, judged_rows
from digital_pairs import scored_in_this_process
from handmade_networks import untrained
from handmade_records import method

from CACScoringLib.cli import main as scoring_cli
from CACScoringLib.core.categories import CATEGORIES
from CACScoringLib.core.decoding import restore
from CACScoringLib.core.errors import CTError, TooFewError
from CACScoringLib.core.files import LAST_FILE
from CACScoringLib.core.grid import Grid
from CACScoringLib.core.labels import Artery
from CACScoringLib.models import cards
from CACScoringLib.models.cards import find_model, read_card
from CACScoringLib.models.choice import ModelChoice, chosen_models
from CACScoringLib.models.store import update_card
from CACScoringLib.quality.calibration import METAL, calibration_facts
from CACScoringLib.record.findings import Familiarity
from CACScoringLib.record.scores import CATEGORISED_BELOW
from CACScoringLib.scoring.sites import coronary_probabilities
from CACScoringLib.scoring.uncertainty import LEVEL, LesionAmounts, LesionCalibration, ScoreCalibration
from CACTrainingLib.cli import main as cli
from CACTrainingLib.references.registry import read_reference
from CACTrainingLib.training.fits import FORMER, FORMER_SCANS, fitted_errors
from CACTrainingLib.truth import accuracy, evaluation
from CACTrainingLib.truth import recalibration as recalibrations
from CACTrainingLib.truth.comparison import Job, compare
from CACTrainingLib.truth.evaluation import EvaluationSettings, evaluate
from CACTrainingLib.truth.recalibration import MIN_PATIENTS, Case, check, recalibrate, store
from CACTrainingLib.truth.records import ComparedScan

BASE = LesionCalibration(0.5, 0.3, 0.5, 0.6, 0.2, -0.4)
CALIBRATION = {"candidates": asdict(BASE), "uncertainty": automatic_patient.map_card().calibration["uncertainty"]}
"""Calibration of the model in use."""

MAP = "decomposition"

COMMAND = ["evaluate", "accuracy", "--progress", "none", "--calibrate", "ours"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Untrained models for the calcium map and for slices."""
    folder = tmp_path_factory.mktemp("models")
    return untrained("decomposition", "our-map", folder), untrained("slices", "our-slices", folder)


@pytest.fixture
def base(weights, tmp_path, monkeypatch):
    """A bundled model of the map whose lesions are calibrated."""
    bundled = tmp_path / "bundled"
    bundled.mkdir()
    for path in weights:
        for file in (path, path.with_suffix(".safetensors")):
            (bundled / file.name).write_bytes(file.read_bytes())
    monkeypatch.setattr(cards, "bundled_folder", lambda: bundled)
    monkeypatch.setenv("CAC_MODEL_DIR", str(tmp_path / "installed"))
    update_card(bundled / "our-map.json", CALIBRATION, {"whole_method": {"models": {"slices": "1"}, "candidates": {}}})
    return find_model("decomposition")


def lesion(logit, agatston, artery):
    """A lesion that counts by its recorded log-odds of being coronary calcium."""
    return handmade_records.lesion(agatston, Artery[artery], float(1 / (1 + np.exp(-logit))), logit >= 0)


def digital_scans(patients=40, outlined=True, arteries=False):
    """Scans of patients of whom every second has a lesion, and all have a less probable candidate elsewhere, which the
    former model counts too. arteries: True if the scores of arteries are known, whose errors are then fitted too."""
    generator = np.random.default_rng(0)
    cases = []
    chances = dict(zip(CATEGORIES, (0.4, 0.3, 0.2, 0.1), strict=True))
    for number in range(patients):
        sick = number % 2 == 0
        logits = [3.0 + generator.normal(0, 0.2), 1.0 + generator.normal(0, 0.2)]
        scores = [float(generator.lognormal(4, 1.3)), float(generator.lognormal(6, 1))]
        rows = slice(0, 2) if sick else slice(1, 2)
        truth = scores[0] * float(generator.lognormal(0, 0.2)) if sick else 0.0
        facts = {"noise_hu": 20.0 + number / patients, "slice_thickness_mm": 3.0, "kvp": 120.0}
        by_artery = {"LM": 0.0, "LAD": truth, "LCX": 0.0, "RCA": 0.0}
        labels = (True, False)[rows] if outlined else None if sick else (False,)
        listed = [lesion(*values) for values in zip(logits[rows], scores[rows], ["LAD", "RCA"][rows], strict=True)]
        in_map = [lesion(2.0, 1.3 * truth, "LAD")] if sick else []
        methods = {"threshold": method("threshold", listed, (0.0, 60.0)), MAP: method(MAP, in_map)}
        measured = {"automatic": sum(scores[rows]), "map": 1.3 * truth}
        about = {"total": truth, "vessels": by_artery if arteries else {}, "measured": measured}
        scan = compared_scan(number, 0.0, **about, lesions=judged_rows(labels or ()), calibration=facts)
        cases.append(Case(scan, handmade_records.record(methods, probabilities=chances)))
    return cases


def with_method(case, name, lesions):
    """The scan with other recorded lesions."""
    methods = {**case.record.methods, name: method(name, lesions)}
    return case._replace(record=replace(case.record, methods=methods))


def clinical_lesions(case):
    return case.record.methods["threshold"].listed


@pytest.fixture(scope="module")
def recalibration(weights):
    return recalibrate(digital_scans(arteries=True), replace(read_card(weights[0]), calibration=CALIBRATION))


def changed(recalibration, *log_odds):
    """Probabilities of lesions by the new calibration, from their former log-odds."""
    return coronary_probabilities({FORMER: np.array(log_odds)}, recalibration.fitted.weights)


def test_outlines_teach_what_coronary_calcium_is(recalibration):
    scans = digital_scans(arteries=True)
    assert not recalibration.why_not
    false, true = changed(recalibration, 1.0, 3.0)
    assert false < 0.3 < 0.7 < true
    scores = recalibration.cross_fitted
    totals = [case.scan.total for case in scans]
    after = [score["automatic"].agatston for score in scores]
    expected = [clinical_lesions(case)[0].agatston if case.scan.total else 0.0 for case in scans]
    assert after == pytest.approx(expected)
    intervals = [(score["automatic"].interval_90, total) for score, total in zip(scores, totals, strict=True)]
    assert np.mean([ends[0] <= total <= ends[1] for ends, total in intervals if ends]) >= 0.9
    for score, total in zip(scores, totals, strict=True):
        chances = score["automatic"].probabilities
        assert (sum(chances.values()) == pytest.approx(1)) == (score["automatic"].agatston < CATEGORISED_BELOW)
        assert total > 0 or chances["0"] > 0.5
    assert set(recalibration.fitted.scores.uncertainty) == {"automatic", "decomposition"}


@pytest.mark.parametrize("is_gated", [False, True])
def test_the_stored_weights_give_the_changed_probabilities(recalibration, is_gated):
    """The change of recorded log-odds is carried into all weights, of gated scans and others."""
    fitted = recalibration.fitted
    network, place = np.array([0.05, 0.5, 0.9]), np.array([0.9, 0.2, 0.5])
    former = BASE.probability(network, place, is_gated)
    expected = changed(recalibration, *np.log(former / (1 - former)))
    assert fitted.scores.candidates.probability(network, place, is_gated) == pytest.approx(expected)
    assert expected != pytest.approx(former, abs=0.05)


def test_totals_teach_the_errors_alone(base):
    recalibration = recalibrate(digital_scans(outlined=False), base.card)
    assert "no outlines" in recalibration.why_not
    fitted, former = recalibration.fitted.scores, base.card.calibration_as(ScoreCalibration).uncertainty
    assert (fitted.candidates, fitted.uncertainty["automatic"].artery) == (BASE, former["automatic"].artery)
    assert fitted.uncertainty["automatic"].total.spread < former["automatic"].total.spread


def test_few_scans_hardly_move_the_probabilities(base):
    """Scans whose candidates contradict the former probabilities move them more the more there are."""
    small, large = (recalibrate(digital_scans(count), base.card).fitted.weights for count in (20, 80))
    assert abs(small[FORMER] - 1) < abs(large[FORMER] - 1)
    assert abs(small["intercept"]) < abs(large["intercept"])


@pytest.mark.parametrize("patients", [20, 40])
def test_the_former_errors_count_as_twenty_scans(base, patients):
    """The stored variance is the mean of both, by their numbers of scans."""
    scans = []
    for case in digital_scans(patients):
        total = 1e4 if case.scan.total else 0.0
        case = case._replace(scan=replace(case.scan, total=total))
        in_map = [lesion(9.0, 1.3e4, "LAD")] if total else []
        scans.append(with_method(case, "decomposition", in_map))
    stored = base.card.calibration_as(ScoreCalibration).uncertainty["decomposition"].total
    spread = recalibrate(scans, base.card).fitted.scores.uncertainty["decomposition"].total.spread
    lesions = [LesionAmounts([1.3e4], [1.0]) if case.scan.total else LesionAmounts([], []) for case in scans]
    truths = np.array([case.scan.total for case in scans])
    scans_alone = fitted_errors(lesions, truths, small_scores=(stored.small,)).spread
    assert scans_alone < stored.spread / 2
    mean_square = (patients * scans_alone**2 + FORMER_SCANS * stored.spread**2) / (patients + FORMER_SCANS)
    assert spread == pytest.approx(np.sqrt(mean_square), rel=1e-3)


def test_intervals_of_the_stored_errors_hold_nine_of_ten(base):
    """The level belongs to the stored spread, also where the former one was far too narrow or too wide."""
    scans = digital_scans(outlined=False)
    for spread in (0.05, 2.0):
        errors = {part: {"spread": spread, "level": 0.9} for part in ("total", "artery")}
        calibration = {**base.card.calibration, "uncertainty": dict.fromkeys(("automatic", "decomposition"), errors)}
        fitted = recalibrate(scans, replace(base.card, calibration=calibration)).fitted.scores.uncertainty["automatic"]
        held = []
        for scan in scans:
            listed = clinical_lesions(scan)
            p = [x.verdict.probability for x in listed]
            low, high = fitted.total.interval(LesionAmounts([x.agatston for x in listed], p))
            held.append((scan.scan.total > 0, low - 1e-6 <= scan.scan.total <= high))
        for positive in (True, False):
            assert np.mean([inside for is_positive, inside in held if is_positive == positive]) >= LEVEL


def test_candidates_of_no_artery_never_count(base):
    """Candidates such as noise that no calibration brings above the limit."""
    scans = []
    for case in digital_scans():
        *first, last = clinical_lesions(case)
        noise = replace(last, verdict=replace(last.verdict, counts=False, kinds={"noise": 1.0}))
        scans.append(with_method(case, "threshold", [*first, noise]))
    scores = [score["automatic"].agatston for score in recalibrate(scans, base.card).cross_fitted]
    assert scores == pytest.approx([sum(x.agatston for x in clinical_lesions(case)[:-1]) for case in scans])


def test_a_patients_own_reference_has_no_part_in_its_score(base, recalibration):
    """A changed reference leaves its patient's score, and changes the other scores and the stored fit."""
    first, *others = digital_scans(arteries=True)
    changed = replace(first.scan, total=5000.0, lesions=judged_rows(not row.true for row in first.scan.lesions))
    again = recalibrate([first._replace(scan=changed), *others], base.card)
    assert again.cross_fitted[0] == recalibration.cross_fitted[0]
    assert again.cross_fitted[1:] != recalibration.cross_fitted[1:]
    assert again.fitted.scores.candidates != recalibration.fitted.scores.candidates
    assert again.fitted.scores.uncertainty != recalibration.fitted.scores.uncertainty


def test_a_scan_outside_the_calibration_range_has_no_interval(base):
    """A scan of another tube voltage, and one with metal."""
    scans = digital_scans()
    facts = scans[1].scan.facts
    facts = replace(facts, calibration={**facts.calibration, "kvp": 70.0})
    scans[1] = scans[1]._replace(scan=replace(scans[1].scan, facts=facts))
    has_metal = Familiarity(0.0, (), 1.0).flag(METAL)
    scans[3] = scans[3]._replace(record=replace(scans[3].record, familiarity=has_metal))
    crossed = recalibrate(scans, base.card).cross_fitted
    for outside in (crossed[1], crossed[3]):
        assert [score.interval_90 for score in outside.values()] == [None, None]
        assert outside["automatic"].probabilities == {}
    assert crossed[4]["automatic"].interval_90 is not None


def test_too_few(base):
    scans = digital_scans()
    unmeasured = [
        case._replace(scan=replace(case.scan, facts=replace(case.scan.facts, calibration=None))) for case in scans
    ]
    healthy = [case._replace(scan=replace(case.scan, total=0.0)) for case in scans]
    for few, message in ((scans[: MIN_PATIENTS - 1], "needs 20"), (unmeasured, "0 patients"), (healthy, "5 without")):
        with pytest.raises(TooFewError, match=message):
            recalibrate(few, base.card)


def test_what_cannot_be_calibrated(base):
    for name in ("Ours", "../ours", "our-map", "our-slices", ""):
        with pytest.raises(CTError, match="is the name of another model, or none"):
            check(name, base.card, 100)
    with pytest.raises(CTError, match="whose lesions are calibrated"):
        check("ours", replace(base.card, calibration={}), 100)
    with pytest.raises(CTError, match="No model is in use"):
        check("ours", None, 100)
    with pytest.raises(TooFewError, match="19 patients"):
        check("ours", base.card, 19)
    check("ours", base.card, 20)


def test_what_is_stored_is_read_as_it_was_fitted(base, recalibration, capsys):
    before = base.path.read_bytes()
    model = store(recalibration, base, "ours", "label maps")
    assert base.path.read_bytes() == before
    card = read_card(model.path)
    assert (card.sha256, card.training) == (base.card.sha256, base.card.training)
    stored, fitted = card.calibration_as(ScoreCalibration), recalibration.fitted.scores
    assert (stored.candidates, stored.uncertainty) == (fitted.candidates, fitted.uncertainty)
    assert stored.known.ranges["kvp"] == (120.0, 120.0, 10.0)
    assert card.calibration["calibrated_on"]["patients"] == 40
    assert card.intended_use.startswith("Tests only. Calibrated by its user on 40 patients")
    assert card.validation["whole_method"] == {"models": {"slices": "1"}}
    text = model.path.read_text("utf-8")
    assert "p12" not in text
    assert "s12" not in text
    # It is used where it is named, and only there.
    assert chosen_models(ModelChoice(("ours",))).networks["decomposition"].card == card
    assert chosen_models(ModelChoice()).networks["decomposition"].card == base.card
    assert scoring_cli.main(["models", "list"]) == 0
    assert "calibrated on 40 patients with reference scores (label maps" in capsys.readouterr().out


def test_the_section_lists_the_fitted_parts(recalibration):
    part = recalibrations.section(recalibration, "ours", "our-map")
    tables = {table.name: {row[0]: row[1:] for row in table.rows} for table in part.tables}
    agreement = tables["calibration_agreement"]
    assert agreement["ICC of totals"][1].value < 0.5 < agreement["ICC of totals"][0].value
    intervals = tables["calibration_intervals"]
    assert intervals["all"][0] == 40
    assert intervals["all"][3] is None, "the map had none before"


def test_candidates_are_read_from_results_and_labelled_by_the_outlines(tmp_path):
    """The reference outlines the true lesions, so the labels of candidates are the truth."""
    folder, reference = tmp_path / "result", tmp_path / "reference"
    result = automatic_patient.write(folder)
    reference.mkdir()
    image = automatic_patient.image()
    labels = np.zeros(sitk.GetArrayViewFromImage(image).shape, np.uint8)
    for at, lesion in zip(automatic_patient.places(), automatic_patient.LESIONS, strict=True):
        if lesion:
            labels[tuple(slice(start, start + size) for start, size in zip(at, (2, 3, 3), strict=True))] = 2
    sitk.WriteImage(image, str(reference / "a.nii.gz"))
    sitk.WriteImage(Grid.of(image).image(labels), str(reference / "a-lesions.nii.gz"))
    compared = compare(Job(read_reference(reference).scans[0], folder))
    coronary = [row.true for row in compared.lesions if row.method == "automatic" and not row.of_reference]
    listed = result.methods["threshold"].listed
    assert sum(coronary) == sum(automatic_patient.LESIONS)
    by_probability = sorted(zip(listed, coronary, strict=True), key=lambda pair: -pair[0].verdict.probability)
    assert [is_coronary for _, is_coronary in by_probability] == list(automatic_patient.LESIONS)
    assert compared.facts.calibration == calibration_facts(
        result.scored_scan, result.record.measured, result.region.mask
    )
    assert restore(json.loads(json.dumps(asdict(compared))), ComparedScan) == compared


@pytest.fixture
def table(tmp_path, digital_pairs, base, monkeypatch):
    """A table of 22 patients with one CT; comparisons come from `digital_scans`."""
    scored_in_this_process(monkeypatch)
    ct = next(digital_pairs.rglob("ct.nii.gz"))
    lines = []
    for n in range(22):
        copy = tmp_path / "cts" / f"{n}.nii.gz"
        copy.parent.mkdir(exist_ok=True)
        copy.write_bytes(ct.read_bytes())
        lines.append(f"{copy},p{n},{0 if n % 2 else 100}")
    path = tmp_path / "own.csv"
    path.write_text("\n".join(["ct,patient,total", *lines]), "utf-8")
    monkeypatch.setattr(accuracy.scan_sections, "group_sections", lambda *_: ())  # of other names
    return path


def compare_as(monkeypatch, output, cases):
    """Let these scans be compared in a study, with their results in its folder."""
    folders = {scan.name: output / "scans" / scan.folder for scan, _ in cases}
    monkeypatch.setattr(evaluation, "_compared", lambda *_: ([case.scan for case in cases], folders))
    for scan, record in cases:
        folders[scan.name].mkdir(parents=True)
        (folders[scan.name] / LAST_FILE).write_text(json.dumps(record.as_json()), "utf-8")


@pytest.mark.long
def test_the_command_stores_a_calibration(base, table, tmp_path, monkeypatch, capsys):
    for folder in ("out", "again"):
        compare_as(monkeypatch, tmp_path / folder, digital_scans(22, outlined=False))
    assert cli.main([*COMMAND, "--data", str(table), "--output", str(tmp_path / "out")]) == 0
    assert "Use it with: cac score CT --model ours" in capsys.readouterr().out
    assert find_model("decomposition", "ours").origin == "user"
    page = (tmp_path / "out" / "study.html").read_text("utf-8")
    assert "Calibration on these scans" in page
    # Scored with it, the same scans are no test of it, and the page says so.
    again = evaluate(EvaluationSettings(("accuracy",), tmp_path / "again", table, models=ModelChoice(("ours",))))
    assert "was calibrated on 22 patients" in again.page.read_text("utf-8")
    assert again.accuracy.calibrated is None


@pytest.mark.long
def test_too_few_are_refused_before_scoring_or_reported_on_the_page(base, table, tmp_path, monkeypatch, capsys):
    compare_as(monkeypatch, tmp_path / "out", digital_scans(12))
    assert cli.main([*COMMAND, "--data", str(table), "--output", str(tmp_path / "out")]) == 3
    assert "needs 20 at least" in capsys.readouterr().err
    assert "Nothing was calibrated or stored" in (tmp_path / "out" / "study.html").read_text("utf-8")
    with pytest.raises(CTError, match="no model 'ours'"):
        find_model("decomposition", "ours")
    lines = table.read_text("utf-8").splitlines()
    table.write_text("\n".join(lines[:10]), "utf-8")
    with pytest.raises(TooFewError, match="9 patients"):
        evaluate(EvaluationSettings(("accuracy",), tmp_path / "never", table, calibrate="ours"))
    assert not (tmp_path / "never").exists()
