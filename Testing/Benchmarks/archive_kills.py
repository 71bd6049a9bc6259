"""Small studies that arrive in an Orthanc while it and the watch on it are killed at random (SIGKILL).

    … Testing/Benchmarks/archive_kills.py [dicomweb|dimse] [STUDIES] [SECONDS] [SEED] [EVERY]

Needs the Debian packages orthanc and orthanc-dicomweb. Scoring is a stub of 50 ms that writes a structured report. What
is counted is what the archive holds in the end, by Orthanc's own interface: how many series have exactly one
report about all of their images, none, or several.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from killed_archive import run
from orthanc import missing


def main() -> None:
    """Print what is left."""
    if reason := missing():
        sys.exit(reason)
    defaults = ("dicomweb", "200", "300", "0", "9")
    protocol, studies, seconds, seed, every = (*sys.argv[1:], *defaults[len(sys.argv) - 1 :])
    with tempfile.TemporaryDirectory() as folder:
        outcome = run(Path(folder), protocol, int(studies), float(seconds), int(seed), float(every))
    print(f"{protocol}: {outcome.studies} studies in {outcome.seconds:.0f} s")
    print(f"  Orthanc killed {outcome.archive_kills} times, the watch {outcome.watch_kills} times")
    print(f"  series scored exactly once {outcome.scored_once}, lost {outcome.lost}, repeated {outcome.repeated}")
    print(f"  CT slices lost {outcome.images_lost}; scorings begun {outcome.begun}; states {outcome.states}")


if __name__ == "__main__":
    main()
