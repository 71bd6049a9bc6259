"""The ablation: what each setting changes, networks that remember, and the tables of it all."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from digital_pairs import CALCIFIED, known_networks
from handmade_networks import loaded
from in_this_process import InThisProcess
from study_samples import cohort
from torch import nn

from CACScoringLib.calcium_map.decomposition import DecompositionSettings
from CACScoringLib.core.ct import ContrastError
from CACScoringLib.io.reading import read_ct
from CACScoringLib.models.choice import Networks
from CACScoringLib.models.inference import predict
from CACScoringLib.networks.van_velzen import GeneratorConfig, SliceClassifierConfig
from CACScoringLib.pipeline import ScoreSettings, score_scan
from CACTrainingLib.experiments import jobs as study_jobs
from CACTrainingLib.experiments.jobs import JobSettings
from CACTrainingLib.studies import ablation
from CACTrainingLib.studies.ablation import CONFIGURATIONS, AblationSettings, score_configurations
from CACTrainingLib.studies.records import Value
from CACTrainingLib.studies.scoring import chest_room, forget, remembering, value_of

OWN = DecompositionSettings(slice_threshold=0.2, min_healthy_hu=None, floor_hu=20.0, most_not_coronary=0.3)


def test_each_setting_changes_its_part_alone():
    own = dataclasses.asdict(OWN)
    changed = {}
    for configuration in CONFIGURATIONS:
        now = dataclasses.asdict(configuration.settings(OWN))
        changed[configuration.key] = {name: value for name, value in now.items() if value != own[name]}
    assert changed["whole"] == changed["no_heart"] == {}
    assert changed["no_classifier"] == changed["neither"] == {"slice_threshold": 0.0}
    assert changed["other_rule"] == {"min_healthy_hu": -10.0}
    assert changed["all_whole"] == {"most_not_coronary": 1.0}
    assert changed["all_neither"] == {"slice_threshold": 0.0, "most_not_coronary": 1.0}
    assert {configuration.key for configuration in CONFIGURATIONS if not configuration.heart} == {
        "no_heart",
        "neither",
        "all_no_heart",
        "all_neither",
    }
    with_rule = dataclasses.replace(OWN, min_healthy_hu=-10.0)
    assert CONFIGURATIONS[4].settings(with_rule).min_healthy_hu is None


class Asked(nn.Module):
    """Doubles its input; knows how many items it was asked for."""

    def __init__(self):
        super().__init__()
        self.items = 0

    def forward(self, x):
        self.items += len(x)
        return 2 * x


def test_networks_remember_what_they_answered():
    asked = Asked()
    networks = remembering(
        Networks(None, loaded(nn.Identity(), SliceClassifierConfig()), loaded(asked, GeneratorConfig()))
    )
    network = networks.decomposition.network
    x = np.random.default_rng(0).normal(size=(5, 2, 4, 4)).astype(np.float32)
    np.testing.assert_array_equal(predict(network, x, 4)[0], 2 * x)
    assert asked.items == 5
    other = np.concatenate([x[3:], x[:1] + 1, x[:2]])
    np.testing.assert_array_equal(predict(network, other, 4)[0], 2 * other)
    assert asked.items == 6
    forget(networks)
    predict(network, x, 4)
    assert asked.items == 11
    assert torch.equal(network(torch.from_numpy(x[:1]).bfloat16()), 2 * torch.from_numpy(x[:1]).bfloat16())


@pytest.fixture(scope="module")
def calcified(digital_pairs):
    from CACTrainingLib.studies.scans import find_study_scans

    return next(s for s in find_study_scans(digital_pairs)[0] if s.patient == str(CALCIFIED))


UNCHANGED = ScoreSettings()


def as_if_enhanced_where_there_are_bones(scan, settings=UNCHANGED, heart=None, networks=None):
    if heart is not None and not settings.allow_contrast:
        raise ContrastError("bones")
    return score_scan(scan, settings, heart, networks=networks)


@pytest.mark.long
def test_cells_are_scored_as_their_settings_say(calcified, tmp_path, monkeypatch):
    monkeypatch.setattr(study_jobs, "Workers", InThisProcess)
    monkeypatch.setattr(ablation, "ready_networks", lambda *_: remembering(known_networks()))
    monkeypatch.setattr(ablation, "score_scan", as_if_enhanced_where_there_are_bones)
    file, kept = tmp_path / "cells.jsonl", CONFIGURATIONS[:1] + CONFIGURATIONS[2:3]
    found = score_configurations([calcified], {}, kept, file, JobSettings())[calcified.name]
    ct, networks = read_ct(calcified.ct), known_networks()
    whole = score_scan(ct, networks=networks)
    per_mg = 1000 * 1.385
    assert found["whole"] == value_of(whole.methods["decomposition"], per_mg)
    free = score_scan(ct, ScoreSettings(), chest_room(ct), networks=networks).methods["decomposition"]
    assert found["no_heart"].mass == pytest.approx(free.total.pseudo_mass_hu_mm3 / per_mg)
    assert found["no_heart"].mass > 2 * found["whole"].mass, "bones are in it"
    monkeypatch.setattr(ablation, "ready_networks", lambda *_: pytest.fail("it is kept"))
    assert score_configurations([calcified], {}, kept, file, JobSettings())[calcified.name] == found


@pytest.fixture
def known_configurations(monkeypatch):
    """Instead of scoring: whole finds the true mass, without the classifier everything is positive."""
    records = [record for record in cohort(40) if record.refused is None]
    calls = []

    def scored(scans, models, configurations, file, work):
        calls.append((len(scans), len(configurations), file.name))
        values = {}
        for scan in scans:
            true = next(r.truth.mass_mg for r in records if r.scan == scan.name)
            masses = {configuration.key: true if configuration.classifier else 5.0 for configuration in configurations}
            values[scan.name] = {key: Value(mass, mass, {}) for key, mass in masses.items()}
        return values

    monkeypatch.setattr(ablation, "score_configurations", scored)
    return records, calls


class Named:
    def __init__(self, name):
        self.name = name


def sections(records, folder, settings):
    scans = [Named(record.scan) for record in records]
    generator = np.random.default_rng(0)
    return ablation.sections(scans, records, folder, settings, {}, JobSettings(), generator)


def test_tables_say_what_each_part_is_good_for(known_configurations, tmp_path):
    records, calls = known_configurations
    (section,) = sections(records, tmp_path, AblationSettings(pairs=20))
    assert calls == [(40, len(CONFIGURATIONS), "cells.jsonl")]
    table, differences = section.tables
    rows = {row[0]: dict(zip(table.columns, row, strict=True)) for row in table.rows}
    assert len(rows) == len(CONFIGURATIONS)
    whole, free = rows["heart and slice classifier"], rows["without the slice classifier"]
    assert whole["Rank correlation with true mass"].value == pytest.approx(1)
    assert whole["Relative difference, positive in both"].value == pytest.approx(0)
    assert (free["Sensitivity"].value, free["False positives"].value) == (1, 1)
    assert math.isnan(free["Rank correlation with true mass"].value)
    assert {row[0].strip() for row in differences.rows} >= set(rows) - {"heart and slice classifier"}
    assert section.figures
