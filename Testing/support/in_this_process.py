"""Workers without processes, for what does not depend on them: a process takes seconds to begin."""

from CACScoringLib.cohort.workers import JobEvent

KILLED = "killed"
"""A job whose process is ended by the system."""


class InThisProcess:
    """In place of `workers.Workers`."""

    def __init__(self, count, prepare, budget=None):
        self.prepare = prepare

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def run(self, jobs, needs=None):
        do = self.prepare()
        for index, job in enumerate(jobs):
            yield JobEvent(index, "begun")
            lost = isinstance(job, str) and job == KILLED
            yield JobEvent(index, "lost", exit_code=-9) if lost else JobEvent(index, "done", do(job))
