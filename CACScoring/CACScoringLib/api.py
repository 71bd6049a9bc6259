"""The Python interface. `CACScoringLib` exports its public names, those imported here unused included."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import SimpleITK as sitk

from .core.ct import (
    Acquisition,
    CTError,  # noqa: F401
    CTScan,
    MaskError,
    ScanWarning,
    mask_on_scan_grid,
    same_grid,
    scan_from_image,
    with_warnings,
)
from .core.files import OutputFolder
from .core.labels import Artery, NonCoronary  # noqa: F401
from .core.progress import Progress
from .drr.geometry import centre_mm, view_named
from .drr.job import DrrSettings
from .drr.projection import Radiograph, body_only, radiograph
from .io.reading import read_ct, read_lesion_labels, read_mask  # noqa: F401
from .models.choice import LoadedModels, ModelChoice, chosen_models, load_models
from .pipeline import ScoreSettings, score_scan
from .quality.calibration import stored_repeatability
from .report.files import Cell, lesion_rows
from .report.page import result_as_fragment
from .results import MethodResult, ScoreResult
from .run import RunSettings, comparable, write_result
from .scoring.comparison import Comparison
from .scoring.comparison import compare as compare_results
from .scoring.lesions import Lesion, find_lesions
from .scoring.rules import ScoringRules
from .scoring.scores import Score, method_result


@dataclass(frozen=True, repr=False)
class CalciumResult:
    """Scores of one CT. A notebook shows it as a table with pictures of the largest lesions.

    All images are on the scan's grid: axial slices, axes towards patient left, posterior and superior.

    Attributes:
        details: Everything the scoring found, its settings and models included.
    """

    details: ScoreResult

    @property
    def methods(self) -> dict[str, MethodResult]:
        """Scores by method: "threshold" is the clinical rule, "decomposition" the calcium map."""
        return self.details.methods

    @property
    def total(self) -> Score:
        """Total score by the clinical rule: `total.agatston`, `total.volume_mm3`, `total.mass_mg`."""
        return self.methods["threshold"].total

    @property
    def arteries(self) -> dict[Artery, Score]:
        """Score of each coronary artery by the clinical rule."""
        return self.methods["threshold"].arteries

    @property
    def lesions(self) -> tuple[Lesion, ...]:
        """Lesions counted by the clinical rule, by artery and then from head to feet."""
        return self.methods["threshold"].lesions.lesions

    @property
    def warnings(self) -> tuple[ScanWarning, ...]:
        """Doubts about the scan and its scores; read those with `severe` before any number."""
        return self.details.warnings

    @property
    def calcium_map(self) -> sitk.Image | None:
        """HU that calcium adds to each voxel, 0 elsewhere; None if only the clinical rule was used."""
        parts = self.details.decomposition
        return None if parts is None else parts.calcium_map

    @property
    def heart(self) -> sitk.Image:
        """Mask of the heart, uint8, 0 and 1."""
        return self.details.heart.mask

    @property
    def territories(self) -> sitk.Image | None:
        """Labels of the vessel territories (`core.labels.TERRITORIES`), uint8; None without that network."""
        return self.details.territories

    def table(self) -> list[dict[str, Cell]]:
        """List all lesions of all methods, also those left out and those outside the coronary arteries.

        Returns:
            One row per lesion, with the columns of `lesions.csv`; `pandas.DataFrame` takes the list as it is.

        Examples:
            >>> result = cac.score(cac.read_ct("ct.nrrd"), threshold_only=True)
            >>> row = result.table()[0]
            >>> row["method"], row["lesion"], row["artery"]
            ('threshold', 1, 'unassigned')
        """
        return lesion_rows(self.details)

    def write(self, folder: Path | str, *, overwrite: bool = False, identify: bool = False) -> None:
        """Write the report, `scores.json`, `lesions.csv` and all images, as `cac score` does.

        Args:
            folder: Folder of the results; made where it does not exist.
            overwrite: Replace an earlier result in the folder.
            identify: Include the patient's name and ID, the study date and UIDs.

        Raises:
            OutputError: The folder is not empty or cannot be written to.

        Examples:
            >>> result = cac.score(cac.read_ct("ct.nrrd"), threshold_only=True)
            >>> result.write("result")
            >>> Path("result", "report.html").is_file()
            True
        """
        write_result(OutputFolder(Path(folder), overwrite), self.details, RunSettings(identify=identify), Progress())

    def __repr__(self) -> str:
        method = self.methods["threshold"]
        return f"CalciumResult(agatston={self.total.agatston:.1f}, lesions={self.total.lesions}, {method.status})"

    def _repr_html_(self) -> str:
        return result_as_fragment(self.details)


def score(
    ct: CTScan,
    *,
    rules: ScoringRules | None = None,
    heart: sitk.Image | None = None,
    lesions: sitk.Image | None = None,
    threshold_only: bool = False,
) -> CalciumResult:
    """Score a CT by the clinical rule and by the calcium map.

    Without `lesions` the score is automatic or, with `threshold_only`, a list of candidates that nobody reviewed:
    `result.methods["threshold"].status` states which.

    Args:
        ct: The CT.
        rules: The scoring rules, used as they are; None for those of Agatston et al., with a threshold of 130 HU at 120
            kVp and the thresholds published for 70, 80, 100 and 135 kVp.
        heart: Mask of the heart, on any grid; None to find the heart.
        lesions: A reader's label map of the lesions (`Artery` and `NonCoronary` values), on any grid.
        threshold_only: Use no network, only the clinical rule.

    Raises:
        NoHeartError: No heart was found.
        ContrastError: The scan was made with contrast.
        OrientationError: The anatomy contradicts the orientation in the file's header.
        MaskError: The heart mask or the lesion labels do not fit the scan.
        CTError: The scan cannot be scored for another reason.

    Examples:
        >>> ct = cac.read_ct("ct.nrrd")
        >>> result = cac.score(ct)
        >>> result  # doctest: +ELLIPSIS
        CalciumResult(agatston=..., lesions=..., automatic)
        >>> result.arteries[cac.Artery.LM].agatston < result.total.agatston
        True
        >>> result.calcium_map.GetSize() == ct.image.GetSize()
        True
    """
    models = _models(threshold_only, heart is not None)
    settings = ScoreSettings(rules=rules or ScoringRules(), adapt_to_tube_voltage=rules is None)
    return CalciumResult(score_scan(with_warnings(ct, *models.warnings), settings, heart, lesions, models.networks))


@cache
def _models(threshold_only: bool, heart_is_given: bool) -> LoadedModels:
    return load_models(chosen_models(ModelChoice(threshold_only=threshold_only)), heart_is_given)


def agatston(image: sitk.Image, labels: sitk.Image, rules: ScoringRules | None = None) -> MethodResult:
    """Score the lesions that a mask or label map outlines; no heart is searched for and no network is used.

    Args:
        image: CT, HU, any axis order; never resampled, so slices should be axial.
        labels: `Artery` values (1 LM, 2 LAD, 3 LCX, 4 RCA, 5 other); a mask of 0 and 1 gives a valid total. On any
            grid. Labelled voxels below the threshold do not count.
        rules: The scoring rules; None for those of Agatston et al. with a threshold of 130 HU.

    Returns:
        Scores in `total` and `arteries`, lesions in `lesions.lesions`.

    Raises:
        NotVolumeError: The image is not one three-dimensional grey-level volume.
        NotHounsfieldError: The values are not Hounsfield units.
        MaskError: The labels do not fit the image.

    Examples:
        >>> ct = cac.read_ct("ct.nrrd")
        >>> scored = cac.agatston(ct.image, cac.read_mask("labels.nrrd"))
        >>> scored.total.lesions, scored.total.agatston == scored.arteries[cac.Artery.LM].agatston
        (1, True)
    """
    rules = rules or ScoringRules()
    scan = scan_from_image(image, Acquisition("memory"))
    on_grid, _ = mask_on_scan_grid(labels, scan, "label map", may_be_empty=True)
    lesions = find_lesions(scan.image, sitk.GetArrayFromImage(on_grid), rules).coronary
    return method_result("reviewed", lesions, rules, scan.image.GetSpacing(), no_calcium=not lesions.lesions)


def compare(earlier: CalciumResult, later: CalciumResult) -> Comparison:
    """Compare two scans of one patient.

    Args:
        earlier: Result of the first scan.
        later: Result of the second scan.

    Returns:
        For each method the change of each score, and whether it exceeds scan–rescan repeatability.

    Raises:
        ModelError: A model's card cannot be read.

    Examples:
        >>> result = cac.score(cac.read_ct("ct.nrrd"), threshold_only=True)
        >>> [method.method for method in cac.compare(result, result).methods]
        ['threshold']
    """
    after = comparable(later.details)
    return compare_results(comparable(earlier.details), after, stored_repeatability(after))


def project_radiograph(
    ct: CTScan, view: str = "PA", settings: DrrSettings | None = None, calcium_map: sitk.Image | None = None
) -> Radiograph:
    """Project a CT into a digitally reconstructed radiograph (DRR).

    Args:
        ct: The CT. The table and clothes are removed unless `settings.table` is set.
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
        >>> picture = cac.project_radiograph(cac.read_ct("ct.nrrd"), settings=cac.DrrSettings(pixels=64))
        >>> picture.grey.shape
        (64, 64)
    """
    geometry = view_named(view)
    settings = replace(settings or DrrSettings(), angle_degrees=geometry.angle_degrees, mirrored=geometry.mirrored)
    if calcium_map is not None and not (calcium_map.GetDimension() == 3 and same_grid(calcium_map, ct.image)):
        raise MaskError(
            "The calcium map is on a different grid from the CT. Give the calcium map that was computed from this CT."
        )
    image = ct.image if settings.table or calcium_map is not None else body_only(ct.image)
    return radiograph(image, settings.geometry(centre_mm(ct.image)), settings.spectrum(), settings.film(), calcium_map)
