"""How far a score depends on the version of Python, the number of threads, and what the processor can do.

Run from the repository's root, on Linux on x86-64:

    PYTHONPATH=CACScoring:CACTraining python Testing/Benchmarks/numerics.py CT ... [--python PYTHON ...]

Each scan is scored by `cac score` in processes that differ in one thing from the first: nothing (the same again), the
threads, the processor's instructions that PyTorch's kernels may use, or the Python (programs with CAC's dependencies
installed). Printed of each: the largest difference of any score (Agatston, volume, mass; by the rule and by the
map, by artery and in all); of any other number of the methods, such as a lesion's probability and its evidence; of the
probability of a slice; voxels of the heart that differ; and the largest difference of the calcium map, HU. 0: equality
to the last bit.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import SimpleITK as sitk

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS")
VARIANTS = {
    "the same again": {},
    "1 thread": dict.fromkeys(THREADS, "1"),
    "4 threads": dict.fromkeys(THREADS, "4"),
    "AVX-512 without AMX": {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16"},
    "AVX-512 without bfloat16": {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_VNNI"},
    "AVX2": {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"},
    "SSE4": {"ONEDNN_MAX_CPU_ISA": "SSE41", "ATEN_CPU_CAPABILITY": "default", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2"},
}
"""Environment variables by name of the variant."""


def scored(ct: Path, output: Path, python: str, variables: dict[str, str]) -> Path:
    """The folder of a result."""
    command = [python, "-m", "CACTrainingLib.cli", "score", str(ct), "--output", str(output), "--no-scene"]
    subprocess.run([*command, "--progress", "none"], check=True, env={**os.environ, **variables}, capture_output=True)
    return output


def largest_difference(one: object, other: object) -> float:
    """Of any two numbers at the same place; infinite where anything else differs."""
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        return max((largest_difference(one[key], other[key]) for key in one), default=0.0)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        return max((largest_difference(*pair) for pair in zip(one, other, strict=True)), default=0.0)
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in (one, other))
    return abs(one - other) if numbers else 0.0 if one == other else float("inf")


def compared(one: Path, other: Path) -> list[str]:
    """A row's cells."""
    records = [json.loads((folder / "scores.json").read_text(encoding="utf-8")) for folder in (one, other)]
    methods = [record["methods"] for record in records]
    scores = [{m: (found[m]["total"], found[m]["arteries"]) for m in found} for found in methods]
    cells = [f"{largest_difference(*pair):.2g}" for pair in (scores, methods)]
    cells.append(f"{largest_difference(*(record.get('slice_probabilities') for record in records)):.2g}")
    for name in ("heart", "calcium_map"):
        arrays = [sitk.GetArrayFromImage(sitk.ReadImage(str(folder / f"{name}.nii.gz"))) for folder in (one, other)]
        difference = np.abs(arrays[0].astype(float) - arrays[1])
        cells.append(f"{np.count_nonzero(difference)}" if name == "heart" else f"{difference.max():.2g}")
    return cells


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scans", type=Path, nargs="+", metavar="CT")
    parser.add_argument("--python", nargs="+", default=[], help="programs of other versions")
    arguments = parser.parse_args()
    variants = [(name, sys.executable, variables) for name, variables in VARIANTS.items()]
    for program in arguments.python:
        said = subprocess.run([program, "--version"], check=True, capture_output=True, text=True)
        variants.append((said.stdout.strip(), program, {}))
    print(f"{'':26}{'scores':>10}{'others':>10}{'slices':>10}{'heart':>10}{'map, HU':>10}")
    for ct in arguments.scans:
        print(ct.name)
        with tempfile.TemporaryDirectory() as place:
            first = scored(ct, Path(place) / "first", sys.executable, {})
            for number, (name, program, variables) in enumerate(variants):
                other = scored(ct, Path(place) / f"{number}", program, variables)
                print(f"  {name:24}{''.join(f'{cell:>10}' for cell in compared(first, other))}", flush=True)


if __name__ == "__main__":
    main()
