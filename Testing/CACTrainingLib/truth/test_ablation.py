"""The ablation: settings of each configuration, cached networks, and the tables."""

import math
from dataclasses import asdict, replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
from digital_pairs import CALCIFIED, known_networks
from in_this_process import InThisProcess
from study_samples import cohort

from CACScoringLib.calcium_map.decomposition import DecompositionSettings
from CACScoringLib.core.errors import ContrastError
from CACScoringLib.io.reading import read_ct
from CACScoringLib.models.cards import find_model
from CACScoringLib.pipeline import ScoreSettings, score_scan
from CACScoringLib.scoring.uncertainty import TOTAL
from CACTrainingLib.evaluation import jobs
from CACTrainingLib.truth import ablation
from CACTrainingLib.truth.ablation import CONFIGURATIONS, chest_room, score_configurations
from CACTrainingLib.truth.records import scores_of

STORED = DecompositionSettings(slice_threshold=0.2, min_healthy_hu=None, floor_hu=20.0, most_not_coronary=0.3)


def test_each_setting_changes_its_part_alone():
    settings = {configuration.key: asdict(configuration.settings(STORED, 0.9)) for configuration in CONFIGURATIONS}
    changed = {key: dict(set(values.items()) - set(asdict(STORED).items())) for key, values in settings.items()}
    published, no_threshold = {"slice_threshold": 0.9}, {"slice_threshold": 0.0}
    all_lesions = {"most_not_coronary": 1.0}
    parts = {"no_classifier": no_threshold, "neither": no_threshold, "scoring_limit": {}}
    parts |= {"whole": published, "no_heart": published, "other_rule": published | {"min_healthy_hu": -10.0}}
    parts |= {"no_completion": published | {"without_completion": True}}
    assert changed == parts | {f"all_{key}": part | all_lesions for key, part in parts.items()}
    without_heart = {configuration.key for configuration in CONFIGURATIONS if not configuration.heart}
    assert without_heart == {"no_heart", "neither", "all_no_heart", "all_neither"}
    (other_rule,) = (item for item in CONFIGURATIONS if item.key == "other_rule")
    assert other_rule.settings(replace(STORED, min_healthy_hu=-10.0), 0.9).min_healthy_hu is None


@pytest.mark.long
def test_cells_are_scored_by_their_settings(digital_results, tmp_path, monkeypatch):
    def score(scan, settings=None, heart=None, networks=None):
        if heart is not None and not settings.allow_contrast:
            raise ContrastError("bones")
        return score_scan(scan, settings or ScoreSettings(), heart, networks=networks)

    calcified = next(scan for scan in digital_results[0] if scan.patient == str(CALCIFIED))
    monkeypatch.setattr(jobs, "Workers", InThisProcess)
    monkeypatch.setattr(ablation, "with_networks", lambda do_job, *_: partial(do_job, known_networks()))
    monkeypatch.setattr(ablation, "score_scan", score)
    configurations = tuple(item for item in CONFIGURATIONS if item.key in ("whole", "no_heart"))
    cells = {"slices": find_model("slices")}, configurations, tmp_path / "cells.jsonl", jobs.JobSettings()
    scores = score_configurations([calcified], *cells)[calcified.name]
    ct, networks = read_ct(calcified.ct), known_networks()
    per_mg = 1000 * 1.385
    assert scores["whole"] == scores_of(score_scan(ct, networks=networks).methods["decomposition"], per_mg)
    unrestricted = score_scan(ct, ScoreSettings(), chest_room(ct), networks=networks).methods["decomposition"]
    assert scores["no_heart"][TOTAL][0] == pytest.approx(unrestricted.total.pseudo_mass_hu_mm3 / per_mg)
    assert scores["no_heart"][TOTAL][0] > 2 * scores["whole"][TOTAL][0], "bones are in it"
    monkeypatch.setattr(ablation, "with_networks", lambda *_: pytest.fail("it is kept"))
    assert score_configurations([calcified], *cells)[calcified.name] == scores


def test_tables_compare_each_part_with_the_full_method(monkeypatch, tmp_path):
    """The full method measures the true mass; without the classifier every scan is positive."""
    records = {record.name: record for record in cohort(40) if record.refused is None}
    counts = []

    def scored(scans, models, configurations, file, work):
        counts.append((len(scans), len(configurations)))
        masses = {scan.name: records[scan.name].truth_mg[TOTAL] for scan in scans}
        values = {name: {c.key: mass if c.slices else 5.0 for c in configurations} for name, mass in masses.items()}
        return {name: {key: {TOTAL: (mass, mass)} for key, mass in row.items()} for name, row in values.items()}

    monkeypatch.setattr(ablation, "score_configurations", scored)
    scans = [SimpleNamespace(name=name) for name in records]
    study = 20, {"slices": find_model("slices")}, jobs.JobSettings(), np.random.default_rng(0)
    (section,) = ablation.sections(scans, list(records.values()), tmp_path, *study)
    assert counts == [(40, len(CONFIGURATIONS))]
    table, differences = section.tables
    rows = {row[0]: dict(zip(table.columns, row, strict=True)) for row in table.rows}
    assert len(rows) == len(CONFIGURATIONS)
    full_method, no_classifier = rows["heart and slice classifier"], rows["without the slice classifier"]
    assert full_method["Rank correlation with true mass"].value == pytest.approx(1)
    assert full_method["Relative difference, positive in both"].value == pytest.approx(0)
    assert (no_classifier["Sensitivity"].value, no_classifier["False positives"].value) == (1, 1)
    assert math.isnan(no_classifier["Rank correlation with true mass"].value)
    assert {row[0].strip() for row in differences.rows} >= set(rows) - {"heart and slice classifier"}
    assert section.figures
