"""Seconds of the whole method, networks included, against the same networks run plainly. Run from the root:

    PYTHONPATH=Testing/support .venv/bin/python Testing/Benchmarks/method_speed.py \\
        [CT] [--preset compact] [--runs 3]

Ours is `score_scan` with models as they are loaded. The rival is the same pipeline with the networks as they were
trained (float32, batch normalisation not folded, contiguous layout), one patch or slice at a time, equal ones too. Both
run in turn in one process. Seconds mean something on an idle machine only; on a busy one take the ratio of processor
seconds, with OMP_NUM_THREADS=1 (threads that wait count as busy). Without a CT a digital patient is made, with 3 mm
slices; `--heights` cuts it down.

The heart is found by the network that comes with CAC. The other weights are untrained (seeded), so the threshold of the
slice classifier is set where it chooses about a tenth of the slices, as in the paper. The generator's last bias is −3,
because a map of 500 HU everywhere would be ruled out as implausible. Scores of such weights mean nothing; that both
ways agree does.
Goal on two idle cores at the paper's size: under 10 s and 3 GB, and a third of the rival.
"""

import argparse
import contextlib
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import SimpleITK as sitk
import torch

from CACScoringLib import pipeline
from CACScoringLib.anatomy import territory_network
from CACScoringLib.anatomy.heart_search import find_heart
from CACScoringLib.calcium_map import decomposition, slices
from CACScoringLib.core.ct import CTScan
from CACScoringLib.io.reading import read_ct
from CACScoringLib.models.cards import LoadedModel, Training, describe, find_model, load_model, read_network, save_model
from CACScoringLib.networks.van_velzen import PRESETS, build
from CACScoringLib.pipeline import ScoreSettings, score_scan
from CACScoringLib.results import Networks, ScoreResult
from CACTrainingLib.phantom.cohort.cohort import CohortSettings, make_scan
from CACTrainingLib.phantom.cohort.export import as_ct_scan
from CACTrainingLib.phantom.scanner.simulation import CHEST_MM

UNTRAINED = ("slices", "decomposition")
CHOSEN_PROPORTION = 0.1
STEPS = {
    "heart": (pipeline, "find_heart"),
    "slices": (pipeline, "slice_probabilities"),
    "map": (pipeline, "calcium_map"),
}


def plain_predict(network: torch.nn.Module, inputs: np.ndarray, batch_size: int) -> tuple[np.ndarray, tuple]:
    with torch.inference_mode():
        return np.concatenate([network(torch.from_numpy(x[None])).numpy() for x in np.ascontiguousarray(inputs)]), ()


@contextlib.contextmanager
def run_plainly() -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for module in (territory_network, slices, decomposition):
            stack.enter_context(mock.patch.object(module, "predict", plain_predict))
        yield


class Way:
    """One way to run the method: its models, what it takes, what it finds."""

    def __init__(self, networks: Networks, plain: bool) -> None:
        self.networks, self.plain = networks, plain
        self.seconds: dict[str, list[np.ndarray]] = {name: [] for name in (*STEPS, "whole")}
        self.found: dict[str, object] = {}

    def run(self, scan: CTScan) -> ScoreResult:
        with contextlib.ExitStack() as stack:
            if self.plain:
                stack.enter_context(run_plainly())
            for name, (module, function) in STEPS.items():
                timed = self.timed(name, getattr(module, function))
                stack.enter_context(mock.patch.object(module, function, timed))
            return self.timed("whole", score_scan)(scan, ScoreSettings(allow_contrast=True), networks=self.networks)

    def timed(self, name: str, function: Callable) -> Callable:
        def call(*arguments: object, **named: object) -> object:
            start = np.array([time.perf_counter(), time.process_time()])
            self.found[name] = function(*arguments, **named)
            self.seconds[name].append(np.array([time.perf_counter(), time.process_time()]) - start)
            return self.found[name]

        return call


def untrained_models(preset: str, folder: Path) -> dict[str, Path]:
    paths = {}
    for name in UNTRAINED:
        torch.manual_seed(1)
        config = PRESETS[preset][name]
        network = build(config)
        if name == "decomposition":
            torch.nn.init.constant_(network.last.bias, -3.0)
        training = Training("none: untrained", 1, {}, "")
        card = describe(f"{preset}-{name}", config, preset, training, {}, {}, "Apache-2.0", "Benchmark only.")
        paths[name] = save_model(network, card, folder)
    return paths


