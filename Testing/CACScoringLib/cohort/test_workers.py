"""Jobs in processes: each is done once, and whoever is killed loses its own job only."""

import multiprocessing
import os
import signal
import time
from contextlib import closing
from functools import partial
from types import SimpleNamespace

import pytest
import worker_jobs

from CACScoringLib.cohort import workers
from CACScoringLib.cohort.workers import WorkerError, Workers, sensible_count
from CACScoringLib.core.ct import CTError

posix = pytest.mark.skipif(os.name == "nt", reason="signals are POSIX here")


@pytest.fixture(autouse=True)
def no_process_is_left():
    yield
    assert not multiprocessing.active_children()


def test_every_job_is_done_once_by_processes_that_prepared_once():
    with Workers(2, worker_jobs.doubling) as pool:
        events = list(pool.run(range(7)))
    assert [e.index for e in events if e.state == "begun"] == list(range(7))
    done = {e.index: e.result for e in events if e.state == "done"}
    assert {index: result[0] for index, result in done.items()} == {i: 2 * i for i in range(7)}
    pids = {result[1] for result in done.values()}
    assert 1 <= len(pids) <= 2
    assert os.getpid() not in pids


def test_no_jobs_need_no_process():
    with Workers(0, worker_jobs.dying) as pool:
        assert list(pool.run([])) == []


def test_a_process_that_ends_loses_its_job_only():
    with Workers(1, worker_jobs.doubling) as pool:
        events = list(pool.run([1, -1, 2]))
    assert [(e.index, e.state) for e in events if e.state != "begun"] == [(0, "done"), (1, "lost"), (2, "done")]
    assert next(e.exit_code for e in events if e.state == "lost") == 3


def test_what_preparing_says_is_raised():
    with Workers(2, worker_jobs.broken) as pool, pytest.raises(CTError, match="damaged"):
        list(pool.run([1, 2]))


def test_processes_that_cannot_begin_are_told():
    with Workers(2, worker_jobs.dying) as pool, pytest.raises(WorkerError, match="code 5"):
        list(pool.run([1, 2, 3]))


def test_one_process_less_goes_on(tmp_path):
    with Workers(2, partial(worker_jobs.dying_but_once, tmp_path / "died")) as pool:
        results = {e.index: e.result[0] for e in pool.run([1, 2, 3]) if e.state == "done"}
    assert results == {0: 2, 1: 4, 2: 6}


@posix
def test_leaving_ends_processes_at_work_and_lets_them_clean_up(tmp_path):
    jobs = [tmp_path / "a", tmp_path / "b"]
    start = time.monotonic()
    with Workers(2, worker_jobs.sleeping) as pool, closing(pool.run(jobs)) as events:
        next(events), next(events)
        while not all(job.exists() and job.read_text() for job in jobs):
            time.sleep(0.05)
    assert time.monotonic() - start < 50
    assert not any(job.exists() for job in jobs)


@posix
def test_a_process_that_does_not_end_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "END_SECONDS", 0.2)
    job = tmp_path / "a"
    with Workers(1, worker_jobs.sleeping) as pool, closing(pool.run([job])) as events:
        next(events)
        while not (job.exists() and job.read_text()):
            time.sleep(0.05)
        os.kill(int(job.read_text()), signal.SIGSTOP)
    assert job.exists()


def test_as_many_processes_as_cores_and_memory_allow(monkeypatch):
    monkeypatch.setattr(workers, "core_count", lambda: 8)
    for available, expected in ((100e9, 8), (3.5e9, 3), (1e6, 1)):
        monkeypatch.setattr(workers, "available_memory_bytes", lambda a=available: int(a))
        assert sensible_count(10**9) == expected


def test_jobs_wait_until_the_budget_has_room():
    needs = [6, 6, 3, 20, 1, 4]
    at_work, most, begun = {}, 0, []
    with Workers(3, worker_jobs.napping, budget=10) as pool:
        for event in pool.run(range(6), needs):
            if event.state == "begun":
                at_work[event.index] = needs[event.index]
                begun.append(event.index)
                assert sum(at_work.values()) <= 10 or len(at_work) == 1
                most = max(most, len(at_work))
            else:
                del at_work[event.index]
    assert sorted(begun) == list(range(6))
    assert most > 1


def test_a_job_that_has_room_overtakes_one_that_has_none():
    pool = Workers(3, worker_jobs.doubling, budget=10)
    busy, idle = SimpleNamespace(job=0), SimpleNamespace(job=None)
    pool._workers = [busy, idle]
    assert pool._next([1, 2], [6, 6, 3]) == 2
    assert pool._next([1], [6, 6]) is None
    assert pool._next([1], None) == 1
    pool._workers = [idle]
    assert pool._next([1, 2], [6, 60, 3]) == 1, "one is always at work"
