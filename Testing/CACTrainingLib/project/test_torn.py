"""A project whose program is killed at any moment opens again, with at most what was just being done missing."""

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
from annotating_program import POOL, Expected, as_line, found
from chest_ct import write_ct

from CACTrainingLib.project.project import Project

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="kills programs as POSIX does")

MOST_STEPS = 8
"""After how many steps a program is killed at most, in the middle of the next."""


class LostError(AssertionError):
    """Something that was saved is not there, or the project does not open."""


@contextmanager
def program(folder):
    """The program in a project's folder, with scans beside it."""
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


def killed_at_random(process, expected, draw, seconds):
    """Start a worker and kill it in the middle of a step. Returns what it has done, and the step it had begun, if any.

    seconds: how long each kind of step took at last, which is kept up to date.
    """
    process.stdin.write(as_line(draw.randrange(10**9), expected))
    process.stdin.flush()
    steps = draw.randint(0, MOST_STEPS)
    said, worker, begun = [], None, []
    while worker is None or len(begun) <= steps:
        said.append(json.loads(process.stdout.readline()))
        kind, about = said[-1]
        worker = about if kind == "worker" else worker
        begun += [about] if kind == "begin" else []
        if kind == "done":
            seconds[about[0][0]] = about[1]
        elif kind in ("error", "ended"):
            raise LostError(f"The program could not go on: {about}")
    time.sleep(draw.uniform(0, 1.2) * seconds.get(begun[-1][0], 0.01))
    os.kill(worker, signal.SIGKILL)
    while said[-1][0] != "ended":
        said.append(json.loads(process.stdout.readline()))
    done = [about[0] for kind, about in said if kind == "done"]
    begun = [about for kind, about in said if kind == "begin"]
    return done, begun[len(done) :]


def checked(folder, expected, done, begun):
    """What is there now: all that was done, and of what was begun all or nothing."""
    for step in done:
        expected = expected.after(step)
    try:
        there = found(Project.open(folder))
    except Exception as error:
        raise LostError(f"The project does not open: {error!r}") from error
    for candidate in (expected, *(expected.after(step) for step in begun)):
        if candidate.visible() == there:
            return candidate
    raise LostError(f"After {done[-3:]}, with {begun} begun, expected {expected.visible()}, but there is {there}")


def torn(folder, times):
    """How many steps of each kind were done, and were begun when the program was killed."""
    draw = random.Random(7)
    expected, seconds = Expected(), {}
    all_done, all_begun = [], []
    with program(folder) as process:
        for _ in range(times):
            done, begun = killed_at_random(process, expected, draw, seconds)
            expected = checked(folder, expected, done, begun)
            all_done += [step[0] for step in done]
            all_begun += [step[0] for step in begun]
    return all_done, all_begun


@pytest.mark.long
def test_killed_a_hundred_times_at_any_moment(tmp_path):
    done, begun = torn(tmp_path / "project", 100)
    assert {"label", "undo", "mask", "add", "remove", "use", "split"} == set(done)
    assert len(begun) > 50, "most were killed in the middle of something"
    assert len(set(begun)) > 4


class TestWhatIsLeftOver:
    def test_old_leftovers_are_removed_and_new_ones_left(self, tmp_path):
        project = Project.create(tmp_path / "project")
        ct = tmp_path / "ct.nii"
        write_ct(ct)
        long_ago = time.time() - 2 * 24 * 3600
        left = [f"{name}.partial-abc" for name in (".scans.csv", ".scans.csv.bak", "scans/.old", "scans/.new")]
        for name in left:
            (project.folder / name).mkdir()
            (project.folder / name / "half").write_text("half", encoding="utf-8")
        for name in left[:3]:
            os.utime(project.folder / name, (long_ago, long_ago))
        project.add([annotating_program.NewScan("ct", "p", ct)])
        assert [name for name in left if (project.folder / name).exists()] == left[3:]
        assert Project.open(project.folder).warnings == ()
