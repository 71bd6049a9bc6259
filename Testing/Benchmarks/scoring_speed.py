"""Measure the time to score a labelled scan, against a plain loop over slices with SimpleITK.

Run from the repository's root:

    PYTHONPATH=Testing/support .venv/bin/python Testing/Benchmarks/scoring_speed.py

The scan (seeded) has 512 × 512 × 100 voxels of tissue with noise, 30 calcified balls and a generous label around
each, as painted with a brush. The rival (`reference.agatston_by_slice_loop`) is what a typical script does: for
each artery and each slice, threshold, SimpleITK's connected components, SimpleITK's label statistics. A second,
careful rival skips the slices in which the artery has no candidate. All run in turn; their scores must be equal;
medians are printed. Reading files is not part of any. Goal: 100 times faster than the plain loop.

With --growth it prints instead how the time of the clinical rule, and time and size of its results, grow with the
candidates of a noisy scan, its slices and its pixels. Goal for 5,000 candidates: a report under 2 MB in 2 s.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import phantoms
import SimpleITK as sitk
from reference import agatston_by_slice_loop

from CACScoringLib.core.acquisition import Acquisition
from CACScoringLib.core.ct import scan_from_image
from CACScoringLib.core.labels import Artery
from CACScoringLib.pipeline import ScoreSettings, score_scan
from CACScoringLib.report.files import lesions_as_csv, record_of, result_as_json
from CACScoringLib.report.page import result_as_html
from CACScoringLib.results import ScoreResult
from CACScoringLib.scoring.lesions import ScoringRules, find_lesions
from CACScoringLib.scoring.scores import score_sites

RUNS = 7
RULES = ScoringRules()
SIZE = (512, 512, 100)
SPACING_MM = (0.7, 0.7, 3.0)
GROWTH = (
    *((64, 256, candidates) for candidates in (50, 500, 1500, 5000)),
    *((slices, 256, 500) for slices in (128, 256, 512)),
    *((64, pixels, 500) for pixels in (512, 1024)),
)
"""Slices, pixels on a side, and candidates of noisy scans."""


def labelled_scan(seed: int = 1) -> tuple[sitk.Image, np.ndarray]:
    """Make a CT (int16) and artery labels (uint8 [k, j, i])."""
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
    lesions = find_lesions(image, arteries, rules)
    scores = score_sites(lesions.lesions, image.GetSpacing(), rules)
    return {int(a): scores[a].agatston for a in Artery if a != Artery.UNASSIGNED}


def noisy_scan(slices: int, pixels: int, candidates: int) -> tuple[sitk.Image, sitk.Image]:
    """Make a CT (int16) of noise with separate bright specks of 4 to 25 voxels, and a mask around them."""
    rng = np.random.default_rng(candidates)
    hu = rng.normal(phantoms.TISSUE_HU, 20, (slices, pixels, pixels)).astype(np.int16)
    low, high = pixels // 6, pixels - pixels // 6
    step = 8 * pixels // 256
    places = [
        (k, j, i) for k in range(5, slices - 4, 2) for j in range(low, high, step) for i in range(low, high, step)
    ]
    for at in rng.permutation(len(places))[:candidates]:
        k, j, i = places[at]
        side = rng.integers(2, 6)
        hu[k, j : j + side, i : i + side] = rng.integers(140, 500)
    heart = np.zeros(hu.shape, np.uint8)
    heart[4:-4, low - 4 : high + 8, low - 4 : high + 8] = 1
    images = sitk.GetImageFromArray(hu), sitk.GetImageFromArray(heart)
    for image in images:
        image.SetSpacing((179 / pixels, 179 / pixels, 3.0))
    return images


def least_seconds(work: Callable[[], object], runs: int = 3) -> tuple[float, object]:
    """Run a function several times; return the least processor seconds and the result."""
    seconds = []
    for _ in range(runs):
        start = time.process_time()
        result = work()
        seconds.append(time.process_time() - start)
    return min(seconds), result


def growth() -> None:
    settings = ScoreSettings(normalisation="off")
    writers = (result_as_html, _scores_json, lambda result: lesions_as_csv(record_of(result)))
    print("least processor seconds of 3, and MB\nslices pixels candidates  scoring    report         json          csv")
    for slices, pixels, candidates in GROWTH:
        image, heart = noisy_scan(slices, pixels, candidates)
        scan = scan_from_image(image, Acquisition("noise", kvp=120.0, slice_thickness_mm=3.0))
        seconds, result = least_seconds(partial(score_scan, scan, settings, heart))
        cells = [f"{seconds:9.2f}"]
        for write in writers:
            seconds, text = least_seconds(partial(write, result))
            cells.append(f"{seconds:8.2f}{len(text.encode()) / 1e6:6.2f}")
        count = len(result.methods["threshold"].lesions.lesions)
        print(f"{slices:6d}{pixels:7d}{count:11d}{''.join(cells)}", flush=True)


def _scores_json(result: ScoreResult) -> str:
    return json.dumps(result_as_json(result, {}), indent=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--growth", action="store_true", help="how time and size grow")
    if parser.parse_args().growth:
        growth()
        return
    methods = {
        "library": agatston_by_library,
        "loop over slices": agatston_by_slice_loop,
        "loop, empty slices skipped": partial(agatston_by_slice_loop, skip_empty=True),
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
