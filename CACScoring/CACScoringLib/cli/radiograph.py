"""`cac score --radiograph`: how probable coronary calcium is from a chest radiograph, into a folder of results.

Everything but the two arguments' reading works without a command line: `score_files`.
"""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.ct import ScanWarning
from ..core.files import write_text_atomically
from ..core.output import LAST_FILE, OutputError, OutputFolder
from ..core.progress import Progress
from ..models.cards import ModelCard, ModelError, load_model

if TYPE_CHECKING:
    from ..radiograph.score import Factors, RadiographResult
    from ..radiograph.view import ChestRadiograph

STEPS = ("reading", "scoring", "saliency", "report")

ALLOWED = frozenset(
    {"radiograph", "lateral", "age", "sex", "bmi", "model", "device", "output", "overwrite", "identify", "progress"}
)
"""Options of `cac score` that a radiograph takes; the others are about a CT."""


@dataclass(frozen=True)
class GivenFactors:
    """What a user told of the person; None: not told."""

    age_years: float | None = None
    sex: str | None = None
    bmi_kg_m2: float | None = None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add a radiograph's options to `cac score`, which has --age, --sex, --model and --output already."""
    group = parser.add_argument_group("a chest radiograph instead of a CT")
    group.add_argument(
        "--radiograph",
        type=Path,
        metavar="IMAGE",
        help="PA radiograph: DICOM (CR, DX), a greyscale PNG, JPEG or TIFF in which bone is bright, or a NIfTI, NRRD "
        "or MHA file of cac drr; --model then selects the radiograph model",
    )
    group.add_argument("--lateral", type=Path, metavar="IMAGE", help="lateral radiograph of the same patient")
    group.add_argument("--bmi", type=float, metavar="KG_M2", help="body mass index; used with --age and --sex")


def run(options: argparse.Namespace, progress: Progress) -> None:
    """Score the radiographs that were asked for. Raises CTError, OutputError."""
    from ..report.radiograph import result_as_text

    _check_options(options)
    given = {"PA": options.radiograph, "lateral": options.lateral}
    pictures = {view: path for view, path in given.items() if path is not None}
    first = next(iter(pictures.values()))
    output = options.output or Path(f"{_stem(first)}-cac")
    factors = GivenFactors(options.age, options.sex, options.bmi)
    model = options.model[0] if options.model else None
    result = score_files(
        pictures, output, factors, model, options.device, options.overwrite, options.identify, progress
    )
    print(result_as_text(result))
    print(f"Results: {output}")


def score_files(
    pictures: Mapping[str, Path],
    output: Path,
    factors: GivenFactors | None = None,
    model: str | None = None,
    device: str = "auto",
    overwrite: bool = False,
    identify: bool = False,
    progress: Progress | None = None,
) -> RadiographResult:
    """Score a patient's radiographs and write the results.

    pictures: files by view, "PA" or "lateral" or both. output: folder, made where it is not there. factors: what is not
    given of age and sex is taken from DICOM. model: its name; None takes the bundled one for these views. identify:
    with the patient's name and id in the report. progress: is told STEPS. Raises CTError, OutputError.
    """
    progress = progress or Progress()
    given = factors or GivenFactors()
    folder = OutputFolder(output, overwrite)
    _check_given(given)
    from ..radiograph.reading import read_radiograph
    from ..radiograph.score import model_for, score_radiograph

    stored = model_for(set(pictures), model)
    _check_packages(stored.card)
    progress.begin(list(STEPS))
    with progress.step("reading"):
        radiographs = {view: read_radiograph(path) for view, path in pictures.items()}
        person, warnings = person_of(given, radiographs)
        first = next(iter(radiographs))
        radiographs[first] = radiographs[first].warned(*warnings)
        loaded = load_model(stored.path, device)
    result = score_radiograph(radiographs, person, loaded, progress)
    with folder.being_written() as temporary:
        _write(temporary, result, progress, identify)
    for warning in result.warnings:
        progress.warning(warning)
    progress.done(output)
    return result


