"""How long a radiograph takes and how exact it is, against DiffDRR, ITK RTK and plastimatch where they are installed.

Run from the repository's root, with the rivals in the same environment:

    pip install itk-rtk && pip install --no-deps diffdrr        # and the program plastimatch (Debian: plastimatch)
    PYTHONPATH=Testing/support .venv/bin/python Testing/Benchmarks/drr_speed.py [--runs N] [--pixels 512 1024]

The CT has 512 × 512 × 300 voxels, int16: smooth Gaussian objects whose line integrals are known on paper, in air. All
methods stand in one alternating run; ours start from int16 HU, the rivals from attenuation, whose making is not
counted. DiffDRR projects in patches, so that it fits into memory. plastimatch is a program; its time includes reading
the CT, and what it says itself does not. On a busy machine look at the processor seconds, best with everything on one
core: OMP_NUM_THREADS=1 taskset -c 0 python … Extra memory is the highest of a process of its own that makes one image,
less what it holds before; libraries are loaded before.
"""

from __future__ import annotations

import argparse
import math
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from CACScoringLib.drr import projection
from CACScoringLib.drr.geometry import Geometry, pose_of, view_named
from CACScoringLib.drr.planes import available_backends

SIZE, SPACING_MM = (512, 512, 300), (0.7, 0.7, 1.0)
BLOBS = (((-40.0, 15.0, 30.0), 22.0, 1.0), ((35.0, -25.0, -40.0), 18.0, 0.8), ((0.0, 40.0, 0.0), 26.0, 1.2))
SOURCE_DETECTOR_MM, SOURCE_ISOCENTRE_MM, DETECTOR_MM = 1800.0, 1600.0, 430.0


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
        geometry = view_named(view, pixels=(pixels, pixels))
        return lambda: projection.water_equivalent_mm(image, geometry, backend)

    return prepare


def diffdrr(renderer: str):
    def prepare(image: sitk.Image, pixels: int):
        import torch
        from diffdrr.renderers import Siddon, Trilinear

        torch.set_num_threads(len(os.sched_getaffinity(0)))
        # The renderers alone, in DiffDRR's own voxel space: its data classes need torchvision.
        water = torch.from_numpy(np.maximum(sitk.GetArrayFromImage(image).astype(np.float32) / 1000 + 1, 0))
        volume = water.permute(2, 1, 0).contiguous()
        geometry = view_named("PA", pixels=(pixels, pixels))
        pose = pose_of(geometry, image)
        origin, spacing = np.array(image.GetOrigin()), np.array(SPACING_MM)
        down = np.arange(pixels)[:, None, None] * pose.row_step
        places = pose.corner + np.arange(pixels)[:, None] * pose.column_step + down
        target = torch.from_numpy(((places - origin) / spacing).reshape(1, -1, 3)).float()
        source = torch.from_numpy(((pose.source - origin) / spacing).reshape(1, 1, 3)).float()
        lengths = torch.from_numpy(np.linalg.norm(places - pose.source, axis=-1).reshape(1, 1, -1)).float()
        draw = Siddon() if renderer == "siddon" else Trilinear()
        patch = 32768

        def run():
            parts = []
            with torch.inference_mode():
                for begin in range(0, pixels * pixels, patch):
                    part = slice(begin, begin + patch)
                    parts.append(draw(volume, source, target[:, part], lengths[..., part]))
            return torch.cat(parts, -1).reshape(pixels, pixels).numpy()

        return run

    return prepare


def rtk_joseph(angle_degrees: float):
    def prepare(image: sitk.Image, pixels: int):
        import itk
        from itk import RTK as rtk  # noqa: N811 - the module's own name

        water = np.maximum(sitk.GetArrayFromImage(image).astype(np.float32) / 1000 + 1, 0)
        # RTK turns about y, and its source stands at z above 0: its (x, y, z) are our left, head and back.
        volume = itk.image_from_array(np.ascontiguousarray(water.transpose(1, 0, 2)))
        volume.SetSpacing([SPACING_MM[0], SPACING_MM[2], SPACING_MM[1]])
        volume.SetOrigin([image.GetOrigin()[0], image.GetOrigin()[2], image.GetOrigin()[1]])
        pixel = DETECTOR_MM / pixels
        kind = itk.Image[itk.F, 3]
        stack = rtk.ConstantImageSource[kind].New()
        stack.SetOrigin([-(pixels - 1) / 2 * pixel] * 2 + [0.0])
        stack.SetSpacing([pixel, pixel, 1.0])
        stack.SetSize([pixels, pixels, 1])
        stack.SetConstant(0.0)
        geometry = rtk.ThreeDCircularProjectionGeometry.New()
        geometry.AddProjection(SOURCE_ISOCENTRE_MM, SOURCE_DETECTOR_MM, -angle_degrees)

        def run():
            project = rtk.JosephForwardProjectionImageFilter[kind, kind].New()
            stack.Modified()
            project.SetInput(0, stack.GetOutput())
            project.SetInput(1, volume)
            project.SetGeometry(geometry)
            project.Update()
            return itk.array_from_image(project.GetOutput())[0, ::-1]

        return run

    return prepare


