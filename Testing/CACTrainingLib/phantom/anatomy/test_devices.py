"""Devices lie where they are put in people, and are as large."""

import numpy as np
import pytest
from scipy.spatial import cKDTree

from CACTrainingLib.phantom.anatomy.devices import DEVICES, mesh
from CACTrainingLib.phantom.anatomy.distractors import PREVALENCE, device, draw_distractors
from CACTrainingLib.phantom.anatomy.heart import reference_frame
from CACTrainingLib.phantom.anatomy.hearts.models import PARTS
from CACTrainingLib.phantom.anatomy.patient import draw_patient


@pytest.fixture(scope="module")
def patient():
    return draw_patient(8, prevalence=1.0)


def drawn(kind, patient, seed=0):
    return device(kind, patient.body, patient.tree, np.random.default_rng(seed), patient.heart)


def points(kind, patient, seed=0):
    """All of a device in heart coordinates."""
    frame = reference_frame(patient.body)
    placed = [part.placed(patient.body, frame, patient.heart) for part in drawn(kind, patient, seed)]
    return frame.to_heart(np.concatenate([cloud.positions_mm for cloud in placed]))


@pytest.mark.parametrize("kind", DEVICES)
def test_devices_are_metal_with_streaks_and_weigh_something(kind, patient):
    for part in drawn(kind, patient):
        assert part.metal
        assert part.mass_mg == 0
        assert 1 < part.cloud.total < 600
        assert part.view_gain.mean() == pytest.approx(1)


def test_a_mesh_is_struts_on_a_wall():
    path = np.stack([np.zeros(40), np.zeros(40), np.linspace(0, 20, 40)], axis=1)
    cloud = mesh(path, np.full(40, 1.5), 3.0)
    assert cloud.total == pytest.approx(3.0)
    assert np.linalg.norm(cloud.positions_mm[:, :2], axis=1) == pytest.approx(1.5, abs=1e-6)
    assert np.ptp(cloud.positions_mm[:, 2]) > 18


def test_a_stent_lies_in_an_artery(patient):
    (part,) = drawn("stent", patient)
    vessel = next(v for v in patient.tree.vessels if v.name == part.group)
    gap, _ = cKDTree(vessel.path_mm).query(part.cloud.positions_mm)
    assert 0.8 * vessel.radius_mm.min() < gap.min() < gap.max() < 1.2 * vessel.radius_mm.max()
    assert 8 < np.ptp(part.cloud.positions_mm, axis=0).max() < 30


def test_a_lead_goes_from_above_the_heart_into_the_right_ventricle(patient):
    places = points("pacemaker lead", patient)
    assert cKDTree(places).query(places, k=2)[0][:, 1].max() < 1.5, "one piece"
    assert reference_frame(patient.body).to_lps(places)[:, 2].max() > 120
    least = dict(zip(PARTS, patient.heart.sample(places)[:, 1:].min(axis=0), strict=True))
    assert least["ra"] < -5
    assert least["rv"] < -3
    assert least["lv"] > 0


def test_a_catheter_ends_near_the_right_atrium(patient):
    places = points("venous catheter", patient)
    assert np.linalg.norm(places - patient.heart.landmarks_mm["ra"], axis=1).min() < 45


def test_clips_follow_a_graft_to_the_anterior_descending(patient):
    target = next(v for v in patient.tree.vessels if v.name == "LAD").path_mm
    nearest = [cKDTree(target).query(points("bypass clips", patient, seed))[0].min() for seed in range(6)]
    assert min(nearest) < 15


def test_a_prosthetic_valve_lies_in_the_annulus(patient):
    landmarks = [patient.heart.landmarks_mm[valve] for valve in ("aortic", "mitral")]
    for seed in range(8):
        middle = points("prosthetic valve", patient, seed).mean(axis=0)
        assert min(np.linalg.norm(middle - landmark) for landmark in landmarks) < 25


def draw(patient, generator):
    return draw_distractors(patient.body, patient.tree, True, generator, patient.heart)


@pytest.mark.long
def test_kinds_are_drawn_and_clips_come_with_wires(patient):
    found = [{one.kind for one in draw(patient, np.random.default_rng(n))} for n in range(150)]
    share = {kind: np.mean([kind in kinds for kinds in found]) for kind in PREVALENCE}
    assert all(share[kind] > 0.2 * PREVALENCE[kind] for kind in PREVALENCE if PREVALENCE[kind] > 0.015), share
    assert all("sternal wires" in kinds for kinds in found if "bypass clips" in kinds)


def test_one_kinds_share_leaves_the_others_and_the_generator_alone(patient, monkeypatch):
    def others():
        g = np.random.default_rng(1)
        return [one for one in draw(patient, g) if one.kind != "venous catheter"], g.random()

    without, after = others()
    monkeypatch.setitem(PREVALENCE, "venous catheter", 1.0)
    with_catheter, same = others()
    assert after == same
    for one, other in zip(without, with_catheter, strict=True):
        assert np.array_equal(one.cloud.positions_mm, other.cloud.positions_mm)
