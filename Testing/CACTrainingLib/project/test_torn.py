"""Test that a project opens after its program was killed at any moment, with at most the interrupted step missing."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import annotating_program
import pytest
from annotating_program import POOL, Annotating
from chest_ct import write_ct

from CACTrainingLib.project.project import Project

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="kills programs as POSIX does")

MAX_STEPS = 8
"""Maximum number of steps before a program is killed in the middle of the next one."""


@contextmanager
def program(folder):
    """Run the annotating program in a project's folder, with scans beside it."""
    Project.create(folder)
    for n in range(POOL):
        write_ct(folder.parent / f"scan{n}.nii", n)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, annotating_program.__file__, str(folder)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": environment}
    with subprocess.Popen(command, **pipes) as process:
        try:
            yield process
        finally:
            process.stdin.close()


def kill_at_random(process, draw, seconds):
    """Start a worker and kill it in the middle of a step; return the finished steps, and the interrupted one, if any.

    seconds: Last duration of each kind of step, which is updated.
    """
    process.stdin.write(f"{draw.randrange(10**9)}\n")
    process.stdin.flush()
    steps = draw.randint(0, MAX_STEPS)
    events, worker, started = [], None, []
    while worker is None or len(started) <= steps:
        events.append(json.loads(process.stdout.readline()))
        kind, detail = events[-1]
        worker = detail if kind == "worker" else worker
        started += [detail] if kind == "begin" else []
        if kind == "done":
            seconds[detail[0][0]] = detail[1]
        assert kind not in ("error", "ended"), detail
    time.sleep(draw.uniform(0, 1.2) * seconds.get(started[-1][0], 0.01))
    os.kill(worker, signal.SIGKILL)
    while events[-1][0] != "ended":
        events.append(json.loads(process.stdout.readline()))
    done = [detail[0] for kind, detail in events if kind == "done"]
    started = [detail for kind, detail in events if kind == "begin"]
    return done, started[len(done) :]


@pytest.mark.long
def test_killed_a_hundred_times_at_any_moment(tmp_path):
    """All finished steps are saved, and the interrupted one completely or not, as in a project that nobody kills."""
    draw, seconds, all_done, all_started = random.Random(7), {}, [], []
    with program(tmp_path / "project") as process:
        unharmed = Annotating(Project.create(tmp_path / "unharmed").folder)
        for _ in range(100):
            done, started = kill_at_random(process, draw, seconds)
            for step in done:
                unharmed.do(*step)
            present = Annotating(tmp_path / "project").state()
            if present != unharmed.state():
                unharmed.do(*started[0])
            assert present == unharmed.state(), (done[-3:], started)
            all_done += [step[0] for step in done]
            all_started += [step[0] for step in started]
    assert {"label", "undo", "mask", "add", "remove", "use", "split"} == set(all_done)
    assert len(all_started) > 50, "most were killed in the middle of something"
    assert len(set(all_started)) > 4


class TestLeftovers:
    def test_old_leftovers_are_removed_and_new_ones_stay(self, tmp_path):
        project = Project.create(tmp_path / "project")
        ct = tmp_path / "ct.nii"
        write_ct(ct)
        long_ago = time.time() - 2 * 24 * 3600
        leftovers = [f"{name}.partial-abc" for name in (".scans.csv", ".scans.csv.bak", "scans/.old", "scans/.new")]
        for name in leftovers:
            (project.folder / name).mkdir()
            (project.folder / name / "half").write_text("half", encoding="utf-8")
        for name in leftovers[:3]:
            os.utime(project.folder / name, (long_ago, long_ago))
        project.add([annotating_program.NewScan("ct", "p", ct)])
        assert [name for name in leftovers if (project.folder / name).exists()] == leftovers[3:]
        assert Project.open(project.folder).warnings == ()