def person_of(
    given: GivenFactors, radiographs: Mapping[str, ChestRadiograph]
) -> tuple[Factors | None, tuple[ScanWarning, ...]]:
    """The factors where all three are known, what was given before what files tell; and doubts."""
    from ..radiograph.score import Factors

    told = {
        "age": next((r.age_years for r in radiographs.values() if r.age_years is not None), None),
        "sex": next((r.sex for r in radiographs.values() if r.sex is not None), None),
    }
    warnings = []
    for name, value, most in (("age", given.age_years, 1.5), ("sex", given.sex, None)):
        other = told[name]
        if value is None or other is None:
            continue
        if (most is None and value != other) or (most is not None and abs(value - other) > most):
            message = f"The {name} given is {value}, but the file states {other}. The given value was used."
            warnings.append(ScanWarning("factors-differ", message))
    age = given.age_years if given.age_years is not None else told["age"]
    sex = given.sex or told["sex"]
    if age is not None and sex is not None and given.bmi_kg_m2 is not None:
        return Factors(age, sex, given.bmi_kg_m2), tuple(warnings)
    if given != GivenFactors():
        known = {"age": age, "sex": sex, "body mass index": given.bmi_kg_m2}
        lacking = " and ".join(name for name, value in known.items() if value is None)
        message = f"Age, sex and body mass index are used only together. None of them was used for lack of {lacking}."
        warnings.append(ScanWarning("factors-incomplete", message))
    return None, tuple(warnings)


def _write(folder: Path, result: RadiographResult, progress: Progress, identify: bool) -> None:
    """Write all files of a result, LAST_FILE at the end."""
    from ..report import radiograph as report

    with progress.step("report"):
        for name, view in result.views.items():
            _write_image(folder / f"view_{name}.nii.gz", view.standard[None])
            _write_image(folder / f"saliency_{name}.nii.gz", view.saliency)
        write_text_atomically(folder / "report.html", report.result_as_html(result, identify))
    document = report.result_as_json(result, progress.seconds)
    write_text_atomically(folder / LAST_FILE, report.json_text(document))


def _write_image(path: Path, values) -> None:
    """Pixels of a view [slice, row, column], with their distance on the detector."""
    import SimpleITK as sitk

    from ..radiograph.view import STANDARD_MM

    image = sitk.GetImageFromArray(values)
    image.SetSpacing((STANDARD_MM, STANDARD_MM, 1.0))
    try:
        sitk.WriteImage(image, str(path), True)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1]
        raise OutputError(f"{path.name} cannot be written ({reason}). Choose another --output.") from error


def _check_given(given: GivenFactors) -> None:
    """Raises CTError for what no adult has, whether or not it will be used."""
    from ..radiograph.score import Factors

    Factors(
        50.0 if given.age_years is None else given.age_years,
        given.sex or "F",
        25.0 if given.bmi_kg_m2 is None else given.bmi_kg_m2,
    )


def _check_packages(card: ModelCard) -> None:
    """Raises ModelError when a Python package that the model needs is not installed."""
    needed = {"torch": "torch", "safetensors": "safetensors"}  # what to install, by the name that is imported
    if card.config["enhancement"] != "none":
        needed["skimage"] = "scikit-image"
    if card.config["backbone"] != "light":
        needed["monai"] = "monai"
    if missing := [name for key, name in needed.items() if importlib.util.find_spec(key) is None]:
        raise ModelError(f"{card.name} needs the Python packages {' and '.join(missing)}. Install them.")


def _check_options(options: argparse.Namespace) -> None:
    if options.radiograph is None and options.lateral is None:
        raise OutputError("--bmi applies to radiographs only. Give one with --radiograph, or leave --bmi out.")
    if options.ct is not None:
        raise OutputError(f"Give a CT ({options.ct.name}) or a radiograph, not both.")
    if foreign := sorted(name for name, value in vars(options).items() if _is_for_a_ct(name, value)):
        names = ", ".join(f"--{name.replace('_', '-')}" for name in foreign)
        raise OutputError(f"{names} can be used with a CT only. Leave it out with --radiograph.")
    if len(options.model) > 1:
        raise OutputError("Several models are named; a radiograph is scored by one. Name one with --model.")


def _is_for_a_ct(name: str, value: object) -> bool:
    unset = value is None or value is False or value == [] or value == {} or value == "auto"
    return not (unset or name in ALLOWED or name in ("ct", "command", "run", "extras", "make_sample", "interrupted"))


def _stem(path: Path) -> str:
    name = path.name
    return next((name[: -len(ending)] for ending in (".nii.gz",) if name.endswith(ending)), path.stem)
