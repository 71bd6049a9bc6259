"""What a terminal shows of a run."""

import io

from CACScoringLib.core.progress import TextProgress


class Terminal(io.StringIO):
    def isatty(self):
        return True

    def lines(self):
        """Lines as they stand on the screen."""
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
