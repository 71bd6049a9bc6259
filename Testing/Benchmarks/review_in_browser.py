"""How long a reader waits in the browser: first slice, scrolling, and from a key to the new total.

Run from the repository's root; needs Chromium and Playwright:

    PYTHONPATH=CACScoring:CACTraining:Testing:Testing/support .venv/bin/python Testing/Benchmarks/review_in_browser.py

A scan of 512 × 512 × 300 voxels of noisy tissue with 40 boxes of calcium in a heart (seeded) is scored by the clinical
rule and by a stand-in for the networks, and reviewed in Chromium without a window, whose graphics the processor draws.
Printed with the load of the machine:

- first slice: from the click until the slice is drawn, when the server has to read the scan (cold), and when it read
  it ahead, while the work list or the scan before was looked at (warm; goal 1.5 s);
- scroll: frames per second over 150 slices by the wheel, median and slowest tenth (goal 30);
- key: from the press until the answer is shown, median and slowest of 20 (goal 100 ms), and of it the server's part;
- processor time of the server for reading the CT, for opening the review, and for a key, before and after the score is
  marked as reviewed, which other programs do not lengthen.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from pathlib import Path

import browser
import numpy as np
import SimpleITK as sitk
from calcified_heart import NETWORKS
from review_server import ReviewServer, write_cohort

from CACScoringLib.core.ct import Acquisition, CTScan
from CACScoringLib.pipeline import score_scan
from CACTrainingLib.browser.cases import cases_of
from CACTrainingLib.browser.open_reviews import OpenReview

SIZE = (512, 512, 300)
RUNS = 20
SCROLL = """async () => {
  const canvas = document.querySelector('#views canvas')
  const times = []
  for (let n = 0; n < 150; n++) {
    const began = performance.now()
    canvas.dispatchEvent(new WheelEvent('wheel', { deltaY: -40, cancelable: true }))
    const frames = document.body.dataset.drawn
    while (document.body.dataset.drawn === frames) await new Promise(requestAnimationFrame)
    times.push(performance.now() - began)
  }
  return times
}"""


def made_up_scan(seed: int = 3) -> tuple[CTScan, sitk.Image]:
    """The scan and its heart."""
    rng = np.random.default_rng(seed)
    hu = np.tile(rng.normal(40, 20, (30, *SIZE[1::-1])).astype(np.int16), (10, 1, 1))
    hu[:, :20] = -1000
    k, j, i = np.ogrid[: SIZE[2], : SIZE[1], : SIZE[0]]
    heart = ((k - 150) / 100) ** 2 + ((j - 256) / 120) ** 2 + ((i - 256) / 120) ** 2 < 1
    for _ in range(40):
        centre = rng.integers((80, 190, 190), (220, 320, 320))
        part = tuple(slice(c - n, c + n + 1) for c, n in zip(centre, (3, 6, 6), strict=True))
        hu[part] += np.int16(rng.choice([120, 190, 290, 560]))
    image, mask = sitk.GetImageFromArray(hu), sitk.GetImageFromArray(heart.astype(np.uint8))
    image.SetSpacing((0.4, 0.4, 0.5))
    mask.CopyInformation(image)
    return CTScan(image, Acquisition("memory")), mask


def of_the_server(results: Path) -> None:
    """Print how long the server takes, without network and page."""
    case = cases_of(results, None)[1]
    began = time.process_time()
    case.scan()
    read = time.process_time()
    review = OpenReview(case, "benchmark")
    content = json.dumps(review.shown() | review.images.about())
    print(f"processor time: CT {read - began:.2f} s, opening {time.process_time() - read:.2f} s ({len(content)} bytes)")
    for state in ("automatic", "reviewed"):
        keys = [_key(review, run) for run in range(RUNS)]
        for kind, times in zip(("elapsed", "processor"), zip(*keys, strict=True), strict=True):
            median, slowest = statistics.median(times), max(times)
            print(f"key in the server, {state}, {kind} time: median {median:.0f} ms, slowest {slowest:.0f} ms")
        _ask(review, {"action": "reviewed", "on": True})


def _key(review: OpenReview, run: int) -> tuple[float, float]:
    """Milliseconds and milliseconds of processor time from an action to the answer."""
    lesions = [x["id"] for x in review.shown()["methods"]["threshold"]["lesions"]]
    began = time.perf_counter(), time.process_time()
    _ask(review, {"action": "assign", "lesions": [lesions[run % len(lesions)]], "site": 1 + run % 4})
    return 1e3 * (time.perf_counter() - began[0]), 1e3 * (time.process_time() - began[1])


def _ask(review: OpenReview, content: dict) -> None:
    request = {**content, "method": "threshold", "seconds": 0, "version": review.version}
    json.dumps(review.act("benchmark", review.request_of(request)))


def first_slice(page: object, click: str) -> float:
    """Seconds from the click until the slice is drawn."""
    began = time.perf_counter()
    page.click(click)
    page.wait_for_selector("body.scan[data-first-slice]", timeout=300_000)
    return time.perf_counter() - began


def in_the_browser(server: ReviewServer) -> None:
    with browser.running() as chromium:
        page = chromium.new_page(viewport={"width": 1440, "height": 900})
        page.goto(server.addresses["A"])
        page.wait_for_selector("#scans tbody tr")
        page.wait_for_selector("body[data-ahead]", timeout=300_000)
        print(f"first slice, warm from the list: {first_slice(page, '#start'):.2f} s")
        page.wait_for_selector("body[data-next='ready']", timeout=300_000)
        print(f"first slice, warm from the scan before: {first_slice(page, '#next'):.2f} s")
        page.goto(server.origin)
        print(f"first slice, cold: {first_slice(page, '#scans tbody tr:nth-child(4) a'):.2f} s")
        page.wait_for_timeout(2000)
        keys = []
        for run in range(RUNS):
            version = int(page.get_attribute("body", "data-version"))
            page.keyboard.press("n")
            page.keyboard.press(str(1 + run % 4))
            page.wait_for_selector(f"body[data-version='{version + 1}']")
            page.wait_for_timeout(50)
            keys.append(float(page.get_attribute("body", "data-answered")))
        print(f"key to new total: median {statistics.median(keys):.0f} ms, slowest {max(keys):.0f} ms")
        for name in ("slices from the server", "slices seen before"):
            times = sorted(page.evaluate(SCROLL))
            page.evaluate("document.querySelector('#slice').value = 0")
            for _ in range(150):
                page.keyboard.press("ArrowDown")
            median, slow = statistics.median(times), times[int(0.9 * len(times))]
            print(f"scroll, {name}: {1e3 / median:.0f} frames a second in the median, slowest tenth {1e3 / slow:.0f}")


def main() -> None:
    scan, heart = made_up_scan()
    result = score_scan(scan, heart=heart, networks=NETWORKS)
    with tempfile.TemporaryDirectory() as folder:
        results = write_cohort(Path(folder) / "cohort", ["first", "second", "third", "fourth"], result)
        size = " × ".join(map(str, SIZE))
        print(f"{size} voxels, load of the machine {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores")
        of_the_server(results)
        server = ReviewServer.start(results, "--reader", "A", data=Path(folder) / "data")
        try:
            in_the_browser(server)
        finally:
            server.stop()


if __name__ == "__main__":
    main()
