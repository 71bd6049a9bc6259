"""`cac review` killed at random moments (SIGKILL) while a reader works: all that it said was saved is in the journal.

Run from the repository's root, on Linux:

    PYTHONPATH=CACScoring:CACTraining:Testing:Testing/support python Testing/Benchmarks/review_kills.py [--count 100]
        [--minutes M] [--seed 0] [--full]

Without a browser, a reader changes the sites of lesions of a scored scan, rejects, undoes, redoes and accepts, and now
and then exports, as fast as the server answers. After a random time of up to --seconds the server is killed, and
another one is started on the same folder. Every answer is compared with what the next server shows: wrong is a change
that was answered as saved and is not there, one that is there twice, a journal that cannot be read, an export that is
neither whole nor absent, and hidden files that stay.

With --full (as root) the results lie on a small disk (tmpfs), which is filled and emptied at random instead: wrong is
also a change that is refused without naming the place, and one that was refused and is there nevertheless.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path

from calcified_heart import calcified_scan
from review_server import Client, ReviewServer, write_cohort

from CACScoringLib.pipeline import score_scan

ACTIONS = ("assign", "assign", "reject", "undo", "redo", "accept")
NAME = "one"


class Reader(threading.Thread):
    """Works until the server does not answer. saved: state after the last change that was answered as saved. asked: the
    number of changes, of which the last may have been cut off. exports: that were answered."""

    def __init__(self, client: Client, base: str, state: dict, generator: random.Random) -> None:
        super().__init__()
        self.client, self.base, self.saved, self.generator = client, base, state, generator
        self.exports, self.refused, self.changes = 0, 0, 0

    def run(self) -> None:
        try:
            while True:
                if self.generator.random() < 0.1:
                    status, _ = self.client.post(f"{self.base}/export", {})
                    assert status == 200, status
                    self.exports += 1
                    continue
                status, answer = self.client.post(f"{self.base}/act", self.request())
                if status == 200:
                    self.changes += answer["version"] != self.saved["version"]
                    self.saved = answer
                else:  # such as an undo of nothing
                    self.refused += 1
        except (OSError, HTTPException, ValueError):
            return  # it was killed

    def request(self) -> dict:
        """A change of the state that was saved last."""
        lesions = [lesion["id"] for lesion in self.saved["methods"]["threshold"]["lesions"]]
        action = self.generator.choice([a for a in ACTIONS if a not in ("assign", "reject") or lesions])
        request = {"action": action, "method": "threshold", "version": self.saved["version"], "seconds": 1}
        if action in ("assign", "reject"):
            request["lesions"] = [self.generator.choice(lesions)]
        if action == "assign":
            request["site"] = self.generator.choice((1, 2, 3, 4))
        return request


def wrong_after(results: Path, saved: dict, shown: dict) -> str:
    """What is wrong with the folder and the state that the next server shows, after a kill."""
    if shown["version"] not in (saved["version"], saved["version"] + 1):
        return f"version {shown['version']} after {saved['version']} was answered as saved"
    if shown["version"] == saved["version"] and shown["methods"] != saved["methods"]:
        return "another state of the same version"
    for file in results.rglob("*.jsonl"):
        whole = file.read_bytes().rpartition(b"\n")[0].decode()
        numbers = [json.loads(line)["number"] for line in whole.splitlines()[1:]]
        if numbers != list(range(1, len(numbers) + 1)):
            return f"the entries of the journal are {numbers}"
    for place in results.rglob("reviewed*"):
        if (place / "scores.json").exists():
            json.loads((place / "scores.json").read_text(encoding="utf-8"))
        elif any(place.iterdir()) and not list(place.parent.glob(f".{place.name}.*/scores.json")):
            return f"{place.name} is half an export"
    return ""


def fill(folder: Path) -> Path:
    """Take all the room of the folder's disk."""
    file = folder / "full"
    with file.open("wb", buffering=0) as stream, contextlib.suppress(OSError):
        while True:
            stream.write(bytes(4096))
    return file


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


