"""Commands killed at random moments (SIGKILL): nothing half-written, nothing lost, and the same result when run again.

Run from the repository's root, on Linux:

    PYTHONPATH=CACScoring:CACTraining:Testing:Testing/support python Testing/Benchmarks/kills.py
        [--count 100] [--minutes M] [--only NAME ...] [--seed 0]

Each command is run once undisturbed, which gives its result, how long it takes and how often it changes files. Then it
is started again and again on fresh copies of its input, killed with all its processes, looked at, and run to its end
(`--resume` and `--overwrite` where a user would give them). Every other kill comes after a random part of its time, the
others just before a change of files, of which each has its turn: most of what could be lost is at stake for
milliseconds, which a random time hardly ever meets. Wrong is: a result that is there but not whole; an
earlier result that is neither as it was nor replaced whole; hidden files left behind after the second run; another
result than that of the undisturbed run. Kills of `cohort` and of `watch` are in their tests, of
the server of reviews in review_kills.py, of the panel's worker in panel_kills.py, of the annotator's work in the tests
of projects.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

from disturbed import UNDISTURBED, Disturbance, Ended, preload, run
from disturbed_commands import TARGETS, Command, Facts, Target, cac, environment


def carried_out(command: Command, folder: Path, disturbance: Disturbance = UNDISTURBED) -> Ended:
    return run(lambda: cac(command(folder)), environment(folder), disturbance)


def trial(target: Target, sound: Path, folder: Path, disturbance: Disturbance, expected: Facts) -> str:
    """Kill the command in a fresh copy of its input. Returns what is wrong."""
    shutil.copytree(sound, folder)
    before = target.facts(folder)
    ended = carried_out(target.command, folder, disturbance)
    if ended.code > 0:
        return f"ended by itself: {ended.said[-400:]}"
    try:
        found = target.facts(folder)
    except (AssertionError, OSError, ValueError) as error:
        return f"not whole: {error}"
    if found not in (None, before, expected):
        return "neither the earlier result nor the new one"
    missing = found is None and before is not None  # to be put right by the second run, or the result is lost
    if missing and not any((folder / f".out.{name}" / "scores.json").exists() for name in ("new", "entering")):
        return "the earlier result is lost"
    for path in folder.rglob(".*.partial-*"):  # as if some hours had passed
        os.utime(path, (0, 0))
    again = carried_out(target.again, folder)
    if again.code:
        return f"cannot be run again: {again.said[-400:]}"
    if target.facts(folder) != expected:
        return "another result when run again"
    left = [str(path.relative_to(folder)) for path in folder.rglob(".*") if not path.name.endswith(".lock")]
    return f"left behind: {left}" if left else ""


def measure(name: str, target: Target, count: int, minutes: float, generator: random.Random, place: Path) -> int:
    """Print what became of all kills of a command; returns how many were wrong."""
    sound, _, usual, expected = prepared(name, target, place)
    wrong, done, turn = 0, 0, generator.randrange(usual.changes)
    until = time.monotonic() + 60 * minutes
    for n in range(count):
        if time.monotonic() > until:
            break
        if n % 2:
            turn += 1
            disturbance = Disturbance(kill_at=turn % usual.changes + 1)
        else:
            disturbance = Disturbance(kill_after=generator.uniform(0.0, usual.seconds))
        folder = place / f"{n}"
        complaint = trial(target, sound, folder, disturbance, expected)
        done, wrong = n + 1, wrong + bool(complaint)
        if complaint:
            print(f"  {name}, {disturbance}: {complaint}", flush=True)
        shutil.rmtree(folder)
    print(f"{name}: {done} kills, {wrong} wrong", flush=True)
    return wrong


def prepared(name: str, target: Target, place: Path) -> tuple[Path, Path, Ended, Facts]:
    """The input of a command, a copy of it with its results, how the command ended there, and its facts."""
    sound, whole = place / "sound", place / "whole"
    sound.mkdir(parents=True)
    written = run(lambda: target.write(sound) or 0, environment(sound))
    assert written.code == 0, written.said
    for _ in range(2):  # the second time with everything loaded
        shutil.rmtree(whole, ignore_errors=True)
        shutil.copytree(sound, whole)
        usual = carried_out(target.command, whole)
        if usual.code:
            raise RuntimeError(f"{name} fails undisturbed: {usual.said}")
        preload(usual.modules)
    expected = target.facts(whole)
    assert expected is not None
    print(f"{name}: {usual.seconds:.1f} s, {usual.changes} changes of files", flush=True)
    return sound, whole, usual, expected


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--only", nargs="+", choices=TARGETS, default=list(TARGETS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=600.0, help="at most, of each command")
    arguments = parser.parse_args()
    wrong = 0
    with tempfile.TemporaryDirectory(prefix="cac-kills-") as place:
        for name in arguments.only:
            generator = random.Random(f"{arguments.seed} {name}")
            how = (arguments.count, arguments.minutes, generator, Path(place) / name)
            wrong += measure(name, TARGETS[name], *how)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
