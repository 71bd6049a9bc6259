"""Kinds that networks mistook in people hold what they claim: measured in images of their calcium alone."""

import functools
import itertools
from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial import cKDTree

from CACScoringLib.record.rules import ScoringRules
from CACScoringLib.scoring.lesions import score_labels
from CACTrainingLib.phantom.anatomy.heart import posed_frame
from CACTrainingLib.phantom.cohort import lesion_patients, mistaken
from CACTrainingLib.phantom.cohort.lesion_patients import draw_lesion_patient
from CACTrainingLib.phantom.cohort.lesion_scans import draw_lesion_scan
from CACTrainingLib.phantom.scanner.motion import ScanPose
from CACTrainingLib.phantom.scanner.response import add_stamps, image_of_points
from CACTrainingLib.phantom.scanner.scanner import Scanner
from CACTrainingLib.phantom.scanner.simulation import displacement, moving_objects, scan_grid

NUMBER, BLOOD_HU = 31_500_000, 45.0
STILL, QUIET = ScanPose(motion_scale=0.0), Scanner(noise_hu=0.0, field_of_view_mm=260.0)
THRESHOLD_HU = ScoringRules().threshold_hu


@pytest.fixture(autouse=True, scope="module")
def drawn_once():
    """Draw each usual patient once for all difficulties."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lesion_patients, "_draw_usual_patient", functools.cache(lesion_patients._draw_usual_patient))
        yield


def image(patient, kind, scanner=QUIET, pose=STILL):
    """Grid, and HU over blood of an artery's calcium or of a kind of distractor, without anatomy and noise."""
    grid = scan_grid(scanner, (-80.0, 80.0))
    hu = np.zeros(grid.shape, np.float32)
    for moving in moving_objects(patient, posed_frame(patient.body, pose)):
        if moving.distractor == kind or (moving.kind == "calcium" and moving.artery == kind):
            motion = displacement(patient, pose, moving.group, moving.with_heart)
            stamps = image_of_points(moving.cloud, grid, scanner, motion, moving.view_gain)
            add_stamps(hu, stamps, 1000 * scanner.calcium_hu_per_mg_cm3)
    return grid, hu


def agatston(grid, added_hu):
    hu = np.rint(BLOOD_HU + added_hu).astype(np.int16)
    scores = score_labels(grid.image(hu), (added_hu > 10).astype(np.uint8), ScoringRules()).arteries
    return sum(score.agatston for score in scores.values())


def components(added_hu):
    """Number of 26-connected components at the clinical threshold."""
    return ndimage.label(added_hu + BLOOD_HU >= THRESHOLD_HU, np.ones((3, 3, 3)))[1]


def test_motion_doubles_plaques_or_draws_them_as_arcs_and_walls_stand_still():
    still_parts, moving_parts = [], []
    for number in range(NUMBER, NUMBER + 6):
        patient, (scanner, pose) = draw_lesion_patient(number, "doubled"), draw_lesion_scan(number, "doubled")
        assert scanner.gate_phase is None
        around = patient.body.surroundings
        assert around is None or around.wall_mm == around.ring_mm == 0
        assert not any(distractor.metal for distractor in patient.distractors)
        for plaque in patient.plaques:
            alone = replace(patient, plaques=(plaque,), distractors=())
            for parts, scale in ((still_parts, 0.0), (moving_parts, pose.motion_scale)):
                _, hu = image(alone, plaque.artery, scanner, replace(pose, motion_scale=scale, breathing_mm=0.0))
                parts.append([components(hu), max(components(hu_slice[None]) for hu_slice in hu)])
    still, moving = np.array(still_parts), np.array(moving_parts)
    assert np.mean(still == 1) > 0.8
    assert np.mean((moving > still).any(axis=1)) > 0.4


def test_motion_rests_twice_in_a_beat():
    patient = draw_lesion_patient(NUMBER, "doubled")
    for group in ("RCA", "LM"):
        path = np.linalg.norm(patient.beat.displacement_mm(group, np.array([0.3, 0.4, 0.6, 0.9, 1.6])), axis=1)
        assert path[:2] == pytest.approx(patient.beat.excursion_mm[group], rel=0.05)
        assert path[2:] == pytest.approx(0, abs=0.02 * path[0])
        assert path[0] > 0.95 * mistaken.MOVING_MM


def test_pieces_of_a_course_lie_few_millimetres_apart():
    counts = []
    for number in range(NUMBER, NUMBER + 4):
        usual, patient = draw_lesion_patient(number), draw_lesion_patient(number, "pieces")
        assert patient.plaques[: len(usual.plaques)] == usual.plaques
        assert len({plaque.id for plaque in patient.plaques}) == len(patient.plaques)
        pieces = patient.plaques[len(usual.plaques) :]
        gaps = [
            second.middle_mm - second.length_mm / 2 - first.middle_mm - first.length_mm / 2
            for first, second in itertools.pairwise(pieces)
            if first.vessel == second.vessel and first.radius_mm == second.radius_mm
        ]
        assert gaps
        assert mistaken.GAP_MM[0] - 1e-6 <= min(gaps) <= max(gaps) <= mistaken.GAP_MM[1] + 1e-6
        alone = replace(patient, plaques=pieces, distractors=())
        counts.append(sum(components(image(alone, artery)[1]) for artery in {piece.artery for piece in pieces}))
    assert np.mean(np.array(counts) > 1) >= 0.75


