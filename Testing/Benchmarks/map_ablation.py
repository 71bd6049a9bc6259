"""What each part of learning a calcium map from slice labels is worth: the same training without it, for the same time.

Run from the repository's root; every cell is a training that resumes, and one that is done is not repeated:

    PYTHONPATH=CACTraining:CACScoring python Testing/Benchmarks/map_ablation.py --data FOLDER ... --output FOLDER
        --minutes 20 | --steps 1000 [--seeds 0 1 2] [--cells labels …] [--classifier CARD] [--cache FOLDER]

--steps gives all cells the same computation where other work shares the machine: so many steps of the method `labels`,
and of the others as many as make the same number of operations (OPERATIONS).

The patients to validate on are the same for every cell of one seed. The weights are those of the best area under the
ROC curve by slice labels, so true maps choose nothing. Printed of each cell's own validation: how well the map's mass
tells slices (AUC), the share of the true map that is captured, the map's precision, overlap with the truth, and the map
on slices without calcium over the map on slices that show it; the mean over seeds, lowest and highest.
`weak_labels.py` reports maps on other patients.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

GAN = ["--method", "cyclegan"]
ALONE = [*GAN, "--label-weight", "0", "--spot-weight", "0", "--adversarial-weight", "1", "--cycle-weight", "10"]
ALONE += ["--identity-weight", "10", "--least-slope", "0.02", "--learning-rate", "2e-4"]
PUBLISHED = [*ALONE, "--negative-weight", "0", "--dither-hu", "0", "--first-bias", "0", "--least-slope", "0"]
PUBLISHED += ["--warmup-steps", "0", "--learning-rate", "1e-4", "--hard-share", "0"]

CELLS = {
    "labels": ["--method", "labels"],
    "labels, no spots": ["--method", "labels", "--spot-weight", "0"],
    "labels, spots alone": ["--method", "labels", "--label-weight", "0"],
    "labels, holes allowed": ["--method", "labels", "--negative-weight", "0"],
    "labels, no hard negatives": ["--method", "labels", "--hard-share", "0"],
    "labels, no noise variation": ["--method", "labels", "--noise-share", "0"],
    "labels, single slices": ["--method", "labels", "--neighbours", "0"],
    "labels and discriminators": GAN,
    "labels and discriminators, no cycle": [*GAN, "--cycle-weight", "0"],
    "discriminators alone": ALONE,
    "discriminators alone, from the classifier": [*ALONE, "--warmup-steps", "0"],
    "discriminators alone, identity 100": [*ALONE, "--identity-weight", "100"],
    "discriminators alone, identity 1": [*ALONE, "--identity-weight", "1"],
    "discriminators alone, sparsity 0": [*ALONE, "--sparsity-weight", "0"],
    "discriminators alone, sparsity 0.1": [*ALONE, "--sparsity-weight", "0.1"],
    "as published, compact": PUBLISHED,
    "labels and true maps": ["--method", "labels", "--truth-weight", "1"],
    "labels and true maps, tenfold": ["--method", "labels", "--truth-weight", "10"],
    "true maps": ["--method", "supervised"],
}
OPERATIONS = {"labels": 1.0, "cyclegan": 2.3, "supervised": 0.58}
"""Of a step, compact, beside one of `labels`: 18 crops of 112 pixels pass its generator forth and back; `cyclegan` has
two generators, two discriminators and the cycle (counted by PyTorch); `supervised` takes 8 crops of 128 pixels."""

FROM_CLASSIFIER = "discriminators alone, from the classifier"


def command(cell: str, seed: int, arguments: argparse.Namespace) -> tuple[list[str], Path]:
    """Arguments of `cac`, and the card that it writes."""
    name = f"{cell.replace(', ', '-').replace(' ', '-').replace('.', '')}-{seed}"
    card = arguments.output / f"{name}.json"
    own = ["train", "decomposition", "--output", str(card.with_suffix("")), "--seed", str(seed), *CELLS[cell]]
    for folder in arguments.data:
        own += ["--data", str(folder)]
    method = CELLS[cell][CELLS[cell].index("--method") + 1]
    steps = round(arguments.steps / OPERATIONS[method]) if arguments.steps else 1_000_000
    own += ["--minutes", f"{arguments.minutes:g}", "--steps", str(steps), "--validate-every", "250", "--workers", "1"]
    own += ["--cache", str(arguments.cache)] if arguments.cache else []
    own += ["--classifier", str(arguments.classifier)] if cell == FROM_CLASSIFIER else []
    if (arguments.output / f"{name}.training" / "checkpoint.pt").exists():
        own.append("--resume")
    return own, card


def figures(card: Path) -> dict[str, float]:
    """Of a finished training."""
    content = json.loads(card.read_text(encoding="utf-8"))
    metrics = content["validation"]["without_rule"]
    negative = (metrics["mass_distractor"] + metrics["mass_clean"]) / 2
    found = {name: metrics[name] for name in ("auc", "captured", "precision", "overlap", "correlation")}
    found["negative"] = negative / metrics["mass_visible"] if metrics["mass_visible"] else 0.0
    return {**found, "steps": content["training"]["settings"]["steps_done"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="folders of scans")
    parser.add_argument("--output", type=Path, required=True, help="folder of the trained maps")
    parser.add_argument("--minutes", type=float, default=20.0, help="of each training, at most")
    parser.add_argument("--steps", type=int, default=0, help="of `labels`; the same computation for the others")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument(
        "--cells", nargs="+", choices=CELLS, default=[cell for cell in CELLS if cell != FROM_CLASSIFIER]
    )
    parser.add_argument("--classifier", type=Path, help="card of a classifier of single slices")
    parser.add_argument("--cache", type=Path, help="of prepared scans")
    arguments = parser.parse_args()
    for seed in arguments.seeds:
        for cell in arguments.cells:
            own, card = command(cell, seed, arguments)
            if not card.exists():
                subprocess.run([sys.executable, "-m", "CACTrainingLib.cli", *own, "--progress", "none"], check=True)
    print(f"{'':44}{'steps':>8}{'AUC':>18}{'captured':>18}{'precision':>18}{'overlap':>18}{'negative':>18}")
    for cell in arguments.cells:
        found = [figures(command(cell, seed, arguments)[1]) for seed in arguments.seeds]
        texts = [f"{statistics.mean(f['steps'] for f in found):8.0f}"]
        for name in ("auc", "captured", "precision", "overlap", "negative"):
            values = [f[name] for f in found]
            texts.append(f"{statistics.mean(values):.3f} [{min(values):.2f}, {max(values):.2f}]".rjust(18))
        print(f"{cell:44}{''.join(texts)}")


if __name__ == "__main__":
    main()
