"""Write how long scoring takes on this computer, how much memory, and how large the installation is.

    taskset -c 1 python Testing/Benchmarks/speed.py SCANS CSV MACHINE

MACHINE says on what it was measured, such as "Xeon with AVX-512, one core beside other work". SCANS is a folder with
the files of SCANS_OF_COHORT. Each run is a separate process, like a user's run, except for the later scans. Time is
processor time, which other work on the computer changes least; medians of RUNS runs. Thin scans are A0001 interpolated
along the table. The installation is made by the launcher in a new copy of the commit, and needs the network.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import SimpleITK as sitk
from by_scanner import origin, write_rows
from score_scan import ROOT, run

import CACScoringLib as cac

RUNS = 3
A0001, NLST = "lung_pet_ct_dx/A0001_philips_B_5mm.nii.gz", "nlst/101287_T0_FC51_2mm.nii.gz"
SCANS_OF_COHORT = (
    A0001,
    NLST,
    "4d_lung/113_HM10395_40pct_3mm.nii.gz",
    "nsclc_radiomics/LUNG1-001_B19f_3mm.nii.gz",
)
SAMPLE = "CACScoring/Resources/SampleData/CACDigitalPatient.nrrd"
FIRST_NUMBER = 9_700_000
"""Number of the digital patient, which no training or study has."""


def main() -> None:
    """Write the table that the arguments name, row by row."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scans", type=Path)
    parser.add_argument("csv", type=Path)
    parser.add_argument("machine")
    arguments = parser.parse_args()
    a0001, nlst = (str(arguments.scans / scan) for scan in (A0001, NLST))
    command = "Testing/Benchmarks/speed.py SCANS CSV MACHINE"
    rows: list[dict[str, object]] = []

    def add(work: str, measured: str, settings: str, seed: int | str = "none") -> None:
        rows.append({"work": work, "measured": measured} | origin(command, settings, seed))
        write_rows(arguments.csv, rows)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        medians = f"{arguments.machine}, medians of {RUNS} runs"
        of_scan = f"`cac score`, {medians}, largest memory"
        score(a0001, folder / "first")  # compiles bytecode, as once after an installation
        add(f"A0001 ({size(a0001)})", repeated(partial(score, a0001), folder), of_scan)
        threshold = partial(score, a0001, options=("--threshold-only",))
        add("the same with --threshold-only", repeated(threshold, folder), of_scan)
        add("the same, a later scan in one process", f"{later_scan_s(a0001):.1f} s", f"Python's `cac.score`, {medians}")
        add(f"NLST 101287 ({size(nlst)})", repeated(partial(score, nlst), folder), of_scan)
        for slices in (300, 1144):
            thin = interpolated(a0001, slices, folder / f"{slices}.nii.gz")
            add(f"{slices} slices ({size(thin)})", repeated(partial(score, thin), folder), of_scan)
        scans = [str(arguments.scans / scan) for scan in SCANS_OF_COHORT]
        table = folder / "scans.csv"
        table.write_text("ct,name\n" + "".join(f"{scan},{n}\n" for n, scan in enumerate(scans)), encoding="utf-8")
        add(
            f"`cac cohort`, {len(scans)} scans of 11 to 32 million voxels, each",
            repeated(partial(score_cohort, table), folder, len(scans)),
            f"`cac cohort --workers 1`, {medians}, largest memory",
        )
        phantom = repeated(make_patient, folder)
        add(
            "`cac phantom`, a patient and its two scans",
            phantom,
            f"`cac phantom --pairs 1`, {medians}, largest memory",
            FIRST_NUMBER,
        )
        add(
            "base installation",
            f"{installation_mb(folder / 'clone'):.0f} MB",
            "size of .venv after a first `./cac score`",
        )


def repeated(measure: Callable[[Path], tuple[float, float]], folder: Path, parts: int = 1) -> str:
    """Return the median processor time of a part and the largest peak memory of runs into new folders."""
    start = len(list(folder.iterdir()))
    seconds, memory_mb = zip(*(measure(folder / f"{start}-{n}") for n in range(RUNS)), strict=True)
    return f"{statistics.median(seconds) / parts:.1f} s, {max(memory_mb) / 1000:.2f} GB"


def used(arguments: list[str]) -> tuple[float, float]:
    """Return processor seconds and peak memory in MB of a command of CAC."""
    figures = run(ROOT, arguments, "all")
    return figures["all, processor"], figures["all, MB"] * 1.048576


def score(ct: str, output: Path, options: tuple[str, ...] = ()) -> tuple[float, float]:
    return used(["score", ct, "--output", str(output), *options])


def score_cohort(table: Path, output: Path) -> tuple[float, float]:
    return used(["cohort", str(table), "--output", str(output), "--workers", "1"])


def make_patient(output: Path) -> tuple[float, float]:
    first = f'{{"first_number": {FIRST_NUMBER}}}'
    return used(["phantom", "--pairs", "1", "--output", str(output), "--settings", first, "--workers", "1"])


def later_scan_s(ct: str) -> float:
    """Return the median processor time of scoring a scan again in this process, without writing."""
    seconds = []
    for _ in range(RUNS + 1):
        start = time.process_time()
        cac.score(ct)
        seconds.append(time.process_time() - start)
    return statistics.median(seconds[1:])


def size(ct: str) -> str:
    """Return the voxels of a scan, i × j × k."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(ct)
    reader.ReadImageInformation()
    return "×".join(map(str, reader.GetSize()))


def interpolated(ct: str, slices: int, file: Path) -> str:
    """Write a scan of the same height with more slices; return its path."""
    image = sitk.ReadImage(ct)
    i, j, k = image.GetSize()
    spacing = *image.GetSpacing()[:2], image.GetSpacing()[2] * (k - 1) / (slices - 1)
    grid = ((i, j, slices), sitk.Transform(), sitk.sitkLinear, image.GetOrigin(), spacing, image.GetDirection())
    sitk.WriteImage(sitk.Resample(image, *grid), file)
    return str(file)


def installation_mb(clone: Path) -> float:
    """Return the size in MB of what the launcher installs in a new copy of the commit."""
    clone.mkdir()
    archive = subprocess.run(["git", "-C", str(ROOT), "archive", "HEAD"], stdout=subprocess.PIPE, check=True).stdout
    subprocess.run(["tar", "-x", "-C", str(clone)], input=archive, check=True)
    subprocess.run(["./cac", "score", SAMPLE, "--output", "sample"], cwd=clone, stdout=subprocess.DEVNULL, check=True)
    return sum(file.stat().st_size for file in (clone / ".venv").rglob("*") if not file.is_symlink()) / 1e6


if __name__ == "__main__":
    main()
