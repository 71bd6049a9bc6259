"""Training of a radiomics model on random features, one of which predicts the truth."""

import json

import numpy as np
import pytest

from CACScoringLib.models.cards import load_model, read_card
from CACScoringLib.whole_scan.radiomics import PSEUDO_FEATURE
from CACTrainingLib.cli import main as cli
from CACTrainingLib.data.scan_table import held_out, read_cts
from CACTrainingLib.whole_scan.radiomics import train as train_radiomics
from CACTrainingLib.whole_scan.radiomics.fitting import FeatureTable

NAMES = ("heart_a", "heart_b", PSEUDO_FEATURE, "candidate_d")
PATIENTS = 80


def table(folder, name, patients, scores, contrast=0):
    """Write a table of CTs that are never read."""
    lines = ["patient,name,ct,agatston_LM,agatston_LAD,agatston_LCX,agatston_RCA,contrast"]
    for patient, score in zip(patients, scores, strict=True):
        (folder / f"{name}-{patient}.nii").touch()
        lines.append(f"{patient},{name}{patient},{name}-{patient}.nii,0,{score},0,0,{contrast}")
    path = folder / f"{name}.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def tables(tmp_path, monkeypatch):
    """Tables in which every second patient has calcium, predicted by heart_a."""
    calls = []

    def features_of(scans, folder, workers, progress):
        calls.append([scan.name for scan in scans])
        generator = np.random.default_rng(3)
        values = generator.normal(size=(len(scans), len(NAMES)))
        values[:, 0] = [3.0 * (scan.total > 0) + 0.3 * generator.normal() for scan in scans]
        values[:, 2] = [float(int(scan.patient) % 4 == 1) for scan in scans]
        rows = [n for n, scan in enumerate(scans) if scan.name != "data2"]
        failed = {"data2": "no heart"} if len(rows) < len(scans) else {}
        return FeatureTable(tuple(scans[n] for n in rows), NAMES, values[rows]), failed

    monkeypatch.setattr(train_radiomics, "features_of", features_of)
    patients = range(PATIENTS)
    return {
        "data": table(tmp_path, "data", patients, [50 * (p % 2) for p in patients]),
        "contrast": table(tmp_path, "contrast", patients, [50 * (p % 2) for p in patients], 1),
        "others": table(tmp_path, "others", range(900, 910), [0] * 10),
        "asked": calls,
    }


def train(tmp_path, data, *options, **settings):
    command = ["train", "radiomics", "--output", tmp_path / "model", "--workers", "1", "--data", data]
    return cli.main([*map(str, command), *options, "--settings", json.dumps(settings, default=str)])


def test_model_is_trained_evaluated_once_and_written(tables, tmp_path):
    assert train(tmp_path, tables["data"], sources={"noncoronary_controls": tables["others"]}) == 0
    card = read_card(tmp_path / "model.json")
    test = card.validation["test"]
    test_names = held_out(read_cts(tables["data"]))
    assert test["patients"] == len(test_names) - ("data2" in test_names)
    assert test["accuracy"]["estimate"] == test["auc"]["estimate"] == 1
    assert test["sensitivity"]["low"] < test["sensitivity"]["estimate"] == 1
    assert test["specificity"]["estimate"] == 1
    assert test["non_coronary_only"] == {"patients": 10, "called_coronary": 0}
    assert "user's table" in test["data"]
    assert f"training {PATIENTS - 1 - test['patients']}, contrast-enhanced training 0" in card.training.data
    assert card.config["features"][0] == "heart_a"
    assert 0 < card.calibration["probability_limit"] < 1
    assert load_model(tmp_path / "model.json", "cpu").card == card
    json.dumps(card.validation, allow_nan=False)


@pytest.mark.long
def test_contrast_enhanced_scans_of_test_patients_are_not_learned_from(tables, tmp_path, monkeypatch):
    learned = []
    fit = train_radiomics.fit_classifier

    def record_patients(kind, features, labels, patients, seed):
        learned.extend(patients)
        return fit(kind, features, labels, patients, seed)

    monkeypatch.setattr(train_radiomics, "fit_classifier", record_patients)
    assert train(tmp_path, tables["data"], contrast_data=tables["contrast"]) == 0
    scans = read_cts(tables["data"])
    test_names = {scan.patient for scan in scans if scan.name in held_out(scans)}
    assert not test_names & set(learned)
    assert len(learned) > 1.5 * len(set(learned))