def with_threshold(networks: Networks, scan: CTScan, heart: sitk.Image) -> Networks:
    """The networks with a threshold that chooses about CHOSEN_SHARE of the slices, clear of all probabilities."""
    ordered = np.unique(slices.slice_probabilities(scan, heart, networks.slices).on_grid)[::-1]
    first = max(1, round(CHOSEN_PROPORTION / 2 * len(ordered)))
    last = max(first + 1, round(CHOSEN_PROPORTION * 1.5 * len(ordered)))
    gaps = ordered[first - 1 : last - 1] - ordered[first:last]
    place = first + int(gaps.argmax())
    threshold = float(ordered[place - 1] + ordered[place]) / 2
    card = replace(networks.slices.card, calibration={"slice_threshold": threshold})
    return replace(networks, slices=replace(networks.slices, card=card))


def largest_differences(ours: Way, plain: Way, results: list[ScoreResult]) -> str:
    probabilities = [way.found["slices"].on_grid for way in (ours, plain)]
    maps = [sitk.GetArrayViewFromImage(result.decomposition.calcium_map) for result in results]
    chosen = [result.decomposition.decomposed for result in results]
    lines = [
        f"  slices decomposed {chosen[0].sum()} of {len(chosen[0])}, differently {(chosen[0] != chosen[1]).sum()}",
        f"  largest difference of slice probability {np.abs(probabilities[0] - probabilities[1]).max():.4f}",
        f"  largest difference of the map {np.abs(maps[0] - maps[1]).max():.3f} HU, its highest {maps[1].max():.0f} HU",
    ]
    for method in ("threshold", "decomposition"):
        for score in ("agatston", "pseudo_mass_hu_mm3"):
            a, b = (getattr(result.methods[method].total, score) for result in results)
            lines.append(f"  {method} {score}: {a:.2f}, plainly {b:.2f}")
    return "\n".join(lines)


def _seconds(runs: np.ndarray) -> str:
    clock, processor = np.median(runs, 0)
    return f"{clock:8.2f} ({processor:7.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ct", nargs="?", help="DICOM folder, NIfTI, NRRD or MHA; a digital patient without")
    parser.add_argument("--preset", default="paper", choices=sorted(PRESETS))
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--heights", type=float, nargs=2, default=CHEST_MM, help="of the digital patient, mm")
    parser.add_argument("--ours-only", action="store_true", help="without the rival")
    arguments = parser.parse_args()
    if arguments.ct:
        scan = read_ct(Path(arguments.ct))
    else:
        patient, digital, _ = make_scan(3, 1, CohortSettings(z_range_mm=tuple(arguments.heights)))
        scan = as_ct_scan(digital, patient)
    start_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    territories = find_model("territories").path
    with tempfile.TemporaryDirectory() as folder:
        paths = {**untrained_models(arguments.preset, Path(folder)), "territories": territories}
        loaded = Networks(heart=None, **{name: load_model(path) for name, path in paths.items()})
        trained = {name: LoadedModel(*read_network(path)) for name, path in paths.items()}
    for model in trained.values():
        model.network.eval()
    plain = Networks(heart=None, **trained)
    loaded = with_threshold(loaded, scan, find_heart(scan, None, None, loaded.territories).mask)
    plain = replace(plain, slices=replace(plain.slices, card=loaded.slices.card))
    ways = [Way(loaded, False), Way(plain, True)]
    peak_mb = 0.0
    for _ in range(arguments.runs):
        results = []
        for way in ways[: 1 if arguments.ours_only else 2]:
            results.append(way.run(scan))
            peak_mb = peak_mb or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    size = "×".join(map(str, scan.image.GetSize()))
    spacing = "×".join(f"{s:.2f}" for s in scan.image.GetSpacing())
    threads = torch.get_num_threads()
    print(f"{size} voxels of {spacing} mm, {arguments.preset}, {threads} threads, median of {arguments.runs}")
    print("  median seconds by the clock (of the processor)")
    for name in ways[0].seconds:
        ours = np.array(ways[0].seconds[name])
        line = f"  {name:<8}{_seconds(ours)}"
        if not arguments.ours_only:
            plainly = np.array(ways[1].seconds[name])
            clock, processor = np.median(plainly / ours, 0)
            line += f"   plainly {_seconds(plainly)}   ratio {clock:6.2f} ({processor:.2f})"
        print(line)
    print(f"  peak memory of ours {peak_mb:.0f} MB ({start_mb:.0f} MB before it began)")
    if not arguments.ours_only:
        print(largest_differences(*ways, results))


if __name__ == "__main__":
    main()
