"""Jobs on a Dask cluster: each is done once, and a worker that dies loses its own job only."""

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager

import dask
import dask_jobqueue  # noqa: F401 loads its configuration
import distributed
import psutil
import pytest
import worker_jobs

from CACScoringLib.cohort import workers
from CACScoringLib.cohort.cluster import (
    ClusterChoice,
    ClusterError,
    started,
    working_on,
)
from CACScoringLib.cohort.workers import Workers, connected, sensible_count
from CACScoringLib.core.ct import CTError

posix = pytest.mark.skipif(os.name == "nt", reason="signals are POSIX here")


def ended(events):
    return [(e.index, e.state) for e in events if e.state != "begun"]


@pytest.mark.long
def test_every_job_is_done_once_and_a_worker_that_dies_loses_its_job_only():
    with Workers(2, worker_jobs.doubling) as pool:
        events = list(pool.run(range(7)))
        others = list(pool.run([1, -1, 2]))
        alone = list(pool.run([4, -1], alone=True))
    begun = [e.index for e in events if e.state == "begun"]
    assert sorted(begun) == list(range(7))
    done = {e.index: e.result for e in events if e.state == "done"}
    assert {index: result[0] for index, result in done.items()} == {i: 2 * i for i in range(7)}
    assert 1 <= len({result[1] for result in done.values()}) <= 2, "each worker prepared once"
    assert os.getpid() not in {result[1] for result in done.values()}
    assert sorted(ended(others)) == [(0, "done"), (1, "lost"), (2, "done")]
    assert "process ended" in next(e.reason for e in others if e.state == "lost")
    assert sorted(ended(alone)) == [(0, "done"), (1, "lost")]
    assert not [child for child in psutil.Process().children() if "spawn_main" in " ".join(child.cmdline())]


@pytest.mark.long
def test_what_preparing_or_a_job_raises_is_raised():
    with Workers(1, worker_jobs.broken) as pool, pytest.raises(CTError, match="damaged"):
        list(pool.run([1, 2]))


@pytest.mark.long
def test_workers_that_cannot_begin_are_told():
    with Workers(1, worker_jobs.dying) as pool, pytest.raises(ClusterError, match="all ended their workers"):
        list(pool.run(range(9)))


@pytest.mark.long
@posix
def test_leaving_ends_workers_at_their_jobs(tmp_path):
    job = tmp_path / "a"
    start = time.monotonic()
    with Workers(1, worker_jobs.sleeping) as pool, closing(pool.run([job])) as events:
        next(events)
        while not (job.exists() and job.read_text()):
            time.sleep(0.05)
        process = int(job.read_text())
    assert time.monotonic() - start < 50
    assert not psutil.pid_exists(process)


@contextmanager
def scheduler_at(folder):
    """A scheduler of its own, and its address."""
    file = folder / "s.json"
    with subprocess.Popen(
        [
            *(sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0"),
            *("--scheduler-file", str(file), "--no-dashboard"),
        ],
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            while not file.exists():
                time.sleep(0.1)
            time.sleep(0.5)
            yield process, json.loads(file.read_text())["address"]
        finally:
            process.kill()


@contextmanager
def worker_of(address, *path):
    """A worker of a scheduler, which finds modules in the folders of `path`."""
    with subprocess.Popen(
        [
            *(sys.executable, "-m", "distributed.cli.dask_worker", address),
            *("--nthreads", "1", "--no-dashboard", "--no-nanny"),
        ],
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.long
@posix
def test_a_scheduler_that_is_killed_ends_the_run_and_workers_of_any_address_are_used(tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "GONE_SECONDS", 3.0)
    with scheduler_at(tmp_path) as (scheduler, address), worker_of(address, *sys.path):
        with working_on(ClusterChoice(address)), Workers(None, worker_jobs.doubling) as pool:
            assert sorted(ended(pool.run([1, 2, 3]))) == [(0, "done"), (1, "done"), (2, "done")]
        job = tmp_path / "a"
        with (
            working_on(ClusterChoice(address)),
            Workers(None, worker_jobs.sleeping) as pool,
            closing(pool.run([job])) as events,
        ):
            next(events)
            scheduler.kill()
            with pytest.raises(ClusterError, match="scheduler is gone"):
                list(events)


@pytest.mark.long
@posix
def test_workers_that_do_not_come_or_cannot_load_the_jobs_are_told(tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "ARRIVAL_SECONDS", 2.0)
    warnings = []
    with scheduler_at(tmp_path) as (_, address):
        with working_on(ClusterChoice(address)):
            pool = Workers(None, worker_jobs.doubling, warn=warnings.append)
        with pool, ThreadPoolExecutor() as threads:
            run = threads.submit(lambda: list(pool.run([1])))
            while not warnings:
                time.sleep(0.1)
            with worker_of(address), pytest.raises(ClusterError, match=r"cannot load CAC: .*worker_jobs.* Install"):
                run.result(timeout=90)
    assert [warning.code for warning in warnings] == ["no-workers"]


def test_a_greeting_that_did_not_come_alone_is_asked_for_again(monkeypatch):
    asked = []

    def client(address, set_as_default):
        asked.append(address)
        assert len(asked) == 2
        return "client"

    monkeypatch.setattr(distributed, "Client", client)
    assert connected("tcp://h:1") == "client"
    with pytest.raises(OSError, match="too busy"):
        connected("tcp://h:1")


def test_as_many_processes_as_cores_and_memory_allow(monkeypatch):
    monkeypatch.setattr(workers, "core_count", lambda: 8)
    for available, expected in ((100e9, 8), (3.5e9, 3), (1e6, 1)):
        monkeypatch.setattr(workers, "available_memory_bytes", lambda a=available: int(a))
        assert sensible_count(10**9) == expected


class TestBatchSystem:
    @pytest.mark.parametrize(("asked", "address"), [({}, "127.0.0.1"), ({"dashboard_address": ":0"}, "0.0.0.0")])
    def test_its_dashboard_is_for_this_machine_unless_asked_otherwise(self, asked, address):
        jobs = {"cores": 1, "memory": "1GB", "scheduler-options": asked}
        with (
            dask.config.set({"jobqueue.slurm": {**dask.config.get("jobqueue.slurm"), **jobs}}),
            started(ClusterChoice("slurm"), 0, None) as cluster,
            connected(cluster),
        ):
            assert cluster.scheduler.http_server.address == address

    def test_what_its_configuration_lacks_is_told(self):
        with working_on(ClusterChoice("slurm")):
            pool = Workers(1, worker_jobs.doubling)
        with pool, pytest.raises(ClusterError, match=r"(?s)slurm could not be begun.*jobqueue\.yaml"):
            list(pool.run([1]))
