"""The ablation: what each setting changes, networks that remember, and the tables of it all."""

import dataclasses
import math

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from digital_pairs import CALCIFIED, known_networks
from handmade_networks import loaded, untrained
from in_this_process import InThisProcess
from study_samples import cohort
from torch import nn

from CACScoringLib.calcium_map.decomposition import DecompositionSettings
from CACScoringLib.core.ct import ContrastError
from CACScoringLib.io.reading import read_ct
from CACScoringLib.models.cards import StoredModel
from CACScoringLib.models.inference import predict
from CACScoringLib.networks.van_velzen import GeneratorConfig, SliceClassifierConfig
from CACScoringLib.pipeline import ScoreSettings, score_scan
from CACScoringLib.results import Networks
from CACTrainingLib.experiments import jobs as study_jobs
from CACTrainingLib.experiments.errors import StudyError
from CACTrainingLib.experiments.jobs import JobSettings
from CACTrainingLib.statistics.bootstrap import Estimate
from CACTrainingLib.studies import ablation, ablation_study
from CACTrainingLib.studies.ablation import CONFIGURATIONS, WHOLE, AblationSettings, score_configurations, with_cards
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


@pytest.mark.long
def test_the_room_in_the_chest_holds_the_heart_and_no_chest_wall(calcified):
    ct = read_ct(calcified.ct)
    room = sitk.GetArrayFromImage(chest_room(ct)) > 0
    heart = sitk.GetArrayFromImage(sitk.ReadImage(calcified.truth / "heart.nii.gz")) > 0
    assert room.shape == heart.shape
    assert (room & heart).sum() > 0.98 * heart.sum()
    assert room.sum() > 3 * heart.sum()
    assert room.mean() < 0.5


UNCHANGED = ScoreSettings()


def as_if_enhanced_where_there_are_bones(scan, settings=UNCHANGED, heart=None, networks=None):
    if heart is not None and not settings.allow_contrast:
        raise ContrastError("bones")
    return score_scan(scan, settings, heart, networks=networks)


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


def test_variants_take_the_place_of_their_kind(tmp_path):
    card = untrained("decomposition", "other", tmp_path)
    models = {"slices": StoredModel(loaded(nn.Identity(), SliceClassifierConfig()).card, tmp_path, "bundled")}
    changed = with_cards(models, [card])
    assert changed["slices"] is models["slices"]
    assert changed["decomposition"].path == card
    with pytest.raises(StudyError, match="same network"):
        with_cards(models, [card, card])


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
            if len(configurations) == 1 and "alpha" in models:
                masses = {WHOLE.key: 0.0}
            values[scan.name] = {key: Value(mass, mass, {}) for key, mass in masses.items()}
        return values

    monkeypatch.setattr(ablation_study, "score_configurations", scored)
    monkeypatch.setattr(ablation_study, "with_cards", lambda models, cards: {**models, "alpha": cards})
    return records, calls


class Named:
    def __init__(self, name):
        self.name = name


def models():
    return {"decomposition": StoredModel(loaded(nn.Identity(), GeneratorConfig()).card, None, "bundled")}


def sections(records, folder, settings):
    scans = [Named(record.scan) for record in records]
    generator = np.random.default_rng(0)
    return ablation_study.sections(scans, records, folder, settings, models(), JobSettings(), generator)


def test_tables_say_what_each_part_is_good_for(known_configurations, tmp_path):
    records, calls = known_configurations
    (section,) = sections(records, tmp_path, AblationSettings(pairs=20))
    assert calls == [(40, len(CONFIGURATIONS), "cells.jsonl")]
    table, differences = section.tables
    column = {title: n for n, title in enumerate(table.columns)}
    rows = {(n, row[0].strip()): row for n, row in enumerate(table.rows) if isinstance(row[1], Estimate)}
    whole = rows[1, "heart and slice classifier"]
    assert whole[column["Rank correlation with true mass"]].value == pytest.approx(1)
    assert whole[column["Relative difference, positive in both"]].value == pytest.approx(0)
    free = rows[2, "without the slice classifier"]
    assert free[column["False-positive scans"]].value == 1
    assert free[column["Sensitivity of scans"]].value == 1
    assert math.isnan(free[column["Rank correlation with true mass"]].value)
    assert "without the −10 HU rule" in {name for _, name in rows}
    assert len(rows) == len(CONFIGURATIONS)
    assert len(differences.rows) == len(CONFIGURATIONS) - 1
    assert section.figures


def test_seeds_of_a_variant_are_pooled(known_configurations, tmp_path):
    records, _ = known_configurations
    variants = {"alpha#1": ("a.json",), "alpha#2": ("b.json",)}
    found = sections(records, tmp_path, AblationSettings(20, variants))
    rows = found[1].tables[0].rows
    assert [row[0] for row in rows] == ["as shipped", "alpha, mean over 2 seeds", "  seed 1", "  seed 2"]
    assert rows[1][1] == rows[2][1]
    assert rows[1][2].value == 0


def test_without_pairs_there_is_a_sentence(known_configurations, tmp_path):
    records, calls = known_configurations
    (section,) = sections([record for record in records if record.number == 1], tmp_path, AblationSettings())
    assert section.text
    assert not calls
