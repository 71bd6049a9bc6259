"""Measure time, accuracy and memory of radiographs.

Run from the repository's root:

    PYTHONPATH=Testing/support .venv/bin/python Testing/Benchmarks/drr_speed.py [--runs N] [--pixels 512 1024]

The CT has 512 × 512 × 300 voxels, int16: Gaussian objects in air, whose line integrals are known analytically. On a
busy machine compare processor seconds, best on one core: OMP_NUM_THREADS=1 taskset -c 0 python … Extra memory is the
peak of a separate process that makes one image, less its memory before.
"""

from __future__ import annotations

import argparse
import math
import os
import re
import resource
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from CACScoringLib.drr import projection
from CACScoringLib.drr.geometry import Geometry, pose_of, view_named
from CACScoringLib.drr.planes import available_backends

SIZE, SPACING_MM = (512, 512, 300), (0.7, 0.7, 1.0)
BLOBS = (((-40.0, 15.0, 30.0), 22.0, 1.0), ((35.0, -25.0, -40.0), 18.0, 0.8), ((0.0, 40.0, 0.0), 26.0, 1.2))


def ct() -> sitk.Image:
    """HU, int16: Gaussians of water in air."""
    axes = [(np.arange(n) - (n - 1) / 2) * s for n, s in zip(SIZE, SPACING_MM, strict=True)]
    water = np.zeros(SIZE[::-1], np.float32)
    for centre, width, height in BLOBS:
        x, y, z = (np.exp(-((a - c) ** 2) / (2 * width**2)) for a, c in zip(axes, centre, strict=True))
        water += np.einsum("k,j,i->kji", *(a.astype(np.float32) for a in (height * z, y, x)))
    image = sitk.GetImageFromArray(np.rint(1000 * water - 1000).astype(np.int16))
    image.SetSpacing(SPACING_MM)
    image.SetOrigin([-(n - 1) / 2 * s for n, s in zip(SIZE, SPACING_MM, strict=True)])
    return image


def exact(image: sitk.Image, geometry: Geometry) -> np.ndarray:
    """Water-equivalent mm, [row, column]."""
    pose = pose_of(geometry, image)
    columns, rows = geometry.pixels
    down = np.arange(rows)[:, None, None] * pose.row_step
    run = pose.corner + np.arange(columns)[:, None] * pose.column_step + down - pose.source
    run /= np.linalg.norm(run, axis=-1, keepdims=True)
    total = np.zeros((rows, columns))
    for centre, width, height in BLOBS:
        away = np.asarray(centre) - pose.source
        squared = (away**2).sum() - (run @ away) ** 2
        total += height * width * math.sqrt(2 * math.pi) * np.exp(-squared / (2 * width**2))
    return total


def ours(view: str, backend: str | None):
    def prepare(image: sitk.Image, pixels: int):
        geometry = replace(view_named(view), pixels=(pixels, pixels))
        return lambda: projection.water_equivalent_mm(image, geometry, backend)

    return prepare


METHODS = {
    "ours, PA": ("PA", ours("PA", None)),
    "ours, lateral": ("lateral", ours("lateral", None)),
    "ours, any pose (30°)": ("30", ours("30", None)),
    "ours, any pose (0.01°)": ("0.01", ours("0.01", None)),
    "ours, reference, PA": ("PA", ours("PA", "scipy")),
    "ours, reference (30°)": ("30", ours("30", "scipy")),
}
SLOW = "ours, reference"
"""Prefix of slow methods, which run once."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--pixels", type=int, nargs="+", default=[512, 1024])
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory_of:
        print(extra_memory_mb(options.memory_of, options.pixels[0]))
        return
    image = ct()
    print(f"{'×'.join(map(str, SIZE))} int16, {len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f}")
    print(f"our backends here: {', '.join(available_backends())}")
    for pixels in options.pixels:
        compare(image, pixels, options.runs)


def compare(image: sitk.Image, pixels: int, runs: int) -> None:
    ready, seconds, errors, truths = {}, {}, {}, {}
    for name, (view, prepare) in METHODS.items():
        ready[name] = prepare(image, pixels)
        image_mm, first = timed(ready[name])  # also compiles
        seconds[name] = [first] if name.startswith(SLOW) else []
        if view not in truths:
            truths[view] = exact(image, replace(view_named(view), pixels=(pixels, pixels)))
        difference = (image_mm - truths[view]) / truths[view].max()
        errors[name] = f"{np.abs(difference).max():.1e} / {math.sqrt((difference**2).mean()):.1e}"
    for _ in range(runs):
        for name, run in ready.items():
            if not name.startswith(SLOW):
                seconds[name].append(timed(run)[1])
    print(f"\n{pixels}²: median of {runs} alternating runs (the reference: one), by the clock and of the processor;")
    print("error max / RMS of the image maximum; extra memory")
    for name, times in seconds.items():
        wall, processor = (statistics.median(column) for column in zip(*times, strict=True))
        memory = memory_in_its_own_process(name, pixels)
        print(f"{name:25s}{wall:8.3f} s {processor:8.3f} s   {errors[name]:17s} {memory or '–':>5s} MB", flush=True)
    print(f"load {os.getloadavg()[0]:.1f}")


def timed(run) -> tuple[np.ndarray, tuple[float, float]]:
    """Run a function; return its result, and its wall and processor seconds, child processes included."""
    start, processor = time.perf_counter(), _processor_seconds()
    image = run()
    return image, (time.perf_counter() - start, _processor_seconds() - processor)


def _processor_seconds() -> float:
    usages = (resource.getrusage(process) for process in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def memory_in_its_own_process(name: str, pixels: int) -> str:
    command = [sys.executable, __file__, "--memory-of", name, "--pixels", str(pixels)]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


def extra_memory_mb(name: str, pixels: int) -> int:
    """Peak resident memory of this process during one run, above that before it, after imports."""
    run = METHODS[name][1](ct(), pixels)
    METHODS[name][1](sitk.Image([4, 4, 4], sitk.sitkInt16), 8)()
    before = _memory_mb("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # sets VmHWM to VmRSS
    run()
    return round(max(_memory_mb("VmHWM") - before, 0))


def _memory_mb(field: str) -> float:
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(re.search(rf"{field}:\s+(\d+) kB", status)[1]) / 1000


if __name__ == "__main__":
    main()
