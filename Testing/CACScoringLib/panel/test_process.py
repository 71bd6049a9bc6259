"""The background process."""

import os
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
import slicer
from panel_driver import Driver, ScriptedProcess, eventually, line

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
        child = eventually(lambda: slicer.app.processEvents() or (mark.exists() and mark.read_text()))
        process.kill()
        assert eventually(lambda: not _alive(int(child)))
        assert codes == []

    def test_what_is_ready_runs_the_next_command_of_scoring(self, panel):
        from CACScoringLib.panel.process import ReadyProcess

        process, lines, codes = ReadyProcess(), [], []
        process.getReady()
        begun = process._process
        process.start(["-m", "CACScoringLib.cli", "score", "näme"], lines.append, codes.append)
        assert process._process is begun
        assert eventually(lambda: slicer.app.processEvents() or codes)
        assert (codes, lines) == (
            [3],
            ["Error: näme does not exist. Give a DICOM folder or a NIfTI, NRRD or MHA file."],
        )

    @pytest.mark.parametrize("dies", [True, False])
    def test_another_command_or_one_after_a_loss_begins_by_itself(self, panel, dies):
        from CACScoringLib.panel.process import ReadyProcess

        process = ReadyProcess()
        process.getReady()
        begun = process._process
        if dies:
            begun.closeWriteChannel()  # as if Slicer had gone
            assert eventually(lambda: slicer.app.processEvents() or not process._waits)
        lines, codes = self.run(process, "import sys; print('here', file=sys.stderr)")
        assert (lines, codes) == (["here"], [0])
        assert begun.state() == begun.ProcessState.NotRunning

    @pytest.mark.usefixtures("volume")
    def test_a_chosen_ct_is_made_ready_for_until_the_panel_is_closed(self, panel):
        process = Driver(real=True).widget.scorer._worker._process
        begun = process._process
        assert process._waits
        desktop_host.close_panel("CACScoring")
        assert begun.state() == begun.ProcessState.NotRunning


def _alive(process_id: int) -> bool:
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(process_id)], capture_output=True, text=True, check=False)
    return bool(state.stdout.strip()) and not state.stdout.startswith("Z")


class TestWorker:
    """What a worker makes of the lines that a command writes."""

    @pytest.fixture
    def heard(self, panel):
        from CACScoringLib.panel.worker import Worker

        heard = SimpleNamespace(process=ScriptedProcess(), progress=[], ends=[], events=[])
        heard.worker = Worker(heard.process)
        heard.worker.start(
            ["work"], heard.ends.append, lambda text, behind: heard.progress.append((text, behind)), heard.events.append
        )
        return heard

    def test_a_command_is_told_to_report_and_a_module_is_not(self, heard):
        assert heard.process.arguments == ["-m", "CACScoringLib.cli", "work", "--progress", "json"]
        heard.process.end(0)
        heard.worker.start(["folder"], heard.ends.append, module="panel.background")
        assert heard.process.arguments == ["-m", "CACScoringLib.panel.background", "folder"]

    def test_progress_is_that_of_the_whole(self, heard):
        heard.process.say(line(event="counted", done=1, count=4))
        heard.process.say(line(event="step", step="reading", index=1, count=2))
        heard.process.say(line(event="counted", done=1, count=2))
        assert heard.progress == [("", 0.25), ("Step 2 of 2: reading …", 0.5), ("Step 2 of 2: reading …", 0.75)]

    def test_warnings_are_those_of_the_last_command(self, heard):
        heard.process.say(line(event="warning", code="thick", message="Thick slices."))
        assert [event["code"] for event in heard.worker.warnings] == ["thick"]
        heard.process.end(0)
        heard.worker.start(["work"], heard.ends.append)
        assert heard.worker.warnings == []

    def test_a_command_that_cannot_be_started_ends_with_the_reason(self, heard):
        def fail(*_arguments):
            raise RuntimeError("There is no Python.")

        heard.process.end(0)
        heard.process.start = fail
        heard.worker.start(["work"], heard.ends.append)
        assert heard.ends == ["", "There is no Python."]
        assert not heard.worker.isRunning
