"""Peak memory of scoring one scan, as a process of `cac cohort` scores it, by size and by what is asked for. Run:

    PYTHONPATH=Testing/support .venv/bin/python Testing/Benchmarks/scoring_memory.py CT

CT is resampled to each of SIZES over the same part of the body, so its heart stays as it is; the voxels and what is
done with them count, not what they show. Each run is a process of its own. The radiomics model has learned nothing,
which makes no difference to memory. A worker of a cohort is given `cohort.workers.SCAN_BYTES` at
least. --scans N scores N scans in each process, one after another.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import sys
import tempfile
from pathlib import Path

import SimpleITK as sitk
from handmade_estimates import save_radiomics

from CACScoringLib.cohort.scans import CohortScan
from CACScoringLib.cohort.scoring import ScanJob, prepare_scoring
from CACScoringLib.io.reading import read_ct
from CACScoringLib.run import ModelChoice, RunSettings, chosen_models

SIZES = ((256, 256, 64), (512, 512, 64), (512, 512, 128), (512, 512, 248), (512, 512, 400), (768, 768, 300))
WAYS = {
    "clinical rule": (ModelChoice(threshold_only=True), False),
    "clinical rule, scene": (ModelChoice(threshold_only=True), True),
    "networks": (ModelChoice(), False),
    "networks, vessels": (ModelChoice(estimates=("vessels",)), False),
    "networks, radiomics": (ModelChoice(estimates=("radiomics",)), False),
    "networks, scene": (ModelChoice(), True),
    "all": (ModelChoice(estimates=("vessels", "radiomics")), True),
}
"""Which models, and whether a scene is written."""


def resampled(image: sitk.Image, size: tuple[int, int, int]) -> sitk.Image:
    """An image over the same part of the body, with other voxels."""
    spacing = [old * n / new for old, n, new in zip(image.GetSpacing(), image.GetSize(), size, strict=True)]
    return sitk.Resample(
        image, size, sitk.Transform(), sitk.sitkLinear, image.GetOrigin(), spacing, image.GetDirection()
    )


def score(way: str, ct: str, scans: int, pipe) -> None:
    """In a process of its own: score a scan so many times and send the peak memory in bytes, or why it failed."""
    choice, scene = WAYS[way]
    do = prepare_scoring(RunSettings(scene=scene, saliency=False), chosen_models(choice))
    with tempfile.TemporaryDirectory() as folder:
        jobs = [ScanJob(CohortScan("scan", Path(ct), "scan"), Path(folder) / f"out{n}", "") for n in range(scans)]
        failed = [do(job).reason for job in jobs]
    unit = 1 if sys.platform == "darwin" else 1024
    pipe.send(failed[0] or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)


def peak_bytes(way: str, ct: Path, scans: int) -> int:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=score, args=(way, str(ct), scans, theirs))
    process.start()
    theirs.close()
    told = ours.recv()
    process.join()
    if isinstance(told, str):
        sys.exit(f"{way}: {told}")
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ct", type=Path)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--sizes", type=int, default=len(SIZES), help="only so many of the sizes")
    parser.add_argument("--scans", type=int, default=1, metavar="N", help="that each process scores")
    options = parser.parse_args()
    image = read_ct(options.ct).image
    with tempfile.TemporaryDirectory() as folder:
        os.environ["CAC_MODEL_DIR"] = folder
        save_radiomics(Path(folder))
        ct = Path(folder) / "scan.nrrd"
        print(f"{'MB used':<17}" + "".join(f"{way:>24}" for way in options.ways))
        for size in SIZES[: options.sizes]:
            sitk.WriteImage(resampled(image, size), str(ct))
            cells = []
            for way in options.ways:
                cells.append(f"{peak_bytes(way, ct, options.scans) / 1e6:.0f}")
            print(f"{'×'.join(map(str, size)):<17}" + "".join(f"{cell:>24}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
