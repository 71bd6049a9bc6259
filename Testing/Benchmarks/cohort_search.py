"""Finding the series of many small DICOM files: time and memory, and again with the journal.

    python Testing/Benchmarks/cohort_search.py COUNT [EACH]   # files in all, and in each folder (250)

The files of a folder are one file with many names (hard links), the header of a CT without pixels, so that they take no
room and are in the system's cache: what is measured is the search, not a disk. Memory is that of the client with the
scheduler of this machine, and of its largest worker.
"""

from __future__ import annotations

import os
import resource
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil
import pydicom
from dicom_files import chest_hu, write_series

from CACScoringLib.cohort import cohort
from CACScoringLib.cohort.cohort import Sharing
from CACScoringLib.core.progress import Progress

WORKERS = 2


def write_headers(root: Path, count: int, each: int) -> None:
    [path] = write_series(root.parent / "template", chest_hu(1))
    header = pydicom.dcmread(path, stop_before_pixels=True)
    for number in range(0, count, each):
        folder = root / f"{number // each // 100:04d}" / f"{number // each:06d}"
        folder.mkdir(parents=True)
        header.SeriesInstanceUID = f"1.2.826.0.1.3680043.8.498.{number + 1}"
        header.save_as(folder / "000000.dcm")
        for other in range(1, min(each, count - number)):
            os.link(folder / "000000.dcm", folder / f"{other:06d}.dcm")


class Watch:
    """The largest memory of any process that this one began."""

    def __init__(self) -> None:
        self.largest, self._end = 0, threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._end.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._end.wait(0.5):
            for process in psutil.Process().children(recursive=True):
                try:
                    self.largest = max(self.largest, process.memory_info().rss)
                except psutil.Error:
                    continue


def search(root: Path, output: Path, what: str) -> int:
    before, begun = psutil.Process().memory_info().rss, time.perf_counter()
    with Watch() as watch:
        scans, _ = cohort._find(root, output, Sharing(workers=WORKERS), Progress())
    took = time.perf_counter() - begun
    now = psutil.Process().memory_info().rss
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        f"  {what}: {len(scans)} scans in {took:.1f} s; client {before / 1e6:.0f} MB before, {now / 1e6:.0f} after, "
        f"peak {peak / 1e6:.0f}; largest worker {watch.largest / 1e6:.0f} MB; load {os.getloadavg()[0]:.1f}",
        flush=True,
    )
    return len(scans)


def main(count: int, each: int) -> None:
    with tempfile.TemporaryDirectory() as place:
        root, output = Path(place) / "in", Path(place) / "out"
        output.mkdir()
        write_headers(root, count, each)
        print(f"{count} files, {each} a folder, {WORKERS} workers", flush=True)
        first = search(root, output, "search")
        journal = sum(file.stat().st_size for file in output.iterdir())
        assert search(root, output, "again, by the journal") == first
        print(f"  journal {journal / 1e3:.0f} kB")


if __name__ == "__main__":
    main(int(sys.argv[1]), int((*sys.argv, "", "250")[2] or 250))
