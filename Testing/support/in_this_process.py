"""Workers without processes, for what does not depend on them: a process takes seconds to begin."""

from CACScoringLib.cohort.workers import JobEvent

KILLED = "killed"
"""A job whose process is ended by the system."""
LOST = "The worker process ended."


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
            lost = isinstance(job, str) and job == KILLED
            yield JobEvent(index, "lost", reason=LOST) if lost else JobEvent(index, "done", do(job))
