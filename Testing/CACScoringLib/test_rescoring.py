"""Results scored again by labels, from their facts: as from the CT, and refused where the facts do not reach."""

import json
import shutil
from dataclasses import asdict, replace

import automatic_patient
import numpy as np
import pytest
from lesion_scans import ONE_LESION, write_ct, write_image, write_labels

from CACScoringLib.calcium_map.decomposition import DecompositionSettings
from CACScoringLib.cli import main as cli
from CACScoringLib.cli.main import BAD_INPUT, BAD_USAGE
from CACScoringLib.core.errors import UnreadableError
from CACScoringLib.core.files import FACTS_FILE, OutputFolder
from CACScoringLib.core.progress import Progress
from CACScoringLib.facts.store import read_facts
from CACScoringLib.models.choice import LoadedModels
from CACScoringLib.pipeline import ScoreSettings
from CACScoringLib.record.provenance import provenance_of
from CACScoringLib.record.score_record import read_result
from CACScoringLib.rescoring import rescore
from CACScoringLib.run import RunSettings, write_result
from CACScoringLib.scoring.uncertainty import LesionCalibration

SETTINGS = ["--settings", '{"results": {"scene": false}}']


def score(*words):
    return cli.main(["score", *map(str, words), "--progress", "none"])


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """A scan with two lesions, its result `out`, labels of one lesion, and the result of the CT with these."""
    folder = tmp_path_factory.mktemp("rescoring")
    ct, labels = write_ct(folder / "scan.nii.gz", 2), write_labels(folder / "labels.nii.gz")
    usual = [ct, "--heart", folder / "heart.nrrd", "--threshold-only", *SETTINGS]
    assert score(*usual, "--output", folder / "out") == 0
    assert score(*usual, "--lesions", labels, "--reader", "Ann", "--output", folder / "by-ct") == 0
    return folder


def content(folder):
    return json.loads((folder / "scores.json").read_text(encoding="utf-8"))


def test_labels_score_a_result_as_they_score_its_ct(scored, tmp_path):
    words = ["--lesions", scored / "labels.nii.gz", "--reader", "Ann"]
    shutil.copytree(scored / "out", tmp_path / "out")
    assert score(tmp_path / "out", *words, "--output", tmp_path / "by-facts") == 0
    by_facts, by_ct = content(tmp_path / "by-facts"), content(scored / "by-ct")
    for key in ("input", "acquisition", "methods", "categories", "warnings", "measured", "non_coronary", "rules"):
        assert by_facts[key] == by_ct[key], key
    assert by_facts["methods"]["threshold"]["total"]["agatston"] == pytest.approx(ONE_LESION)
    assert read_result(tmp_path / "by-facts").review.confirmation.reader == "Ann"
    for name in ("lesions.csv", "heart.nii.gz", "report.html", FACTS_FILE):
        assert (tmp_path / "by-facts" / name).is_file()
    # From the facts of that result, once more.
    assert score(tmp_path / "by-facts", *words, "--output", tmp_path / "again") == 0
    assert content(tmp_path / "again")["methods"] == by_ct["methods"]


def test_labels_beyond_the_facts_are_refused(scored, tmp_path, capsys):
    labels = np.zeros((10, 50, 50), np.uint8)
    labels[5, 20:24, 20:24] = 2
    labels[5, :2, :2] = 2
    file = write_image(labels, tmp_path / "far.nii.gz")
    assert score(scored / "out", "--lesions", file, "--output", tmp_path / "result") == BAD_INPUT
    assert "4 labelled voxels lie beyond" in capsys.readouterr().err
    assert not (tmp_path / "result").exists()


@pytest.mark.parametrize("more", [[], ["--lesions", "labels.nii.gz", "--heart", "heart.nrrd"]])
def test_a_result_takes_labels_and_keeps_its_settings(scored, more, tmp_path):
    assert score(scored / "out", *more, "--output", tmp_path / "result") == BAD_USAGE


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """Folder of the automatic result of a patient with lesions, with its facts."""
    folder = tmp_path_factory.mktemp("judged") / "out"
    result = automatic_patient.scored()
    settings = {"score": asdict(ScoreSettings(decomposition=DecompositionSettings()))}
    result = result.stating(provenance=provenance_of(settings))
    write_result(OutputFolder(folder), result, RunSettings(), Progress())
    return folder


def calibrated_anew() -> LoadedModels:
    """The patient's models with another weight of the lesion network's answers, by which fewer candidates count."""
    networks = automatic_patient.networks()
    card = networks.decomposition.card
    other = card.calibration | {"candidates": asdict(LesionCalibration(intercept=-1.0))}
    decomposition = replace(networks.decomposition, card=replace(card, calibration=other))
    return LoadedModels(replace(networks, decomposition=decomposition))


def test_a_new_calibration_scores_facts_as_it_scores_the_ct(judged, monkeypatch):
    models = calibrated_anew()
    by_facts = rescore(judged, None, None, Progress(), models).record
    monkeypatch.setattr(automatic_patient, "networks", lambda *_: models.networks)
    by_ct = automatic_patient.score().record
    former = read_result(judged).methods["threshold"].total
    assert by_facts.methods["threshold"].total != former
    for name, method in by_ct.as_json()["methods"].items():
        assert by_facts.as_json()["methods"][name] == method
    assert by_facts.warning_codes == by_ct.warning_codes


@pytest.mark.parametrize("fault", ["slices", "settings", "answers"])
def test_facts_that_do_not_hold_what_a_calibration_needs_are_refused(judged, fault, monkeypatch):
    measurement = read_facts(judged, read_result(judged))
    parts = measurement.decomposed.parts
    if fault == "slices":
        parts = replace(parts, decomposed=~parts.decomposed)
    elif fault == "settings":
        parts = replace(parts, settings=replace(parts.settings, floor_hu=20.0))
    else:
        measurement = replace(measurement, facts=replace(measurement.facts, answers=None))
    changed = replace(measurement, decomposed=replace(measurement.decomposed, parts=parts))
    monkeypatch.setattr("CACScoringLib.rescoring.read_facts", lambda *_: changed)
    with pytest.raises(UnreadableError):
        rescore(judged, None, None, Progress(), calibrated_anew())
