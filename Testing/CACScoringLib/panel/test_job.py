"""Tests of work in steps, threads and commands."""

import threading
import time
from types import SimpleNamespace

import pytest
import slicer
from panel_driver import InThisProcess, ScriptedProcess, eventually, line

import desktop_host
from CACScoringLib.core.errors import OutputError


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
