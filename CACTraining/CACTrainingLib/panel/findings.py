"""Findings about a project as rich text with links to their remedies."""

# Slicer's naming.
# ruff: noqa: N802

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from slicer.i18n import tr as _

from CACScoringLib.core.text import abbreviated_list

from ..project.project import Project

_MARKS = {"error": "✗", "warning": "⚠", "note": "·"}
"""Marks of severities, most severe first."""


def findingLines(findings: Sequence[Mapping[str, Any]], project: Project) -> list[str]:
    """Format "finding" events of `cac project check` as lines of rich text, most severe first.

    Each names its scans and ends with a link to its remedy: the remedy, a slash, and the id of the first scan.
    """
    names_of = {scan.id: scan.name for scan in project.scans}
    lines = []
    for finding in sorted(findings, key=lambda finding: list(_MARKS).index(finding["severity"])):
        scans = [scan_id for scan_id in finding["scans"] if scan_id in names_of]
        parts = [_MARKS[finding["severity"]], escape(finding["message"])]
        if scans:
            parts.append(f"({escape(abbreviated_list([names_of[scan_id] for scan_id in scans]))})")
        if (link := _remedies().get(finding.get("remedy", ""))) is not None:
            parts.append(f'<a href="{finding["remedy"]}/{scans[0] if scans else ""}">{link}</a>')
        lines.append(" ".join(parts))
    return lines


def _remedies() -> dict[str, str]:
    """Texts of links, by remedy."""
    return {
        "add": _("Add a folder …"),
        "relocate": _("Relocate …"),
        "split": _("Split now"),
        "use": _("Choose a use"),
        "prepare": _("Prepare all"),
        "labels": _("Learn from slice labels"),
    }
