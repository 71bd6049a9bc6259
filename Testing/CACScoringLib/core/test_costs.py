"""Table of the costs of a run's steps."""

from pathlib import Path

import pytest

from CACScoringLib.core.progress import Cost, Progress

STATUS = Path("/proc/self/status")


def test_costs_are_shown_in_seconds_and_megabytes():
    progress = Progress()
    progress.costs = {"start-up": Cost(None, 1.256, None), "reading": Cost(12.344, 0.5, 1234.6)}
    assert progress.profile().splitlines() == [
        "step              seconds  processor  peak MB",
        "start-up                        1.26         ",
        "reading             12.34       0.50     1235",
    ]


@pytest.mark.skipif(not STATUS.exists(), reason="this system has no /proc")
def test_peak_memory_is_in_megabytes():
    lines = dict(line.split(":", 1) for line in STATUS.read_text().splitlines())
    peak_kb = int(lines["VmHWM"].removesuffix("kB"))
    assert Cost.until_now(0.0).peak_mb == pytest.approx(peak_kb / 1000, rel=0.1)
