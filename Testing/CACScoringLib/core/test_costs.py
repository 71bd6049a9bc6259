"""Table of the costs of a run's steps."""

import numpy as np
import pytest

from CACScoringLib.core.progress import Cost, Progress


def test_costs_are_shown_in_seconds_and_megabytes():
    progress = Progress()
    progress.costs = {"start-up": Cost(None, 1.256, None), "reading": Cost(12.344, 0.5, 1234.6)}
    assert progress.profile().splitlines() == [
        "step              seconds  processor  peak MB",
        "start-up                        1.26         ",
        "reading             12.34       0.50     1235",
    ]


def test_peak_memory_grows_by_what_is_allocated():
    before = Cost.until_now(0.0).peak_mb
    if before is None:
        pytest.skip("this system does not tell the peak memory")
    size_mb = before + 200
    block = np.ones(int(size_mb * 1e6), np.uint8)
    assert size_mb <= Cost.until_now(0.0).peak_mb < before + size_mb + 50
    assert block[-1] == 1
