"""Which territory the fitted hearts give to the calcium of digital patients, and how well the heart is met.

Run from the repository's root, some 10 s a patient:

    PYTHONPATH=CACTraining:CACScoring python Testing/Benchmarks/territory_fit.py --first 200000 --patients 20

--mask: what is fitted to: the true heart; that spilt into what is dense above and below it; both cut by a field of view
of 160 mm; or the one found by the bundled network. --leave-out: patients are each one of the measured hearts, which the
fit then lacks. --samples FILE keeps distances, true territories and weights of all calcium, as the probabilities are
fitted to. For each kind of calcium: the mean over patients of the share of its mass in each territory.
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from CACScoringLib.anatomy.heart_search import find_heart
from CACScoringLib.core.ct import Acquisition, scan_from_image
from CACScoringLib.models.cards import find_model, load_model
from CACTrainingLib.phantom.anatomy.coronaries import ARTERIES
from CACTrainingLib.phantom.anatomy.heart import posed_frame
from CACTrainingLib.phantom.anatomy.hearts import shape as shapes
from CACTrainingLib.phantom.anatomy.hearts.fit import HeartFit, fit_heart
from CACTrainingLib.phantom.anatomy.hearts.models import HeartModels
from CACTrainingLib.phantom.anatomy.hearts.territories import TERRITORIES, costs
from CACTrainingLib.phantom.anatomy.hearts.tree import usual_tree
from CACTrainingLib.phantom.anatomy.patient import draw_patient, stream
from CACTrainingLib.phantom.anatomy.plaque import PROXIMAL_SHARE, draw_plaque
from CACTrainingLib.phantom.anatomy.points import joined
from CACTrainingLib.phantom.cohort.export import image_on
from CACTrainingLib.phantom.scanner.protocol import PROTOCOLS, draw_pair
from CACTrainingLib.phantom.scanner.simulation import scan_grid, scan_patient

KINDS = {
    "aortic root": "aortic valve and root",
    "aortic valve": "aortic valve and root",
    "mitral annulus": "mitral annulus",
    "papillary muscle": "other",
    "pericardium": "other",
}
PLAQUES = 12
NAMES = list(TERRITORIES)
BEYOND_MM = 6.0
"""Territories reach so far beyond the fitted pericardium and vessels: the fit errs by some mm."""
LIKELIHOOD = {
    "LM": (0.97, 0.63),
    "LAD": (0.61, 0.44),
    "LCX": (-0.17, 0.49),
    "RCA": (0.37, 0.48),
    "aortic valve and root": (0.19, 0.26),
    "mitral annulus": (-0.75, 0.52),
    "ascending aorta": (0.0, 0.3),
    "descending aorta": (0.0, 0.3),
    "pulmonary artery": (-1.0, 0.64),
    "other": (-0.1, 0.3),
}
"""Logarithm of a territory's likelihood at its border, and its fall with every mm outside, fitted to the calcium of
14 digital patients (300000 to 300013) with the arteries' usual shares. The aorta's and "other" are set by hand, as no
such calcium was there; the mitral annulus rests on one patient."""
INSIDE = 0.3
"""How much the logarithm grows with every mm inside."""


def territory_table(fit: HeartFit) -> np.ndarray:
    """What `costs` says, and the distance to the pericardium, [lattice points, labels + 2] in mm of the scan."""
    cost = costs(fit.shape, usual_tree(fit.shape), own_wall=False)
    table = np.concatenate([cost, fit.shape.pericardium.reshape(-1, 1)], axis=1)
    return (table * fit.placement.size).astype(np.float32)


def looked_up(table: np.ndarray, fit: HeartFit, lps_mm: np.ndarray) -> np.ndarray:
    """A territory table's values at points [n, 3] of the scan."""
    common = fit.placement.to_common(lps_mm)
    return shapes.interpolated(table, fit.shape.distances_mm.shape[:3], fit.shape.low_mm, common)


