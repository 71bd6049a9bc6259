"""Metrics of a watch in Prometheus' text format, for the textfile collector of node_exporter.

A file needs no port, and its age, which node_exporter reports too, shows whether the watch still runs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from .journal import STATES, Entry


def metrics_text(entries: Iterable[Entry], has_answered: bool) -> str:
    """Return the metrics. has_answered: True if the archive answered the latest search."""
    entries = list(entries)
    counts = Counter(entry.state for entry in entries)
    seconds = [entry.seconds for entry in entries if entry.seconds is not None]
    metrics: dict[str, dict[str, float]] = {
        "series gauge Series by state.": {f'{{state="{state}"}}': counts[state] for state in STATES},
        "scoring_seconds summary Seconds of scoring.": {"_sum": round(sum(seconds), 3), "_count": len(seconds)},
        "archive_up gauge 1 if the archive answered the latest search.": {"": int(has_answered)},
    }
    lines = []
    for description, values in metrics.items():
        name, kind, text = description.split(" ", 2)
        lines += [f"# HELP cac_watch_{name} {text}", f"# TYPE cac_watch_{name} {kind}"]
        lines += [f"cac_watch_{name}{suffix} {value}" for suffix, value in values.items()]
    return "\n".join(lines) + "\n"
