"""Python interface. `CACScoringLib` exports its public names, including those only imported here."""

from __future__ import annotations

import io
import logging
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import SimpleITK as sitk

from .core.acquisition import Acquisition
from .core.ct import CTScan, ScanWarning, mask_on_scan_grid, same_grid, scan_from_image
from .core.errors import CTError, MaskError, OutputError  # noqa: F401
from .core.files import OutputFolder
from .core.labels import Artery, NonCoronary  # noqa: F401
from .core.progress import CellProgress, Progress, TextProgress
from .core.text import words_of
from .core.voxels import ArrayImage, image_from_array
from .core.warning_codes import ADVICE
from .drr.geometry import centre_mm, view_named
from .drr.projection import Radiograph, body_only, radiograph
from .drr.settings import DrrSettings
from .io import reading
from .io.reading import read_lesion_labels, read_mask  # noqa: F401
from .models.choice import LoadedModels, ModelChoice, chosen_models, load_models
from .pipeline import ScoreSettings
from .pipeline import steps as scoring_steps
from .quality.calibration import stored_repeatability
from .record.rules import ScoringRules, rules_for_tube_voltage
from .record.score_record import (
    ScoreRecord,
    read_result,  # noqa: F401
)
from .record.scores import Lesion, MethodScore, Score  # noqa: F401
from .report.files import site_labels
from .report.page import largest_pictures, result_as_fragment
from .results import ScoreResult
from .run import RunSettings, ScanInput, read_and_score, write_result
from .scoring.comparison import Comparison
from .scoring.comparison import compare as compare_results
from .scoring.labels import require_lesions
from .scoring.lesions import score_labels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

read_ct = words_of("argument")(reading.read_ct)


@runtime_checkable
class NiftiImage(Protocol):
    """Image of nibabel."""

    dataobj: Any
    affine: Any


@dataclass(frozen=True, repr=False)
class CalciumResult(ScoreResult):
    """Scores of one CT. A notebook shows it as a table with pictures of the largest lesions.

    All images are on the scan's grid: axial slices, axes towards patient left, posterior and superior. They are
    SimpleITK images, and `np.asarray(image)` is their array [k, j, i].
    """

    @property
    def labels(self) -> ArrayImage:
        """Labels of the lesions (`Artery` and `NonCoronary` values) as in `lesions.nii.gz`, uint8."""
        return ArrayImage(site_labels(self))

    def plot(self) -> Figure:
        """Draw the largest lesions, or without lesions the heart. Raises ImportError without Matplotlib."""
        from matplotlib import get_backend, pyplot
        from PIL import Image

        pictures = largest_pictures(self)
        size_inches = 4 * len(pictures), 4
        figure, axes = pyplot.subplots(1, len(pictures), squeeze=False, figsize=size_inches, layout="constrained")
        for axis, picture in zip(axes[0], pictures, strict=True):
            axis.imshow(Image.open(io.BytesIO(picture.jpeg)))
            axis.set_title(picture.caption, fontsize="small")
            axis.axis("off")
        if "inline" in get_backend():
            pyplot.close(figure)  # a notebook shows what a cell returns, and open figures once more
        return figure

    @words_of("argument")
    def write(self, folder: Path | str, *, overwrite: bool = False, identify: bool = False) -> None:
        """Write the report, `scores.json`, `lesions.csv` and all images, as `cac score` does.

        Args:
            folder: Folder of the results; made where it does not exist.
            overwrite: Replace an earlier result in the folder.
            identify: Include the patient's name and ID, the study date and UIDs.

        Raises:
            OutputError: The folder is not empty or cannot be written to.

        Examples:
            >>> result = cac.score("ct.nrrd", threshold_only=True)
            >>> result.write("result")
            >>> Path("result", "report.html").is_file()
            True
        """
        write_result(OutputFolder(Path(folder), overwrite), self, RunSettings(identify=identify), Progress())

    def _repr_html_(self) -> str:
        return result_as_fragment(self)


ImageSource = sitk.Image | NiftiImage | Path | str
"""SimpleITK or nibabel image, or path of a file."""

