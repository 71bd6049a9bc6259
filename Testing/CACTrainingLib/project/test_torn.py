"""Test that a project opens after its program was killed at any moment, with at most the interrupted step missing."""

import multiprocessing
import os
import random
import signal
import sys
import time

import annotating_program
import pytest
from annotating_program import Annotating
from chest_ct import write_ct

from CACTrainingLib.project.project import Project

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="kills programs as POSIX does")

MAX_STEPS = 8
"""Maximum number of steps before a program is killed in the middle of the next one."""


@pytest.mark.long
def test_killed_a_hundred_times_at_any_moment(tmp_path, monkeypatch):
    """All finished steps are saved, and the interrupted one completely or not, as in a project that nobody kills."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    processes, random_delays, kinds = multiprocessing.get_context("forkserver"), random.Random(7), []
    processes.set_forkserver_preload(["annotating_program"])
    for n in range(annotating_program.POOL):
        write_ct(tmp_path / f"scan{n}.nii", n)
    project, unharmed = (Project.create(tmp_path / name).folder for name in ("project", "unharmed"))
    unharmed = Annotating(unharmed)
    for seed in range(100):
        done, draw = processes.RawValue("i", 0), random.Random(seed)
        process = processes.Process(target=annotating_program.work, args=(project, seed, done))
        process.start()
        steps = random_delays.randint(0, MAX_STEPS)
        while done.value < steps and process.is_alive():
            time.sleep(0.001)
        time.sleep(random_delays.uniform(0, 0.02))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        for _ in range(done.value):
            step = unharmed.next_step(draw)
            unharmed.do(*step)
            kinds.append(step[0])
        present = Annotating(project).state()
        if present != unharmed.state():
            unharmed.do(*unharmed.next_step(draw))
        assert present == unharmed.state(), seed
    assert set(kinds) == {"label", "undo", "mask", "add", "remove", "use", "split"}


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
