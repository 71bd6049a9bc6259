"""Tests of jobs on a Dask cluster: each is done once, and a worker that dies loses only its own job."""

import asyncio
import itertools
import os
import time
from contextlib import closing, suppress

import dask
import dask_jobqueue  # noqa: F401 loads its configuration
import distributed
import psutil
import pytest
import worker_jobs

from CACScoringLib.cohort import workers
from CACScoringLib.cohort.workers import Workers, start_cluster, working_on
from CACScoringLib.core.errors import CTError


def outcomes(events):
    return sorted((e.index, e.state) for e in events if e.state != "begun")


@pytest.mark.long
def test_every_job_is_done_once_and_a_dead_worker_loses_only_its_job(tmp_path):
    pid_file = tmp_path / "pid"
    with Workers(2, worker_jobs.doubling) as pool:
        events = list(pool.run([0, 1, 2, -1, 4, 5, 6]))
        with closing(pool.run([7, pid_file], alone=True)) as alone:
            assert [(e.index, e.state) for e in itertools.islice(alone, 3)] == [(0, "begun"), (0, "done"), (1, "begun")]
            while not (pid_file.exists() and pid_file.read_text(encoding="utf-8")):
                time.sleep(0.05)
    assert outcomes(events) == [(i, "lost" if i == 3 else "done") for i in range(7)]
    assert "process ended" in next(e.reason for e in events if e.state == "lost")
    results = {e.index: e.result for e in events if e.state == "done"}
    assert {index: result[0] for index, result in results.items()} == {i: 2 * i for i in range(7) if i != 3}
    assert 1 <= len({result[1] for result in results.values()}) <= 3, "each worker prepared once"
    assert os.getpid() not in {result[1] for result in results.values()}
    assert not psutil.pid_exists(int(pid_file.read_text(encoding="utf-8"))), "leaving ends workers at their jobs"
    assert not [child for child in psutil.Process().children() if "spawn_main" in " ".join(child.cmdline())]


@pytest.fixture
def cluster():
    """A scheduler with a worker, both threads of this process."""
    options = {"processes": False, "protocol": "tcp://", "dashboard_address": "127.0.0.1:0", "threads_per_worker": 1}
    cluster = distributed.LocalCluster(n_workers=1, **options)
    yield cluster
    with suppress(TimeoutError, asyncio.TimeoutError):
        cluster.close(timeout=0.2)


@pytest.fixture
def pool_of(cluster):
    """Function that returns workers of the scheduler with a preparation."""

    def pool(prepare, **options):
        with working_on(cluster.scheduler_address):
            return Workers(None, prepare, **options)

    return pool


def test_a_worker_prepares_once_for_all_runs(pool_of):
    with pool_of(worker_jobs.counting) as pool:
        results = [event.result for jobs in ([1, 2], [3]) for event in pool.run(jobs) if event.state == "done"]
    assert results == [1, 1, 1]


def test_exceptions_of_preparing_are_raised(pool_of):
    with pool_of(worker_jobs.broken) as pool, pytest.raises(CTError, match="damaged"):
        list(pool.run([1, 2]))


@pytest.mark.long
def test_workers_that_all_end_at_once_end_the_run():
    with Workers(1, worker_jobs.doubling) as pool, pytest.raises(CTError, match="first 5 jobs all ended"):
        list(pool.run([-1] * 9))


def test_a_missing_scheduler_is_reported(monkeypatch):
    monkeypatch.setattr(workers, "CONNECT_SECONDS", 0.5)
    with working_on("tcp://127.0.0.1:9"), pytest.raises(CTError, match="There is no scheduler at tcp"):
        list(Workers(None, worker_jobs.doubling).run([1]))


def test_workers_that_cannot_load_the_jobs_are_reported(pool_of):
    with pool_of(worker_jobs.NotInstalled()) as pool, pytest.raises(CTError, match=r"cannot load CAC: .*not_inst"):
        list(pool.run([1]))


@pytest.mark.long
def test_waiting_for_late_workers_gives_a_warning(cluster, pool_of, monkeypatch):
    monkeypatch.setattr(workers, "ARRIVAL_SECONDS", 0.0)
    monkeypatch.setattr(workers, "LOOK_SECONDS", 0.1)
    warnings = []

    def warn(warning):
        warnings.append(warning.code)
        cluster.scale(1)

    cluster.scale(0)
    while cluster.scheduler.workers:
        time.sleep(0.01)
    with pool_of(worker_jobs.doubling, warn=warn) as pool:
        assert outcomes(pool.run([1, 2, 3])) == [(0, "done"), (1, "done"), (2, "done")]
    assert warnings == ["no-workers"]


@pytest.mark.long
def test_a_lost_scheduler_ends_the_run(cluster, pool_of):
    with pool_of(worker_jobs.waiting) as pool, closing(pool.run([1])) as events:
        next(events)
        cluster.sync(cluster.scheduler.close)
        with pytest.raises(CTError, match="scheduler is gone"):
            list(events)
        worker_jobs.GATE.set()


@pytest.mark.long
@pytest.mark.parametrize(("options", "address"), [({}, "127.0.0.1"), ({"dashboard_address": ":0"}, "0.0.0.0")])
def test_the_dashboard_of_a_batch_system_is_local_unless_configured_otherwise(options, address):
    jobs = {"cores": 1, "memory": "1GB", "scheduler-options": options}
    with (
        dask.config.set({"jobqueue.slurm": {**dask.config.get("jobqueue.slurm"), **jobs}}),
        start_cluster("slurm", 0, None) as cluster,
        distributed.Client(cluster),
    ):
        assert cluster.scheduler.http_server.address == address


def test_an_incomplete_configuration_of_a_batch_system_is_reported():
    with (
        pytest.raises(CTError, match=r"(?s)slurm could not be begun.*jobqueue\.yaml"),
        start_cluster("slurm", 1, None),
    ):
        pass
