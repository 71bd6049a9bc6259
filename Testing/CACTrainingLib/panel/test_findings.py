"""Findings about a project."""

from collections.abc import Mapping
from types import SimpleNamespace

import pytest

PROJECT = SimpleNamespace(scans=[SimpleNamespace(id=f"000{n}", name=f"scan <{n}>") for n in (1, 2)])


def finding(severity: str = "warning", message: str = "Look.", scans=(), remedy: str = "") -> Mapping:
    return {"severity": severity, "message": message, "scans": list(scans), "remedy": remedy}


@pytest.fixture
def lines(modules):
    """Function that formats findings about PROJECT as lines."""
    from CACTrainingLib.panel.findings import findingLines

    return lambda *findings: findingLines(findings, PROJECT)


def test_the_worst_comes_first(lines):
    assert [line[0] for line in lines(finding("note"), finding("error"), finding("warning"))] == ["✗", "⚠", "·"]


def test_scans_are_named_and_the_remedy_follows(lines):
    (line,) = lines(finding(message="2 < 3.", scans=["0002", "0009"], remedy="prepare"))
    assert line == "⚠ 2 < 3. (scan <2>) Page Annotate: Prepare all."
    assert lines(finding()) == ["⚠ Look."]
