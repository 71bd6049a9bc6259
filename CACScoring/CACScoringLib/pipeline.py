"""The order of the steps from a CT to its scores; what each of them does is in the room of its subject."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import SimpleITK as sitk

from .anatomy.heart_search import locate_heart
from .calcium_map.decomposition import DecompositionSettings, decompose_heart
from .core.ct import CTError, CTScan, ScanWarning
from .core.progress import Progress
from .models.choice import Networks
from .quality.acquisition import examine_acquisition
from .quality.mass_calibration import MassCalibration, calibrate_mass
from .quality.normalisation import normalise
from .results import ScanContext, ScoreResult
from .scoring.mass import with_masses
from .scoring.reader_labels import reader_labels
from .scoring.rules import ScoringRules, ScoringSwitches, rules_for_tube_voltage
from .scoring.scores import classify, score_candidates, score_map
from .scoring.uncertainty import add_intervals

MAX_AGE_YEARS = 120
"""Highest age of a person that settings take."""


@dataclass(frozen=True)
class ScoreSettings(ScoringSwitches):
    """Settings of scoring beside the switches.

    candidates: leave nothing out of the candidates of the clinical rule, whatever the networks say of them.
    normalisation: whether the scan is brought to a soft kernel and slices of 3 mm before it is scored, of
    `normalisation.MODES`.
    sex ("F" or "M"), age_years: override what DICOM says; used for percentiles only.
    percentile_table: CSV of the user's reference population (see `scores.percentile_from_table`).
    decomposition: None for the settings stored with the models.
    slices: a reader's overrides of slices, counted from the feet: True, it is taken
    apart; False, the calcium map is empty there.
    calibration: of an insert in the scan, or of a digital patient; None for the rules' or the best that is known.
    mass_table: CSV of the user's mass calibrations (`mass_calibration.from_table`).
    """

    rules: ScoringRules = field(default_factory=ScoringRules)
    candidates: bool = False
    normalisation: str = "auto"
    sex: str | None = None
    age_years: int | None = None
    percentile_table: Path | None = None
    decomposition: DecompositionSettings | None = None
    slices: dict[int, bool] = field(default_factory=dict)
    calibration: MassCalibration | None = None
    mass_table: Path | None = None

    def __post_init__(self) -> None:
        if self.sex not in ("F", "M", None):
            raise CTError(f"The setting sex is {self.sex!r}. Write F or M, or leave it out.")
        if self.age_years is not None and not 0 <= self.age_years <= MAX_AGE_YEARS:
            raise CTError(f"The setting age_years is {self.age_years}. Give an age from 0 to {MAX_AGE_YEARS}.")


def steps(networks: Networks | None) -> tuple[str, ...]:
    """Name the steps of `score_scan`.

    Returns:
        The names in order, as its progress shows them.
    """
    return ("heart", "acquisition", *(("decomposition",) if networks else ()), "lesions", "scores")


def score_scan(
    scan: CTScan,
    settings: ScoreSettings = ScoreSettings(),
    heart: sitk.Image | None = None,
    lesions: sitk.Image | None = None,
    networks: Networks | None = None,
    progress: Progress | None = None,
) -> ScoreResult:
    """Score a CT by the clinical rule, and with networks without a threshold too.

    Args:
        scan: The CT.
        settings: How it is done.
        heart: Mask of the heart, on any grid; found when None.
        lesions: A reader's label map (`Site` values); of the arteries only what it labels is scored, and a map
            without any is a reviewed score of 0. The calcium map stays automatic. Calcium elsewhere is that which it
            labels, or if it labels none, what lies in the territories of valves and great vessels. When None, the
            candidates at or above the threshold that count by the networks' evidence (`scoring.evidence`) are
            reported in the arteries of their territories. Without that evidence all candidates are; without
            territories they are unassigned.
        networks: The networks; None for the clinical rule alone.
        progress: Shows the steps.

    Raises:
        NoHeartError: No heart was found.
        ContrastError: The scan was made with contrast.
        OrientationError: The anatomy contradicts the orientation in the file's header.
        MaskError: The heart mask or the lesion labels do not fit the scan.
        CTError: The settings or the input cannot be used otherwise.
    """
    progress = progress or Progress()
    context = _prepare(scan, settings, heart, lesions, networks)
    with progress.step("heart"):
        context = normalise(context)
        context = locate_heart(context)
    with progress.step("acquisition"):
        context = calibrate_mass(context)
        context = examine_acquisition(context)
    if networks:
        with progress.step("decomposition"):
            context = decompose_heart(context)
    with progress.step("lesions"):
        context = score_candidates(context)
        context = score_map(context)
    with progress.step("scores"):
        context = with_masses(context)
        context = add_intervals(context)
        return classify(context)


def _prepare(
    scan: CTScan,
    settings: ScoreSettings,
    heart: sitk.Image | None,
    lesions: sitk.Image | None,
    networks: Networks | None,
) -> ScanContext:
    """Check the arguments of `score_scan`; errors as there."""
    if settings.slices and networks is None:
        raise CTError(
            "Slice overrides change the calcium map, which needs the networks. Install the networks, or leave "
            "the overrides out."
        )
    rules = settings.rules
    if settings.adapt_to_tube_voltage:
        rules = rules_for_tube_voltage(scan.acquisition, rules)
    doubts = []
    if not rules.is_clinical:
        message = f"The score follows other rules than the clinical one ({rules.name}): it has no category or interval."
        doubts.append(ScanWarning("rules-changed", message))
    return ScanContext(
        scan=scan,
        settings=settings,
        rules=rules,
        networks=networks,
        heart_mask=heart,
        reader=None if lesions is None else reader_labels(lesions, scan),
        slices_by_reader=settings.slices,
        warnings=(*scan.warnings, *doubts),
    )
