"""How often the suggested artery is right, on digital patients that the atlas was not made from.

Run from the repository's root:

    PYTHONPATH=Testing/support .venv/bin/python Testing/Benchmarks/artery_suggestions.py \\
        --first 720000 --patients 40

Each patient gets the plaques of eight draws, so that rare arteries are seen often enough; what is not coronary is as
drawn. In a scan of 3 mm slices, everything at or above 130 HU is a lesion, inside the true pericardium and inside the
region found from the lungs. A lesion's truth is what adds most to its voxels; where nothing adds 25 HU it is noise or
anatomy. Also each true plaque of 3 mg or more by itself, wherever it is drawn, seen or not. Intervals are 95 %
bootstrap intervals over patients. All of this is digital: it shows that the place tells the artery where hearts are
like these, not how often it does in real ones.
"""

import argparse
from dataclasses import dataclass, replace

import numpy as np
import SimpleITK as sitk

from CACScoringLib.anatomy.arteries import SUGGESTED, ArterySuggestion, suggest_arteries
from CACScoringLib.anatomy.heart_region import heart_region
from CACScoringLib.core.ct import NoHeartError
from CACScoringLib.core.labels import Artery
from CACScoringLib.scoring.lesions import Lesion, LesionSet, ScoringRules, find_lesions
from CACTrainingLib.phantom.anatomy.heart import posed_frame
from CACTrainingLib.phantom.anatomy.patient import Patient, draw_patient, stream
from CACTrainingLib.phantom.anatomy.plaque import draw_plaques
from CACTrainingLib.phantom.cohort.export import as_ct_scan, image_on
from CACTrainingLib.phantom.scanner.protocol import PROTOCOLS, draw_pair
from CACTrainingLib.phantom.scanner.response import add_stamps, image_of_points
from CACTrainingLib.phantom.scanner.simulation import DigitalScan, displacement, scan_grid, scan_patient

DRAWS = 8
Z_RANGE_MM = (-110.0, 140.0)
LEAST_HU = 25.0
LEAST_MASS_MG = 3.0
RESAMPLES = 2000
NAMES = [artery.key for artery in SUGGESTED]


@dataclass(frozen=True)
class Case:
    """One lesion: where it was found, its patient, what it is and what was suggested."""

    where: str
    patient: int
    truth: str
    suggestion: ArterySuggestion


def patient_with_many_plaques(number: int) -> Patient:
    # The atlas was made from drawn hearts.
    patient = draw_patient(number, heart_shape="drawn")
    more = [draw_plaques(patient.tree, patient.body.sex, stream(number, 3, draw)) for draw in range(1, DRAWS)]
    return replace(patient, plaques=(*patient.plaques, *(plaque for drawn in more for plaque in drawn)))


def sources(patient: Patient, scan: DigitalScan) -> dict[str, np.ndarray]:
    """HU that each kind of calcium or metal adds, [k, j, i]."""
    per_mg = 1000 * scan.scanner.calcium_hu_per_mg_cm3
    shift = np.asarray(scan.pose.table_shift_mm)
    own = replace(scan.grid, origin_mm=tuple(np.asarray(scan.grid.origin_mm) - shift))
    found: dict[str, np.ndarray] = {}
    for artery, stamps in scan.arteries.items():
        add_stamps(found.setdefault(artery, np.zeros(scan.grid.shape, np.float32)), stamps, per_mg)
    for other in patient.distractors:
        motion = displacement(patient, scan.pose, other.group, other.anchor == "heart")
        placed = other.placed(patient.body, posed_frame(patient.body, scan.pose), patient.heart)
        stamps = image_of_points(placed, own, scan.scanner, motion, other.view_gain)
        kind = f"{other.kind} (metal)" if other.metal else other.kind
        add_stamps(
            found.setdefault(kind, np.zeros(scan.grid.shape, np.float32)), stamps, 2e4 if other.metal else per_mg
        )
    return found


def truth_of(lesion: Lesion, lesions: LesionSet, added: dict[str, np.ndarray]) -> str:
    voxels = lesions.id_map == lesion.id
    shares = {kind: float(hu[voxels].mean()) for kind, hu in added.items()}
    kind = max(shares, key=shares.get, default="")
    return kind if shares and shares[kind] >= LEAST_HU else "noise or anatomy"


def plaques_alone(patient: Patient, scan: DigitalScan) -> tuple[LesionSet, list[str]]:
    """Each plaque at rest as the voxels that hold its points."""
    frame = posed_frame(patient.body, scan.pose)
    vessels = {vessel.name: vessel for vessel in patient.tree.vessels}
    ids = np.zeros(scan.grid.shape, np.uint16)
    kinds = []
    for plaque in patient.plaques:
        if plaque.mass_mg < LEAST_MASS_MG:
            continue
        points = frame.to_lps(plaque.cloud(vessels[plaque.vessel], 0.5).positions_mm) + scan.pose.table_shift_mm
        ijk = np.rint((points - scan.grid.origin_mm) / scan.grid.spacing_mm).astype(int)
        kinds.append(plaque.artery)
        ids[tuple(ijk[:, ::-1].T)] = len(kinds)
    seen = [n for n in range(1, len(kinds) + 1) if (ids == n).any()]
    lesions = tuple(Lesion(n, Artery.UNASSIGNED, (), (0.0, 0.0, 0.0)) for n in seen)
    return LesionSet(lesions, ids), [kinds[n - 1] for n in seen]