def plastimatch(image: sitk.Image, pixels: int):
    program = os.environ.get("PLASTIMATCH") or shutil.which("plastimatch")
    if not program:
        raise ImportError("no program plastimatch on the PATH, nor in PLASTIMATCH")
    folder = Path(tempfile.mkdtemp())
    sitk.WriteImage(sitk.Cast(image, sitk.sitkFloat32) / 1000 + 1, folder / "ct.mha")
    arguments = [
        *("drr", "-t", "pfm", "-P", "none", "--nrm", "0 1 0", "--vup", "0 0 1"),
        *("--sad", str(SOURCE_ISOCENTRE_MM), "--sid", str(SOURCE_DETECTOR_MM), "-r", f"{pixels} {pixels}"),
        *("-z", f"{DETECTOR_MM} {DETECTOR_MM}", "-o", "0 0 0", "-O", str(folder / "out"), str(folder / "ct.mha")),
    ]

    def run():
        done = subprocess.run([program, *arguments], capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError((done.stdout + done.stderr).strip().splitlines()[-1])
        OWN_SECONDS.append(float(re.search(r"Total time: *([0-9.]+)", done.stdout)[1]))
        stored = np.frombuffer(next(folder.glob("*.pfm")).read_bytes()[-4 * pixels**2 :], "<f4")
        # From the other side, and in cm.
        return 10 * stored.reshape(pixels, pixels)[:, ::-1]

    return run


OWN_SECONDS: list[float] = []
"""As plastimatch prints them: without reading the CT."""

METHODS = {
    "ours, PA": ("PA", ours("PA", None)),
    "ours, lateral": ("lateral", ours("lateral", None)),
    "ours, any pose (30°)": ("30", ours("30", None)),
    "ours, any pose (0.01°)": ("0.01", ours("0.01", None)),
    "ours, reference, PA": ("PA", ours("PA", "scipy")),
    "ours, reference (30°)": ("30", ours("30", "scipy")),
    "DiffDRR trilinear": ("PA", diffdrr("trilinear")),
    "DiffDRR Siddon": ("PA", diffdrr("siddon")),
    "ITK RTK Joseph": ("PA", rtk_joseph(0.0)),
    "ITK RTK Joseph (30°)": ("30", rtk_joseph(30.0)),
    "plastimatch exact": ("PA", plastimatch),
}
SLOW = ("DiffDRR", "ours, reference")
"""Run once."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--pixels", type=int, nargs="+", default=[512, 1024])
    parser.add_argument("--skip", nargs="+", default=[], help="leave out methods whose names begin so")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory_of:
        print(extra_memory_mb(options.memory_of, options.pixels[0]))
        return
    image = ct()
    print(f"{'×'.join(map(str, SIZE))} int16, {len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f}")
    print(f"our backends here: {', '.join(available_backends())}")
    for pixels in options.pixels:
        compare(image, pixels, options.runs, tuple(options.skip))


def compare(image: sitk.Image, pixels: int, runs: int, skip: tuple[str, ...]) -> None:
    ready, seconds, errors, truths = {}, {}, {}, {}
    OWN_SECONDS.clear()
    for name, (view, prepare) in METHODS.items():
        if name.startswith(skip):
            continue
        try:
            ready[name] = prepare(image, pixels)
            found, first = timed(ready[name])  # also compiles
        except (ImportError, RuntimeError, OSError) as error:
            ready.pop(name, None)
            print(f"{name}: not measured: {error}")
            continue
        seconds[name] = [first] if name.startswith(SLOW) else []
        if view not in truths:
            truths[view] = exact(image, view_named(view, pixels=(pixels, pixels)))
        truth = truths[view]
        difference = (found - truth) / truth.max()
        errors[name] = f"{np.abs(difference).max():.1e} / {math.sqrt((difference**2).mean()):.1e}"
    for _ in range(runs):
        for name, run in ready.items():
            if not name.startswith(SLOW):
                seconds[name].append(timed(run)[1])
    print(f"\n{pixels}²: median of {runs} alternating runs (DiffDRR: one); × ours, PA; the same of processor seconds;")
    print("error max / RMS of the image maximum; extra memory")
    base = [statistics.median(column) for column in zip(*seconds["ours, PA"], strict=True)]
    for name, times in seconds.items():
        wall, processor = (statistics.median(column) for column in zip(*times, strict=True))
        memory = "" if name.startswith("plastimatch") else memory_in_its_own_process(name, pixels)
        print(
            f"{name:25s}{wall:8.3f} s {wall / base[0]:6.1f} ×   {processor:8.3f} s {processor / base[1]:6.1f} ×   "
            f"{errors[name]:17s} {memory or '–':>5s} MB",
            flush=True,
        )
    if OWN_SECONDS:
        print(f"plastimatch says itself {statistics.median(OWN_SECONDS):.3f} s")
    print(f"load {os.getloadavg()[0]:.1f}")


def timed(run) -> tuple[np.ndarray, tuple[float, float]]:
    """What it returns, and its seconds by the clock and of the processor, those of programs it runs included."""
    start, used = time.perf_counter(), _processor_seconds()
    found = run()
    return found, (time.perf_counter() - start, _processor_seconds() - used)


def _processor_seconds() -> float:
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in both)


def memory_in_its_own_process(name: str, pixels: int) -> str:
    command = [sys.executable, __file__, "--memory-of", name, "--pixels", str(pixels)]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


def extra_memory_mb(name: str, pixels: int) -> int:
    """Highest resident memory of this process during one run, above that before; what it loads is loaded before."""
    run = METHODS[name][1](ct(), pixels)
    if name.startswith("ours"):
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
