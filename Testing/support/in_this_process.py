"""Workers without processes, for what does not depend on them: a process takes seconds to begin."""

from CACScoringLib.cohort.workers import JobEvent


class WorkerKilled(BaseException):
    """Raised by a job in place of the death of its worker process."""


class InThisProcess:
    """In place of `workers.Workers`."""

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
