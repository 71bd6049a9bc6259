"""Commands killed at random moments (SIGKILL): nothing half-written, nothing lost, and the same result when run again.

Run from the repository's root, on Linux:

    PYTHONPATH=CACScoring:CACTraining:Testing:Testing/support python Testing/Benchmarks/kills.py
        [--count 100] [--only NAME ...] [--seed 0]

Each command is run once undisturbed, which gives its result and how long it takes. Then it is started again and again
on fresh copies of its input, killed with all its processes after a random part of that time, looked at, and run to its
end (`--resume` and `--overwrite` where a user would give them). Wrong is: a result that is there but not whole; an
earlier result that is neither as it was nor replaced whole; hidden files left behind after the second run; another
result than that of the undisturbed run. Kills of `cohort` are in cohort_faults.py, of `watch` in archive_kills.py, of
the annotator's work in the tests of projects.
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
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from handmade_networks import untrained
from training_scans import write_scan

from fuzz import scored

ROOT = Path(__file__).parents[2]
Command = Callable[[Path], list[str]]
Facts = Mapping[str, object]

VOLATILE = {"created", "seconds", "date", "time", "software", "progress"}
"""Keys of records that differ from run to run."""


@dataclass(frozen=True)
class Target:
    """A command to kill. write: its input, into an empty folder. command: its arguments. again: to run it once more.

    facts: of its output, what has to be the same again; raises where it is not whole. None where there is none yet.
    """

    write: Callable[[Path], None]
    command: Command
    again: Command
    facts: Callable[[Path], Facts | None]


def content(path: Path) -> object:
    """Of a file: a JSON file without what differs from run to run, of others a hash."""
    if path.suffix == ".json":
        return _steady(json.loads(path.read_text(encoding="utf-8")))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _steady(value: object) -> object:
    if isinstance(value, dict):
        return {key: _steady(inner) for key, inner in value.items() if key not in VOLATILE}
    return [_steady(inner) for inner in value] if isinstance(value, list) else value


def result_facts(folder: Path) -> Facts | None:
    """Of a scored scan; the record is written last, and says what the others must hold."""
    if not folder.exists():
        return None
    names = {path.name for path in folder.iterdir()}
    assert {"scores.json", "report.html", "lesions.csv", "lesions.nii.gz", "heart.nii.gz"} <= names, sorted(names)
    return {name: content(folder / name) for name in ("scores.json", "lesions.csv", "lesions.nii.gz")}


def model_facts(card: Path) -> Facts | None:
    """Of a model, whose card is written last."""
    if not card.exists():
        return None
    weights = card.with_suffix(".safetensors").read_bytes()
    stored = json.loads(card.read_text(encoding="utf-8"))
    assert hashlib.sha256(weights).hexdigest() == stored["sha256"], "the weights are not those of the card"
    return {"sha256": stored["sha256"]}


def _score(folder: Path) -> list[str]:
    return [each for each in scored.score(folder) if each != "--no-scene"]


def _write_scored(folder: Path) -> None:
    """A scan with an earlier result, of other candidates."""
    scored.write_ct(folder, "nrrd")
    subprocess.run(command_line([*scored.score(folder), "--rule", "minimum_pixels=30"]), check=True, **QUIET)


def _write_training(folder: Path) -> None:
    for n in range(6):
        write_scan(folder / "scans" / f"p{n}", n, coronary=n % 3 > 0, valve=n % 3 == 0)


def _train(folder: Path) -> list[str]:
    steps = ["--steps", "24", "--validate-every", "4", "--batch-size", "2", "--device", "cpu"]
    places = ["--data", str(folder / "scans"), "--output", str(folder / "map"), "--cache", str(folder / "cache")]
    return ["train", "decomposition", *places, *steps, "--crop", "64", "--workers", "1", "--progress", "none"]


def _resumed(folder: Path) -> list[str]:
    begun = (folder / "map.training" / "checkpoint.pt").exists()
    return [*_train(folder), "--resume" if begun else "--overwrite"]


def _write_model(folder: Path) -> None:
    """A model to install, and an earlier one of its name that is installed."""
    untrained("decomposition", "own", folder / "first")
    untrained("decomposition", "own", folder / "second")
    subprocess.run(command_line(["models", "install", str(folder / "first" / "own.json")]), check=True, **QUIET)


def _install(folder: Path) -> list[str]:
    return ["models", "install", str(folder / "second" / "own.json"), "--overwrite"]


def _installed(folder: Path) -> Facts | None:
    return model_facts(folder / "user" / "own.json")


TARGETS = {
    "score": Target(
        lambda folder: scored.write_ct(folder, "nrrd"),
        _score,
        lambda folder: [*_score(folder), "--overwrite"],
        lambda folder: result_facts(folder / "out"),
    ),
    "score, over an earlier result": Target(
        _write_scored,
        lambda folder: [*_score(folder), "--overwrite"],
        lambda folder: [*_score(folder), "--overwrite"],
        lambda folder: result_facts(folder / "out"),
    ),
    "train": Target(_write_training, _train, _resumed, lambda folder: model_facts(folder / "map.json")),
    "models install": Target(_write_model, _install, _install, _installed),
}
QUIET = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}


def command_line(arguments: list[str]) -> list[str]:
    return [sys.executable, "-m", "CACTrainingLib.cli", *arguments]


def environment(folder: Path) -> dict[str, str]:
    own = {"CAC_MODEL_DIR": str(folder / "user"), "XDG_CACHE_HOME": str(folder / "caches"), "OMP_NUM_THREADS": "1"}
    return {**os.environ, **own}


def run(arguments: list[str], folder: Path, seconds: float | None = None) -> str:
    """Run to its end, or kill it after some seconds. Returns what it said if it failed by itself."""
    process = subprocess.Popen(command_line(arguments), env=environment(folder), start_new_session=True, **QUIET)
    try:
        said = process.communicate(timeout=seconds)[1].decode()
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return ""
    return said or f"exit code {process.returncode}" if process.returncode else ""


def trial(target: Target, sound: Path, folder: Path, seconds: float, expected: Facts) -> str:
    """Kill the command after some seconds, in a fresh copy of its input. Returns what is wrong."""
    shutil.copytree(sound, folder)
    before = target.facts(folder)
    run(target.command(folder), folder, seconds)
    try:
        found = target.facts(folder)
    except (AssertionError, OSError, ValueError) as error:
        return f"not whole: {error}"
    if found is None and before is not None:
        return "the earlier result is lost"
    if found not in (None, before, expected):
        return "neither the earlier result nor the new one"
    if found == expected != before:
        return ""  # killed when all was done
    for path in folder.rglob(".*.partial-*"):  # as if some hours had passed
        os.utime(path, (0, 0))
    if said := run(target.again(folder), folder):
        return f"cannot be run again: {said[-400:]}"
    if target.facts(folder) != expected:
        return "another result when run again"
    left = [str(path.relative_to(folder)) for path in folder.rglob(".*") if not path.name.endswith(".lock")]
    return f"left behind: {left}" if left else ""


def measure(name: str, target: Target, count: int, generator: random.Random, place: Path) -> int:
    """Print what became of all kills of a command; returns how many were wrong."""
    sound = place / "sound"
    sound.mkdir(parents=True)
    os.environ.update(environment(sound))
    target.write(sound)
    whole = place / "whole"
    shutil.copytree(sound, whole)
    start = time.perf_counter()
    if said := run(target.command(whole), whole):
        raise RuntimeError(f"{name} fails undisturbed: {said}")
    usual, expected = time.perf_counter() - start, target.facts(whole)
    assert expected is not None
    wrong, before_end = 0, 0
    for n in range(count):
        folder, seconds = place / f"{n}", generator.uniform(0.0, 1.05) * usual
        complaint = trial(target, sound, folder, seconds, expected)
        wrong += bool(complaint)
        before_end += seconds < usual
        if complaint:
            print(f"  {name}, killed after {seconds:.2f} s of {usual:.2f}: {complaint}", flush=True)
        shutil.rmtree(folder)
    print(
        f"{name}: {count} kills, {before_end} of them before the usual end ({usual:.1f} s), {wrong} wrong", flush=True
    )
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--only", nargs="+", choices=TARGETS, default=list(TARGETS))
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    wrong = 0
    with tempfile.TemporaryDirectory(prefix="cac-kills-") as place:
        for name in arguments.only:
            generator = random.Random(f"{arguments.seed} {name}")
            wrong += measure(name, TARGETS[name], arguments.count, generator, Path(place) / name)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
