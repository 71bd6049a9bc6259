"""How often metal is told from calcium among the candidates of 130 HU, on digital patients.

Run from the repository's root:

    PYTHONPATH=CACScoring:CACTraining .venv/bin/python Testing/Benchmarks/metal.py --first 770000 --patients 48

Each patient is scanned once with one kind of device, or once with calcium only (every other patient), by turns with a
drawn and an anatomical heart; kernel, slices, pixels, noise, gating and pose are drawn. Calcium is as dense and as
large as it gets: the plaques of several draws, one vessel calcified over centimetres, blooming annuli. Candidates lie
within 5 mm of the true pericardium. A candidate's truth is what adds most to its voxels. The limits of
`CACScoringLib.scoring.metal` were chosen on patients 750000 and up; numbers are to be reported on others. Intervals are
exact (Clopper and Pearson) and treat candidates of one patient as independent, so that they are somewhat too narrow.
"""

import argparse
import math
from dataclasses import dataclass, replace

import numpy as np
import SimpleITK as sitk
from scipy import ndimage, stats

from CACScoringLib.core.labels import Artery
from CACScoringLib.scoring.artefacts import metal_lesions
from CACScoringLib.scoring.lesions import LesionSet, ScoringRules, find_lesions
from CACTrainingLib.phantom.anatomy.devices import DEVICES
from CACTrainingLib.phantom.anatomy.distractors import Distractor, device
from CACTrainingLib.phantom.anatomy.heart import posed_frame, reference_frame
from CACTrainingLib.phantom.anatomy.hearts.deposits import deposits
from CACTrainingLib.phantom.anatomy.patient import HEART_SHAPES, Patient, draw_patient, stream, with_contrast
from CACTrainingLib.phantom.anatomy.plaque import Plaque, draw_plaque, draw_plaques
from CACTrainingLib.phantom.cohort.export import image_on
from CACTrainingLib.phantom.scanner.protocol import PROTOCOLS, draw_pair
from CACTrainingLib.phantom.scanner.response import add_stamps, image_of_points
from CACTrainingLib.phantom.scanner.scanner import KERNELS, Grid, centred_grid
from CACTrainingLib.phantom.scanner.simulation import DigitalScan, displacement, scan_patient

SLICES_MM = ((0.75, 0.75), (1.5, 1.0), (3.0, 3.0), (3.0, 1.5), (5.0, 5.0))
AROUND_MM = 5.0
LEAST_HU, LEAST_MM3, LARGE_MG = 25.0, 20.0, 100.0
"""What adds less is not there; streaks make specks smaller than this; a mistake on more calcium than this is grave."""
DENSEST_MG_CM3 = 1080.0
"""1500 HU at 120 kVp: deposits that are drawn denser than calcium becomes are made fainter."""
KINDS = tuple(kind for kind in DEVICES if kind != "sternal wires")


@dataclass(frozen=True)
class Case:
    """One scan: what is in it, and the HU that metal and calcium each add [k, j, i]."""

    number: int
    kind: str
    look: str
    image: sitk.Image
    found: LesionSet
    metal_hu: np.ndarray
    calcium_mg: np.ndarray
    calcium_hu: np.ndarray


