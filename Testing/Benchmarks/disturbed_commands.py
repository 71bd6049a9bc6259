"""Commands that kills.py and full_disks.py disturb: their small inputs, and what their results must be."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

# The rest is imported where it is used: workers that a command spawns import this file too.

Command = Callable[[Path], list[str]]
Facts = Mapping[str, object]

VOLATILE = {"created", "seconds", "date", "time", "software", "progress", "facts"}
"""Keys of records that differ from run to run."""


@dataclass(frozen=True)
class Target:
    """A command to disturb. write: its input, into an empty folder. command: its arguments. again: to run it once more.

    facts: of its output, what has to be the same again; raises where it is not whole. None where there is none yet.
    """

    write: Callable[[Path], None]
    command: Command
    again: Command
    facts: Callable[[Path], Facts | None]


def environment(folder: Path) -> dict[str, str]:
    """Of a command: its own places for models and caches."""
    own = {"CAC_MODEL_DIR": str(folder / "user"), "XDG_CACHE_HOME": str(folder / "caches")}
    fonts = Path(tempfile.gettempdir(), "cac-disturbed-fonts")  # of all runs, for looking them up takes seconds
    return own | {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1", "MPLCONFIGDIR": str(fonts)}


def cac(arguments: list[str]) -> int:
    """Run a command in this process."""
    from CACTrainingLib.cli.main import main

    return main(arguments)


def content(path: Path) -> object:
    """Of a file: a JSON file without what differs from run to run, of others a hash."""
    if path.suffix == ".json":
        return _steady(json.loads(path.read_text(encoding="utf-8")))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _steady(value: object) -> object:
    if isinstance(value, dict):
        return {key: _steady(inner) for key, inner in value.items() if key not in VOLATILE}
    return [_steady(inner) for inner in value] if isinstance(value, list) else value


def result_facts(folder: Path) -> Facts | None:
    """Of a scored scan; the record is written last, and says what the others must hold."""
    if not (folder / "scores.json").exists():
        return None
    names = {path.name for path in folder.iterdir()}
    assert {"scores.json", "report.html", "lesions.csv", "lesions.nii.gz", "heart.nii.gz"} <= names, sorted(names)
    return {name: content(folder / name) for name in ("scores.json", "lesions.csv", "lesions.nii.gz")}


def _write_scan(folder: Path) -> None:
    from fuzz import scored

    scored.write_ct(folder, "nrrd")


def _score(folder: Path) -> list[str]:
    from fuzz import scored

    return [each for each in scored.score(folder) if each != "--no-scene"]


def _score_again(folder: Path) -> list[str]:
    return [*_score(folder), "--overwrite"]


def _write_scored(folder: Path) -> None:
    """A scan with an earlier result, of other candidates."""
    _write_scan(folder)
    assert cac([*_score(folder), "--no-scene", "--rule", "minimum_pixels=30"]) == 0


def model_facts(card: Path) -> Facts | None:
    """Of a model, whose card is written last."""
    from CACScoringLib.models.store import weights_of

    if not card.exists():
        return None
    stored = json.loads(card.read_text(encoding="utf-8"))
    weights = weights_of(card, stored["sha256"]).read_bytes()
    assert hashlib.sha256(weights).hexdigest() == stored["sha256"], "the weights are not those of the card"
    return {"sha256": stored["sha256"], "calibration": stored["calibration"]}


def _write_training(folder: Path) -> None:
    """Scans that are prepared already."""
    from training_scans import write_scan

    for n in range(6):
        write_scan(folder / "scans" / f"p{n}", n, coronary=n % 3 > 0, valve=n % 3 == 0)
    assert cac(_train(folder)) == 0
    shutil.rmtree(folder / "map.training")
    for path in folder.glob("map.*"):
        path.unlink()


def _train(folder: Path) -> list[str]:
    steps = ["--steps", "12", "--validate-every", "4", "--batch-size", "2", "--device", "cpu"]
    places = ["--data", str(folder / "scans"), "--output", str(folder / "map"), "--cache", str(folder / "cache")]
    return ["train", "decomposition", *places, *steps, "--crop", "64", "--workers", "1", "--progress", "none"]


def _resumed(folder: Path) -> list[str]:
    begun = (folder / "map.training" / "checkpoint.pt").exists()
    return [*_train(folder), "--resume" if begun else "--overwrite"]


def _write_model(folder: Path) -> None:
    """A model to install, and an earlier one of its name that is installed."""
    from handmade_networks import untrained

    untrained("decomposition", "own", folder / "first")
    untrained("decomposition", "own", folder / "second")
    assert cac(["models", "install", str(folder / "first" / "own.json")]) == 0


def _install(folder: Path) -> list[str]:
    return ["models", "install", str(folder / "second" / "own.json"), "--overwrite"]


def _write_calibration(folder: Path) -> None:
    """Two networks, and digital patients of which all but one are measured already."""
    import torch
    from digital_pairs import write_coarse

    from CACScoringLib.models import cards
    from CACScoringLib.networks.van_velzen import GeneratorConfig, SliceClassifierConfig, build
    from CACTrainingLib.phantom.cohort.samples import SAMPLES

    for name in ("vessels", "motion", "aortic-valve", "no-calcium"):
        write_coarse(SAMPLES[name].number, folder / "data" / name)
    configs = {"slices": SliceClassifierConfig(width=4, residual_blocks=0, size=64)}
    for network, config in {**configs, "decomposition": GeneratorConfig(width=4, residual_blocks=0)}.items():
        training = cards.Training("none", 0, {}, "")
        card = cards.describe(network, config, "custom", training, {}, {}, "Apache-2.0", "Tests only.")
        made = build(config)
        if network == "decomposition":
            torch.nn.init.constant_(made.last.bias, -3.0)  # 47 HU everywhere
            torch.nn.init.zeros_(made.last.weight)
        cards.save_model(made, card, folder / "models")
    assert cac(_calibrate(folder)) == 0
    measured = sorted((folder / "cache").glob("*.json"))
    measured[0].unlink()
    for network in ("slices", "decomposition"):
        cards.update_card(folder / "models" / f"{network}.json", {"slice_threshold": 0.99}, {})


def _calibrate(folder: Path) -> list[str]:
    models = [f"--{name}={folder / 'models' / f'{name}.json'}" for name in ("slices", "decomposition")]
    places = ["--data", str(folder / "data"), "--cache", str(folder / "cache")]
    return ["calibrate", *models, *places, "--progress", "none"]


def _calibrated(folder: Path) -> Facts | None:
    """Of the generator's card, which is written last; and that the classifier's is whole."""
    model_facts(folder / "models" / "slices.json")
    return model_facts(folder / "models" / "decomposition.json")


def _write_study(folder: Path) -> None:
    """Two digital patients scanned twice, and their results as of `cac cohort`."""
    from digital_pairs import write_pairs, write_results

    from CACTrainingLib.studies.scans import find_study_scans

    scans, _ = find_study_scans(write_pairs(folder / "cohort"))
    folders = write_results(scans, folder / "results")
    with (folder / "results" / "cohort.csv").open("w", encoding="utf-8", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["folder", "ct", "state", "reason"])
        cts = [f"../cohort/{scan.ct.relative_to(folder / 'cohort')}" for scan in scans]
        table.writerows([place.name, ct, "done", ""] for place, ct in zip(folders, cts, strict=True))


def _evaluate(folder: Path) -> list[str]:
    os.chdir(folder / "results")  # which the table's paths begin at
    places = ["--data", str(folder / "cohort"), "--results", str(folder / "results"), "--output", str(folder / "study")]
    return ["evaluate", "detection", *places, "--workers", "1", "--device", "cpu", "--progress", "none"]


def _studied(folder: Path) -> Facts | None:
    """Of a study, whose list of files is written last."""
    place = folder / "study"
    if not (place / "study.json").exists():
        return None
    index = json.loads((place / "study.json").read_text(encoding="utf-8"))
    files = [file for section in index["sections"] for kind in ("tables", "figures") for file in section[kind]]
    assert "</html>" in (place / "study.html").read_text(encoding="utf-8")
    assert all((place / file).stat().st_size > 0 for file in files), "a table or figure is missing"
    return {"study.json": json.dumps(_steady(index)).replace(str(folder), "")} | {
        file: content(place / file) for file in files if file.endswith(".csv")
    }


TARGETS = {
    "score": Target(_write_scan, _score, _score_again, lambda f: result_facts(f / "out")),
    "score, over an earlier result": Target(
        _write_scored, _score_again, _score_again, lambda folder: result_facts(folder / "out")
    ),
    "train": Target(_write_training, _train, _resumed, lambda folder: model_facts(folder / "map.json")),
    "models install": Target(_write_model, _install, _install, lambda f: model_facts(f / "user" / "own.json")),
    "calibrate": Target(_write_calibration, _calibrate, _calibrate, _calibrated),
    "evaluate": Target(_write_study, _evaluate, _evaluate, _studied),
}