_TYPES: dict[str, tuple[Any, str]] = {
    "rules": (ScoringRules | None, "cac.ScoringRules, such as cac.ScoringRules(minimum_pixels=3)"),
    "kvp": (Real | None, "a number, such as 120"),
    "reader": (str | None, "a name"),
    "model": (str | Sequence, "a name, or a list of names"),
    "device": (str, '"auto", "cpu" or "cuda"'),
    "threshold_only": (bool, "True or False"),
    "arteries_by_territory": (bool, "True or False"),
    "allow_unusual": (bool, "True or False"),
    "earlier": (ScoreResult | ScoreRecord, "the result of cac.score or cac.read_result"),
    "later": (ScoreResult | ScoreRecord, "the result of cac.score or cac.read_result"),
    "view": (str, '"PA", "AP", "lateral" or an angle, such as "30"'),
    "settings": (DrrSettings | None, "cac.DrrSettings, such as cac.DrrSettings(pixels=512)"),
    "calcium_map": (sitk.Image | None, "a SimpleITK image, such as result.calcium_map"),
}
"""Type of an argument, and what to give, by its name."""


@words_of("argument")
def score(
    ct: CTScan | ImageSource,
    *,
    rules: ScoringRules | None = None,
    heart: ImageSource | None = None,
    lesions: ImageSource | None = None,
    reader: str | None = None,
    pericardium: ImageSource | None = None,
    kvp: float | None = None,
    model: str | Sequence[str] = (),
    threshold_only: bool = False,
    allow_unusual: bool = False,
    device: str = "auto",
    progress: bool = False,
    arteries_by_territory: bool = False,
) -> CalciumResult:
    """Score a CT by the clinical rule and by the calcium map.

    Without `lesions` the score is automatic or, with `threshold_only`, a list of candidates that nobody reviewed:
    `result.status` states which.

    Args:
        ct: The CT: a DICOM folder or image file, as `read_ct` takes it, an image of SimpleITK or nibabel in HU, or a
            `CTScan`, which alone states series and tube voltage. For an array: `CTScan.from_array`.
        rules: The scoring rules, used as they are; None for those of Agatston et al., with a threshold of 130 HU at 120
            kVp and the thresholds published for 70, 80, 100 and 135 kVp.
        heart: Mask of the heart, on any grid; None to find the heart.
        lesions: Label map of the lesions (`Artery` and `NonCoronary` values), on any grid.
        reader: Who reviewed `lesions`, without which nobody did.
        pericardium: Mask of all within the pericardium, on any grid, to measure its fat
            (`record.epicardial_fat`); None for the outline of the networks.
        kvp: Tube voltage, if the CT does not state it.
        model: Names or cards of models to use in place of the bundled ones.
        threshold_only: Use no network, only the clinical rule: lists candidates, and no score.
        allow_unusual: Score a contrast-enhanced scan, or one whose anatomy contradicts its header, with a warning.
        device: Device of the networks: "auto", "cpu" or "cuda".
        progress: Show a bar on standard error.
        arteries_by_territory: Assign `lesions` to arteries by the network's territories, as those of a map of all
            calcium; the result says so.

    Warns:
        UserWarning: The result has a severe warning, once per code; all are in `result.warnings` and are logged.

    Raises:
        NoHeartError: No heart was found.
        ContrastError: The scan was made with contrast.
        OrientationError: The anatomy contradicts the orientation in the file's header.
        MaskError: A mask or the lesion labels do not fit the scan.
        CTError: The scan cannot be read, or cannot be scored for another reason; or a reader without lesions.
        TypeError: An argument is of another type.

    Examples:
        >>> result = cac.score("ct.nrrd")
        >>> result  # doctest: +ELLIPSIS
        CalciumResult(agatston=..., lesions=..., automatic)
        >>> result.arteries["LM"].agatston < result.total.agatston
        True
        >>> np.asarray(result.calcium_map).shape
        (54, 240, 240)
    """
    _check_types(rules=rules, kvp=kvp, reader=reader, model=model, device=device)
    _check_types(threshold_only=threshold_only, allow_unusual=allow_unusual)
    _check_types(arteries_by_territory=arteries_by_territory)
    if reader is not None and lesions is None:
        raise CTError(f"{reader} reviewed no lesions: give the label map as lesions, or leave out the reader.")
    score_settings = ScoreSettings(
        rules=rules or ScoringRules(),
        adapt_to_tube_voltage=rules is None,
        kvp=kvp,
        allow_contrast=allow_unusual,
        allow_reversed=allow_unusual,
        arteries_by_territory=arteries_by_territory,
    )
    scan_input = ScanInput(
        Path(ct) if isinstance(ct, str | Path) else _scan(ct),
        heart=None if heart is None else _image("heart", heart),
        lesions=None if lesions is None else _image("lesions", lesions),
        pericardium=None if pericardium is None else _image("pericardium", pericardium),
    )
    bar = _progress() if progress else Progress()
    try:
        names = (model,) if isinstance(model, str) else tuple(model)
        models = _models(names, threshold_only, device)
        bar.begin(["reading", *scoring_steps(models.networks)])
        result = read_and_score(scan_input, RunSettings(score_settings, identify=True, reader=reader), models, bar)
        _report(result.warnings)
        return CalciumResult(**vars(result))
    finally:
        bar.done(Path())


