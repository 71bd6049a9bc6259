"""Patients' hearts blended from measured ones: their parts, arteries, valves and territories."""

import numpy as np
import pytest

from CACScoringLib.core.grid import Grid
from CACTrainingLib.phantom.anatomy.coronaries import draw_plaques
from CACTrainingLib.phantom.anatomy.heart import posed_frame
from CACTrainingLib.phantom.anatomy.hearts.shape import interpolate
from CACTrainingLib.phantom.anatomy.hearts.territories import TERRITORIES, territories
from CACTrainingLib.phantom.anatomy.hearts.valves import DEPOSITS, deposits, papillary_muscles, ring
from CACTrainingLib.phantom.anatomy.patient import draw_anatomy, draw_patient
from CACTrainingLib.phantom.scanner.motion import ScanPose

NUMBERS = range(6)


@pytest.fixture(scope="module")
def hearts():
    return [draw_anatomy(number, diverse=True)[1:] for number in NUMBERS]


def distances_at(shape, lattice, points):
    return interpolate(lattice.reshape(-1, 1), lattice.shape, shape.low_mm, points)[:, 0]


def test_arteries_run_on_the_surface_under_the_pericardium(hearts):
    """0.5 to 4 mm over the outer walls, except beside the aorta; never in blood."""
    for shape, tree in hearts:
        surface = np.minimum.reduce(list(shape.outsides.values()))
        for vessel in tree.vessels:
            path = vessel.path_mm[24:] if vessel.name in ("LM", "RCA") else vessel.path_mm
            if not len(path):
                continue
            height = distances_at(shape, surface, path)
            assert height.min() > 0.2, vessel.name
            assert ((height > 0.5) & (height < 4.0)).mean() > 0.9, vessel.name
            assert np.mean(distances_at(shape, shape.pericardium, path) < 0) > 0.9, vessel.name


def distance_to_segment(places, first, last):
    share = np.clip((places - first) @ (last - first) / ((last - first) ** 2).sum(), 0, 1)
    return np.linalg.norm(places - first - share[:, None] * (last - first), axis=1)


@pytest.mark.parametrize("kind", DEPOSITS)
def test_deposits_lie_at_the_sites_of_their_names(hearts, kind):
    for number, (shape, tree) in enumerate(hearts[:3]):
        cloud = deposits(kind, shape, tree, np.random.default_rng(number))
        places = cloud.positions_mm
        assert cloud.total > 0
        if kind == "pericardium":
            assert np.median(np.abs(distances_at(shape, shape.pericardium, places))) < 2
        elif kind == "mitral annulus":
            gap = np.linalg.norm(places[:, None] - ring(shape, "mitral").curve_mm, axis=2).min(axis=1)
            assert np.median(gap) < 3
        elif kind == "papillary muscle":
            gaps = [distance_to_segment(places, *ends) for ends, _ in papillary_muscles(shape).values()]
            assert np.median(np.min(gaps, axis=0)) < 4
        else:
            assert np.mean(np.linalg.norm(places - shape.landmarks_mm["aortic"], axis=1) < 40) > 0.95
            assert np.mean(distances_at(shape, shape.part("aorta"), places) < 4) > 0.7


def test_the_left_main_forks_as_in_people(hearts):
    """2 to 23 mm from the ostium, at 75 to 89 ± 23° (Medrano-Gracia 2016)."""
    lengths, angles = [], []
    for _, tree in hearts:
        stem, lad, lcx = (next(v.path_mm for v in tree.vessels if v.name == name) for name in ("LM", "LAD", "LCX"))
        lengths.append(0.5 * (len(stem) - 1))
        directions = [path[12] - path[0] for path in (lad, lcx)]
        assert max(np.linalg.norm(path[0] - stem[-1]) for path in (lad, lcx)) < 1.6
        angles.append(np.degrees(np.arccos(np.dot(*directions) / np.prod(np.linalg.norm(directions, axis=1)))))
    assert 6 < np.mean(lengths) < 15
    assert min(lengths) >= 1.5
    assert max(lengths) <= 23
    assert 60 < np.mean(angles) < 110
    assert np.std(lengths) > 2
    assert np.std(angles) > 10


def test_intermediate_arteries_begin_at_the_fork_between_its_branches(hearts):
    forked = [{vessel.name: vessel for vessel in tree.vessels} for _, tree in hearts]
    with_ramus = [vessels for vessels in forked if "RI" in vessels]
    assert 0 < len(with_ramus) < len(forked)
    for vessels in with_ramus:
        ramus, lad, lcx = (vessels[name].path_mm for name in ("RI", "LAD", "LCX"))
        assert vessels["RI"].artery == "LCX"
        assert np.linalg.norm(ramus[0] - vessels["LM"].path_mm[-1]) < 1.6
        ends = [np.linalg.norm(lad - ramus[-1], axis=1).min(), np.linalg.norm(lcx - ramus[-1], axis=1).min()]
        assert min(ends) > 8


def test_plaques_of_the_left_main_end_at_its_fork(hearts):
    for number, (_, tree) in enumerate(hearts):
        stem = next(vessel for vessel in tree.vessels if vessel.name == "LM")
        for plaque in draw_plaques(tree, "M", np.random.default_rng(number), 1.0, "LM", 40):
            assert plaque.middle_mm + plaque.length_mm / 2 <= stem.length_mm + 1e-9
            gap = np.linalg.norm(plaque.cloud(stem, 0.7).positions_mm[:, None] - stem.path_mm, axis=2).min(axis=1)
            assert gap.max() < stem.radius_mm.max() + plaque.thickness_mm + 0.5


@pytest.mark.long
def test_territories_hold_their_own_calcium():
    patient = draw_patient(8, prevalence=1.0, diverse=True)
    pose = ScanPose(table_shift_mm=(3.0, -5.0, 2.0))
    grid = Grid((140, 130, 90), (1.5, 1.5, 2.0), (-85.0, -125.0, -80.0))
    labels = territories(patient, pose, grid)
    frame = posed_frame(patient.body, pose)

    def labels_of(points_mm):
        ijk = np.rint((frame.to_lps(points_mm) + pose.table_shift_mm - grid.origin_mm) / grid.spacing_mm).astype(int)
        return labels[tuple(ijk[:, ::-1].T)]

    for artery in ("LAD", "LCX", "RCA"):
        main = next(v for v in patient.tree.vessels if v.name == artery)
        assert np.mean(labels_of(main.path_mm[40:]) == TERRITORIES[artery]) > 0.95, artery
    # Calcium beyond the left main's wall belongs to the arteries that it leads to.
    stem = next(v for v in patient.tree.vessels if v.name == "LM")
    k, j, i = np.nonzero(labels == TERRITORIES["LM"])
    lps = np.stack([i, j, k], axis=1) * grid.spacing_mm + grid.origin_mm - pose.table_shift_mm
    gap = np.linalg.norm(frame.to_heart(lps)[:, None] - stem.path_mm, axis=2).min(axis=1)
    assert gap.max() < stem.radius_mm.max() + 5
    assert np.mean(labels_of(stem.path_mm[6:]) == TERRITORIES["LM"]) > 0.7
    for kind in ("aortic valve", "mitral annulus"):
        places = deposits(kind, patient.heart, patient.tree, np.random.default_rng(2)).positions_mm
        name = "aortic valve and root" if kind == "aortic valve" else kind
        assert np.mean(labels_of(places) == TERRITORIES[name]) > 0.75, kind
    assert set(np.unique(labels)) == {0, *TERRITORIES.values()}
