"""Seconds per 512×512×100 scan of digital patients, and where they go.

    OMP_NUM_THREADS=1 PYTHONPATH=CACTraining:CACScoring python Testing/Benchmarks/phantom_speed.py --patients 10

Wall clock depends on what else the machine does; processor time of all threads is printed beside it.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import time
from statistics import median

from CACTrainingLib.phantom.patient import draw_patient, stream
from CACTrainingLib.phantom.protocol import PROTOCOLS, draw_pair
from CACTrainingLib.phantom.simulation import scan_patient


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--patients", type=int, default=10)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    drawing, wall, processor = [], [], []
    profile = cProfile.Profile()
    for number in range(arguments.patients):
        start = time.perf_counter()
        patient = draw_patient(number, prevalence=1.0)
        drawing.append(time.perf_counter() - start)
        scanner, pose = draw_pair(PROTOCOLS["radiotherapy"], stream(number, 20))[1]
        start, used = time.perf_counter(), time.process_time()
        scan = scan_patient(patient, scanner, pose, 1, threads=arguments.threads)
        per_slice = 100 / scan.grid.shape[0]
        wall.append((time.perf_counter() - start) * per_slice)
        processor.append((time.process_time() - used) * per_slice)
    profile.enable()
    scan_patient(patient, scanner, pose, 1, threads=1)
    profile.disable()
    print(
        f"patient drawn in {median(drawing):.2f} s; 100 slices of 512×512, {arguments.threads} threads: median "
        f"{median(wall):.2f} s, fastest {min(wall):.2f} s, processor {median(processor):.2f} s"
    )
    pstats.Stats(profile).sort_stats("tottime").print_stats(14)


if __name__ == "__main__":
    main()
