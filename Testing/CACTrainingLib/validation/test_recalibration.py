"""Recalibration on a user's scans: cross-fitted, stored under a name, used and removed."""

import json
from dataclasses import asdict, replace

import automatic_patient
import numpy as np
import pytest
import SimpleITK as sitk
from digital_pairs import scored_in_this_process
from handmade_networks import untrained

from CACScoringLib.cli import main as scoring_cli
from CACScoringLib.core.decoding import restore
from CACScoringLib.core.errors import CTError, TooFewError
from CACScoringLib.core.grid import Grid
from CACScoringLib.models import cards
from CACScoringLib.models.cards import find_model, read_card
from CACScoringLib.models.choice import ModelChoice, chosen_models
from CACScoringLib.models.store import update_card
from CACScoringLib.scoring.lesion_calibration import LesionCalibration
from CACScoringLib.scoring.uncertainty import LIMITS, ScoreCalibration
from CACTrainingLib.cli import main as cli
from CACTrainingLib.references.registry import read_reference
from CACTrainingLib.validation import recalibration_page, run
from CACTrainingLib.validation.candidates import ScanCandidates
from CACTrainingLib.validation.comparison import ComparedScan, compare, jobs_of
from CACTrainingLib.validation.recalibration import MIN_PATIENTS, check, recalibrate, store
from CACTrainingLib.validation.run import ValidationSettings, validate

FORMER = LesionCalibration(temperature=2.0, offset=0.5)
"""Calibration of the model in use."""

COMMAND = ["validate", "--progress", "none", "--calibrate", "ours"]


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
    calibration = {
        "candidates": asdict(FORMER),
        "uncertainty": automatic_patient.map_card().calibration["uncertainty"],
    }
    update_card(
        bundled / "our-map.json",
        calibration,
        {"whole_method": {"models": {"slices": "1"}, "candidates": {}}},
    )
    return find_model("decomposition")


def digital_scans(patients=40, outlined=True, seed=0, arteries=True):
    """Scans of patients of whom every second has a lesion, and all have a less probable candidate elsewhere, which the
    former model counts too."""
    generator = np.random.default_rng(seed)
    scans = []
    for number in range(patients):
        sick = number % 2 == 0
        logits = [3.0 + generator.normal(0, 0.2), 1.0 + generator.normal(0, 0.2)]
        scores = [float(generator.lognormal(4, 1.3)), float(generator.lognormal(6, 1))]
        rows = slice(0, 2) if sick else slice(1, 2)
        truth = scores[0] * float(generator.lognormal(0, 0.2)) if sick else 0.0
        facts = {"noise_hu": 20.0 + number / patients, "slice_thickness_mm": 3.0, "kvp": 120.0}
        by_artery = {"LM": 0.0, "LAD": truth, "LCX": 0.0, "RCA": 0.0}
        candidates = ScanCandidates(
            logits=logits[rows],
            agatston=scores[rows],
            arteries=["LAD", "RCA"][rows],
            coronary=[True, False][rows] if outlined else (None if sick else [False]),
            intervals={"automatic": [0.0, 60.0], "map": None},
            probabilities=dict(zip(("0", "1-99", "100-399", "400+"), (0.4, 0.3, 0.2, 0.1), strict=True)),
            map_arteries=by_artery,
            facts=facts,
        )
        measured = {"automatic": sum(scores[rows]), "map": 1.3 * truth}
        reference = f"s{number}", f"p{number}", f"s{number}", truth, by_artery if arteries else {}
        scans.append(
            ComparedScan(*reference, measured, {"automatic": {}, "map": {}}, None, None, {}, 1.0, (), (), candidates)
        )
    return scans


