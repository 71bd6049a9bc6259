"""Seconds of each step of `cac score` and its peak memory, on one scan. Run: python Testing/Benchmarks/score_scan.py CT

Every run is a process of its own, as a user's run is. Goal on two idle cores: under 8 s and 2 GB.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RUNS = 3
ROOT = Path(__file__).resolve().parents[2]


def run(ct: str) -> tuple[float, float, dict[str, float]]:
    """Wall seconds, peak resident memory in MB, and seconds by step of one scoring run."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "out"
        command = [sys.executable, "-m", "CACScoringLib.cli", "score", ct, "--output", str(output)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "CACScoring")}
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - start
        if status:
            sys.exit(f"score failed on {ct}")
        return wall, usage.ru_maxrss / 1024, json.loads((output / "scores.json").read_text())["seconds"]


def main() -> None:
    runs = [run(sys.argv[1]) for _ in range(RUNS)]
    print(f"{sys.argv[1]}, median of {RUNS} runs on {os.cpu_count()} cores")
    for step in runs[0][2]:
        print(f"  {step:<12}{statistics.median(r[2][step] for r in runs):7.2f} s")
    print(f"  {'whole':<12}{statistics.median(r[0] for r in runs):7.2f} s   peak {max(r[1] for r in runs):.0f} MB")


if __name__ == "__main__":
    main()
