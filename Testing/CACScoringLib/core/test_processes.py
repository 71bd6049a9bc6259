"""Ending of process trees, and available memory."""

import subprocess
import sys

import psutil
import pytest

from CACScoringLib.core import version
from CACScoringLib.core.version import available_memory_bytes, kill_tree


@pytest.mark.long
def test_a_process_is_ended_with_its_children():
    script = (
        "import subprocess, sys; child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); "
        "print(child.pid, flush=True); child.wait()"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, encoding="utf-8")
    child = psutil.Process(int(parent.stdout.readline()))
    kill_tree(parent.pid)
    parent.wait(10)
    parent.stdout.close()
    # A child is a zombie until its new parent has waited for it.
    terminated, alive = psutil.wait_procs([child], timeout=10)
    assert terminated or alive[0].status() == psutil.STATUS_ZOMBIE


@pytest.mark.parametrize(("limit", "expected"), [("1000\n", 1000), ("max\n", 5000), ("9000\n", 5000), (None, 5000)])
def test_the_limit_of_a_container_counts(tmp_path, monkeypatch, limit, expected):
    monkeypatch.setattr(version, "_GROUP_LIMIT", tmp_path / "memory.max")
    if limit is not None:
        (tmp_path / "memory.max").write_text(limit, encoding="utf-8")
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("Memory", (), {"available": 5000}))
    assert available_memory_bytes() == expected
