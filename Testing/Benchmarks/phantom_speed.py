"""Seconds per 512×512×100 scan of digital patients, and where they go.

    OMP_NUM_THREADS=1 PYTHONPATH=CACTraining:CACScoring python Testing/Benchmarks/phantom_speed.py --patients 10

Printed are one scan alone on all threads, and scans as a cohort makes them: one process per core, one thread each.
Files are not written. Wall clock depends on what else the machine does.
"""

from __future__ import annotations

import argparse
import cProfile
import multiprocessing
import os
import pstats
import time
from concurrent.futures import ProcessPoolExecutor
from statistics import median

from CACTrainingLib.phantom.anatomy.patient import Patient, draw_patient, stream
from CACTrainingLib.phantom.scanner.protocol import PROTOCOLS, draw_pair
from CACTrainingLib.phantom.scanner.simulation import scan_patient


def scanned(number: int, threads: int) -> tuple[float, float]:
    """Seconds to draw a patient, and seconds per 100 slices of a scan of it."""
    start = time.perf_counter()
    patient = draw_patient(number, prevalence=1.0)
    drawn = time.perf_counter() - start
    return drawn, scan(patient, threads)


def scan(patient: Patient, threads: int) -> float:
    scanner, pose = draw_pair(PROTOCOLS["radiotherapy"], stream(patient.number, 20))[1]
    start = time.perf_counter()
    slices = scan_patient(patient, scanner, pose, 1, threads=threads).grid.shape[0]
    return (time.perf_counter() - start) * 100 / slices


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--patients", type=int, default=10)
    patients = range(parser.parse_args().patients)
    cores = os.cpu_count() or 1

    drawn, alone = zip(*(scanned(number, cores) for number in patients), strict=True)
    print(f"patient drawn in {median(drawn):.2f} s")
    print(f"100 slices of 512×512, one scan alone on {cores} threads: median {median(alone):.2f} s")

    with ProcessPoolExecutor(cores, multiprocessing.get_context("spawn")) as pool:
        list(pool.map(scanned, range(cores), [1] * cores))  # the processes have started and imported
        start = time.perf_counter()
        each = [seconds for _, seconds in pool.map(scanned, patients, [1] * len(patients))]
        wall = (time.perf_counter() - start) / len(patients)
    print(f"in a cohort, {cores} processes: a patient and a scan every {wall:.2f} s; each scan {median(each):.2f} s")

    profile = cProfile.Profile()
    patient = draw_patient(0, prevalence=1.0)
    profile.enable()
    scan(patient, 1)
    profile.disable()
    pstats.Stats(profile).sort_stats("tottime").print_stats(14)


if __name__ == "__main__":
    main()