def test_outlines_teach_what_coronary_calcium_is(base):
    scans = digital_scans()
    recalibration = recalibrate(scans, base.card)
    assert not recalibration.why_not
    fitted = recalibration.fitted
    answers = np.array([0.05, 0.5, 0.9])
    former = FORMER.probability(answers)
    changed = fitted.change.probabilities(np.log(former / (1 - former)))
    assert fitted.lesions.probability(answers) == pytest.approx(changed)
    assert fitted.change.probabilities(np.array([1.0, 3.0])) == pytest.approx([0, 1], abs=0.3)
    scores = recalibration.cross_fitted
    after = np.array([score.automatic for score in scores])
    lesions = np.array([scan.candidates.agatston[0] if scan.total else 0.0 for scan in scans])
    assert np.mean(np.isclose(after, lesions)) > 0.9
    intervals = [(score.intervals["automatic"], scan.total) for score, scan in zip(scores, scans, strict=True)]
    assert np.mean([ends[0] <= total <= ends[1] for ends, total in intervals if ends]) >= 0.9
    assert fitted.as_calibration()["uncertainty"]["automatic"]["artery"]
    assert set(fitted.errors) == {"automatic", "decomposition"}


def test_totals_teach_the_limit_alone(base):
    recalibration = recalibrate(digital_scans(outlined=False, arteries=False), base.card)
    assert "no outlines" in recalibration.why_not
    lesions = recalibration.fitted.lesions
    assert lesions == replace(FORMER, counts_from=lesions.counts_from)
    assert lesions.counts_from > 0.7
    assert recalibration.fitted.as_calibration()["uncertainty"]["automatic"]["artery"] == {}


def test_candidates_of_no_artery_never_count(base):
    """Candidates such as noise that no calibration brings above the limit."""
    scans = digital_scans()
    scans = [
        replace(scan, candidates=replace(scan.candidates, arteries=[*scan.candidates.arteries[:-1], "unassigned"]))
        for scan in scans
    ]
    scores = [score.automatic for score in recalibrate(scans, base.card).cross_fitted]
    assert scores == pytest.approx([sum(scan.candidates.agatston[:-1]) for scan in scans])


def test_a_patients_own_reference_has_no_part_in_its_score(base):
    """A changed reference leaves its patient's score, and changes the other scores and the stored fit."""
    scans = digital_scans(seed=3)
    first = recalibrate(scans, base.card)
    for number in (0, 7, 16):
        scan = scans[number]
        opposite = [not is_coronary for is_coronary in scan.candidates.coronary]
        changed = replace(scan, total=5000.0, candidates=replace(scan.candidates, coronary=opposite))
        again = recalibrate([*scans[:number], changed, *scans[number + 1 :]], base.card)
        assert again.cross_fitted[number] == first.cross_fitted[number]
        assert again.fitted.lesions != first.fitted.lesions
        assert again.fitted.errors != first.fitted.errors
        assert any(a != b for a, b in zip(again.cross_fitted, first.cross_fitted, strict=True))


def test_a_scan_outside_the_calibration_range_has_no_interval(base):
    scans = digital_scans()
    candidates = scans[3].candidates
    scans[3] = replace(scans[3], candidates=replace(candidates, facts={**candidates.facts, "kvp": 70.0}))
    recalibration = recalibrate(scans, base.card)
    assert recalibration.cross_fitted[3].intervals == {"automatic": None, "map": None}
    assert recalibration.cross_fitted[3].probabilities == {}
    assert recalibration.cross_fitted[4].intervals["automatic"] is not None


def test_probabilities_of_categories_nobody_has_are_those_of_before(base):
    scans = [replace(scan, total=min(scan.total, 90.0)) for scan in digital_scans()]
    recalibration = recalibrate(scans, base.card)
    before = base.card.calibration_as(ScoreCalibration).uncertainty["automatic"].total["agatston"].chances
    after = recalibration.fitted.errors["automatic"]["total"].chances
    assert after[1:] == before[1:]
    assert after[0] != before[0]


def test_classes_of_few_scans_keep_the_errors_of_before(base):
    scans = digital_scans()
    recalibration = recalibrate(scans, base.card)
    of_class = np.searchsorted(LIMITS["agatston"], [scan.total for scan in scans], side="right")
    for place, errors in enumerate(recalibration.fitted.errors["automatic"]["total"].errors):
        count = int((of_class == place).sum())
        assert len(errors) == (count if count >= 19 else count + 2), "the model before has two of each class"


