"""What is changed, how, and which command then reads it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import SimpleITK as sitk
from structure_set import write_structures

from . import changes, oracle, scored, tables, whole_scans
from .target import Target, of


def _ct(kind: str) -> Callable[[Path], None]:
    return lambda folder: scored.write_ct(folder, kind)


def _image(kind: str) -> Target:
    return Target(_ct(kind), of("ct.*", changes.changed_bytes), scored.score, scored.silent_change)


def _reviewed(folder: Path) -> list[str]:
    return scored.score(folder, "--lesions", str(next(folder.glob("labels.*"))))


def _dicom_lesions(write: Callable[[Path], None]) -> Target:
    return Target(write, of("labels.dcm", changes.either(changes.changed_bytes, changes.changed_elements)), _reviewed)


def _write_segmentation(folder: Path) -> None:
    scored.write_ct(folder, "dicom")
    oracle.run([*_reviewed(folder), "--dicom"])
    shutil.move(folder / "out" / "segmentation.dcm", folder / "labels.dcm")
    (folder / "labels.nii.gz").unlink()
    shutil.rmtree(folder / "out")


def _write_structures(folder: Path) -> None:
    """Contours of the reader's lesions: a square around each artery's in every slice that has some."""
    scored.write_ct(folder, "dicom")
    labels = sitk.ReadImage(str(folder / "labels.nii.gz"))
    array, drawn = sitk.GetArrayFromImage(labels), []
    for number, name in ((1, "LM"), (2, "LAD")):
        squares = []
        for k in np.flatnonzero((array == number).any(axis=(1, 2))):
            j, i = np.nonzero(array[k] == number)
            low, high = (i.min() - 0.4, j.min() - 0.4), (i.max() + 0.4, j.max() + 0.4)
            squares.append([(*low, k), (high[0], low[1], k), (*high, k), (low[0], high[1], k)])
        drawn.append((name, squares))
    write_structures(folder / "labels.dcm", labels, drawn)
    (folder / "labels.nii.gz").unlink()


def _write_results(folder: Path) -> None:
    scored.write_ct(folder, "nii")
    for name in ("a", "b"):
        oracle.run([*_reviewed(folder), "--output", str(folder / name)])
        shutil.rmtree(folder / "out", ignore_errors=True)


def _compare(folder: Path) -> list[str]:
    return ["compare", *(str(folder / name) for name in "ab"), "--output", str(folder / "out"), "--progress", "none"]


def _write_earlier(folder: Path) -> None:
    scored.write_ct(folder, "nii")
    oracle.run(_reviewed(folder))
    shutil.move(folder / "out", folder / "earlier")


def _followed(folder: Path) -> list[str]:
    return [*_reviewed(folder), "--earlier", str(folder / "earlier")]


def _write_acquisition(folder: Path) -> None:
    scored.write_ct(folder, "nii")
    facts = {"kvp": 120.0, "kernel": "B30f", "slice_thickness_mm": 2.5, "patient_age_years": 61, "gating": None}
    (folder / "acquisition.json").write_text(json.dumps(facts), encoding="utf-8")


def _acquired(folder: Path) -> list[str]:
    return scored.score(folder, "--settings", json.dumps({"scan": {"acquisition": str(folder / "acquisition.json")}}))


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
    *("--series", "--settings", "--heart", "--lesions", "--model", "--earlier", "--device", "--progress"),
    *("--overwrite", "--allow-unusual", "--threshold-only", "--sample", "--dicom", "--unknown", "ct.nii"),
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
    "dicom elements": Target(_ct("dicom"), of("ct/*", changes.changed_elements), _identified, scored.silent_change),
    "dicom bytes": Target(_ct("dicom"), of("ct/*", changes.changed_bytes), scored.score, scored.silent_change),
    "dicom slices": Target(_ct("dicom"), of("ct", changes.changed_series), scored.score, scored.silent_change),
    "nifti": _image("nii"),
    "nifti, compressed": _image("nii.gz"),
    "nrrd": _image("nrrd"),
    "metaimage": _image("mha"),
    "heart": Target(_ct("nrrd"), of("heart.nii.gz", changes.changed_bytes), scored.score),
    "label map": Target(_ct("nrrd"), of("labels.nii.gz", changes.changed_bytes), _reviewed),
    "segmentation": _dicom_lesions(_write_segmentation),
    "structure set": _dicom_lesions(_write_structures),
    "earlier result": Target(
        _write_earlier,
        changes.either(of("earlier/scores.json", changes.changed_json), of("earlier/*[!g]", changes.changed_bytes)),
        _followed,
    ),
    "result": Target(
        _write_results,
        changes.either(of("b/scores.json", changes.changed_json), of("b/*[!g]", changes.changed_bytes)),
        _compare,
    ),
    "acquisition": Target(
        _write_acquisition,
        of("acquisition.json", changes.either(changes.changed_json, changes.changed_bytes)),
        _acquired,
    ),
    "model": Target(
        _write_model,
        changes.either(of("own.json", changes.changed_json), of("own.*", changes.changed_bytes)),
        _install,
    ),
    "options": Target(_write_options, _changed_options, _optional),
    "project": Target(
        _write_project,
        changes.either(of("project/**/*.json", changes.changed_json), of("project/**/*.*", changes.changed_bytes)),
        _check,
    ),
    **tables.TARGETS,
    **whole_scans.TARGETS,
}
