"""Jobs of workers in tests, in a separate module because their processes import it by name."""

import importlib
import os
import threading
import time
from pathlib import Path

GATE = threading.Event()
"""Gate that ends the jobs of `waiting` when opened."""


def doubling():
    """Function that doubles numbers, ends its process for a negative one, and for a file writes its id and sleeps."""
    prepared_in = os.getpid()

    def double(job):
        if isinstance(job, Path):
            job.write_text(str(prepared_in), encoding="utf-8")
            time.sleep(60)
        if job < 0:
            os._exit(3)
        return 2 * job, prepared_in

    return double


def waiting():
    return lambda job: GATE.wait(60)


PREPARATIONS = []
"""An entry for each call of `counting`."""


def counting():
    """Function that returns the number of preparations."""
    PREPARATIONS.append(1)
    return lambda job: len(PREPARATIONS)


def broken():
    from CACScoringLib.core.errors import CTError

    raise CTError("The model is damaged.")


class NotInstalled:
    """Object that cannot be unpickled, like one of a package that a worker's Python lacks."""

    def __call__(self):
        raise AssertionError("It was unpickled.")

    def __reduce__(self):
        return importlib.import_module, ("cac_is_not_installed_here",)
