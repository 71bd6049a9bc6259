"""Measure seconds of each step of `cac score` and its peak memory on one scan, now and before. Run from the root:

    python Testing/Benchmarks/score_scan.py CT [--before TREE] [--runs 3] [-- OPTIONS OF cac score]

Every run is a separate process, like a user's run. TREE is another version of the source, such as `git worktree` makes:
the two alternate, and differences of their scores are reported. `cac --help` comes first. On a busy machine use
processor seconds and the minimum of several runs. Goal on two idle cores for 512×340×64 voxels: 4 s, and 1.5 s with
--threshold-only; 0.3 s for --help.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def run(tree: Path, arguments: list[str], name: str) -> dict[str, float]:
    """Run the command line of a version of the source; return wall and processor seconds and peak memory in MB."""
    command = [sys.executable, "-m", "CACTrainingLib.cli", *arguments]
    # Bytecode is compiled once, as after an installation: the first run of a version is not reported.
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPATH"] = f"{tree / 'CACScoring'}{os.pathsep}{tree / 'CACTraining'}"
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{' '.join(arguments)} failed in {tree}")
    processor = usage.ru_utime + usage.ru_stime
    return {name: time.perf_counter() - start, f"{name}, processor": processor, f"{name}, MB": usage.ru_maxrss / 1024}


def scored(tree: Path, ct: str, options: list[str]) -> tuple[dict[str, float], dict]:
    """Return the figures of `--help` and of a scoring with its steps, and `scores.json` without its seconds."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "out"
        figures = run(tree, ["--help"], "--help") | run(tree, ["score", ct, "--output", str(output), *options], "score")
        scores = json.loads((output / "scores.json").read_text(encoding="utf-8"))
        written = sum(file.stat().st_size for file in output.iterdir()) / 1e6
        return figures | scores.pop("seconds") | {"written, MB": written}, scores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ct")
    parser.add_argument("--before", type=Path, metavar="TREE")
    parser.add_argument("--runs", type=int, default=3)
    end = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    arguments, options = parser.parse_args(sys.argv[1:end]), sys.argv[end + 1 :]
    trees = [ROOT, *([arguments.before.resolve()] if arguments.before else [])]
    runs = [[scored(tree, arguments.ct, options) for tree in trees] for _ in range(arguments.runs + 1)][1:]
    print(f"{arguments.ct} {' '.join(options)}: {arguments.runs} runs by turns on {os.cpu_count()} cores")
    print(f"{'':20}" + "".join(f"{name:>20}" for name in ("now: least median", "before")[: len(trees)]))
    for name in runs[0][0][0]:
        values = [[turn[n][0][name] for turn in runs] for n in range(len(trees))]
        columns = "".join(f"{min(times):11.2f} {statistics.median(times):8.2f}" for times in values)
        ratios = [before / max(now, 1e-9) for now, before in zip(*values, strict=True)] if len(trees) == 2 else []
        print(f"{name:20}{columns}" + (f"   {statistics.median(ratios):5.2f}×" if ratios else ""))
    if arguments.before:
        is_equal = all(scores == runs[0][0][1] for turn in runs for _, scores in turn)
        print(f"scores.json, but for its seconds: {'equal' if is_equal else 'DIFFERENT'}")


if __name__ == "__main__":
    main()
