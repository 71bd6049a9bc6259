"""Scans of the study of radiomics, with their features put in order and what is true of them."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_radiomics import made_scans

from CACScoringLib.core.progress import Progress
from CACScoringLib.whole_scan.radiomics import PSEUDO_FEATURE
from CACTrainingLib.data.scan_table import TableScan
from CACTrainingLib.experiments.errors import StudyError
from CACTrainingLib.whole_scan import encoders
from CACTrainingLib.whole_scan.radiomics.data import read_scans, true_findings


def write_truth(folder: Path, visible=(False, True), metal=(True, False)):
    folder.mkdir(parents=True)
    content = {"slices": [{"visible": one} for one in visible], "distractors": [{"metal": one} for one in metal]}
    (folder / "truth.json").write_text(json.dumps(content), encoding="utf-8")
    return folder / "ct.nii.gz"


@pytest.mark.parametrize(
    ("visible", "metal", "known"),
    [((False, True), (), (1, 0)), ((False, False), (True,), (0, 0)), ((), (True, False), (0, 1))],
)
def test_what_is_true_of_a_digital_patient(tmp_path, visible, metal, known):
    assert true_findings(write_truth(tmp_path / "p", visible, metal)) == known


def test_nothing_is_known_of_anyone_else(tmp_path):
    assert all(map(math.isnan, true_findings(tmp_path / "ct.nii.gz")))
    (tmp_path / "truth.json").write_text("[1]", encoding="utf-8")
    assert all(map(math.isnan, true_findings(tmp_path / "ct.nii.gz")))


def table_of(tmp_path, ages=(50.0, 60.0, 70.0)):
    scores = (0.0, 12.0, 500.0)
    return tuple(
        TableScan(
            name=f"p{n}",
            patient=str(n),
            files={"ct": tmp_path / f"p{n}.nii.gz"},
            scores={"LM": 0.0, "LAD": scores[n], "LCX": 0.0, "RCA": 0.0},
            age_years=ages[n],
            sex="FM"[n % 2],
        )
        for n in range(3)
    )


@pytest.fixture
def asked(monkeypatch):
    """Features in place of those of CTs, in another order than the table's and without one of its scans."""
    calls = []

    def features_of(scans, folder, kinds, files=None, workers=None, device="cpu", progress=None, config=None):
        assert (device, isinstance(progress, Progress)) == ("cpu", True)
        calls.append((folder, kinds, files, workers))
        names = ("p2", "p0")
        own = {"heart": ("heart_stat_mean",), "candidates": ("candidate_count", PSEUDO_FEATURE)}
        tables = {
            kind: encoders.FeatureTable(
                names, own.get(kind, ("a",)), np.array([[9.0, 6.2], [1.0, 0.0]])[:, : 2 if kind == "candidates" else 1]
            )
            for kind in kinds
        }
        return tables, {"p1": "it has no heart"}

    monkeypatch.setattr(encoders, "features_of", features_of)
    return calls


def test_scans_are_read_in_the_order_of_their_features(tmp_path, asked):
    found = read_scans(table_of(tmp_path), tmp_path, {"ct-fm": tmp_path / "weights"}, 2, progress=Progress())
    assert asked == [(tmp_path, ("heart", "candidates", "own", "ct-fm"), {"ct-fm": tmp_path / "weights"}, 2)]
    assert found.names == ("p2", "p0")
    assert found.agatston.tolist() == [500, 0]
    assert found.truth.tolist() == [True, False]
    assert found.pseudo.tolist() == [True, False]
    assert found.failed == {"p1": "it has no heart"}
    assert found.factors.tolist() == [[70, 0], [50, 0]]
    assert np.isnan(found.visible).all()


def test_sets_are_put_together(tmp_path, asked):
    found = read_scans(table_of(tmp_path), tmp_path, {}, 1, progress=Progress())
    assert set(found.features) == {"heart", "candidates", "both", "own", "agatston", "age-sex"}
    assert found.titles["both"] == ("heart_stat_mean", "candidate_count", PSEUDO_FEATURE)
    assert found.features["both"].tolist() == [[9, 9, 6.2], [1, 1, 0]]
    assert found.features["agatston"].tolist() == [[6.2], [0]]
    assert found.features["age-sex"] is found.factors


def test_without_everyones_age_there_is_no_baseline_of_it(tmp_path, asked):
    found = read_scans(table_of(tmp_path, (50.0, 60.0, None)), tmp_path, {}, 1, progress=Progress())
    assert found.factors is None
    assert "age-sex" not in found.features


def test_no_scan_no_study(tmp_path, monkeypatch):
    empty = encoders.FeatureTable((), ("a",), np.zeros((0, 1)))
    monkeypatch.setattr(
        encoders, "features_of", lambda *a, **k: (dict.fromkeys(("heart", "candidates"), empty), {"p0": "odd"})
    )
    with pytest.raises(StudyError, match="p0: odd"):
        read_scans(table_of(tmp_path), tmp_path, {}, 1, progress=Progress())


def test_some_of_the_scans():
    scans = made_scans(12)
    some = scans.chosen([7, 2])
    assert some.names == ("p7", "p2")
    assert some.features["both"].tolist() == scans.features["both"][[7, 2]].tolist()
    assert some.factors.tolist() == scans.factors[[7, 2]].tolist()
    assert some.truth.tolist() == [True, False]


def test_a_stamp_changes_with_all_that_a_model_takes():
    scans = made_scans(12)
    other = dict(scans.features) | {"heart": scans.features["heart"] + 1e-9}
    stamps = {
        scans.stamp("heart"),
        scans.stamp("both"),
        replace(scans, features=other).stamp("heart"),
        replace(scans, agatston=scans.agatston + 1).stamp("heart"),
        replace(scans, pseudo=~scans.pseudo).stamp("heart"),
        replace(scans, patients=scans.patients[::-1]).stamp("heart"),
    }
    assert len(stamps) == 6
    assert made_scans(12).stamp("heart") == scans.stamp("heart")
    assert replace(scans, features=other).stamp("candidates") == scans.stamp("candidates")
