"""Patients' hearts blended from measured ones: their parts, arteries, valves and territories."""

import numpy as np
import pytest

from CACTrainingLib.phantom.anatomy.body import draw_body
from CACTrainingLib.phantom.anatomy.heart import posed_frame
from CACTrainingLib.phantom.anatomy.hearts import tree as tree_module
from CACTrainingLib.phantom.anatomy.hearts.deposits import DEPOSITS, deposits
from CACTrainingLib.phantom.anatomy.hearts.models import LANDMARKS, PARTS, HeartModelError, read_models
from CACTrainingLib.phantom.anatomy.hearts.shape import (
    STEP_MM,
    Flow,
    _velocity,
    interpolated,
    shipped_models,
    union,
)
from CACTrainingLib.phantom.anatomy.hearts.territories import TERRITORIES, territories
from CACTrainingLib.phantom.anatomy.hearts.tree import draw_tree
from CACTrainingLib.phantom.anatomy.hearts.valves import (
    ROOMS,
    cusps,
    papillary_muscles,
    posterior_arc,
    ring,
)
from CACTrainingLib.phantom.anatomy.patient import draw_patient, patient_heart, stream
from CACTrainingLib.phantom.scanner.motion import ScanPose
from CACTrainingLib.phantom.scanner.scanner import Grid

NUMBERS = range(6)


@pytest.fixture(scope="module")
def hearts():
    return [patient_heart(number, draw_body(stream(number, 1))) for number in NUMBERS]


def at(shape, lattice, points):
    return interpolated(lattice.reshape(-1, 1), lattice.shape, shape.low_mm, points)[:, 0]


def volume_ml(lattice):
    return float(np.clip(0.5 - lattice / STEP_MM, 0, 1).sum()) * STEP_MM**3 / 1000.0


def test_seven_hearts_are_shipped_with_arteries_of_two():
    models = shipped_models()
    assert len(models.names) == 7
    assert {key.split()[0] for key in models.lines} == {"VH_M", "VH_F"}
    assert {"LM", "LAD", "LCX", "RCA", "PDA", "CS"} <= {key.split()[1] for key in models.lines}
    # Landmarks agree: the frame is common to all.
    assert models.landmarks_mm.std(axis=0).max() < 10


def test_a_file_without_hearts_is_named(tmp_path):
    (tmp_path / "other.npz").write_bytes(b"no archive")
    with pytest.raises(HeartModelError, match=r"other\.npz"):
        read_models(tmp_path / "other.npz")


def test_chambers_have_the_sizes_of_adults_hearts(hearts):
    for shape, _ in hearts:
        assert 40 < volume_ml(shape.part("lv")) < 190
        assert 60 < volume_ml(shape.part("rv")) < 220
        assert 25 < volume_ml(shape.part("la")) < 160
        assert 35 < volume_ml(shape.part("ra")) < 220
        assert 450 < volume_ml(shape.pericardium) < 1250
        assert volume_ml(shape.part("lv_epi")) > volume_ml(shape.part("lv")) + 60


def test_the_pericardium_holds_all_walls(hearts):
    for shape, _ in hearts:
        for name in ("lv_epi", "rv", "la", "ra"):
            assert shape.pericardium[shape.outsides[name] < -0.5].max() < 0, name


def test_arteries_run_on_the_surface_under_the_pericardium(hearts):
    """0.5 to 4 mm over the outer walls, but for their first way out of the aorta; never in blood."""
    for shape, tree in hearts:
        surface = np.minimum.reduce(list(shape.outsides.values()))
        for vessel in tree.vessels:
            path = vessel.path_mm[24:] if vessel.name in ("LM", "RCA") else vessel.path_mm
            if not len(path):
                continue
            height = at(shape, surface, path)
            assert height.min() > 0.2, vessel.name
            assert ((height > 0.5) & (height < 4.0)).mean() > 0.9, vessel.name
            assert np.mean(at(shape, shape.pericardium, path) < 0) > 0.9, vessel.name


