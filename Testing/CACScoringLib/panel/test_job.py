"""Tests of work in steps, threads, commands and background processes."""

import os
import subprocess
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import slicer
from panel_driver import Driver, InThisProcess, ScriptedProcess, eventually, line

import desktop_host
from CACScoringLib.core.errors import OutputError
from CACScoringLib.mrml import scene as mrml


@pytest.fixture(scope="module")
def panel(shared_panel):
    return shared_panel


@pytest.fixture
def jobs(panel):
    from CACScoringLib.panel import job

    return job


@pytest.fixture
def record(jobs):
    """A job on a scripted process, and what it has reported."""
    record = SimpleNamespace(process=ScriptedProcess(), progress=[], ends=[], events=[])
    record.job = jobs.BackgroundJob()
    record.job.process = record.process
    record.on_end = lambda result, reason: record.ends.append(reason or result)
    record.begin = lambda steps: record.job.start(steps, record.on_end)
    record.wait = lambda: eventually(lambda: slicer.app.processEvents() or not record.job.isRunning)
    return record


class TestSteps:
    def test_the_application_answers_while_a_thread_works(self, jobs, record):
        release, turns = threading.Event(), []
        record.begin(jobs.inThread(lambda: release.wait(10) and threading.get_ident()))
        while len(turns) < 3:
            slicer.app.processEvents()
            turns.append(record.job.isRunning)
        release.set()
        assert record.wait()
        assert all(turns)
        assert record.ends != [threading.get_ident()]

    @pytest.mark.parametrize("stops", [True, False])
    def test_abandoned_work_is_not_continued(self, record, stops):
        """Stop the work, or replace it by other work."""
        calls = []

        def work(name):
            yield 0
            calls.append(name)
            return f"end of {name}"

        record.begin(work("first"))
        if stops:
            record.job.cancel()
        else:
            record.begin(work("second"))
        for _ in range(3):
            slicer.app.processEvents()
            time.sleep(0.01)
        assert not record.job.isRunning
        assert (calls, record.ends) == (([], []) if stops else (["second"], ["end of second"]))

    def test_work_may_cancel_itself(self, record):
        def work():
            record.job.cancel()
            record.events.append("step")
            yield 0
            record.events.append("next step")

        record.begin(work())
        slicer.app.processEvents()
        assert (record.events, record.ends, record.job.isRunning) == (["step"], [], False)

    def test_an_error_ends_the_work_and_is_raised(self, jobs, record):
        def until_its_end():
            while record.job.isRunning:
                desktop_host.events.process_events()
            desktop_host.events.process_events()

        record.begin(jobs.inThread(lambda: 1 / 0))
        with pytest.raises(ZeroDivisionError):
            until_its_end()
        assert record.ends == ["division by zero"]


def share(numerator, denominator, progress):
    """Work for the background."""
    if denominator == 0:
        raise OutputError("There is nothing to share.")
    return numerator / denominator


class TestCall:
    """Functions called in the background."""

    @pytest.mark.parametrize(("numbers", "end"), [((6, 4), 1.5), ((6, 0), "There is nothing to share.")])
    def test_ends_with_the_result_or_the_error(self, record, numbers, end):
        record.job.process = InThisProcess()
        record.begin(record.job.call(share, *numbers))
        assert record.wait()
        assert record.ends == [end]


class TestCommand:
    """Handling of the lines that a command writes."""

    @pytest.fixture
    def record(self, record):
        on_progress = lambda text, fraction: record.progress.append((text, fraction))  # noqa: E731
        record.run = lambda **options: record.begin(record.job.run(["work"], on_progress, **options))
        record.run()
        return record

    def test_warnings_are_those_of_the_last_command(self, record):
        record.process.say(line(event="warning", code="thick", message="Thick slices."))
        assert [event["code"] for event in record.job.warnings] == ["thick"]
        record.process.end(0)
        record.run()
        assert record.job.warnings == []

    def test_a_command_that_cannot_be_started_ends_with_the_reason(self, record):
        def fail(*_arguments):
            raise RuntimeError("There is no Python.")

        record.process.end(0)
        record.process.start = fail
        record.run()
        assert record.ends == [None, "There is no Python."]
        assert not record.job.isRunning


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

    def test_libraries_are_on_the_path(self, process, monkeypatch):
        monkeypatch.delenv("PYTHONPATH", raising=False)
        names = ("CACScoringLib", "CACTrainingLib")
        lines, codes = self.run(
            process, "".join(f"import sys, {n}; print({n}.__file__, file=sys.stderr)\n" for n in names)
        )
        assert codes == [0]
        root = Path(mrml.__file__).parents[3]
        assert [Path(line).parent for line in lines] == [root / name.removesuffix("Lib") / name for name in names]

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