def score_many(
    scans: Iterable[Path | str], *, progress: bool = False, **arguments: Any
) -> Iterator[tuple[Path, CalciumResult | CTError]]:
    """Score scans one after the other. `cac cohort` scores many at once, and resumes.

    Args:
        scans: DICOM folders or image files.
        progress: Show a bar on standard error.
        arguments: Further arguments of `score`.

    Yields:
        The path of each scan with its result, or with the error if it was refused.

    Raises:
        TypeError: A single path in place of several.

    Examples:
        >>> for path, result in cac.score_many(["ct.nrrd", "absent.nrrd"], threshold_only=True):
        ...     print(path, result)  # doctest: +ELLIPSIS
        ct.nrrd CalciumResult(no score: ... candidates)
        absent.nrrd absent.nrrd does not exist. Give a DICOM folder or a NIfTI, NRRD or MHA file.
    """
    if isinstance(scans, str | Path):
        raise _wrong_type("scans", scans, f"a list of paths, such as [{str(scans)!r}]")
    paths = [Path(scan) for scan in scans]
    bar = _progress() if progress else Progress()
    for done, path in enumerate(paths):
        bar.counted(done, len(paths))
        try:
            result: CalciumResult | CTError = score(path, **arguments)
        except CTError as error:
            result = error
        yield path, result
    bar.done(Path())


def _progress() -> Progress:
    """Return a bar: in a notebook's cell one line that changes, elsewhere on standard error."""
    kernel = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if kernel is None or not hasattr(kernel, "kernel"):
        return TextProgress(sys.stderr, bar=True)
    from IPython.display import display

    return CellProgress(display({"text/plain": ""}, raw=True, display_id=True))


def _report(doubts: Iterable[ScanWarning]) -> None:
    """Log all warnings, and issue severe ones by `warnings`, whose default filter shows each text once."""
    for doubt in doubts:
        logging.getLogger(__package__).log(logging.WARNING if doubt.severe else logging.INFO, doubt.message)
        if doubt.severe:
            advice = ADVICE.get(doubt.code, "")
            warnings.warn(f"CAUTION: {doubt.code}. {advice} Read result.warnings.", UserWarning, stacklevel=4)


@cache
def _models(names: tuple[str, ...], threshold_only: bool, device: str) -> LoadedModels:
    return load_models(chosen_models(ModelChoice(names, threshold_only, device)))


def _scan(ct: CTScan | ImageSource) -> CTScan:
    """Return an argument of a user as a scan. Raises TypeError, and CTError as `read_ct` does."""
    if isinstance(ct, CTScan):
        return ct
    if isinstance(ct, str | Path):
        return reading.read_ct(ct)
    if isinstance(ct, np.ndarray):
        raise TypeError("An array does not state its place in space. Give cac.CTScan.from_array(array, affine).")
    if not isinstance(ct, sitk.Image | NiftiImage):
        raise _wrong_type("ct", ct, "a path, a SimpleITK or nibabel image, or a cac.CTScan")
    return scan_from_image(_read_image("ct", ct), Acquisition("memory"))


def _image(name: str, source: ImageSource) -> sitk.Image | Path:
    """Return an argument of a user as an image, or the path of one. Raises TypeError."""
    if isinstance(source, NiftiImage):
        return image_from_array(np.asanyarray(source.dataobj), source.affine, None)
    if not isinstance(source, sitk.Image | str | Path):
        raise _wrong_type(name, source, "a path, or a SimpleITK or nibabel image")
    return Path(source) if isinstance(source, str) else source


def _read_image(name: str, source: ImageSource) -> sitk.Image:
    """Return an argument of a user as an image. Raises TypeError, and CTError as `read_mask` does."""
    image = _image(name, source)
    return read_mask(image) if isinstance(image, Path) else image


def _check_types(**arguments: object) -> None:
    """Raise TypeError for an argument of another type than its entry in _TYPES."""
    for name, value in arguments.items():
        kind, valid_types = _TYPES[name]
        if not isinstance(value, kind) or (name == "kvp" and isinstance(value, bool)):
            raise _wrong_type(name, value, valid_types)


def _wrong_type(name: str, value: object, valid_types: str) -> TypeError:
    return TypeError(f"{name} is of type {type(value).__name__}. Give {valid_types}.")