def probabilities(cost: np.ndarray) -> np.ndarray:
    """Of each territory [n, labels], from the distances [n, labels]."""
    border, fall = np.array([LIKELIHOOD[name] for name in TERRITORIES], np.float32).T
    logarithm = border - fall * np.maximum(cost, 0) + INSIDE * np.maximum(-cost, 0)
    chance = np.exp(logarithm - logarithm.max(axis=1, keepdims=True))
    return chance / chance.sum(axis=1, keepdims=True)


def without(models: HeartModels, number: int) -> HeartModels:
    """The hearts but one."""
    keep = [n for n in range(len(models.names)) if n != number]
    names = tuple(models.names[n] for n in keep)
    lines = {key: line for key, line in models.lines.items() if key.startswith(names)}
    few = (models.coefficients[keep], models.landmarks_mm[keep])
    return replace(models, names=names, coefficients=few[0], landmarks_mm=few[1], lines=lines)


def alone(models: HeartModels, number: int) -> HeartModels:
    """A set of hearts that are all the same one, with its arteries, or all arteries where it has none."""
    name, count = models.names[number], len(models.names)
    own = {key: line for key, line in models.lines.items() if key.startswith(name)}
    same = [number] * count
    return replace(
        models,
        coefficients=models.coefficients[same],
        landmarks_mm=models.landmarks_mm[same],
        lines=own or models.lines,
    )


