"""Test trainings in the background: start, stop, resume, and states read from complete and damaged files."""

import json
import os
import platform
import signal
import subprocess
import sys
import threading
import time

import psutil
import pytest
from filelock import FileLock

from CACScoringLib.core.errors import CTError
from CACScoringLib.core.version import kill_tree
from CACTrainingLib.training import background_runs as training_runs
from CACTrainingLib.training.background_runs import read_curves, runs_of, state_of
from CACTrainingLib.training.run_folder import read_run, training_lock, write_run


def environment():
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}


def wait_for(condition, seconds=60):
    ending = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < ending, "waited too long"
        time.sleep(0.1)
    return result


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "n.training"
    path.mkdir()
    return path


def lines(path, *content):
    path.write_text("".join(c if isinstance(c, str) else json.dumps(c) + "\n" for c in content), encoding="utf-8")


@pytest.mark.long
def test_a_training_outlives_its_starter_is_stopped_and_resumed(cohort, cache, tmp_path):
    folder = tmp_path / "models" / "n.training"
    arguments = ["train", "slices", "--data", str(cohort), "--output", str(folder.with_suffix("")), "--workers", "1"]
    settings = {"network": {"size": 64}, "batch_size": 2, "loop": {"validate_every": 5, "validation_share": 0.5}}
    arguments += ["--device", "cpu", "--minutes", "0.1", "--steps", "1000000", "--settings", json.dumps(settings)]
    arguments += ["--progress", "json"]
    starter = (
        "import os, sys; from pathlib import Path; from CACTrainingLib.training import background_runs as r; "
        "r.start(sys.executable, os.environ, sys.argv[2:], Path(sys.argv[1])); "
        "assert r.state_of(Path(sys.argv[1])).state == 'starting'"
    )
    command = [sys.executable, "-c", starter, str(folder), *arguments]
    subprocess.run(command, env=environment(), check=True)

    assert runs_of(folder.parent) == ["n"]
    with pytest.raises(CTError, match="running already"):
        training_runs.start(sys.executable, environment(), arguments, folder)
    wait_for(lambda: (folder / "checkpoint.pt").exists())
    state = state_of(folder)
    assert (state.state, state.network, state.steps, state.message) == ("running", "slices", 1000000, "Training")
    assert state.step >= 5
    assert state.best["step"] >= 5
    assert not state.can_resume
    process = read_run(folder)["pid"]
    training_runs.stop(folder)
    assert not is_running(process)
    stopped = state_of(folder)
    assert (stopped.state, stopped.can_resume) == ("stopped", True)
    training_runs.stop(folder)

    training_runs.resume(sys.executable, environment(), folder)
    assert state_of(folder).state == "starting"
    wait_for(lambda: state_of(folder).state not in ("starting", "running"))
    done = state_of(folder)
    assert done.state == "done", done.message
    assert done.step > stopped.step
    assert done.seconds > stopped.seconds
    assert not done.can_resume
    assert folder.with_suffix(".json").exists()
    steps, losses = read_curves(folder)["training/loss"]
    assert steps == sorted(set(steps))
    assert len(losses) == len(steps)
    with pytest.raises(CTError, match=r"earlier training"):
        training_runs.start(sys.executable, environment(), arguments, folder)


def is_running(process):
    """True if a process runs; a zombie does not."""
    return psutil.pid_exists(process) and psutil.Process(process).status() != psutil.STATUS_ZOMBIE


@pytest.mark.long
def test_failed_start_reports_its_reason(tmp_path):
    folder = tmp_path / "n.training"
    training_runs.start(sys.executable, environment(), ["train", "lungs"], folder)
    wait_for(lambda: state_of(folder).state != "starting")
    state = state_of(folder)
    assert state.state == "failed"
    assert "invalid choice: 'lungs'" in state.message
    with pytest.raises(CTError, match="could not be started"):
        training_runs.start(str(tmp_path / "none"), environment(), ["train", "slices"], tmp_path / "m.training")


@pytest.mark.long
def test_a_folder_has_a_single_training(folder):
    with training_lock(folder):
        assert state_of(folder).state == "running"
        locked = (
            "import sys; from pathlib import Path; from CACTrainingLib.training import run_folder as r\n"
            "r.LOCK_SECONDS = 0.1\n"
            "try:\n with r.training_lock(Path(sys.argv[1])): pass\nexcept r.CTError as error: print(error)"
        )
        command = [sys.executable, "-c", locked, str(folder)]
        output = subprocess.run(command, env=environment(), capture_output=True, encoding="utf-8", check=True).stdout
        assert "being trained already by another process" in output
    assert state_of(folder).state == "stopped"
    with training_lock(folder):
        pass


