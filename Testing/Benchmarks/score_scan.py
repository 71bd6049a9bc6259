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
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Run:
    """One process.

    Attributes:
        wall: Wall seconds.
        processor: Processor seconds.
        peak_mb: Peak memory.
        steps: Seconds in `scores.json` by step; empty without scoring.
        scores: `scores.json` without its seconds; empty without scoring.
        bytes_written: Size of the results.
    """

    wall: float
    processor: float
    peak_mb: float
    steps: dict[str, float] = field(default_factory=dict)
    scores: dict = field(default_factory=dict)
    bytes_written: int = 0


def run(tree: Path, arguments: list[str]) -> Run:
    """Run the command line of a version of the source, without output."""
    command = [sys.executable, "-m", "CACTrainingLib.cli", *arguments]
    # Bytecode is compiled once, as after an installation: the first run of a version is not reported.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPATH"] = f"{tree / 'CACScoring'}{os.pathsep}{tree / 'CACTraining'}"
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    if status:
        sys.exit(f"{' '.join(arguments)} failed in {tree}")
    return Run(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def scored(tree: Path, ct: str, options: list[str]) -> Run:
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "out"
        score_run = run(tree, ["score", ct, "--output", str(output), *options])
        scores = json.loads((output / "scores.json").read_text(encoding="utf-8"))
        size = sum(file.stat().st_size for file in output.iterdir())
        return Run(score_run.wall, score_run.processor, score_run.peak_mb, scores.pop("seconds"), scores, size)


def line(name: str, values: list[list[float]], unit: str = "s") -> str:
    """Format minimum and median of each version, and the median ratio of neighbouring runs."""
    columns = [f"{min(times):9.2f} {statistics.median(times):8.2f}" for times in values]
    ratio = [statistics.median(b / a for a, b in zip(*values, strict=True))] if len(values) == 2 else []
    return f"  {name:<14}{'  '.join(columns)} {unit}" + "".join(f"   {r:5.2f}×" for r in ratio)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ct")
    parser.add_argument("--before", type=Path, metavar="TREE")
    parser.add_argument("--runs", type=int, default=3)
    end = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    arguments, options = parser.parse_args(sys.argv[1:end]), sys.argv[end + 1 :]
    trees = [ROOT, *([arguments.before.resolve()] if arguments.before else [])]
    help_runs: list[list[Run]] = [[] for _ in trees]
    runs: list[list[Run]] = [[] for _ in trees]
    for tree in trees:
        scored(tree, arguments.ct, options)
    for _ in range(arguments.runs):
        for tree, helped, scored_runs in zip(trees, help_runs, runs, strict=True):
            helped.append(run(tree, ["--help"]))
            scored_runs.append(scored(tree, arguments.ct, options))
    print(f"{arguments.ct} {' '.join(options)}: {arguments.runs} runs by turns on {os.cpu_count()} cores")
    print("  " + " " * 14 + "  ".join(f"{name:>18}" for name in ("now: least median", "before")[: len(trees)]))
    print(line("--help", [[r.wall for r in version] for version in help_runs]))
    print(line("  processor", [[r.processor for r in version] for version in help_runs]))
    for step in runs[0][0].steps:
        print(line(step, [[r.steps[step] for r in version] for version in runs]))
    print(line("whole", [[r.wall for r in version] for version in runs]))
    print(line("  processor", [[r.processor for r in version] for version in runs]))
    print(line("  peak", [[r.peak_mb for r in version] for version in runs], "MB"))
    print(line("  written", [[r.bytes_written / 1e6 for r in version] for version in runs], "MB"))
    if arguments.before:
        equal = all(r.scores == runs[1][0].scores for version in runs for r in version)
        print(f"  scores.json, but for its seconds: {'equal' if equal else 'DIFFERENT'}")


if __name__ == "__main__":
    main()