def test_a_block_of_the_annulus_scores_as_in_people_and_lies_beside_the_circumflex():
    scores = []
    for number in range(NUMBER, NUMBER + 6):
        patient = draw_lesion_patient(number, "block")
        block = patient.distractors[-1]
        assert block.kind == "mitral annulus"
        assert block.view_gain.std() > 0
        vessel = patient.tree.vessel("LCX")
        gap = cKDTree(vessel.path_mm).query(block.cloud.positions_mm)[0]
        assert gap.min() < 6
        scores.append(agatston(*image(replace(patient, distractors=(block,)), "mitral annulus")))
    assert min(scores) > 800
    assert max(scores) < 4500
    assert max(scores) > 1.5 * min(scores)


def test_a_sinus_wall_is_one_component_with_the_plaque_of_its_ostium():
    joined, walls = [], []
    for number in range(NUMBER, NUMBER + 8):
        usual, patient = draw_lesion_patient(number), draw_lesion_patient(number, "sinus")
        wall = patient.distractors[-1]
        assert wall.kind == "aortic root"
        alone = replace(patient, distractors=(wall,))
        grid, root = image(alone, "aortic root")
        walls.append(agatston(grid, root))
        ostial = [plaque for plaque in patient.plaques if plaque not in usual.plaques]
        rims = [v.path_mm[0] for v in patient.tree.vessels if v.name in ("LM", "RCA")]
        assert cKDTree(wall.cloud.positions_mm).query(rims)[0].min() < 6
        for plaque in ostial:
            _, calcium = image(replace(alone, plaques=(plaque,)), plaque.artery)
            labels = ndimage.label(calcium + root + BLOOD_HU >= THRESHOLD_HU, np.ones((3, 3, 3)))[0]
            shared = np.intersect1d(labels[calcium > root], labels[(root > calcium) & (root > 10)])
            joined.append(bool((shared > 0).any()))
    assert 1 < len(joined) < 8
    assert np.mean(joined) > 0.6
    assert min(walls) > 20


def test_compact_plaques_peak_at_700_to_900_hu_beside_metal():
    kinds = set()
    for number in range(NUMBER, NUMBER + 6):
        usual, patient = draw_lesion_patient(number), draw_lesion_patient(number, "compact")
        kinds |= {distractor.kind for distractor in patient.distractors if distractor.metal}
        for plaque in patient.plaques[len(usual.plaques) :]:
            _, hu = image(replace(patient, plaques=(plaque,), distractors=()), "LAD")
            assert 500 < hu.max() + BLOOD_HU < 905
            assert np.count_nonzero(hu + BLOOD_HU >= THRESHOLD_HU) * 0.508**2 * 3 < 400
    assert kinds == set(mistaken.COMPACT_DEVICES)


def test_thin_people_have_calcified_cartilage_next_to_the_heart():
    for number in range(NUMBER, NUMBER + 3):
        patient = draw_lesion_patient(number, "cartilage")
        body = patient.body
        assert body.fat_mm <= 6
        assert body.surroundings.cartilage >= 0.8
        low, high = mistaken.WALL_GAP_MM
        assert low - 0.5 <= mistaken._gap_to_wall_mm(body, patient.heart) <= high + 0.5
        assert abs(draw_lesion_scan(number, "cartilage")[1].inspiration) < 0.4


def test_gas_of_the_stomach_reaches_the_hearts_lower_edge():
    for number in range(NUMBER, NUMBER + 3):
        patient = draw_lesion_patient(number, "gas")
        heart = patient.heart
        frame = posed_frame(patient.body, ScanPose())
        lowest_mm = frame.to_lps(heart.places_mm[heart.pericardium < 0])[:, 2].min()
        top_mm = patient.body.left_dome_mm - mistaken.GAS_BELOW_DOME_MM - lowest_mm
        assert mistaken.GAS_OVERLAP_MM[0] <= top_mm <= mistaken.GAS_OVERLAP_MM[1]
        assert draw_lesion_scan(number, "gas")[0].kernel.name != "soft"


def test_left_mains_of_three_branches_have_plaque_up_to_the_fork():
    for number in range(NUMBER, NUMBER + 4):
        patient = draw_lesion_patient(number, "trifurcation")
        stem, *branches = (patient.tree.vessel(name) for name in ("LM", "LAD", "LCX", "RI"))
        for branch in branches:
            assert np.linalg.norm(branch.path_mm[0] - stem.path_mm[-1]) < 1.5
        assert any(p.vessel == "LM" and p.middle_mm + p.length_mm / 2 > stem.length_mm - 0.1 for p in patient.plaques)


def test_large_hearts_are_cut_by_their_fields():
    cut = []
    for number in range(NUMBER, NUMBER + 6):
        patient, (scanner, pose) = draw_lesion_patient(number, "large"), draw_lesion_scan(number, "large")
        heart = patient.heart
        volume_ml = np.count_nonzero(heart.pericardium < 0) * 0.027
        assert 650 < volume_ml < 1950
        places = posed_frame(patient.body, pose).to_lps(heart.places_mm[heart.pericardium < 0])
        places = places + np.array(pose.table_shift_mm) - np.array([0, 6, 0])
        cut.append(np.mean((np.abs(places[:, :2]) > scanner.field_of_view_mm / 2).any(axis=1)))
    assert np.median(cut) > 0.02
    assert max(cut) < 0.6
