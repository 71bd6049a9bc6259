"""One digital patient scanned in many ways: settings, one scan for real, and the tables of known scores."""

from dataclasses import replace

import numpy as np
import pytest
from digital_pairs import CALCIFIED, POSES, SCANNER, known_networks
from in_this_process import InThisProcess

from CACTrainingLib.evaluation import jobs
from CACTrainingLib.phantom.anatomy.patient import draw_patient
from CACTrainingLib.studies import acquisition
from CACTrainingLib.studies.acquisition import AcquisitionSettings, Setting, scan_settings
from CACTrainingLib.studies.scoring import remembering


def test_each_panel_changes_one_thing():
    settings = scan_settings()
    base = replace(settings[0], changed="", value="")
    panels = {}
    for setting in settings:
        panels.setdefault(setting.changed, []).append(setting)
    assert len(panels) == 7
    for variants in panels.values():
        assert len({(s.scanner, s.pose, s.fat_mm) for s in variants}) == len(variants)
        assert len({s.value for s in variants}) == len(variants)
        parts = [{getattr(s, name) for s in variants} - {getattr(base, name)} for name in ("scanner", "pose", "fat_mm")]
        assert sum(map(bool, parts)) == 1
    noise = {s.value: s.scanner.noise_hu for s in panels["Thickness / spacing, mm"]}
    assert noise["1 / 1"] > noise["3 / 3"] > noise["5 / 5"]


@pytest.mark.long
def test_a_scan_is_made_and_scored(monkeypatch):
    monkeypatch.setattr(acquisition, "HEART_MM", (-90.0, 70.0))
    networks = remembering(known_networks())
    scores = acquisition._scanned(networks, (Setting("Kernel", "soft", SCANNER, POSES[0]), 1, CALCIFIED))
    assert scores["true_mg"] == pytest.approx(draw_patient(CALCIFIED).mass_mg)
    masses = scores["mass_mg"]
    assert set(masses) == {"map", "reader", "automatic", "noise_free"} == {*scores["agatston"], "noise_free"}
    assert 0 < masses["reader"] <= masses["automatic"]
    assert masses["noise_free"] > 0.8 * scores["true_mg"]


def test_tables_and_figures(monkeypatch, tmp_path):
    """The map always measures 50 mg; the reader's mass falls with noise, and is 2 mg higher in the second scan."""
    scanned = []

    def score(job):
        scanned.append(job)
        setting, repeat, _ = job
        if setting.value == "tilted 5°":
            raise ValueError("no heart")
        mass = {"map": 50.0, "reader": 100 - 2 * setting.scanner.noise_hu + 2 * (repeat == 2), "automatic": 60.0}
        return {"true_mg": 50.0, "mass_mg": mass, "agatston": {name: 8 * value for name, value in mass.items()}}

    monkeypatch.setattr(jobs, "Workers", InThisProcess)
    monkeypatch.setattr(acquisition, "with_networks", lambda *_: score)
    (section,) = acquisition.sections(tmp_path, AcquisitionSettings(7, 2), {}, jobs.JobSettings())
    assert len(scanned) == 2 * len({(s.scanner, s.pose, s.fat_mm) for s in scan_settings()})
    assert {job[2] for job in scanned} == {7}
    mass, _ = section.tables
    variation = {row[0]: row[1:] for row in mass.rows}
    dose = dict(zip(mass.columns[1:], variation["Dose: noise, HU"], strict=True))
    reader = [101 - 2 * noise for noise in (8, 12, 16, 24, 34)]
    assert dose["Calcium map"] == 0
    assert dose["130 HU, arteries known"] == pytest.approx((reader[0] - reader[-1]) / np.mean(reader))
    assert variation["Tube voltage, kVp"] == (0, 0, 0)
    assert variation["Noise alone"][1] > 0
    assert any("2 scans could not be made or scored" in text for text in section.text)
    assert len(section.figures) == 2
    scanned.clear()
    acquisition.sections(tmp_path, AcquisitionSettings(7, 2), {}, jobs.JobSettings())
    assert len(scanned) == 2, "only what failed"
