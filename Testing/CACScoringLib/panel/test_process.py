"""Tests of background processes."""

import os
import subprocess
from pathlib import Path

import pytest
import slicer
from panel_driver import Driver, eventually

import desktop_host
from CACScoringLib.mrml import scene as mrml


@pytest.mark.skipif(os.name == "nt", reason="the launcher is a shell script")
@pytest.mark.usefixtures("slicers_python")
class TestBackgroundProcess:
    @pytest.fixture
    def process(self, panel):
        from CACScoringLib.panel.process import BackgroundProcess

        return BackgroundProcess()

    def run(self, process, code: str):
        lines, codes = [], []
        process.start(["-c", code], lines.append, codes.append)
        assert eventually(lambda: slicer.app.processEvents() or codes)
        return lines, codes

    def test_lines_and_exit_code(self, process):
        lines, codes = self.run(process, "import sys; sys.stderr.buffer.write('añ\\nbö…\\nend'.encode()); sys.exit(3)")
        assert lines == ["añ", "bö…"]
        assert codes == [3]

    @pytest.mark.parametrize("library", ["CACScoringLib", "CACTrainingLib"])
    def test_libraries_are_on_the_path(self, process, monkeypatch, library):
        monkeypatch.delenv("PYTHONPATH", raising=False)
        code = f"import sys, {library}; print({library}.__file__, file=sys.stderr)"
        lines, codes = self.run(process, code)
        assert codes == [0]
        root = Path(mrml.__file__).parents[3]
        assert Path(lines[0]).parent == root / library.removesuffix("Lib") / library

    def test_kill_ends_the_launchers_child_too(self, process, tmp_path):
        codes = []
        mark = tmp_path / "pid"
        code = f"import os, time, pathlib; pathlib.Path({str(mark)!r}).write_text(str(os.getpid())); time.sleep(60)"
        process.start(["-c", code], lambda line: None, codes.append)
        child = eventually(lambda: slicer.app.processEvents() or (mark.exists() and mark.read_text(encoding="utf-8")))
        process.kill()
        assert eventually(lambda: not _alive(int(child)))
        assert codes == []

    @pytest.mark.long
    def test_a_ready_process_runs_the_next_scoring_command(self, process):
        lines, codes = [], []
        process.getReady()
        ready = process._process
        process.start(["-m", "CACScoringLib.cli", "score", "näme"], lines.append, codes.append)
        assert process._process is ready
        assert eventually(lambda: slicer.app.processEvents() or codes)
        assert codes == [3]
        assert lines == ["Error: näme does not exist. Give a DICOM folder or a NIfTI, NRRD or MHA file."]

    @pytest.mark.long
    @pytest.mark.parametrize("dies", [True, False])
    def test_another_command_or_the_first_after_a_crash_starts_a_new_process(self, process, dies):
        process.getReady()
        ready = process._process
        if dies:
            ready.closeWriteChannel()  # as if Slicer had crashed
            assert eventually(lambda: slicer.app.processEvents() or not process._waits)
        lines, codes = self.run(process, "import sys; print('here', file=sys.stderr)")
        assert (lines, codes) == (["here"], [0])
        assert ready.state() == ready.ProcessState.NotRunning

    @pytest.mark.usefixtures("volume")
    def test_a_process_waits_for_a_chosen_ct_until_the_panel_is_closed(self, panel):
        process = Driver(real=True).widget.scorer.job.process
        ready = process._process
        assert process._waits
        desktop_host.close_panel("CACScoring")
        assert ready.state() == ready.ProcessState.NotRunning


def _alive(process_id: int) -> bool:
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(process_id)], capture_output=True, text=True, check=False)
    return bool(state.stdout.strip()) and not state.stdout.startswith("Z")
