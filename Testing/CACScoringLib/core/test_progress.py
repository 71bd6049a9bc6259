"""Progress of a run on terminals and for programs."""

import io
import json
from pathlib import Path

import pytest

from CACScoringLib.core.ct import ScanWarning
from CACScoringLib.core.progress import CellProgress, TextProgress, progress_for


class Terminal(io.StringIO):
    def isatty(self):
        return True

    def lines(self):
        """Return the lines visible on the screen."""
        return [line.split("\x1b[K")[-1] for line in self.getvalue().split("\n")]


def test_the_bar_is_gone_when_results_are_printed():
    terminal = Terminal()
    progress = TextProgress(terminal)
    progress.begin(["scans"])
    with progress.step("scans"):
        progress.counted(6, 6)
        assert terminal.lines() == ["█" * 24 + " 6 of 6"]
    terminal.write("out: 6 scored\n")
    assert terminal.lines() == ["out: 6 scored", ""]


def test_a_cell_of_a_notebook_shows_one_line():
    shown = []

    class Handle:
        def update(self, content, raw):
            assert raw
            shown.append(content["text/plain"])

    progress = CellProgress(Handle())
    progress.begin(["reading", "scans"])
    for name in progress.steps:
        with progress.step(name):
            pass
    progress.done(Path())
    assert [text.split(" ", 1)[1] for text in shown if text] == ["reading …", "scans …"]
    assert shown[-1] == ""
    assert not any(letter in text for text in shown for letter in "\n\r\x1b")


def test_a_log_has_the_time_left_once_a_minute(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("CACScoringLib.core.progress.time.monotonic", lambda: now[0])
    log = io.StringIO()
    progress = TextProgress(log)
    for done in range(1, 6):
        now[0] += 40
        progress.counted(done, 9, 600.0)
    assert log.getvalue() == "2 of 9, 10 min left\n4 of 9, 10 min left\n"


def test_a_log_names_the_step_and_estimates_the_time_left(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("CACScoringLib.core.progress.time.monotonic", lambda: now[0])
    log = io.StringIO()
    progress = TextProgress(log)
    progress.begin(["training"])
    with progress.step("training"):
        for done in (100, 200, 300):
            now[0] += 45
            progress.counted(done, 1000)
    assert log.getvalue() == "training: 200 of 1000, 6 min left\n"


@pytest.mark.parametrize(("kind", "printed"), [("auto", [False, True]), ("none", [True])])
def test_severe_warnings_are_printed_whatever_the_progress(kind, printed):
    stream = io.StringIO()
    progress = progress_for(kind, stream)
    for code in ("noise", "heart-cut"):
        progress.warning(ScanWarning(code, "It is so."))
    assert [line.startswith("CAUTION") for line in stream.getvalue().splitlines()] == printed


def test_programs_receive_the_severity_of_warnings():
    stream = io.StringIO()
    for code in ("noise", "heart-cut", "of-a-later-version"):
        progress_for("json", stream).warning(ScanWarning(code, "It is so."))
    assert [json.loads(line)["severe"] for line in stream.getvalue().splitlines()] == [False, True, False]
