"""Kill `cac score` at random moments: nothing is half-written or lost, and a second run gives the same result.

Run on Linux from the repository's root, with any CT (a small one, for speed):

    python Testing/Benchmarks/kills.py CT [--count 20] [--seed 0] [-- OPTIONS OF cac score]

Half of the kills hit a first run, half a run with --overwrite over an earlier, different result. After each kill the
folder must hold nothing, the earlier result or the new one, and a run to the end must give the new one and leave no
hidden files. Prints every violation; the exit code is 1 if there is one.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
VOLATILE = {"created", "seconds"}


def start(ct: str, folder: Path, options: list[str]) -> subprocess.Popen:
    """Start `cac score` in a process group of its own."""
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'CACScoring'}{os.pathsep}{ROOT / 'CACTraining'}"}
    command = [sys.executable, "-m", "CACTrainingLib.cli", "score", ct, "--output", str(folder), *options]
    quiet = subprocess.DEVNULL
    return subprocess.Popen(command, env=environment, start_new_session=True, stdout=quiet, stderr=quiet)


def content(folder: Path) -> dict | None:
    """Return the scores and the hash of the label map; None if there is no result."""
    if not (folder / "scores.json").exists():
        return None
    scores = json.loads((folder / "scores.json").read_text(encoding="utf-8"))
    labels = hashlib.sha256((folder / "lesions.nii.gz").read_bytes()).hexdigest()
    return {key: value for key, value in scores.items() if key not in VOLATILE} | {"labels": labels}


def violation(ct: str, folder: Path, options: list[str], delay: float, earlier: dict | None, new: dict) -> str:
    """Kill a run after `delay` seconds and run it again; return what is wrong, or an empty string."""
    process = start(ct, folder, options)
    time.sleep(delay)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    parked = any((folder.parent / f".{folder.name}.{name}" / "scores.json").exists() for name in ("new", "entering"))
    if content(folder) not in (earlier, new) and not parked:
        return "the folder holds neither the earlier result nor the new one"
    for path in folder.parent.rglob(".*.partial-*"):  # leftovers count as abandoned after some hours
        os.utime(path, (0, 0))
    if start(ct, folder, [*options, "--overwrite"]).wait() != 0:
        return "the second run failed"
    if content(folder) != new:
        return "the second run gives another result"
    hidden = [path.name for path in folder.parent.rglob(".*") if not path.name.endswith(".lock")]
    return f"hidden files are left: {hidden}" if hidden else ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ct")
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    end = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    arguments, options = parser.parse_args(sys.argv[1:end]), sys.argv[end + 1 :]
    ct, generator, wrong = arguments.ct, random.Random(arguments.seed), 0
    with tempfile.TemporaryDirectory(prefix="cac-kills-") as place:
        old, new = Path(place, "old"), Path(place, "new")
        strict = ["--settings", '{"scoring": {"rules": {"minimum_pixels": 30}}}']
        assert start(ct, old, [*options, *strict]).wait() == 0
        start_time = time.perf_counter()
        assert start(ct, new, options).wait() == 0
        usual = time.perf_counter() - start_time
        for number in range(arguments.count):
            folder = Path(place, f"run-{number}", "out")
            overwrites = number % 2 == 1
            folder.parent.mkdir()
            if overwrites:
                shutil.copytree(old, folder)
            run_options = [*options, "--overwrite"] if overwrites else options
            delay, earlier = generator.uniform(0, usual), content(old) if overwrites else None
            complaint = violation(ct, folder, run_options, delay, earlier, content(new))
            wrong += bool(complaint)
            if complaint:
                print(f"kill {number}: {complaint}", flush=True)
            shutil.rmtree(folder.parent)
    print(f"{arguments.count} kills in runs of {usual:.1f} s, {wrong} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
