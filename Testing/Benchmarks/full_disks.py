"""Commands on disks that are full, read-only or gone: each tells so, keeps what was there, and can be run again.

Run from the repository's root, on Linux, as root for all but the first two disturbances:

    PYTHONPATH=CACScoring:CACTraining:Testing:Testing/support python Testing/Benchmarks/full_disks.py
        [--count 20] [--minutes M] [--only NAME ...] [--seed 0] [--how HOW ...]

Each command of kills.py is run on fresh copies of its input with one of these:

    no-room     from a random change of files on, the system refuses to Python each that takes room
    file-size   no file may become larger than a random size, which also meets what ITK and PyTorch write
    small-disk  everything lies on a disk (tmpfs) with a random part of the room that the command needs
    read-only   everything lies on a disk that cannot be written to
    gone        the folder of everything gets another name after a random time, and its own again afterwards

Wrong is: an end without a message, or with a traceback; one that names no place; a result that is there but not whole;
an earlier result that is lost; hidden files left behind; another result than that of an undisturbed run, when it is run
again on a sound disk. Where the folder is gone, nothing can be tidied up at once, and the next run has to.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from disturbed import UNDISTURBED, Disturbance, Ended
from disturbed_commands import TARGETS, Facts, Target
from kills import carried_out, prepared

HOWS = ("no-room", "file-size", "small-disk", "read-only", "gone")
PAGE_BYTES = 4096


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[None]:
    """A disk of its own, of so many bytes, that is mounted at a folder."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "cac-full-disks", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)
        folder.rmdir()


def disk_bytes(folder: Path) -> int:
    """What the files and folders below take, in whole pages."""
    return sum(PAGE_BYTES + -(-path.lstat().st_size // PAGE_BYTES) * PAGE_BYTES for path in folder.rglob("*"))


def wrong_end(target: Target, folder: Path, ended: Ended, before: Facts | None, expected: Facts, how: str) -> str:
    """What is wrong with a disturbed run and with what it left."""
    if ended.code:
        if "Traceback" in ended.said or ended.code not in (2, 3):
            return f"exit code {ended.code}: {ended.said[-1500:]}"
        if not any(str(each) in ended.said for each in (folder, *folder.iterdir())):
            return f"no place is named: {ended.said[-400:]}"
    try:
        found = target.facts(folder)
    except (AssertionError, OSError, ValueError) as error:
        return f"not whole: {error} (said: {ended.said[-300:]})"
    if ended.code == 0 and found != expected:
        return "it says that it is done, and the result is another"
    if found not in (before, expected):
        return f"the earlier result is lost, or half of one is there (said: {ended.said[-300:]})"
    hidden = [str(path.relative_to(folder)) for path in folder.rglob(".*") if not path.name.endswith(".lock")]
    return f"left behind: {hidden}" if hidden and how != "gone" else ""


def disturbed(target: Target, folder: Path, how: str, part: float, usual: Ended, largest: int) -> Ended:
    """Run the command. part: random, 0 to 1."""
    if how == "no-room":
        return carried_out(target.command, folder, Disturbance(full_at=1 + int(part * usual.changes)))
    if how == "file-size":
        return carried_out(target.command, folder, Disturbance(file_bytes=int(largest**part)))
    if how == "gone":
        away = folder.with_name(f"{folder.name}-away")
        timer = threading.Thread(target=lambda: (time.sleep(part * usual.seconds), folder.rename(away)))
        timer.start()
        ended = carried_out(target.command, folder)
        timer.join()
        if folder.exists() and ended.code == 0:  # made anew, with the result
            shutil.rmtree(away)
            return ended
        shutil.rmtree(folder, ignore_errors=True)
        away.rename(folder)
        return ended
    if how == "read-only":
        subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
        ended = carried_out(target.command, folder)
        subprocess.run(["mount", "-o", "remount,rw", folder], check=True)
        return ended
    return carried_out(target.command, folder, UNDISTURBED)


def trial(
    target: Target, sound: Path, folder: Path, how: str, part: float, usual: Ended, expected: Facts, whole: Path
) -> tuple[str, Ended]:
    """What is wrong, and how the disturbed run ended."""
    new = [path.stat().st_size for path in whole.rglob("*") if path.is_file() and _is_new(path, sound, whole)]
    largest = max(new)
    before = target.facts(sound)
    mounted = how in ("small-disk", "read-only")
    room = disk_bytes(sound) + int(part * 1.5 * sum(new)) if how == "small-disk" else 2**30
    with small_disk(folder, room + 16 * PAGE_BYTES) if mounted else _plain(folder):
        shutil.copytree(sound, folder, dirs_exist_ok=True)
        ended = disturbed(target, folder, how, part, usual, largest)
        complaint = wrong_end(target, folder, ended, before, expected, how)
        if complaint or ended.code == 0:
            return complaint, ended
        if mounted:
            subprocess.run(["mount", "-o", "remount,size=1G", folder], check=True)
        for path in folder.rglob(".*.partial-*"):  # as if some hours had passed
            os.utime(path, (0, 0))
        again = carried_out(target.again, folder)
        if again.code or target.facts(folder) != expected:
            return f"not the same result when run again: {again.said[-400:]}", ended
        hidden = [path.name for path in folder.rglob(".*") if not path.name.endswith(".lock")]
        return f"left behind after the second run: {hidden}" if hidden else "", ended


def _is_new(path: Path, sound: Path, whole: Path) -> bool:
    before = sound / path.relative_to(whole)
    return not before.exists() or before.stat().st_mtime_ns != path.stat().st_mtime_ns


@contextmanager
def _plain(folder: Path) -> Iterator[None]:
    folder.mkdir()
    yield
    shutil.rmtree(folder)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=20, help="of each disturbance of each command")
    parser.add_argument("--only", nargs="+", choices=TARGETS, default=list(TARGETS))
    parser.add_argument("--minutes", type=float, default=600.0, help="at most, of each disturbance of each command")
    parser.add_argument("--how", nargs="+", choices=HOWS, default=list(HOWS))
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    wrong = 0
    with tempfile.TemporaryDirectory(prefix="cac-full-disks-") as place:
        for name in arguments.only:
            target, own = TARGETS[name], Path(place) / name
            sound, whole, usual, expected = prepared(name, target, own)
            for how in arguments.how:
                generator = random.Random(f"{arguments.seed} {name} {how}")
                ends, until = Counter(), time.monotonic() + 60 * arguments.minutes
                for n in range(1 if how == "read-only" else arguments.count):
                    if time.monotonic() > until:
                        break
                    part = generator.random()
                    said, ended = trial(target, sound, own / f"{how} {n}", how, part, usual, expected, whole)
                    ends["wrong" if said else "told" if ended.code else "done"] += 1
                    if said:
                        print(f"  {name}, {how}, {part:.3f}: {said}", flush=True)
                print(f"{name}, {how}: {', '.join(f'{ends[e]} {e}' for e in ('done', 'told', 'wrong'))}", flush=True)
                wrong += ends["wrong"]
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