def test_training_waits_for_a_test_of_its_lock(folder):
    """A process that tests the lock holds it for a moment."""
    lock = FileLock(folder / "lock", thread_local=False)
    lock.acquire()
    threading.Timer(0.3, lock.release).start()
    with training_lock(folder):
        assert (folder / "lock").exists()


def test_failed_start_leaves_no_folder(tmp_path):
    with pytest.raises(CTError, match="x"), training_lock(tmp_path / "new.training"):
        raise CTError("x")
    assert list(tmp_path.iterdir()) == []


def test_stop_leaves_other_machines_and_later_processes_alone(folder):
    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        write_run(folder, {"pid": sleeper.pid, "host": platform.node()})
        training_runs.stop(folder)  # without a lock, the process number may belong to another process
        assert sleeper.poll() is None
        write_run(folder, {"pid": sleeper.pid, "host": "elsewhere"})
        with training_lock(folder), pytest.raises(CTError, match="on elsewhere"):
            training_runs.stop(folder)
        assert sleeper.poll() is None
    finally:
        kill_tree(sleeper.pid)
        assert sleeper.wait(10) == -signal.SIGKILL


class TestState:
    STARTED = {"event": "started", "time": 0.0}  # noqa: RUF012 - a constant

    @pytest.mark.parametrize(
        "end",
        [
            '{"event": "failed", "message": "ValueError: broken", "exit_code": 3}\n',
            'Traceback (most recent call last):\n  File "x", line 1\nValueError: broken\n',
        ],
    )
    def test_message_of_a_failure(self, folder, end):
        lines(folder / "progress.jsonl", self.STARTED, {"event": "step", "step": "training"}, end)
        assert (state_of(folder).state, state_of(folder).message) == ("failed", "ValueError: broken")

    def test_warnings_hold_until_a_validation_has_none(self, folder):
        part = {"event": "validation", "seconds": 2.5, "best": False, "ended": ""}
        warnings = [{"event": "warning", "code": c, "message": c.upper()} for c in "abc"]
        lines(folder / "progress.jsonl", *warnings)
        first = {**part, "step": 5, "warnings": {"a": "A", "b": "B"}}
        lines(folder / "metrics.jsonl", first, {**part, "step": 10, "warnings": {"b": "B"}})
        state = state_of(folder)
        assert set(state.warnings) == {"B", "C"}
        assert (state.step, state.seconds) == (10, 2.5)

    def test_the_best_validation_and_early_stop(self, folder):
        part = {"event": "validation", "seconds": 1.0, "warnings": {}, "ended": ""}
        best = {**part, "step": 3, "best": True, "auc": 0.9}
        last = {**part, "step": 9, "best": False, "auc": 0.8, "ended": "Stopped early."}
        lines(folder / "metrics.jsonl", best, last)
        lines(folder / "progress.jsonl", {"event": "done"})
        assert (state_of(folder).best, state_of(folder).message) == ({"step": 3, "auc": 0.9}, "Stopped early.")

    def test_starting_of_another_panel(self, folder):
        run = {"launcher": os.getpid(), "host": platform.node(), "arguments": ["train", "slices"]}
        write_run(folder, run)
        lines(folder / "progress.jsonl", {"event": "started", "time": time.time()})
        assert (state_of(folder).state, state_of(folder).network) == ("starting", "slices")
        lines(folder / "progress.jsonl", {"event": "started", "time": time.time() - 100})
        assert state_of(folder).state == "stopped"

    @pytest.mark.parametrize("content", ["[]", "half {"])
    def test_a_damaged_run_file(self, folder, content):
        (folder / "run.json").write_text(content, encoding="utf-8")
        assert state_of(folder).state == "stopped"
        with pytest.raises(CTError, match="not known"):
            training_runs.resume(sys.executable, environment(), folder)


class TestCurves:
    def test_read(self, folder):
        first = {"event": "training", "step": 20, "seconds": 1.0, "loss": 2.0}
        second = {"event": "validation", "step": 25, "seconds": 1.5, "best": True, "auc": 0.5, "threshold": None}
        third = {"event": "training", "step": 40, "seconds": 2.0, "loss": float("nan")}
        lines(folder / "metrics.jsonl", first, second, third, '{"event": "training", "st')
        assert read_curves(folder) == {"training/loss": ([20], [2.0]), "validation/auc": ([25], [0.5])}