@pytest.mark.parametrize(
    ("scans", "message"),
    [
        (digital_scans(MIN_PATIENTS - 1), "needs 20 at least"),
        ([replace(scan, candidates=None) for scan in digital_scans()], "0 patients have"),
        ([replace(scan, total=0.0) for scan in digital_scans()], "5 without any"),
    ],
)
def test_too_few(base, scans, message):
    with pytest.raises(TooFewError, match=message):
        recalibrate(scans, base.card)


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


def test_what_is_stored_is_read_as_it_was_fitted(base, capsys):
    before = base.path.read_bytes()
    recalibration = recalibrate(digital_scans(), base.card)
    model = store(recalibration, base, "ours", "label maps")
    assert base.path.read_bytes() == before
    card = read_card(model.path)
    assert card.sha256 == base.card.sha256
    assert card.training == base.card.training
    stored, fitted = card.calibration_as(ScoreCalibration), recalibration.fitted
    assert stored.candidates == fitted.lesions
    assert stored.uncertainty["automatic"].total["agatston"] == fitted.errors["automatic"]["total"]
    assert set(stored.uncertainty) == {"automatic", "decomposition"}
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


def test_the_section_lists_the_fitted_parts(base):
    recalibration = recalibrate(digital_scans(), base.card)
    part = recalibration_page.section(recalibration, "ours", "our-map")
    tables = {table.name: {row[0]: row[1:] for row in table.rows} for table in part.tables}
    agreement = tables["calibration_agreement"]
    assert agreement["ICC of totals"][1].value < 0.5 < agreement["ICC of totals"][0].value
    intervals = tables["calibration_intervals"]
    assert intervals["all"][0] == 40
    assert intervals["all"][3] == "none", "the map had none before"


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
    (job,) = jobs_of(read_reference(reference), [folder], tmp_path)
    compared = compare(job)
    candidates = compared.candidates
    assert sum(candidates.coronary) == sum(automatic_patient.LESIONS)
    order = np.argsort(-np.array(candidates.logits))
    assert [candidates.coronary[n] for n in order] == list(automatic_patient.LESIONS)
    counted = len(result.methods["threshold"].lesions)
    assert sum(candidates.agatston[:counted]) == pytest.approx(result.methods["threshold"].total.agatston)
    assert min(candidates.logits[:counted]) >= 0 > max(candidates.logits[counted:])
    assert [artery == "unassigned" for artery in candidates.arteries] == [n >= counted for n in range(15)]
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
    monkeypatch.setattr(run, "scored_folders", lambda scans, *_: [tmp_path] * len(scans))
    monkeypatch.setattr(run.groups, "sections", lambda *_: ())  # there are no results to group
    return path


@pytest.mark.long
def test_the_command_stores_a_calibration(base, table, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(run, "_compared", lambda *_: (digital_scans(22, outlined=False), []))
    assert cli.main([*COMMAND, str(table), "--output", str(tmp_path / "out")]) == 0
    assert "Use it with: cac score CT --model ours" in capsys.readouterr().out
    assert find_model("decomposition", "ours").origin == "user"
    page = (tmp_path / "out" / "validation.html").read_text("utf-8")
    assert "Calibration on these scans" in page
    # Scored with it, the same scans are no test of it, and the page says so.
    validation = validate(ValidationSettings(table, tmp_path / "again", models=ModelChoice(("ours",))))
    assert "was calibrated on 22 patients" in validation.page.read_text("utf-8")
    assert validation.calibrated is None


@pytest.mark.long
def test_too_few_are_refused_before_scoring_or_reported_on_the_page(base, table, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(run, "_compared", lambda *_: (digital_scans(12), []))
    assert cli.main([*COMMAND, str(table), "--output", str(tmp_path / "out")]) == 3
    assert "needs 20 at least" in capsys.readouterr().err
    assert "Nothing was calibrated or stored" in (tmp_path / "out" / "validation.html").read_text("utf-8")
    with pytest.raises(CTError, match="no model 'ours'"):
        find_model("decomposition", "ours")
    lines = table.read_text("utf-8").splitlines()
    table.write_text("\n".join(lines[:10]), "utf-8")
    with pytest.raises(TooFewError, match="9 patients"):
        validate(ValidationSettings(table, tmp_path / "never", calibrate="ours"))
    assert not (tmp_path / "never").exists()