def cases_of(number: int) -> list[Case]:
    patient = patient_with_many_plaques(number)
    scanner, pose = draw_pair(PROTOCOLS["radiotherapy"], stream(number, 20))[number % 2]
    scanner = replace(scanner, slice_thickness_mm=3.0, slice_spacing_mm=3.0)
    grid = scan_grid(patient, scanner, pose, Z_RANGE_MM)
    scan = scan_patient(patient, scanner, pose, 1 + number % 2, grid, threads=1)
    ct = as_ct_scan(scan, patient)
    added = sources(patient, scan)
    masks = {"true heart": (image_on(grid, scan.heart.astype(np.uint8)), scan.heart)}
    try:
        region = heart_region(ct)
        inside = (sitk.GetArrayFromImage(region.mask) != 0) & (sitk.GetArrayFromImage(region.excluded) == 0)
        masks["lung-based region"] = (region.mask, inside)
    except NoHeartError as error:
        print(f"patient {number}: {error}")
    cases = []
    alone, kinds = plaques_alone(patient, scan)
    for name, (mask, inside) in masks.items():
        found = find_lesions(ct.image, inside.astype(np.uint8) * np.uint8(Artery.UNASSIGNED), ScoringRules())
        truths = [truth_of(lesion, found, added) for lesion in found.lesions]
        for way, lesions, own in (("130 HU", found, truths), ("true plaques", alone, kinds)):
            suggestions = suggest_arteries(lesions, ct.image, mask)
            cases += [Case(f"{way}, {name}", number, t, s) for t, s in zip(own, suggestions, strict=True)]
    return cases


def interval(values: np.ndarray, patients: np.ndarray) -> str:
    """Mean with its 95 % bootstrap interval over patients."""
    if not len(values):
        return "none"
    _, at = np.unique(patients, return_inverse=True)
    total, count = np.bincount(at, weights=values), np.bincount(at)
    drawn = np.random.default_rng(1).integers(0, len(count), (RESAMPLES, len(count)))
    low, high = np.percentile(total[drawn].sum(1) / count[drawn].sum(1), [2.5, 97.5])
    return f"{values.mean():.3f} [{low:.3f}, {high:.3f}] (n {len(values)} of {len(count)} patients)"


def report(cases: list[Case]) -> None:
    coronary = [case for case in cases if case.truth in NAMES]
    patients = np.array([case.patient for case in coronary])
    truth = np.array([case.truth for case in coronary])
    given = np.array([case.suggestion.artery.key for case in coronary])
    confidence = np.array([case.suggestion.confidence for case in coronary])
    right = (truth == given).astype(float)
    print(f"  right artery: {interval(right, patients)}; always LAD: {np.mean(truth == 'LAD'):.3f}")
    for name in NAMES:
        own = truth == name
        row = ", ".join(f"{other} {int((own & (given == other)).sum())}" for other in NAMES)
        print(f"    {name:4s}{interval(right[own], patients[own])}   suggested: {row}")
    print("  confidence: mean, share right, n")
    for low, high in ((0, 0.6), (0.6, 0.8), (0.8, 0.95), (0.95, 1.01)):
        bin_ = (confidence >= low) & (confidence < high)
        if bin_.any():
            share = interval(right[bin_], patients[bin_])
            print(f"    {low:.2f}-{min(high, 1):.2f}: {confidence[bin_].mean():.3f} {share}")
    print("  not coronary above 0.5, by what it is")
    for kind in sorted({case.truth for case in cases}):
        own = [case for case in cases if case.truth == kind]
        called = np.array([case.suggestion.not_coronary_probability > 0.5 for case in own], float)
        print(f"    {kind:24s}{interval(called, np.array([case.patient for case in own]))}")
    calcium = [case for case in cases if case.truth != "noise or anatomy" and "metal" not in case.truth]
    probability = np.array([case.suggestion.not_coronary_probability for case in calcium])
    is_not = np.array([case.truth not in NAMES for case in calcium])
    # Coronary lesions were drawn DRAWS times as often as they are.
    weight = np.where(is_not, 1.0, 1 / DRAWS)
    print("  probability of not coronary among calcium, natural mix: mean, share that is not, n")
    for low, high in ((0, 0.2), (0.2, 0.5), (0.5, 0.8), (0.8, 1.01)):
        bin_ = (probability >= low) & (probability < high)
        if bin_.any():
            means = [np.average(v[bin_], weights=weight[bin_]) for v in (probability, is_not)]
            print(f"    {low:.1f}-{min(high, 1):.1f}: {means[0]:.2f} {means[1]:.2f} {bin_.sum()}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--first", type=int, default=720000)
    parser.add_argument("--patients", type=int, default=40)
    options = parser.parse_args()
    cases = [case for n in range(options.first, options.first + options.patients) for case in cases_of(n)]
    for where in sorted({case.where for case in cases}):
        print(where)
        report([case for case in cases if case.where == where])


if __name__ == "__main__":
    main()