def patient_with(number: int, kind: str) -> Patient:
    """The patient's calcium and one device, or very much calcium. kind: of DEVICES, "calcium", or "contrast"."""
    patient = draw_patient(number, prevalence=1.0, heart_shape=HEART_SHAPES[number // 2 % 2])
    g = stream(number, 60)
    others = [one for one in patient.distractors if not one.metal]
    if kind in DEVICES:
        others += device(kind, patient.body, patient.tree, g, patient.heart)
        return replace(patient, distractors=tuple(others))
    main = [v for v in patient.tree.vessels if v.name in ("LAD", "RCA", "LCX")]
    vessel = main[g.integers(len(main))]
    # One vessel calcified over a long way, one plaque as dense and thick as plaques become, one all around.
    long = draw_plaque(900, vessel, g.uniform(5, 30), 0.2, g)
    length = float(min(g.uniform(25, 60), 0.7 * vessel.length_mm))
    long = replace(long, length_mm=length, middle_mm=0.5 * length + 3, thickness_mm=g.uniform(0.6, 1.8))
    thick = draw_plaque(901, main[g.integers(len(main))], g.uniform(5, 40), 0.0, g)
    thick = replace(thick, density_mg_cm3=g.uniform(700, 1080), thickness_mm=g.uniform(1.2, 2.4))
    around = draw_plaque(902, main[g.integers(len(main))], g.uniform(5, 40), 0.2, g)
    around = replace(around, arc_degrees=360.0, length_mm=g.uniform(6, 20), thickness_mm=g.uniform(0.4, 1.2))
    drawn = [thick, around, long, *patient.plaques]
    for draw in range(3):
        drawn += draw_plaques(patient.tree, patient.body.sex, stream(number, 3, draw + 1), 1.0)
    plaques: list[Plaque] = []
    # Two plaques in one place would be denser than any.
    for one in drawn:
        apart = [
            abs(one.middle_mm - own.middle_mm) - 0.5 * (one.length_mm + own.length_mm)
            for own in plaques
            if own.vessel == one.vessel
        ]
        if min(apart, default=1.0) > 0:
            plaques.append(one)
    if patient.heart is not None:
        for extra in ("mitral annulus", "aortic root"):
            others.append(Distractor(extra, "heart", "valve", deposits(extra, patient.heart, patient.tree, g)))
    others = [replace(one, cloud=one.cloud.scaled(min(1.0, DENSEST_MG_CM3 / densest(one)))) for one in others]
    patient = replace(patient, plaques=tuple(plaques), distractors=tuple(others))
    return with_contrast(patient) if kind == "contrast" else patient


def densest(one: Distractor) -> float:
    """Highest density in a cell of 2 mm, mg/cm³."""
    if one.anchor not in ("heart", "body"):
        return DENSEST_MG_CM3
    cell = np.unique(np.floor(one.cloud.positions_mm / 2), axis=0, return_inverse=True)[1]
    return float(np.bincount(cell.ravel(), one.cloud.weights).max() / 8 * 1000)


def made(number: int, kind: str) -> Case:
    patient = patient_with(number, kind)
    g = stream(number, 61)
    protocol = PROTOCOLS["cardiac" if g.random() < 0.4 else "varied"]
    scanner, pose = draw_pair(protocol, g)[0]
    thickness, spacing = SLICES_MM[g.integers(len(SLICES_MM))]
    kernel = KERNELS[("soft", "medium", "sharp")[g.integers(3)]]
    fov = float(g.uniform(170, 260))
    scanner = replace(
        scanner, kernel=kernel, slice_thickness_mm=thickness, slice_spacing_mm=spacing, matrix=280, field_of_view_mm=fov
    )
    x, y, z = reference_frame(patient.body).centre_mm
    # Leads and catheters are told by their way above the heart.
    top = 115 if kind in ("pacemaker lead", "venous catheter") else 50
    grid = centred_grid(scanner, (z - 50, z + top), (x - 6, y))
    scan = scan_patient(patient, scanner, replace(pose, table_shift_mm=(0.0, 0.0, 0.0)), 1, grid, threads=1)
    look = f"{kernel.name} {thickness:g} mm {'gated' if scanner.gate_phase is not None else 'ungated'}"
    image = image_on(grid, scan.hu)
    near = ndimage.distance_transform_edt(~scan.heart, sampling=grid.spacing_mm[::-1]) <= AROUND_MM
    found = find_lesions(image, near.astype(np.uint8) * np.uint8(Artery.UNASSIGNED), ScoringRules())
    metal, other = added(patient, scan, grid)
    mg = other + scan.calcium_mg_cm3
    return Case(number, kind, look, image, found, metal, mg, mg * scanner.calcium_hu_per_mg_cm3)


def added(patient: Patient, scan: DigitalScan, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """HU that metal adds, and mg/cm³ of calcium that is not coronary, [k, j, i]."""
    metal, calcium = (np.zeros(grid.shape, np.float32) for _ in range(2))
    frame = posed_frame(patient.body, scan.pose)
    for other in patient.distractors:
        motion = displacement(patient, scan.pose, other.group, other.anchor == "heart")
        placed = other.placed(patient.body, frame, patient.heart)
        stamps = image_of_points(placed, grid, scan.scanner, motion, other.view_gain)
        add_stamps(metal if other.metal else calcium, stamps, 2e4 if other.metal else 1000.0)
    return metal, calcium


def truth_of(case: Case) -> dict[int, tuple[str, float]]:
    """Each candidate's truth ("metal", "calcium" or "other") and mass in mg."""
    ids = [lesion.id for lesion in case.found.lesions]
    if not ids:
        return {}
    at = case.found.id_map
    metal, calcium, mass = (ndimage.mean(v, at, ids) for v in (case.metal_hu, case.calcium_hu, case.calcium_mg))
    voxels = np.bincount(at.ravel(), minlength=max(ids) + 1)
    cm3 = math.prod(case.image.GetSpacing()) / 1000
    result = {}
    for n, own in enumerate(ids):
        kind = "other" if max(metal[n], calcium[n]) < LEAST_HU else "metal" if metal[n] > calcium[n] else "calcium"
        result[own] = (kind, float(mass[n] * voxels[own] * cm3))
    return result


def interval(count: int, total: int) -> str:
    if not total:
        return "none"
    low = stats.beta.ppf(0.025, count, total - count + 1) if count else 0.0
    high = stats.beta.ppf(0.975, count + 1, total - count) if count < total else 1.0
    return f"{count} of {total}: {count / total:.3f} [{low:.3f}, {high:.3f}]"


def report(cases: list[Case]) -> None:
    """Detection by device, false alarms by what else is there."""
    devices, candidates, alarms, large = ({} for _ in range(4))
    for case in cases:
        told, truths = metal_lesions(case.found, case.image), truth_of(case)
        sizes = {lesion.id: lesion.voxels * math.prod(case.image.GetSpacing()) for lesion in case.found.lesions}
        for own, (truth, mass) in truths.items():
            if truth == "metal" and sizes[own] >= LEAST_MM3:
                candidates.setdefault(case.kind, []).append(own in told)
            elif truth != "metal":
                alarms.setdefault(truth if case.kind != "contrast" else "in enhanced blood", []).append(own in told)
                if truth == "calcium" and mass > LARGE_MG:
                    large.setdefault("calcium", []).append(own in told)
            if truth == "calcium" and own in told:
                print(f"  told: {mass:.0f} mg of calcium as {told[own].title}, patient {case.number}, {case.look}")
        metal = [own for own, (truth, _) in truths.items() if truth == "metal"]
        if metal:
            devices.setdefault(case.kind, []).append(any(own in told for own in metal))
    for title, found in (
        ("scans with a device that adds candidates: any of them told", devices),
        (f"candidates of metal of {LEAST_MM3:g} mm³ and more told", candidates),
        ("candidates that are not metal, called metal", alarms),
        (f"calcium of more than {LARGE_MG:g} mg called metal", large),
    ):
        print(title)
        for kind, values in sorted(found.items()):
            print(f"  {kind:20s}{interval(sum(values), len(values))}")


def kind_of(number: int) -> str:
    if number % 16 == 15:
        return "contrast"
    return "calcium" if number % 2 else KINDS[number // 2 % len(KINDS)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--first", type=int, default=770000)
    parser.add_argument("--patients", type=int, default=48)
    options = parser.parse_args()
    report([made(number, kind_of(number)) for number in range(options.first, options.first + options.patients)])


if __name__ == "__main__":
    main()
