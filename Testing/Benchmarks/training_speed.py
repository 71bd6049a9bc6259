"""Measure how well trainings use a device: time of a batch and a step, arithmetic of a step, and its share of the peak.

Run from the repository's root, on the device at hand:

    PYTHONPATH=CACScoring:CACTraining:Testing:Testing/support .venv/bin/python Testing/Benchmarks/training_speed.py

A batch is read, changed and moved as in a training, in the same thread as the steps; in a training it is made beside
them. Slices come from the tests' small scans, patches from random volumes, territories from two digital patients.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode
from training_scans import write_cohort

from CACTrainingLib.data.datasets import SliceDataset, find_scans, load_slices, prepare, split_by_patient
from CACTrainingLib.training import decomposition, loop, slices, territories
from CACTrainingLib.training.cyclegan import CycleTask
from CACTrainingLib.training.distributed import make_fabric

PEAKS = {"H200": 990e12, "H100": 990e12, "A100": 312e12}
"""Dense bfloat16 operations a second by a card's name."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", nargs="+", help="names such as slices.compact (default: all)")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--peak", type=float, help="operations a second of the device (default: by name or measured)")
    options = parser.parse_args()
    fabric = make_fabric(True, options.device)
    name = torch.cuda.get_device_name(fabric.device) if fabric.device.type == "cuda" else "processor"
    published = next((peak for card, peak in PEAKS.items() if card in name), None)
    peak = options.peak or published or measured_peak(fabric)
    print(f"{name}, {torch.get_num_threads()} threads, {fabric._precision.precision}, peak {peak / 1e12:.2f} TFLOP/s")
    print("preset                        batch ms   step ms   GFLOP a step   share of peak   batch over step")
    with tempfile.TemporaryDirectory() as folder:
        for label, make_task in presets(Path(folder), fabric.device):
            if options.only is None or label in options.only:
                measure(label, make_task(), fabric, options.steps, peak)


def presets(folder: Path, device: torch.device):
    """Yield every preset's name and a function that makes its training."""
    scans = find_scans([write_cohort(folder / "scans")])
    parts = [
        SliceDataset([load_slices(path) for path in prepare(part, "slices", folder / "cache")])
        for part in split_by_patient(scans, 0.5, 0)
    ]
    for name, settings in slices.PRESETS.items():
        yield f"slices.{name}", lambda settings=settings: slices.SliceTask(settings, *parts, device=device)
    for name, settings in decomposition.PRESETS.items():
        kind = decomposition.SupervisedTask if settings.method == "supervised" else CycleTask
        if settings.method != "supervised":
            settings = replace(settings, warmup_steps=0)
        yield f"decomposition.{name}", lambda kind=kind, settings=settings: kind(settings, *parts, device=device)
    for name, settings in territories.PRESETS.items():
        settings = replace(settings, patients=2)
        yield f"territories.{name}", lambda settings=settings: territories.TerritoryTask(settings, folder)


def measure(label: str, task: loop.Task, fabric, steps: int, peak: float) -> None:
    for kind, setup in (("modules", fabric.setup_module), ("optimizers", fabric.setup_optimizers)):
        getattr(task, kind).update({name: setup(part) for name, part in getattr(task, kind).items()})
    batch_ms, step_ms = [], []
    with FlopCounterMode(display=False) as counter:
        task.step(loop._numbered_batch(task, 0, fabric, 0), fabric, 0)
    for number in range(1, steps + 1):
        start = now(fabric)
        batch = loop._numbered_batch(task, 0, fabric, number)
        middle = now(fabric)
        task.step(batch, fabric, number)
        batch_ms.append(1000 * (middle - start))
        step_ms.append(1000 * (now(fabric) - middle))
    batch, step, work = statistics.median(batch_ms), statistics.median(step_ms), counter.get_total_flops()
    share = work / (step / 1000) / peak
    print(f"{label:28s}{batch:10.1f}{step:10.1f}{work / 1e9:15.2f}{share:16.1%}{batch / step:18.2f}", flush=True)


def measured_peak(fabric) -> float:
    """Return the operations a second of a large matrix product in the training's precision."""
    matrix = torch.randn(2048, 2048, device=fabric.device)
    seconds = []
    with fabric.autocast():
        for _ in range(5):
            start = now(fabric)
            matrix @ matrix
            seconds.append(now(fabric) - start)
    return 2 * 2048**3 / min(seconds)


def now(fabric) -> float:
    if fabric.device.type == "cuda":
        torch.cuda.synchronize(fabric.device)
    return time.perf_counter()


if __name__ == "__main__":
    main()
