"""How long scoring a labelled scan takes, against a plain loop over slices with SimpleITK.

Run from the repository's root:

    PYTHONPATH=Testing/support .venv/bin/python Testing/Benchmarks/scoring_speed.py

The scan (seeded) has 512 × 512 × 100 voxels of tissue with noise, 30 calcified balls and a generous label around
each, as painted with a brush. The rival (`reference.agatston_by_slice_loop`) is what a typical script does: for
each artery and each slice, threshold, SimpleITK's connected components, SimpleITK's label statistics. A second,
careful rival skips the slices in which the artery has no candidate. All run in turn; their scores must be equal;
medians are printed. Reading files is not part of any. Goal: 100 times faster than the plain loop.
"""

import statistics
import time

import numpy as np
import phantoms
import SimpleITK as sitk
from reference import agatston_by_slice_loop

from CACScoringLib.core.labels import Artery
from CACScoringLib.scoring.lesions import ScoringRules, find_lesions
from CACScoringLib.scoring.scores import score_arteries

RUNS = 7
RULES = ScoringRules()
SIZE = (512, 512, 100)
SPACING_MM = (0.7, 0.7, 3.0)


def labelled_scan(seed: int = 1) -> tuple[sitk.Image, np.ndarray]:
    """CT (int16) and artery labels (uint8 [k, j, i])."""
    rng = np.random.default_rng(seed)
    hu = rng.normal(phantoms.TISSUE_HU, 20, SIZE[::-1]).astype(np.int16)
    hu[:, 400:440, 230:280] = 500  # spine
    arteries = np.zeros(hu.shape, np.uint8)
    for number in range(30):
        centre = rng.integers((10, 180, 180), (90, 330, 330))
        radius_mm = rng.uniform(1.0, 4.5)
        box = tuple(slice(c - n, c + n + 1) for c, n in zip(centre, (4, 16, 16), strict=True))
        k, j, i = np.ogrid[-4:5, -16:17, -16:17]
        distance_mm = np.sqrt((k * SPACING_MM[2]) ** 2 + (j * SPACING_MM[1]) ** 2 + (i * SPACING_MM[0]) ** 2)
        hu[box][distance_mm <= radius_mm] += np.int16(rng.choice([120, 190, 290, 560]))
        arteries[box][distance_mm <= radius_mm + 4] = 1 + number % 5
    image = sitk.GetImageFromArray(hu)
    image.SetSpacing(SPACING_MM)
    return image, arteries


def agatston_by_library(image: sitk.Image, arteries: np.ndarray, rules: ScoringRules) -> dict[int, float]:
    found = find_lesions(image, arteries, rules)
    scores = score_arteries(found.lesions, image.GetSpacing(), rules)
    return {int(a): scores[a].agatston for a in Artery if a != Artery.UNASSIGNED}


def agatston_by_careful_loop(image: sitk.Image, arteries: np.ndarray, rules: ScoringRules) -> dict[int, float]:
    return agatston_by_slice_loop(image, arteries, rules, skip_empty=True)


def main() -> None:
    methods = {
        "library": agatston_by_library,
        "loop over slices": agatston_by_slice_loop,
        "loop, empty slices skipped": agatston_by_careful_loop,
    }
    image, arteries = labelled_scan()
    ours = agatston_by_library(image, arteries, RULES)
    seconds: dict[str, list[float]] = {name: [] for name in methods}
    for _ in range(RUNS):
        for name, method in methods.items():
            start = time.perf_counter()
            scores = method(image, arteries, RULES)
            seconds[name].append(time.perf_counter() - start)
            np.testing.assert_allclose([scores[a] for a in range(1, 6)], [ours[a] for a in range(1, 6)], rtol=1e-9)
    assert all(score > 0 for score in ours.values())

    lesions = len(find_lesions(image, arteries, RULES).lesions)
    print(
        f"{'×'.join(map(str, SIZE))} voxels, {lesions} lesions, total Agatston {sum(ours.values()):.1f}, equal scores"
    )
    print(f"medians of {RUNS} alternating runs and of their ratios; SimpleITK {sitk.Version_VersionString()}")
    for name, times in seconds.items():
        ratio = statistics.median(t / library for t, library in zip(times, seconds["library"], strict=True))
        spread = f"({min(times) * 1e3:.1f} to {max(times) * 1e3:.1f})"
        print(f"{name:28s}{statistics.median(times) * 1e3:9.1f} ms {spread:20s} {ratio:6.0f} ×")


if __name__ == "__main__":
    main()