@words_of("argument")
def agatston(ct: CTScan | ImageSource, labels: ImageSource, rules: ScoringRules | None = None) -> MethodScore:
    """Score the lesions that a mask or label map outlines; no heart is searched for and no network is used.

    Args:
        ct: CT, as `score` takes it; never resampled, so slices should be axial.
        labels: `Artery` values (1 LM, 2 LAD, 3 LCX, 4 RCA, 5 other); a mask of 0 and 1 gives a valid total. On any
            grid. Labelled voxels below the threshold do not count.
        rules: The scoring rules; None for those of Agatston et al., with threshold and weights of the scan's tube
            voltage as `score` takes them (130 HU at 120 kVp, or where the voltage is unknown).

    Returns:
        Scores in `total` and `arteries`, lesions in `lesions`.

    Warns:
        UserWarning: As `score`, of the CT.

    Raises:
        TypeError: An argument is of another type.
        NotVolumeError: The image is not one three-dimensional grey-level volume.
        NotHounsfieldError: The values are not Hounsfield units.
        MaskError: The labels do not fit the image, or are the mask of an organ.

    Examples:
        >>> scored = cac.agatston("ct.nrrd", "labels.nrrd")
        >>> scored.total.lesions, scored.total.agatston == scored.arteries["LM"].agatston
        (1, True)
    """
    _check_types(rules=rules)
    scan = _scan(ct)
    _report(scan.warnings)
    rules = rules or rules_for_tube_voltage(scan.acquisition)
    on_grid, _ = mask_on_scan_grid(_read_image("labels", labels), scan, "label map", may_be_empty=True)
    require_lesions(on_grid, scan, rules.threshold_hu)
    return score_labels(scan, on_grid, rules)


@words_of("argument")
def compare(
    earlier: ScoreResult | ScoreRecord, later: ScoreResult | ScoreRecord, *, different_patients: bool = False
) -> Comparison:
    """Compare two scans of one patient.

    Args:
        earlier: Result of the first scan, computed or stored.
        later: Result of the second scan.
        different_patients: Compare, with a warning, scans whose headers state different patients.

    Returns:
        For each method the change of each score, and whether it exceeds scan–rescan repeatability.

    Raises:
        OtherPatientError: The scans are of different patients.
        ModelError: A model's card cannot be read.

    Examples:
        >>> result = cac.score("ct.nrrd", threshold_only=True)
        >>> [method.method for method in cac.compare(result, result).methods]
        ['threshold']
    """
    _check_types(earlier=earlier, later=later)
    before, after = (x if isinstance(x, ScoreRecord) else x.record for x in (earlier, later))
    comparison = compare_results(before, after, stored_repeatability(after), different_patients)
    _report(comparison.warnings)
    return comparison


@words_of("argument")
def project_radiograph(
    ct: CTScan | ImageSource,
    view: str = "PA",
    settings: DrrSettings | None = None,
    calcium_map: sitk.Image | None = None,
) -> Radiograph:
    """Project a CT into a digitally reconstructed radiograph (DRR).

    Args:
        ct: The CT, as `score` takes it. The table and clothes are removed unless `settings.table` is set.
        view: "PA", "AP", "lateral" (left), or the detector's angle in degrees, 0 in front of the chest and 90 at the
            patient's left.
        settings: Detector, distances, spectrum and noise; None for a chest stand with 1024 × 1024 pixels.
        calcium_map: Project only this map (HU, on the grid of the CT), as `CalciumResult.calcium_map`.

    Returns:
        The radiograph: `grey` from 0 to 1 for display, `line_integrals` for computation, float32 [row, column].

    Raises:
        ProjectionError: The view cannot be projected.
        MaskError: The calcium map is on another grid.

    Examples:
        >>> picture = cac.project_radiograph("ct.nrrd", settings=cac.DrrSettings(pixels=64))
        >>> picture.grey.shape
        (64, 64)
    """
    _check_types(view=view, settings=settings, calcium_map=calcium_map)
    ct = _scan(ct)
    _report(ct.warnings)
    geometry = view_named(view)
    settings = replace(settings or DrrSettings(), angle_degrees=geometry.angle_degrees, mirrored=geometry.mirrored)
    if calcium_map is not None and not (calcium_map.GetDimension() == 3 and same_grid(calcium_map, ct.image)):
        raise MaskError(
            "The calcium map is on a different grid from the CT. Give the calcium map that was computed from this CT."
        )
    image = ct.image if settings.table or calcium_map is not None else body_only(ct.image)
    return radiograph(image, settings.geometry(centre_mm(ct.image)), settings.spectrum(), settings.film(), calcium_map)