def test_main_arteries_run_in_their_grooves(hearts):
    for shape, tree in hearts:
        o = shape.outsides
        ventricles, atria = union([o["lv_epi"], o["rv"]], 1.5), union([o["la"], o["ra"]], 1.5)
        by_name = {vessel.name: vessel.path_mm for vessel in tree.vessels}
        right, left = by_name["RCA"][40:], by_name["LCX"][30:]
        assert np.median(np.abs(at(shape, ventricles - atria, right))) < 2
        assert np.median(np.abs(at(shape, ventricles - atria, left))) < 2
        assert np.median(np.abs(at(shape, o["lv_epi"] - o["rv"], by_name["LAD"][40:]))) < 2
        # Left and right groove: the circumflex lies between the left chambers.
        assert np.mean(at(shape, o["lv_epi"] - o["rv"], left) < 0) > 0.9
        assert np.mean(at(shape, o["la"] - o["ra"], left) < 0) > 0.9
        assert np.mean(at(shape, o["la"] - o["ra"], right[:80]) > 0) > 0.9


def test_arteries_begin_at_the_aorta_and_join(hearts):
    for shape, tree in hearts:
        by_name = {vessel.name: vessel.path_mm for vessel in tree.vessels}
        for name in ("LM", "RCA"):
            assert abs(at(shape, shape.part("aorta"), by_name[name][:1])[0]) < 1.5
        assert np.linalg.norm(by_name["LM"][-1] - by_name["LAD"][0]) < 1.5
        assert np.linalg.norm(by_name["LM"][-1] - by_name["LCX"][0]) < 1.5
        assert 3 < next(v.length_mm for v in tree.vessels if v.name == "LM") < 20


def test_calibres_and_lengths_are_those_of_coronaries(hearts):
    for _, tree in hearts:
        by_name = {vessel.name: vessel for vessel in tree.vessels}
        assert 3.2 < 2 * by_name["LM"].radius_mm[0] < 6.2
        assert 70 < by_name["LAD"].length_mm < 170
        assert 60 < by_name["RCA"].length_mm < 240
        assert 25 < by_name["LCX"].length_mm < 170


def test_dominance_decides_who_feeds_the_posterior_artery(hearts, monkeypatch):
    body, length = draw_body(stream(1, 1)), {}
    for dominance, shares in {"right": (1.0, 0.0, 0.0), "left": (0.0, 1.0, 0.0), "co": (0.0, 0.0, 1.0)}.items():
        for name, share in zip(("RIGHT", "LEFT", "CO"), shares, strict=True):
            monkeypatch.setattr(tree_module, f"{name}{'' if name == 'CO' else '_'}DOMINANT_SHARE", share)
        tree = draw_tree(body.sex, hearts[1][0], np.random.default_rng(0))
        assert tree.dominance == dominance
        owner = next(vessel.artery for vessel in tree.vessels if vessel.name == "PDA")
        assert owner == ("LCX" if dominance == "left" else "RCA")
        length[dominance] = {v.name: v.length_mm for v in tree.vessels}
    assert length["left"]["LCX"] > length["co"]["LCX"] > length["right"]["LCX"]
    assert length["left"]["RCA"] < length["co"]["RCA"] <= length["right"]["RCA"]


def test_points_go_forward_as_places_go_back():
    g = np.random.default_rng(3)
    landmarks = np.tile(np.linspace(-30, 30, len(LANDMARKS))[:, None], (1, 3))
    flow = Flow(_velocity(landmarks, g), np.array([1.1, 0.95, 1.0]))
    points = g.uniform(-60, 60, (500, 3))
    assert np.abs(flow.backward(flow.forward(points)) - points).max() < 0.15
    assert np.abs(flow.forward(points) / flow.scale - points).max() > 1.0


def test_rings_lie_between_their_rooms(hearts):
    for shape, _ in hearts:
        for valve in ROOMS:
            found = ring(shape, valve)
            radius = np.linalg.norm(found.curve_mm - found.middle_mm, axis=1)
            assert 6 < radius.min() < radius.max() < 26, valve
            assert np.linalg.norm(found.middle_mm - shape.landmarks_mm[valve]) < 12, valve
        whole, arc = ring(shape, "mitral"), posterior_arc(shape)
        aortic = shape.landmarks_mm["aortic"]
        nearest = np.linalg.norm(whole.curve_mm - aortic, axis=1).min()
        assert np.linalg.norm(arc - aortic, axis=1).min() > nearest + 1.5
        assert 40 < np.linalg.norm(np.diff(arc, axis=0), axis=1).sum() < 120


def distance_to_segment(places, first, last):
    share = np.clip((places - first) @ (last - first) / ((last - first) ** 2).sum(), 0, 1)
    return np.linalg.norm(places - first - share[:, None] * (last - first), axis=1)


