"""Work in steps and threads."""

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
        runner, going, results, turns = threads.StepRunner(), threading.Event(), [], []

        def work():
            results.append((yield from threads.inThread(lambda: going.wait(10) and threading.get_ident())))

        runner.start(work(), lambda: results.append("end"))
        while len(turns) < 3:
            slicer.app.processEvents()
            turns.append(runner.isRunning)
        going.set()
        assert eventually(lambda: slicer.app.processEvents() or not runner.isRunning)
        assert all(turns)
        assert results[0] != threading.get_ident()
        assert results[1:] == ["end"]

    def test_what_is_started_last_replaces_what_runs(self, threads):
        runner, seen = threads.StepRunner(), []

        def work(name):
            yield 0
            seen.append(name)

        runner.start(work("first"), lambda: seen.append("end of first"))
        runner.start(work("second"), lambda: seen.append("end of second"))
        assert eventually(lambda: slicer.app.processEvents() or not runner.isRunning)
        assert seen == ["second", "end of second"]

    def test_after_a_stop_nothing_more_is_called(self, threads):
        runner, seen = threads.StepRunner(), []

        def work():
            yield 0
            seen.append("step")

        runner.start(work(), lambda: seen.append("end"))
        runner.stop()
        for _ in range(3):
            slicer.app.processEvents()
            time.sleep(0.01)
        assert not runner.isRunning
        assert seen == []

    def test_an_error_ends_the_work_and_is_raised(self, threads):
        runner = threads.StepRunner()

        def work():
            yield from threads.inThread(lambda: 1 / 0)

        def until_its_end():
            while runner.isRunning:
                desktop_host.events.process_events()

        runner.start(work())
        with pytest.raises(ZeroDivisionError):
            until_its_end()
        assert not runner.isRunning
