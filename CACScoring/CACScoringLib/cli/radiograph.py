"""`cac score --radiograph`: write a folder with the probability of coronary calcium from a chest radiograph."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..core.errors import ModelError, OutputError
from ..core.files import LAST_FILE, OutputFolder, file_sha256, write_text_atomically
from ..core.progress import Progress
from ..core.warning_codes import ScanWarning, run_check
from ..models.cards import ModelCard, load_model
from ..models.inference import choose_device
from ..networks.configs import RADIOGRAPH, STANDARD_MM
from ..radiograph.settings import RadiographInput
from ..record.provenance import provenance_of
from .options import ScoreOptions, from_file

if TYPE_CHECKING:
    from ..radiograph.score import Factors, RadiographResult
    from ..radiograph.view import ChestRadiograph

STEPS = ("reading", "scoring", "report")

FOR_A_CT = (
    *("ct", "series", "heart", "pericardium", "lesions", "earlier", "dicom"),
    *("arteries_by_territory", "allow_unusual", "threshold_only", "whole_scan"),
)
"""Options of `cac score` that a radiograph does not take."""


def radiograph_input(options: ScoreOptions) -> RadiographInput:
    """Read the radiographs and clinical factors. Raises OutputError."""
    settings = from_file(options.settings, "radiograph", RadiographInput())
    return replace(settings, pa=options.radiograph or settings.pa)


def run(options: ScoreOptions, progress: Progress) -> None:
    """Score the radiographs of the options. Raises CTError, OutputError."""
    from ..report.radiograph import result_as_text
    from ..run import RunSettings

    if foreign := [name.replace("_", "-") for name in FOR_A_CT if getattr(options, name) not in (None, False)]:
        raise OutputError(f"{', '.join(foreign)}: for a CT only. Give either a CT or a radiograph.")
    if len(options.model) > 1:
        raise OutputError("Several models are named; a radiograph is scored by one. Name one with --model.")
    patient = radiograph_input(options)
    name = next(iter(patient.pictures.values())).name.removesuffix(".gz")
    output = options.output or Path(f"{Path(name).stem}-cac")
    identify = from_file(options.settings, "results", RunSettings()).identify
    model = options.model[0] if options.model else None
    result = score_files(patient, output, model, options.device, options.overwrite, identify, progress)
    print(result_as_text(result))
    print(f"Results: {output}")


def score_files(
    patient: RadiographInput,
    output: Path,
    model: str | None = None,
    device: str = "auto",
    overwrite: bool = False,
    identify: bool = False,
    progress: Progress | None = None,
) -> RadiographResult:
    """Score a patient's radiographs and write the results.

    Args:
        patient: Radiographs and clinical factors.
        output: Folder for the results; created if missing.
        model: Name of the model; None takes the installed one for these views.
        device: Device of the network.
        overwrite: Replace results that are in the folder.
        identify: Write the patient's name and ID into the report.
        progress: Receives STEPS.

    Raises:
        CTError: A radiograph, a factor or the model cannot be used.
        OutputError: The results cannot be written.
    """
    progress = progress or Progress()
    folder = OutputFolder(output, overwrite)
    from ..radiograph.reading import read_radiograph
    from ..radiograph.score import model_for, score_radiograph

    _check_factors(patient)
    stored = model_for(set(patient.pictures), model)
    _check_packages(stored.card)
    progress.begin(list(STEPS))
    with progress.step("reading"):
        radiographs = {view: read_radiograph(path) for view, path in patient.pictures.items()}
        factors, warnings = _factors(patient, radiographs)
        first = next(iter(radiographs))
        radiographs[first] = radiographs[first].with_warnings(*warnings)
        loaded = load_model(stored.path, device)
    result = score_radiograph(radiographs, factors, loaded, progress)
    made_with = asdict(patient) | {"identify": identify}
    cards = {RADIOGRAPH: file_sha256(stored.path)}
    provenance = provenance_of(made_with, patient.pictures, cards, choose_device(device))
    result = replace(result, provenance=provenance)
    with folder.being_written() as temporary:
        _write(temporary, result, progress, identify)
    for warning in result.warnings:
        progress.warning(warning)
    progress.done(output)
    return result


def _factors(
    patient: RadiographInput, radiographs: Mapping[str, ChestRadiograph]
) -> tuple[Factors | None, tuple[ScanWarning, ...]]:
    """Return the factors, settings before DICOM (None unless all three are known), and warnings."""
    from ..radiograph.score import Factors

    stated_age = next((r.age_years for r in radiographs.values() if r.age_years is not None), None)
    stated_sex = next((r.sex for r in radiographs.values() if r.sex is not None), None)
    age = stated_age if patient.age_years is None else patient.age_years
    sex = patient.sex or stated_sex
    factors = {"age": age, "sex": sex, "body mass index": patient.bmi_kg_m2}
    missing = " and ".join(name for name, value in factors.items() if value is None)
    is_any_given = (patient.age_years, patient.sex, patient.bmi_kg_m2) != (None, None, None)
    difference_years = None if stated_age is None or age is None else abs(age - stated_age)
    warnings = run_check("factors-differ", difference_years, age=age, stated_age=stated_age)
    if stated_sex is not None and sex != stated_sex:
        message = f"The sex given is {sex}, but the file states {stated_sex}. The given value is used."
        warnings.append(ScanWarning("factors-differ", message))
    if missing and is_any_given:
        message = f"Age, sex and body mass index are used only together. None of them was used for lack of {missing}."
        warnings.append(ScanWarning("factors-incomplete", message))
    if age is None or sex is None or patient.bmi_kg_m2 is None:
        return None, tuple(warnings)
    return Factors(age, sex, patient.bmi_kg_m2), tuple(warnings)


def _write(folder: Path, result: RadiographResult, progress: Progress, identify: bool) -> None:
    """Write all files of a result, LAST_FILE at the end."""
    from ..report import radiograph as report

    with progress.step("report"):
        for name, view in result.views.items():
            _write_image(folder / f"view_{name}.nii.gz", view.standard[None])
            _write_image(folder / f"evidence_{name}.nii.gz", view.evidence[None])
        write_text_atomically(folder / "report.html", report.result_as_html(result, identify))
    document = report.result_as_json(result, progress.seconds, identify)
    write_text_atomically(folder / LAST_FILE, report.json_text(document))


def _write_image(path: Path, values: np.ndarray) -> None:
    """Write pixels of a view [slice, row, column] with their spacing on the detector."""
    import SimpleITK as sitk

    from ..io.image_files import write_image

    image = sitk.GetImageFromArray(values)
    image.SetSpacing((STANDARD_MM, STANDARD_MM, 1.0))
    write_image(image, path)


def _check_factors(patient: RadiographInput) -> None:
    """Raise CTError for factors out of range for adults, used or not."""
    from ..radiograph.score import Factors

    age = 50.0 if patient.age_years is None else patient.age_years
    Factors(age, patient.sex or "F", 25.0 if patient.bmi_kg_m2 is None else patient.bmi_kg_m2)


def _check_packages(card: ModelCard) -> None:
    """Raise ModelError if a Python package that the model needs is not installed."""
    packages = {"torch": "torch", "safetensors": "safetensors"}  # import name to package
    if card.config["enhancement"] != "none":
        packages["skimage"] = "scikit-image"
    if card.config["backbone"] != "light":
        packages["monai"] = "monai"
    if missing := [name for key, name in packages.items() if importlib.util.find_spec(key) is None]:
        raise ModelError(f"{card.name} needs the Python packages {' and '.join(missing)}. Install them.")
