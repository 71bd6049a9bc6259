"""Tests of work in steps and threads."""

import threading
import time

import pytest
import slicer
from panel_driver import eventually

import desktop_host


@pytest.fixture
def threads(panel):
    from CACScoringLib.panel import threads

    return threads


class TestStepRunner:
    def test_the_application_answers_while_a_thread_works(self, threads):
        runner, release, results, turns = threads.StepRunner(), threading.Event(), [], []

        def work():
            results.append((yield from threads.inThread(lambda: release.wait(10) and threading.get_ident())))

        runner.start(work(), lambda: results.append("end"))
        while len(turns) < 3:
            slicer.app.processEvents()
            turns.append(runner.isRunning)
        release.set()
        assert eventually(lambda: slicer.app.processEvents() or not runner.isRunning)
        assert all(turns)
        assert results[0] != threading.get_ident()
        assert results[1:] == ["end"]

    def test_new_work_replaces_the_current_work(self, threads):
        runner, calls = threads.StepRunner(), []

        def work(name):
            yield 0
            calls.append(name)

        runner.start(work("first"), lambda: calls.append("end of first"))
        runner.start(work("second"), lambda: calls.append("end of second"))
        assert eventually(lambda: slicer.app.processEvents() or not runner.isRunning)
        assert calls == ["second", "end of second"]

    def test_after_a_stop_nothing_more_is_called(self, threads):
        runner, calls = threads.StepRunner(), []

        def work():
            yield 0
            calls.append("step")

        runner.start(work(), lambda: calls.append("end"))
        runner.stop()
        for _ in range(3):
            slicer.app.processEvents()
            time.sleep(0.01)
        assert not runner.isRunning
        assert calls == []

    def test_an_error_ends_the_work_and_is_raised(self, threads):
        runner = threads.StepRunner()

        def until_its_end():
            while runner.isRunning:
                desktop_host.events.process_events()

        runner.start(threads.inThread(lambda: 1 / 0))
        with pytest.raises(ZeroDivisionError):
            until_its_end()
        assert not runner.isRunning
