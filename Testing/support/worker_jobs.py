"""What workers do in tests; in a module of its own, because their processes import it by name."""

import os
import signal
import time
from pathlib import Path


def doubling():
    """Jobs are numbers, doubled; a negative one ends the process that does it."""
    prepared_in = os.getpid()

    def double(number):
        if number < 0:
            os._exit(3)
        return 2 * number, prepared_in

    return double


def sleeping():
    """Jobs are files in which the process leaves its id, and sleeps; on SIGTERM it removes the file."""

    def sleep(path):
        Path(path).write_text(str(os.getpid()))
        try:
            time.sleep(60)
        finally:
            Path(path).unlink()

    return sleep


def broken():
    from CACScoringLib.core.ct import CTError

    raise CTError("The model is damaged.")


def dying():
    os._exit(5)


def scoring_but_killed(settings, models):
    """Scores as the cohort does, but scans called "killer" kill their process, "unlucky" ones only the first time."""
    from CACScoringLib.cohort import scoring

    score = scoring.prepare_scoring(settings, models)

    def do(job):
        scan = job.scan
        marker = job.folder.parent / f".{scan.name}"
        if scan.name == "killer" or (scan.name == "unlucky" and not marker.exists()):
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return score(job)

    return do
