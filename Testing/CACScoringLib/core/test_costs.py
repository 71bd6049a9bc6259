"""Table of the costs of a run's steps."""

from pathlib import Path

import pytest

from CACScoringLib.core.progress import Cost

STATUS = Path("/proc/self/status")


@pytest.mark.skipif(not STATUS.exists(), reason="this system has no /proc")
def test_peak_memory_is_that_of_the_process_in_megabytes():
    """Allocating 200 MB raises the peak to at least the memory in use then."""
    ballast = bytearray(200_000_000)
    in_use_kb = int(dict(line.split(":", 1) for line in STATUS.read_text().splitlines())["VmRSS"].removesuffix("kB"))
    del ballast
    peak_kb = int(dict(line.split(":", 1) for line in STATUS.read_text().splitlines())["VmHWM"].removesuffix("kB"))
    assert Cost.until_now(0.0).peak_mb == pytest.approx(peak_kb / 1000, rel=0.1)
    assert Cost.until_now(0.0).peak_mb > 0.98 * in_use_kb / 1000 > 200