def on_full_disks(results: Path, data: Path, count: int, generator: random.Random) -> int:
    """Change and export on a disk that is full half of the time; returns how many ends were wrong."""
    server = ReviewServer.start(results, "--reader", "Ann", data=data)
    client = server.client("Ann")
    base = client.base(NAME)
    reader = Reader(client, base, client.get(base), generator)
    saved = refused = wrong = 0
    filler = None
    for n in range(count):
        if generator.random() < 0.3:
            filler = filler.unlink() if filler else fill(results)
        exports = generator.random() < 0.1
        request = {} if exports else reader.request()
        status, answer = client.post(f"{base}/export" if exports else f"{base}/act", request)
        complaint = ""
        if status == 200:
            saved += 1
            reader.saved = reader.saved if exports else answer
        elif filler and "No space left" in answer.get("error", ""):
            refused += 1
            place = "reviewed" if exports and "reviewed" in answer["error"] else "reviews"
            complaint = "" if f"{results / NAME / place}" in answer["error"] else f"no place is named: {answer}"
        elif status != 422:  # such as an undo of nothing
            complaint = f"{status}: {answer}"
        shown = client.get(base)
        if (shown["version"], shown["methods"]) != (reader.saved["version"], reader.saved["methods"]):
            complaint = complaint or f"shown is another state than was saved, after {status}: {answer}"
            reader.saved = shown
        if generator.random() < 0.05:
            server.kill()
            server = client.server = ReviewServer.start(
                results, "--reader", "Ann", "--port", str(server.port), data=data
            )
            complaint = complaint or wrong_after(results, reader.saved, client.get(base))
        if complaint:
            wrong += 1
            print(f"  request {n}: {complaint}", flush=True)
    server.kill()
    print(f"review: {saved} saved and {refused} refused on a full disk, {wrong} wrong")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--minutes", type=float, default=600.0, help="at most")
    parser.add_argument("--full", action="store_true", help="full disks, in place of kills")
    arguments = parser.parse_args()
    generator = random.Random(arguments.seed)
    wrong = changes = exports = cut_off = 0
    with tempfile.TemporaryDirectory(prefix="cac-review-kills-") as place:
        folder = Path(place)
        scan, heart = calcified_scan()
        if arguments.full:
            made = write_cohort(folder / "made", [NAME], score_scan(scan, heart=heart))
            with small_disk(folder / "disk", 2**22):
                shutil.copytree(made, folder / "disk" / "results")
                count = arguments.count
                return int(on_full_disks(folder / "disk" / "results", folder / "user", count, generator) > 0)
        results = write_cohort(folder, [NAME], score_scan(scan, heart=heart))
        saved, until = None, time.monotonic() + 60 * arguments.minutes
        for n in range(arguments.count + 1):
            last = n == arguments.count or time.monotonic() > until
            server = ReviewServer.start(results, "--reader", "Ann", data=folder / "user")
            try:
                client = server.client("Ann")
                base = client.base(NAME)
                shown = client.get(base)
                complaint = wrong_after(results, saved, shown) if saved is not None else ""
                cut_off += saved is not None and shown["version"] != saved["version"]
                if complaint:
                    wrong += 1
                    print(f"  kill {n}: {complaint}", flush=True)
                if last:
                    status, _ = client.post(f"{base}/export", {})
                    assert status == 200
                    break
                reader = Reader(client, base, shown, generator)
                reader.start()
                reader.join(generator.uniform(0.0, arguments.seconds))
            finally:
                server.kill()
            reader.join()
            saved, changes, exports = reader.saved, changes + reader.changes, exports + reader.exports
            for path in results.rglob(".*.partial-*"):  # as if some hours had passed
                os.utime(path, (0, 0))
        left = [str(path.relative_to(results)) for path in results.rglob(".*") if not path.name.endswith(".lock")]
        if left:
            wrong += 1
            print(f"  left behind: {left}")
    print(
        f"review: {n} kills among {changes} changes and {exports} exports that were answered as saved "
        f"({cut_off} changes saved without an answer), {wrong} wrong"
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
