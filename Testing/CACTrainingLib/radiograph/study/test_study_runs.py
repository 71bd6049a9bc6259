"""A training of the study: who learns, validates and is tested, by which settings; and the command line."""

from dataclasses import replace

import numpy as np
import pytest
from radiograph_study import write_table

from CACScoringLib.core.ct import CTError
from CACTrainingLib.experiments.configuration import ExperimentRun
from CACTrainingLib.radiograph import fitting
from CACTrainingLib.radiograph import train as train_radiograph
from CACTrainingLib.radiograph.study.configurations import BASE, UNAIDED, RadiographBudget, folds_of_patients
from CACTrainingLib.radiograph.study.study_runs import Data, fit_settings, trainer
from CACTrainingLib.radiograph.table import read_table

BUDGET = RadiographBudget(folds=3, steps=30)


class Held:
    """In place of a set of radiographs: what the split and the names need."""

    def __init__(self, table, scales):
        rows = read_table(table)
        self.names = tuple(row.name for row in rows)
        self.patients = np.array([row.patient for row in rows])
        self.scores = {"agatston": np.array([row.scores["agatston"] for row in rows])}
        self.sha256, self.scales = "0", scales

    def __len__(self):
        return len(self.names)


@pytest.fixture
def asked(monkeypatch):
    """What the network's own training is asked for, which it answers at once."""
    seen = []

    def load(table, label, views, enhancement, super_resolution, scales):
        seen.append(("load", views, enhancement, super_resolution, scales))
        return Held(table, scales)

    def fit(known, training, validation, test, settings, folder):
        seen.append(("fit", known, training, validation, test, settings))
        values = np.full((len(test), 3), 0.5)
        both = np.full((len(test), 3), np.nan)
        return fitting.FoldResult(test, values, values, both, {}, {}, 2.0, 30, 20, 4.0)

    monkeypatch.setattr("CACTrainingLib.radiograph.dataset.load_radiographs", load)
    monkeypatch.setattr(fitting, "fit_fold", fit)
    return seen


@pytest.fixture
def data(tmp_path):
    own = write_table(tmp_path / "own" / "radiographs.csv", 48)
    other = write_table(tmp_path / "other" / "radiographs.csv", 16, first=100, seed=1)
    known = read_table(own)
    folds = folds_of_patients([r.patient for r in known], np.array([r.scores["agatston"] for r in known]), 3, 0)
    (tmp_path / "out").mkdir()
    return Data(own, tuple(map(int, folds)), other, tmp_path / "out", "cpu")


def test_no_patient_is_on_two_sides(asked, data):
    do = trainer(data, BUDGET)
    tested = []
    for fold in range(3):
        result = do(ExperimentRun(BASE, fold))
        _, known, training, validation, test, _ = asked[-1]
        assert sorted(np.concatenate([training, validation, test])) == list(range(48))
        assert len(validation) == pytest.approx(48 * 2 / 3 / 5, abs=2)
        assert result["names"] == [known.names[n] for n in test]
        tested += result["names"]
    assert sorted(tested) == sorted(row.name for row in read_table(data.table))
    # The radiographs were read once.
    assert [entry[0] for entry in asked].count("load") == 1


def test_an_external_cohort_is_tested_and_nothing_else(asked, data):
    result = trainer(data, BUDGET)(ExperimentRun(replace(BASE, external=True), 0))
    assert sorted(result["names"]) == sorted(row.name for row in read_table(data.external))
    assert result["learned_from"] + len(asked[-1][3]) == 48
    assert result["both"] is None


def test_settings_follow_the_configuration():
    base = fit_settings(BASE, BUDGET, "cpu")
    assert base.config.backbone == "light"
    assert base.config.views == ("PA",)
    assert base.training.label == "agatston"
    assert base.training.scaled_share > 0
    assert base.training.locate_weight > 0
    assert not base.training.curriculum
    assert base.training.loop.steps == 30
    weak = fit_settings(replace(UNAIDED, labels="automatic", curriculum=True, enhancement="clahe"), BUDGET, "cpu")
    assert weak.training.label == "agatston_automatic"
    assert weak.training.scaled_share == weak.training.locate_weight == 0
    assert weak.training.curriculum
    assert weak.config.enhancement == "clahe"
    assert (
        fit_settings(BASE, RadiographBudget(), "cpu").training.loop.steps
        == train_radiograph.PRESETS["light"].loop.steps
    )
    presets = train_radiograph.PRESETS
    proportion = presets["resnet18"].loop.steps / presets["light"].loop.steps
    assert fit_settings(replace(BASE, backbone="resnet18"), BUDGET, "cpu").training.loop.steps == round(30 * proportion)


def test_without_counterfactual_pairs_none_are_made(asked, data):
    do = trainer(data, BUDGET)
    do(ExperimentRun(UNAIDED, 0))
    do(ExperimentRun(replace(BASE, views=("lateral",)), 0))
    loads = [entry for entry in asked if entry[0] == "load"]
    assert loads[0][-1] == (1.0,)
    assert len(loads[1][-1]) > 1
    assert loads[1][1] == ("lateral",)


def test_a_training_that_gives_no_numbers_is_refused(asked, data, monkeypatch):
    nothing = np.full((16, 3), np.nan)
    answer = fitting.FoldResult(np.arange(16), nothing, nothing, nothing, {}, {}, 1.0, 1, 1, 1.0)
    monkeypatch.setattr(fitting, "fit_fold", lambda *_: answer)
    with pytest.raises(CTError, match="gave no numbers"):
        trainer(data, BUDGET)(ExperimentRun(BASE, 0))


def test_own_pictures_have_no_slices_to_sharpen(asked, tmp_path, data):
    table = data.table.with_name("pictures.csv")
    table.write_text(data.table.read_text(encoding="utf-8").replace(".npz", ".png"), encoding="utf-8")
    for row in read_table(data.table):
        row.files["PA"].with_suffix(".png").touch()
    with pytest.raises(CTError, match="Only radiographs projected"):
        trainer(replace(data, table=table), BUDGET)(ExperimentRun(replace(BASE, super_resolution="learned"), 0))
