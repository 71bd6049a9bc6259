"""Table of the costs of a run's steps."""

from CACScoringLib.core.progress import Cost, Progress


def test_costs_are_shown_in_seconds_and_megabytes():
    progress = Progress()
    progress.costs = {"start-up": Cost(None, 1.256, None), "reading": Cost(12.344, 0.5, 1234.6)}
    assert progress.profile().splitlines() == [
        "step              seconds  processor  peak MB",
        "start-up                        1.26         ",
        "reading             12.34       0.50     1235",
    ]


def test_memory_is_counted_in_megabytes():
    """A process of Python with NumPy takes more than 20 MB, and the machine has less than 10 TB."""
    peak = Cost.until_now(0.0).peak_mb
    assert peak is None or 20 < peak < 1e7