def spilt(heart: np.ndarray, hu: np.ndarray, spacing_mm: tuple[float, float, float]) -> np.ndarray:
    up, down = round(22 / spacing_mm[2]), round(15 / spacing_mm[2])
    tissue = ndimage.gaussian_filter(hu.astype(np.float32), 1) > -30
    moved = np.zeros_like(heart)
    moved[up:] |= heart[:-up]
    moved[:-down] |= heart[down:]
    return heart | (moved & tissue)


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--first", type=int, default=200000)
parser.add_argument("--patients", type=int, default=12)
parser.add_argument("--mask", choices=("true", "spilt", "cropped", "network"), default="true")
parser.add_argument("--leave-out", action="store_true")
parser.add_argument("--samples", type=Path)
options = parser.parse_args()
models = shapes.shipped_models()
network = load_model(find_model("territories").path) if options.mask == "network" else None
shares, heart_dice, mask_dice, seconds, samples = {}, [], [], [], []
for number in range(options.first, options.first + options.patients):
    left_out = number % len(models.names)
    known = without(models, left_out) if options.leave_out else models
    one = alone(models, left_out) if options.leave_out else models
    with mock.patch.object(shapes, "shipped_models", lambda one=one: one):
        patient = draw_patient(number, prevalence=1.0, heart_shape="anatomical")
    scanner, pose = draw_pair(PROTOCOLS["radiotherapy"], stream(number, 20))[0]
    pose = replace(pose, breathing_mm=0.0)
    scanner = replace(scanner, matrix=288, field_of_view_mm=400.0, slice_spacing_mm=3.0, slice_thickness_mm=3.0)
    grid = scan_grid(patient, scanner, pose)
    scan = scan_patient(patient, scanner, pose, 1, grid)
    image, truth = image_on(grid, scan.hu), scan.heart
    mask = spilt(truth, scan.hu, grid.spacing_mm) if options.mask == "spilt" else truth
    given = image_on(grid, mask.astype(np.uint8))
    if options.mask == "network":
        given = find_heart(scan_from_image(image, Acquisition(file_format="phantom")), None, None, network).mask
    true = image_on(grid, truth.astype(np.uint8))
    if options.mask == "cropped":
        middle = np.argwhere(truth).mean(axis=0)[::-1]
        half = np.rint(80 / np.array(grid.spacing_mm)).astype(int)
        low = [max(0, int(m) - h) for m, h in zip(middle[:2], half[:2], strict=True)]
        used = np.flatnonzero(truth.any(axis=(1, 2)))
        cut = tuple(slice(a, a + 2 * int(h)) for a, h in zip(low, half[:2], strict=True))
        cut = (*cut, slice(int(used[0]) + 4, int(used[-1]) - 3))
        image, given, true = image[cut], given[cut], true[cut]
    start = time.perf_counter()
    fit = fit_heart(image, given, known)
    table = territory_table(fit)
    seconds.append(time.perf_counter() - start)
    frame, shift = posed_frame(patient.body, pose), np.asarray(pose.table_shift_mm)
    g, clouds = np.random.default_rng(number), []
    for artery in ARTERIES:
        # Every patient gets plaques on every artery, where and as patients have them.
        vessels = patient.tree.of(artery)
        chance = np.array([v.length_mm * (1.0 if v.name == artery else 0.25) for v in vessels])
        chosen = g.choice(len(vessels), PLAQUES, p=chance / chance.sum())
        along = np.minimum(0.95, g.exponential(PROXIMAL_SHARE, PLAQUES))
        places = zip([vessels[n] for n in chosen], along, strict=True)
        cloud = joined([draw_plaque(1, v, at * v.length_mm, 0.0, g).cloud(v, 0.7) for v, at in places])
        clouds.append((artery, artery, frame.to_lps(cloud.positions_mm), cloud.weights))
    for d in patient.distractors:
        if d.kind in KINDS and d.anchor == "heart":
            cloud = d.placed(patient.body, frame, patient.heart)
            clouds.append((d.kind, KINDS[d.kind], cloud.positions_mm, cloud.weights))
    for kind, territory, places, weights in clouds:
        found = looked_up(table, fit, places + shift)
        label = probabilities(found[:, :-2]).argmax(axis=1) + 1
        label[found[:, -2] > BEYOND_MM] = 0
        share = np.bincount(label, weights=weights, minlength=len(NAMES) + 1) / weights.sum()
        shares.setdefault(kind, []).append(share)
        pick = np.random.default_rng(number).choice(len(weights), 60, p=weights / weights.sum())
        samples.append((found[pick], np.full(60, TERRITORIES[territory]), np.full(60, number)))
    near = np.argwhere(sitk.GetArrayViewFromImage(true) >= 0)[:, ::-1][::7]
    turn = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
    inside = looked_up(table, fit, near @ turn.T + np.array(image.GetOrigin()))[:, -1] < 0
    really = sitk.GetArrayFromImage(true).ravel()[::7] > 0
    was = sitk.GetArrayFromImage(given).ravel()[::7] > 0
    heart_dice.append(2 * (inside & really).sum() / (inside.sum() + really.sum()))
    mask_dice.append(2 * (was & really).sum() / (was.sum() + really.sum()))
    print(
        f"{number} {models.names[left_out] if options.leave_out else '':24} {seconds[-1]:5.1f} s  Dice of the mask "
        f"{mask_dice[-1]:.3f}, of the fit {heart_dice[-1]:.3f}  "
        f"residual {fit.residual_mm:.1f} mm, spread {fit.spread:.2f}, agreement {fit.agreement:.3f}",
        flush=True,
    )
print(
    f"mean Dice of the mask {np.mean(mask_dice):.3f}, of the fit {np.mean(heart_dice):.3f}; {np.median(seconds):.1f} s"
)
for kind, rows in shares.items():
    mean = np.mean(rows, axis=0)
    order = [n for n in np.argsort(-mean) if mean[n] >= 0.01]
    listed = ", ".join(f"{(['outside', *NAMES])[n]} {mean[n]:.0%}" for n in order)
    print(f"{kind:17} ({len(rows):2} patients): {listed}; coronary {mean[1:5].sum():.0%}")
if options.samples:
    found, labels, numbers = (np.concatenate(column) for column in zip(*samples, strict=True))
    np.savez_compressed(options.samples, costs=found, labels=labels, numbers=numbers)
