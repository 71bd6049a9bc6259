"""Seconds per 512×512×100 scan of digital patients by the shape of their hearts, and where they go.

    OMP_NUM_THREADS=1 PYTHONPATH=CACTraining:CACScoring python Testing/Benchmarks/phantom_speed.py --patients 10

Printed is the processor time of a patient and of a scan in one thread, anatomical and drawn hearts by turns, then how
often a cohort gets a scan: one process per core, one thread each. Files are not written. Only the latter is wall clock
and depends on what else the machine does.
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

from CACTrainingLib.phantom.anatomy.patient import HEART_SHAPES, Patient, draw_patient, stream
from CACTrainingLib.phantom.scanner.protocol import PROTOCOLS, draw_pair
from CACTrainingLib.phantom.scanner.simulation import scan_patient


def scanned(number: int, shape: str = HEART_SHAPES[0]) -> tuple[float, float]:
    """Seconds of processor time to draw a patient, and for 100 slices of a scan of it."""
    start = time.process_time()
    patient = draw_patient(number, prevalence=1.0, heart_shape=shape)
    drawn = time.process_time()
    slices = scan(patient)
    return drawn - start, (time.process_time() - drawn) * 100 / slices


def scan(patient: Patient) -> int:
    """Number of slices scanned."""
    scanner, pose = draw_pair(PROTOCOLS["radiotherapy"], stream(patient.number, 20))[1]
    return scan_patient(patient, scanner, pose, 1, threads=1).grid.shape[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--patients", type=int, default=10)
    patients = range(parser.parse_args().patients)
    cores = os.cpu_count() or 1

    scanned(0)  # reads the measured hearts
    seconds = {shape: [] for shape in HEART_SHAPES}
    for number in patients:
        for shape in HEART_SHAPES if number % 2 else HEART_SHAPES[::-1]:
            seconds[shape].append(scanned(number, shape))
    for shape, found in seconds.items():
        drawing, scanning = (median(values) for values in zip(*found, strict=True))
        print(f"{shape}: patient {drawing:.2f} s, 100 slices of 512×512 {scanning:.2f} s of processor time (medians)")

    with ProcessPoolExecutor(cores, multiprocessing.get_context("spawn")) as pool:
        list(pool.map(scanned, range(cores)))  # the processes have started and imported
        start = time.perf_counter()
        list(pool.map(scanned, patients))
        wall = (time.perf_counter() - start) / len(patients)
    print(f"in a cohort, {cores} processes: a patient and a scan every {wall:.2f} s")

    profile = cProfile.Profile()
    patient = draw_patient(0, prevalence=1.0)
    profile.enable()
    scan(patient)
    profile.disable()
    pstats.Stats(profile).sort_stats("tottime").print_stats(14)


if __name__ == "__main__":
    main()
