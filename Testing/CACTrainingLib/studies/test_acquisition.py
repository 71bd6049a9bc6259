"""One digital patient scanned in many ways: settings, one scan for real, and the tables of known scores."""

from dataclasses import replace

import numpy as np
import pytest
from digital_pairs import CALCIFIED, POSES, SCANNER, known_networks
from in_this_process import InThisProcess

from CACTrainingLib.experiments import jobs as study_jobs
from CACTrainingLib.experiments.jobs import JobSettings
from CACTrainingLib.phantom.anatomy.patient import draw_patient
from CACTrainingLib.studies import acquisition as acquisition_study
from CACTrainingLib.studies.acquisition import AcquisitionSettings, Setting, scan_settings
from CACTrainingLib.studies.scoring import remembering


def test_each_panel_changes_one_thing():
    settings = scan_settings()
    base = replace(settings[0], changed="", value="")
    panels = {}
    for setting in settings:
        panels.setdefault(setting.changed, []).append(setting)
    assert len(panels) == 7
    for own in panels.values():
        assert len({(s.scanner, s.pose, s.fat_mm) for s in own}) == len(own)
        assert len({s.value for s in own}) == len(own)
        parts = [sum(getattr(s, name) != getattr(base, name) for s in own) for name in ("scanner", "pose", "fat_mm")]
        assert sum(count > 0 for count in parts) == 1
    noise = {s.value: s.scanner.noise_hu for s in panels["Thickness / spacing, mm"]}
    assert noise["1 / 1"] > noise["3 / 3"] > noise["5 / 5"]


@pytest.mark.long
def test_a_scan_is_made_and_scored(monkeypatch):
    monkeypatch.setattr(acquisition_study, "HEART_MM", (-90.0, 70.0))
    networks = remembering(known_networks())
    setting = Setting("Kernel", "soft", SCANNER, POSES[0])
    found = acquisition_study._scanned(networks, (setting, 1, CALCIFIED))
    assert found["true_mg"] == pytest.approx(draw_patient(CALCIFIED).mass_mg)
    masses = found["mass_mg"]
    assert set(masses) == {"map", "reader", "automatic", "noise_free"}
    assert 0 < masses["reader"] <= masses["automatic"]
    assert masses["noise_free"] > 0.8 * found["true_mg"]
    assert set(found["agatston"]) == {"map", "reader", "automatic"}


def known(setting, repeat, number):
    """As if scored: the map always finds 50 mg, the reader what the noise leaves, and the second scan 2 mg more."""
    mass = {"map": 50.0, "reader": 100 - 2 * setting.scanner.noise_hu + 2 * (repeat == 2), "automatic": 60.0}
    return {"true_mg": 50.0, "mass_mg": mass, "agatston": {name: 8 * value for name, value in mass.items()}}


@pytest.fixture
def quick(monkeypatch):
    asked = []

    def do(job):
        asked.append(job)
        if job[0].value == "tilted 5°":
            raise ValueError("no heart")
        return known(*job)

    monkeypatch.setattr(study_jobs, "Workers", InThisProcess)
    monkeypatch.setattr(acquisition_study, "_scanner", lambda *_: do)
    return asked


def test_tables_and_figures(quick, tmp_path):
    (section,) = acquisition_study.sections(tmp_path, AcquisitionSettings(7, 2), {}, JobSettings())
    settings = scan_settings()
    distinct = {(s.scanner, s.pose, s.fat_mm) for s in settings}
    assert len(quick) == 2 * len(distinct)
    assert {job[2] for job in quick} == {7}
    mass, _ = section.tables
    moved = {row[0]: row[1:] for row in mass.rows}
    own = dict(zip(mass.columns[1:], moved["Dose: noise, HU"], strict=True))
    reader = [101 - 2 * noise for noise in (8, 12, 16, 24, 34)]
    assert own["Calcium map"] == 0
    assert own["130 HU, arteries known"] == pytest.approx((reader[0] - reader[-1]) / np.mean(reader))
    assert moved["Tube voltage, kVp"] == (0, 0, 0)
    assert moved["Noise alone"][1] > 0
    assert any("2 scans could not be made or scored" in text for text in section.text)
    assert len(section.figures) == 2
    quick.clear()
    acquisition_study.sections(tmp_path, AcquisitionSettings(7, 2), {}, JobSettings())
    assert len(quick) == 2, "only what failed"
