"""Findings about a project as lines of text."""

# Slicer's naming.
# ruff: noqa: N802

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from slicer.i18n import tr as _

from CACScoringLib.core.text import abbreviated_list

from ..project.project import Project

_MARKS = {"error": "✗", "warning": "⚠", "note": "·"}
"""Marks of severities, most severe first."""

_REMEDIES = {
    "add": "Page Project: Add folder.",
    "relocate": "Page Project: Relocate.",
    "split": "Page Project: Split.",
    "use": "Page Project: choose the use of the patient.",
    "prepare": "Page Annotate: Prepare all.",
    "labels": "Choose the calcium map, and the method that learns from slice labels.",
}
"""Buttons to press, by remedy; translated on display."""


def findingLines(findings: Sequence[Mapping[str, Any]], project: Project) -> list[str]:
    """Format "finding" events of `cac project check` as lines, most severe first, each with its scans and remedy."""
    names_of = {scan.id: scan.name for scan in project.scans}
    lines = []
    for finding in sorted(findings, key=lambda finding: list(_MARKS).index(finding["severity"])):
        names = [names_of[scan_id] for scan_id in finding["scans"] if scan_id in names_of]
        parts = [_MARKS[finding["severity"]], finding["message"], f"({abbreviated_list(names)})" if names else ""]
        remedy = _REMEDIES.get(finding.get("remedy", ""), "")
        lines.append(" ".join(filter(None, [*parts, _(remedy) if remedy else ""])))
    return lines
