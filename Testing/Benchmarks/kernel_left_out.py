"""Write what a lesion network loses on scans with a reconstruction kernel that it was never trained on.

    python Testing/Benchmarks/kernel_left_out.py CSV FOLDER [--patients N] [--test N] [--steps N]

Makers of scanners differ in their kernels above all. Small networks learn from digital patients, as `cac train lesions`
draws them: one from those with all kernels, the others from as many without one kernel. They are tested on unseen
patients, scanned with that kernel and with the others, and nothing is chosen by them. Training goes on to its last
step, whose weights are tested. FOLDER keeps the trainings; called again, they go on where they ended.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
from by_scanner import origin, stated, write_rows
from lesion_network import VALIDATION_PATIENTS

from CACScoringLib.core.progress import Progress
from CACScoringLib.models.cards import LoadedModel, find_model, load_model
from CACScoringLib.networks.configs import LesionNetConfig, build
from CACScoringLib.scoring.parts import CORONARY_KINDS
from CACScoringLib.statistics.bootstrap import Bootstrap, ratio
from CACTrainingLib.data.datasets import default_cache
from CACTrainingLib.data.lesion_batches import LesionData
from CACTrainingLib.data.lesion_rows import ARTERY_KINDS, NUMBERS_APART, patient_rows, patients
from CACTrainingLib.phantom import DIFFICULTIES, Difficulty, draw_lesion_scan
from CACTrainingLib.training.lesions import LEAST_PROBABILITY, LesionTask, LesionTraining, lesion_answers
from CACTrainingLib.training.loop import train
from CACTrainingLib.training.run_folder import has_checkpoint
from CACTrainingLib.training.settings import LoopSettings

SEED = 0
LEFT_OUT = ("sharp", "medium")
"""Kernels left out. Half of all patients have soft ones, so that others without them would be too few."""
WIDTH = 8
"""Channels of the network's first layer, half of the bundled one's."""

Drawn = tuple[int, Difficulty | None]
"""Number and difficulty of a digital patient."""


def main() -> None:
    """Train what is not trained yet, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("csv", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--patients", type=int, default=90)
    parser.add_argument("--test", type=int, default=32)
    parser.add_argument("--steps", type=int, default=700)
    arguments = parser.parse_args()
    territories = load_model(find_model("territories").path, "cpu")
    tasks = {
        kernel: _trained(kernel, arguments.patients, arguments.steps, arguments.folder, territories)
        for kernel in (None, *LEFT_OUT)
    }
    settings = f"width {WIDTH}; {arguments.patients} patients, {arguments.steps} steps of 16 patches; "
    settings += f"{arguments.test} patients of each kernel tested; territories {territories.card.sha256[:8]}"
    about = origin("Testing/Benchmarks/kernel_left_out.py CSV FOLDER", settings, SEED)
    tested = {kernel: _of_kernel(kernel, arguments.test) for kernel in ("soft", *LEFT_OUT)}
    rows = []
    for kernel in LEFT_OUT:
        with_others = [patient for name, part in tested.items() if name != kernel for patient in part]
        for title, part in ((f"{kernel} kernels", tested[kernel]), (f"other kernels than {kernel}", with_others)):
            row = {"tested on": title, "left out": kernel, "patients": len(part)}
            measured = _compared(tasks[None], tasks[kernel], part, territories)
            rows.append({**row, **dict(measured), **about})
    write_rows(arguments.csv, rows)


def kernel_of(patient: Drawn) -> str:
    """Return the name of the kernel that a patient is scanned with."""
    return draw_lesion_scan(*patient)[0].kernel.name


def _of_kernel(kernel: str, count: int) -> list[Drawn]:
    """Return the first unseen patients with a kernel."""
    unseen = patients("validation", NUMBERS_APART)[VALIDATION_PATIENTS:]
    return list(islice((patient for patient in unseen if kernel_of(patient) == kernel), count))


def _trained(kernel: str | None, count: int, steps: int, folder: Path, territories: LoadedModel) -> LesionTask:
    """Return a finished training on the first patients without a kernel. kernel: None for patients with any."""
    drawn = patients("training", NUMBERS_APART)
    part = list(islice((patient for patient in drawn if kernel is None or kernel_of(patient) != kernel), count))
    data = _rows(part, territories)
    first = _rows(part[: len(DIFFICULTIES)], territories)  # the loop validates once, at its end; nothing is chosen
    loop = LoopSettings(steps, validate_every=steps, decay_from=0.3, seed=SEED)
    settings = LesionTraining(loop=loop, network=LesionNetConfig(width=WIDTH), patients=count, real_share=0.0)
    task = LesionTask(settings, data, first, build(settings.network))
    place = folder / f"without-{kernel}"
    outcome = train(task, loop, place, Progress(), "cpu", has_checkpoint(place, True))
    outcome.load_into(task.modules["lesions"])
    return task


def _rows(part: list[Drawn], territories: LoadedModel) -> LesionData:
    """Open the patches of patients, each a group of its own; make them if missing."""
    folder = default_cache() / "lesions"
    return LesionData({str(patient[0]): [patient_rows(*patient, folder, territories)] for patient in part})


def _compared(
    all_kernels: LesionTask, without: LesionTask, part: list[Drawn], territories: LoadedModel
) -> Iterator[tuple[str, str]]:
    """Yield each measure of two networks in patients, and their difference, with intervals over patients."""
    data, names = _rows(part, territories), [str(number) for number, _ in part]
    place = {name: n for n, name in enumerate(names)}
    bootstrap = Bootstrap(names, np.random.default_rng(SEED))
    sums, amounts = {}, {}
    for title, task in (("with all kernels", all_kernels), ("without this one", without)):
        kinds, labels, weights, of_patient = lesion_answers(task.modules["lesions"], data)
        patient = np.array([place[name] for name in of_patient.tolist()])
        coronary = kinds[:, CORONARY_KINDS].sum(axis=1)
        likelihood = kinds[np.arange(len(labels)), labels]
        measures = {
            "log likelihood": (np.full(len(labels), True), np.log(np.maximum(likelihood, LEAST_PROBABILITY))),
            "coronary calcium found": (labels < ARTERY_KINDS, coronary > 0.5),
            "something else as coronary": (~np.isin(labels, CORONARY_KINDS), coronary > 0.5),
        }
        for name, (is_of, values) in measures.items():
            amounts[name] = np.bincount(patient[is_of], weights[is_of], len(names))
            sums[name, title] = np.bincount(patient[is_of], (weights * values)[is_of], len(names))
    for name, amount in amounts.items():
        shown = {title: sums[name, title] for title in ("with all kernels", "without this one")}
        shown["difference"] = shown["without this one"] - shown["with all kernels"]
        for title, of_patients in shown.items():
            statistic = partial(ratio, numerator=of_patients, denominator=amount)
            yield f"{name}, {title}", stated(bootstrap.result(statistic, names).estimate, 3)


if __name__ == "__main__":
    main()