def test_papillary_muscles_reach_from_the_wall_towards_the_mitral_valve(hearts):
    for shape, _ in hearts:
        muscles = papillary_muscles(shape)
        for (tip, base), radii in muscles.values():
            blood = at(shape, shape.part("lv"), np.stack([tip, base]))
            assert blood[0] < -4
            assert abs(blood[1]) < 2.5
            assert 14 < np.linalg.norm(base - tip) < 45
            mitral = shape.landmarks_mm["mitral"]
            assert 8 < np.linalg.norm(tip - mitral) < np.linalg.norm(base - mitral)
            assert radii[0] < radii[1]
        (_, anterior), (_, posterior) = (muscles[side][0] for side in ("anterolateral", "posteromedial"))
        assert np.linalg.norm(anterior - posterior) > 15
    assert len({shape.papillary_mm for shape, _ in hearts}) == len(hearts)


def test_a_closed_valve_is_three_thin_cusps_in_blood(hearts):
    for shape, tree in hearts:
        cloud = cusps(shape, tree)
        assert shape.sample(cloud.positions_mm)[:, [1 + PARTS.index("lv"), 1 + PARTS.index("aorta")]].min(1).max() < 0
        assert 400 < cloud.total < 2500
        annulus = ring(shape, "aortic").middle_mm
        assert np.linalg.norm(cloud.positions_mm - annulus, axis=1).max() < 30


@pytest.mark.parametrize("kind", DEPOSITS)
def test_deposits_lie_where_they_are_named_after(hearts, kind):
    for number, (shape, tree) in enumerate(hearts[:3]):
        cloud = deposits(kind, shape, tree, np.random.default_rng(number))
        places = cloud.positions_mm
        assert cloud.total > 0
        if kind == "pericardium":
            assert np.median(np.abs(at(shape, shape.pericardium, places))) < 2
        elif kind == "mitral annulus":
            gap = np.linalg.norm(places[:, None] - ring(shape, "mitral").curve_mm, axis=2).min(axis=1)
            assert np.median(gap) < 3
        elif kind == "papillary muscle":
            gaps = [distance_to_segment(places, *ends) for ends, _ in papillary_muscles(shape).values()]
            assert np.median(np.min(gaps, axis=0)) < 4
        else:
            assert np.mean(np.linalg.norm(places - shape.landmarks_mm["aortic"], axis=1) < 40) > 0.95
            assert np.mean(at(shape, shape.part("aorta"), places) < 4) > 0.7


def test_territories_hold_their_own_calcium():
    patient = draw_patient(8, prevalence=1.0)
    pose = ScanPose(table_shift_mm=(3.0, -5.0, 2.0))
    grid = Grid((90, 130, 140), (1.5, 1.5, 2.0), (-85.0, -125.0, -80.0))
    labels = territories(patient, pose, grid)
    frame = posed_frame(patient.body, pose)

    def found(points_mm):
        ijk = np.rint((frame.to_lps(points_mm) + pose.table_shift_mm - grid.origin_mm) / grid.spacing_mm).astype(int)
        return labels[tuple(ijk[:, ::-1].T)]

    for artery in ("LAD", "LCX", "RCA"):
        main = next(v for v in patient.tree.vessels if v.name == artery)
        assert np.mean(found(main.path_mm[40:]) == TERRITORIES[artery]) > 0.95, artery
    for kind in ("aortic valve", "mitral annulus"):
        places = deposits(kind, patient.heart, patient.tree, np.random.default_rng(2)).positions_mm
        name = "aortic valve and root" if kind == "aortic valve" else kind
        assert np.mean(found(places) == TERRITORIES[name]) > 0.75, kind
    assert set(np.unique(labels)) == {0, *TERRITORIES.values()}


def test_calcium_of_the_left_main_is_not_the_aortic_roots():
    shares = []
    for number in (100_009, 100_010, 100_011):
        patient, pose = draw_patient(number, prevalence=1.0), ScanPose()
        cloud = patient.calcium("LM")
        places = posed_frame(patient.body, pose).to_lps(cloud.positions_mm)
        low, high = places.min(0) - 2, places.max(0) + 2
        grid = Grid(tuple(np.ceil(high - low).astype(int)[::-1] + 1), (1.0, 1.0, 1.0), tuple(low))
        ijk = np.rint(places - low).astype(int)
        mine = territories(patient, pose, grid)[tuple(ijk[:, ::-1].T)] == TERRITORIES["LM"]
        shares.append(np.average(mine, weights=cloud.weights))
    assert min(shares) > 0.9
