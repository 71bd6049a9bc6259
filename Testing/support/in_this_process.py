"""Workers that run in this process, for tests that do not depend on processes, which take seconds to start."""

from CACScoringLib.cohort.workers import JobEvent


class WorkerKilled(BaseException):
    """Raised by a job to simulate the death of its worker process."""


class InThisProcess:
    """Replaces `workers.Workers`."""

    def __init__(self, count, prepare, memory_bytes=None, warn=None):
        self.prepare = prepare

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def run(self, jobs, alone=False):
        do = self.prepare() if jobs else None
        for index, job in enumerate(jobs):
            yield JobEvent(index, "begun")
            try:
                yield JobEvent(index, "done", do(job))
            except WorkerKilled:
                yield JobEvent(index, "lost", reason="The worker process ended.")
