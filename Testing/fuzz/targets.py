"""What is changed, how, and which command then reads it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

from . import changes, oracle, scored

Arguments = Callable[[Path], list[str]]


@dataclass(frozen=True)
class Target:
    """A kind of input.

    write: makes sound input in an empty folder. change: changes something in a copy of it. arguments: of the command
    that reads it and writes into `out`. judge: what is wrong with its results, beside what is wrong anywhere.
    """

    write: Callable[[Path], None]
    change: changes.Change
    arguments: Arguments
    judge: Callable[[Path], str] | None = None

    def prepare(self, folder: Path) -> None:
        """Write the sound input, see that it is taken, and keep its warnings. Raises AssertionError."""
        self.write(folder)
        outcome = oracle.run(self.arguments(folder))
        wrong = oracle.complaint(outcome, folder)
        assert outcome.code == oracle.DONE, outcome
        assert not wrong, wrong
        record = folder / "out" / "scores.json"
        if record.exists():
            warnings = json.loads(record.read_text(encoding="utf-8"))["warnings"]
            (folder / "usual.json").write_text(json.dumps([warning["code"] for warning in warnings]))
        shutil.rmtree(folder / "out", ignore_errors=True)

    def trial(self, sound: Path, folder: Path, random: Random) -> tuple[str, str]:
        """Change a copy of sound input, in a folder that is not there yet. Returns what was done and what is wrong."""
        shutil.copytree(sound, folder)
        done = self.change(folder, random)
        outcome = oracle.run(self.arguments(folder))
        wrong = oracle.complaint(outcome, folder)
        if not wrong and outcome.code == oracle.DONE and self.judge is not None:
            wrong = self.judge(folder)
        return done, wrong


def _of(pattern: str, change: changes.Change) -> changes.Change:
    """A change of one of the files that a pattern finds."""

    def changed(folder: Path, random: Random) -> str:
        return change(random.choice(sorted(folder.glob(pattern))), random)

    return changed


def _ct(kind: str) -> Callable[[Path], None]:
    return lambda folder: scored.write_ct(folder, kind)


def _image(kind: str) -> Target:
    return Target(_ct(kind), _of("ct.*", changes.changed_bytes), scored.score, scored.silent_change)


def _reviewed(folder: Path) -> list[str]:
    return scored.score(folder, "--lesions", str(next(folder.glob("labels.*"))))


def _write_segmentation(folder: Path) -> None:
    scored.write_ct(folder, "dicom")
    oracle.run([*_reviewed(folder), "--dicom"])
    shutil.move(folder / "out" / "segmentation.dcm", folder / "labels.dcm")
    (folder / "labels.nii.gz").unlink()
    shutil.rmtree(folder / "out")


def _write_results(folder: Path) -> None:
    scored.write_ct(folder, "nii")
    for name in ("a", "b"):
        oracle.run([*_reviewed(folder), "--output", str(folder / name)])
        shutil.rmtree(folder / "out", ignore_errors=True)


def _compare(folder: Path) -> list[str]:
    return ["compare", *(str(folder / name) for name in "ab"), "--output", str(folder / "out"), "--progress", "none"]


def _write_acquisition(folder: Path) -> None:
    scored.write_ct(folder, "nii")
    facts = {"kvp": 120.0, "kernel": "B30f", "slice_thickness_mm": 2.5, "patient_age_years": 61, "gating": None}
    (folder / "acquisition.json").write_text(json.dumps(facts), encoding="utf-8")


def _acquired(folder: Path) -> list[str]:
    return scored.score(folder, "--acquisition", str(folder / "acquisition.json"))


def _write_model(folder: Path) -> None:
    from handmade_networks import untrained

    untrained("decomposition", "own", folder)


def _install(folder: Path) -> list[str]:
    os.environ["XDG_DATA_HOME"] = str(folder / "user")
    return ["models", "install", str(folder / "own.json")]


def _write_project(folder: Path) -> None:
    from training_scans import write_scan

    for n in range(2):
        write_scan(folder / "scans" / f"p{n}", n, coronary=bool(n), valve=False)
    oracle.run(["project", "new", str(folder / "project")])
    oracle.run(["project", "add", str(folder / "project"), *(str(folder / "scans" / f"p{n}") for n in range(2))])


def _check(folder: Path) -> list[str]:
    return ["project", "check", str(folder / "project")]


OPTIONS = (
    *("--series", "--rule", "--calibration", "--mass-table", "--acquisition", "--heart", "--lesions", "--model"),
    *(
        "--normalisation",
        "--reader",
        "--earlier",
        "--device",
        "--progress",
        "--overwrite",
        "--identify",
        "--candidates",
    ),
    *("--allow-contrast", "--adapt-to-tube-voltage", "--threshold-only", "--sample", "--dicom", "--unknown", "ct.nii"),
)


def _write_options(folder: Path) -> None:
    scored.write_ct(folder, "nii")
    (folder / "options.json").write_text("[]", encoding="utf-8")


def _changed_options(folder: Path, random: Random) -> str:
    values = (*changes.HOSTILE, *map(str, changes.NUMBERS), "threshold_hu=nan", "minimum_pixels=-1", str(folder))
    chosen = [random.choice((*OPTIONS, random.choice(values))) for _ in range(random.choice((1, 2, 3, 4)))]
    chosen = [option.replace("\x00", "") for option in chosen]  # no command line holds it
    (folder / "options.json").write_text(json.dumps(chosen), encoding="utf-8")
    return str(chosen)


def _optional(folder: Path) -> list[str]:
    return scored.score(folder, *json.loads((folder / "options.json").read_text(encoding="utf-8")))


def _identified(folder: Path) -> list[str]:
    return scored.score(folder, "--identify")


TARGETS = {
    "dicom elements": Target(_ct("dicom"), _of("ct/*", changes.changed_elements), _identified, scored.silent_change),
    "dicom bytes": Target(_ct("dicom"), _of("ct/*", changes.changed_bytes), scored.score, scored.silent_change),
    "dicom slices": Target(_ct("dicom"), _of("ct", changes.changed_series), scored.score, scored.silent_change),
    "nifti": _image("nii"),
    "nifti, compressed": _image("nii.gz"),
    "nrrd": _image("nrrd"),
    "metaimage": _image("mha"),
    "heart": Target(_ct("nrrd"), _of("heart.nii.gz", changes.changed_bytes), scored.score),
    "label map": Target(_ct("nrrd"), _of("labels.nii.gz", changes.changed_bytes), _reviewed),
    "segmentation": Target(
        _write_segmentation,
        _of("labels.dcm", changes.either(changes.changed_bytes, changes.changed_elements)),
        _reviewed,
    ),
    "result": Target(
        _write_results,
        changes.either(_of("b/scores.json", changes.changed_json), _of("b/*[!g]", changes.changed_bytes)),
        _compare,
    ),
    "acquisition": Target(
        _write_acquisition,
        _of("acquisition.json", changes.either(changes.changed_json, changes.changed_bytes)),
        _acquired,
    ),
    "model": Target(
        _write_model,
        changes.either(_of("own.json", changes.changed_json), _of("own.*", changes.changed_bytes)),
        _install,
    ),
    "options": Target(_write_options, _changed_options, _optional),
    "project": Target(
        _write_project,
        changes.either(_of("project/**/*.json", changes.changed_json), _of("project/**/*.*", changes.changed_bytes)),
        _check,
    ),
}
