"""Jobs in several processes: finished jobs are stored, and failed jobs stop nothing."""

import json
from dataclasses import dataclass
from functools import partial

import pytest
from in_this_process import InThisProcess, WorkerKilled

from CACScoringLib.core.errors import CTError
from CACScoringLib.core.progress import Progress
from CACTrainingLib.evaluation import jobs as study_jobs
from CACTrainingLib.evaluation.jobs import JobSettings, kept_jobs, kept_records


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(study_jobs, "Workers", InThisProcess)


def ready(begun_jobs):
    return partial(work, begun_jobs)


def work(begun_jobs, job):
    begun_jobs.append(job)
    if job == "bad":
        raise CTError("no good")
    if job == "worse":
        raise ZeroDivisionError
    if job == "killed":
        raise WorkerKilled
    return {"of": job}


class Counted(Progress):
    def __init__(self):
        super().__init__()
        self.last = None

    def counted(self, done, count, seconds_left):
        self.last = done, count, seconds_left


def run(file, *jobs):
    begun_jobs, progress = [], Counted()
    done, failed = kept_jobs({j: j for j in jobs}, file, partial(ready, begun_jobs), JobSettings(2, progress=progress))
    return done, failed, begun_jobs, progress.last


def test_what_is_done_is_kept_and_what_failed_is_tried_again(tmp_path):
    file = tmp_path / "deep" / "kept.jsonl"
    done, failed, begun_jobs, counted = run(file, "a", "bad", "worse", "killed", "b")
    assert done == {"a": {"of": "a"}, "b": {"of": "b"}}
    assert failed["bad"] == "no good"
    assert failed["worse"].startswith("ZeroDivisionError at test_jobs.py")
    assert "process ended" in failed["killed"]
    assert counted == (5, 5, 0)
    done, failed, begun_jobs, counted = run(file, "bad", "b", "c")
    assert begun_jobs == ["bad", "c"]
    assert set(done) == {"b", "c"}
    assert counted == (3, 3, 0)


def test_a_torn_line_is_done_again(tmp_path):
    file = tmp_path / "kept.jsonl"
    file.write_text(json.dumps({"key": "a", "result": {"of": "a"}}) + '\n{"key": "b", "resu', encoding="utf-8")
    done, _, begun_jobs, _ = run(file, "a", "b")
    assert begun_jobs == ["b"]
    assert set(done) == {"a", "b"}
    assert run(file, "a", "b")[2] == []


@dataclass(frozen=True)
class Sum:
    total: int


def test_records_are_made_once_and_reasons_kept(tmp_path):
    made = []

    def add(numbers):
        made.append(numbers)
        if not numbers:
            raise CTError("nothing to add")
        return Sum(sum(numbers))

    def records(jobs):
        return kept_records(jobs, tmp_path / "records.jsonl", add, Sum, JobSettings())

    jobs = [("a", (1, 2)), "not scored", ("b", ())]
    assert records(jobs) == [Sum(3), "not scored", "nothing to add"]
    assert records(jobs[:2]) == [Sum(3), "not scored"]
    assert made == [(1, 2), ()]
    (tmp_path / "records.jsonl").write_text('{"key": "a", "result": {"sum": 3}}', encoding="utf-8")
    with pytest.raises(CTError, match=r"A record cannot be read .* Remove"):
        records(jobs[:1])
