"""Cohorts of digital patients, each scanned once or twice: in parallel, resumable, reproducible from the settings."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast, get_args

import numpy as np

from CACScoringLib.cohort.workers import run_jobs
from CACScoringLib.core.ct import ScanWarning, with_warnings
from CACScoringLib.core.errors import CTError
from CACScoringLib.core.labels import ARTERIES, MAIN_ARTERIES, Artery
from CACScoringLib.core.tables import write_table
from CACScoringLib.record.scores import Score
from CACScoringLib.scoring.lesions import score_labels
from CACScoringLib.scoring.scores import score_of

from ..anatomy.coronaries import Plaque
from ..anatomy.heart import posed_frame
from ..anatomy.patient import STRATA, Patient, add_contrast, draw_patient, stratified_patients, stream
from ..anatomy.points import EMPTY
from ..scanner.motion import PROTOCOLS, ScanPose, draw_pair
from ..scanner.scanner import Scanner
from ..scanner.simulation import CHEST_MM, DigitalScan, draw_field, scan_grid, scan_patient
from .export import Labels, annotate, as_ct_scan, same_settings, write_scan
from .lesion_patients import Difficulty, draw_lesion_patient
from .lesion_scans import make_difficult

if TYPE_CHECKING:
    from CACScoringLib.run import SamplePatient


T = TypeVar("T")


@dataclass(frozen=True)
class CohortSettings:
    """Settings of a cohort, recorded in `cohort.json`.

    Attributes:
        protocol: Name in PROTOCOLS.
        prevalence: Share of patients with coronary calcium; None for `coronaries.PREVALENCE`.
        z_range_mm: Heights scanned, from the heart's middle.
        first_number: Number of the first patient; the others follow.
        dicom: True to also write each scan as a DICOM series, in a folder `dicom`.
        scans: Scans of each patient, 1 or 2.
        contrast: True for a contrast agent in the blood.
        enriched: True to select patients by the shares of `patient.STRATA`, so that severe calcium is common.
        everywhere: True for plaques alike in all segments and much of all else that is dense (`lesion_patients`).
        difficulties: Ways in which patients with plaques everywhere are difficult (`Difficulty`), by turns: patient n
            has that at n modulo their number; none for usual ones.
        diverse: True for hearts of all sizes, forks as in people (`draw_patient`), and gated scans of which some have
            a round field; patients with plaques everywhere always have the former two.
        surroundings: True for what real chests have around the heart (`anatomy.surroundings`); of patients with plaques
            everywhere half have it.
    """

    protocol: str = "radiotherapy"
    prevalence: float | None = None
    z_range_mm: tuple[float, float] = CHEST_MM
    first_number: int = 0
    dicom: bool = False
    scans: int = 2
    contrast: bool = False
    enriched: bool = False
    everywhere: bool = False
    difficulties: tuple[str, ...] = ()
    diverse: bool = False
    surroundings: bool = False

    def __post_init__(self) -> None:
        if self.protocol not in PROTOCOLS:
            raise CTError(f"There is no scanning protocol {self.protocol!r}; choose of {', '.join(PROTOCOLS)}.")
        if self.prevalence is not None and not 0 <= self.prevalence <= 1:
            raise CTError(f"Prevalence is a share from 0 to 1, not {self.prevalence:g}.")
        if self.z_range_mm[1] - self.z_range_mm[0] < 30:
            raise CTError("The scanned range must be at least 30 mm high.")
        if self.first_number < 0:
            raise CTError(f"Patient numbers start at 0, not {self.first_number}.")
        if self.scans not in (1, 2):
            raise CTError(f"Each patient is scanned once or twice, not {self.scans} times.")
        if (self.enriched or self.everywhere) and self.prevalence is not None:
            raise CTError("Patients with chosen calcium take the prevalence as it comes: leave it out.")
        if unknown := set(self.difficulties) - set(get_args(Difficulty)):
            raise CTError(
                f"There are no difficulties {', '.join(sorted(unknown))}; choose of {', '.join(get_args(Difficulty))}."
            )
        if self.difficulties and not self.everywhere:
            raise CTError("Difficult patients have plaques everywhere: set everywhere, or leave difficulties out.")
        if self.enriched and self.everywhere:
            raise CTError("Patients are chosen by their calcium as in people: leave enriched or everywhere out.")

    def difficulty(self, number: int) -> Difficulty | None:
        """Return the difficulty of the patient of a number."""
        return cast(Difficulty, self.difficulties[number % len(self.difficulties)]) if self.difficulties else None

    def numbers(self, patients: int) -> list[int]:
        """Return the numbers of the cohort's patients, rising. Raises CTError."""
        if self.enriched and patients < len(STRATA):
            raise CTError(f"Patients chosen by their calcium are {len(STRATA)} at least, not {patients}.")
        if self.enriched:
            return stratified_patients(self.first_number, patients, self.diverse)
        return list(range(self.first_number, self.first_number + patients))


def draw_setup(number: int, scan_number: int, settings: CohortSettings) -> tuple[Scanner, ScanPose]:
    """Draw scanner and pose of scan 1 or 2.

    Half of the single scans of diverse patients are scan 2, in which patients breathe unless it is gated.
    """
    index = int(stream(number, 23).integers(2)) if settings.diverse and settings.scans == 1 else scan_number - 1
    scanner, pose = draw_pair(PROTOCOLS[settings.protocol], stream(number, 20))[index]
    return make_difficult(scanner, pose, number, settings.difficulty(number))


def make_scan(
    number: int, scan_number: int, settings: CohortSettings, patient: Patient | None = None
) -> tuple[Patient, DigitalScan, Labels]:
    """Simulate scan 1 or 2 of a patient and its labels, without writing them. patient: None to draw it."""
    if patient is None:
        if settings.everywhere:
            patient = draw_lesion_patient(number, settings.difficulty(number))
        else:
            patient = draw_patient(number, None, settings.prevalence, settings.diverse, settings.surroundings)
        patient = add_contrast(patient) if settings.contrast else patient
    scanner, pose = draw_setup(number, scan_number, settings)
    scan = scan_patient(patient, scanner, pose, scan_number, scan_grid(scanner, settings.z_range_mm))
    if settings.diverse:
        scan = draw_field(scan, stream(number, 22, scan_number))
    return patient, scan, annotate(scan, stream(number, 21, scan_number))


def write_patient(number: int, directory: Path, settings: CohortSettings) -> list[dict[str, Any]]:
    """Write a patient's missing scans below a cohort's folder; returns the table's rows, one a scan."""
    rows = []
    patient = None
    for scan_number in range(1, settings.scans + 1):
        folder = Path(directory) / patient_folder(number) / f"scan_{scan_number}"
        if not (folder / "truth.json").exists():
            patient, scan, labels = make_scan(number, scan_number, settings, patient)
            write_scan(patient, scan, labels, scan_number, folder, settings.dicom)
        truth = json.loads((folder / "truth.json").read_text(encoding="utf-8"))
        rows.append(table_row(truth, folder.relative_to(directory)))
    return rows


def write_cohort(
    patients: int,
    directory: Path,
    settings: CohortSettings | None = None,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write a cohort and return its table, `cohort.csv`. Called again after an interruption, it resumes.

    Args:
        workers: Processes; None for one per core.
        progress: Called with (done, patients) after each patient.

    Raises:
        CTError: The folder holds a cohort of other settings, or there are too few patients.
    """
    settings = settings or CohortSettings()
    if patients < 1:
        raise CTError(f"A cohort has at least one patient; {patients} were asked for.")
    directory = Path(directory)
    numbers = settings.numbers(patients)
    directory.mkdir(parents=True, exist_ok=True)
    if not same_settings(directory / "cohort.json", {"settings": asdict(settings)}):
        raise CTError(f"{directory} holds a cohort of other settings (cohort.json); choose another folder.")
    rows = in_processes(partial(write_patient, directory=directory, settings=settings), numbers, workers, progress)
    table = directory / "cohort.csv"
    lines = [row for number in numbers for row in rows[number]]
    write_table(table, list(lines[0]), lines)
    return table


def in_processes(
    work: Callable[[int], T],
    numbers: Sequence[int],
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[int, T]:
    """Run `work` for each patient number in parallel processes, and return the results by number.

    Exceptions of `work` pass through.

    Args:
        workers: Processes; None for one per core.
        progress: Called with (done, total) after each number.

    Raises:
        CTError: A process ended.
    """
    events = run_jobs(lambda: work, numbers, workers or os.cpu_count() or 1, progress)
    for number, event in zip(numbers, events, strict=True):
        if event.state == "lost":
            raise CTError(f"Patient {number} could not be made. {event.reason}")
    return {number: event.result for number, event in zip(numbers, events, strict=True)}


def patient_folder(number: int) -> str:
    return f"patient_{number:05d}"


def table_row(truth: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return a row of the cohort's table from a scan's truth."""
    scanner, pose = truth["scanner"], truth["pose"]
    return {
        "patient": truth["patient"],
        "scan": truth["scan"],
        "folder": folder.as_posix(),
        "sex": truth["sex"],
        "age_years": truth["age_years"],
        "bmi_kg_m2": truth["bmi_kg_m2"],
        "lesions": len(truth["lesions"]),
        "mass_mg": round(truth["mass_mg"], 4),
        **{f"mass_mg_{a}": round(truth["mass_mg_by_artery"][a], 4) for a in ARTERIES},
        "map_mass_mg": round(truth["map_mass_mg"], 4),
        "visible_slices": sum(label["visible"] for label in truth["slices"]),
        "heart_slices": len(truth["slices"]),
        "distractors": " ".join(sorted({d["kind"].replace(" ", "-") for d in truth["distractors"]})),
        "kvp": scanner["kvp"],
        "kernel": scanner["kernel"]["name"],
        "slice_thickness_mm": scanner["slice_thickness_mm"],
        "slice_spacing_mm": scanner["slice_spacing_mm"],
        "noise_hu": round(float(np.median(truth["noise_sd_hu"])), 1),
        "breath_hold": pose["breathing_mm"] == 0,
        "heart_rate_bpm": round(pose["heart_rate_bpm"], 1),
    }


_SAMPLE_SCAN = 2
"""Number of the sample's scan, of a patient's two."""


SAMPLES = {
    "vessels": (39, "calcium in all four arteries and in the aortic wall"),
    "motion": (22, "one large lesion in the right coronary artery, blurred by motion"),
    "aortic-valve": (12, "calcium in the aortic valve only, none in a coronary artery"),
    "no-calcium": (5, "no calcium at all"),
}
"""Number and title of the patients shown as sample data, by name."""

_DIGITAL = ScanWarning(
    "digital-patient",
    "This is a digital patient: simulated, not scanned. Its regions are painted as by an annotator who knows the "
    "truth. Its figures do not show performance in people.",
)


def write_sample(directory: Path, name: str) -> dict[str, Any]:
    """Write one scan of a sample patient into a new folder; returns its truth (see `export`)."""
    patient, scan, labels = make_scan(SAMPLES[name][0], _SAMPLE_SCAN, CohortSettings())
    return write_scan(patient, scan, labels, _SAMPLE_SCAN, directory)


def make_sample() -> SamplePatient:
    """Simulate the first sample patient for `score --sample`, without writing it."""
    from CACScoringLib.run import SamplePatient

    patient, scan, labels = make_scan(next(iter(SAMPLES.values()))[0], _SAMPLE_SCAN, CohortSettings())
    ct = replace(as_ct_scan(scan, patient), source=Path(f"digital-patient-{patient.number:05d}"))
    true_mass = {a: sum(p.mass_mg for p in patient.plaques if p.artery == a.key) for a in Artery if a <= Artery.RCA}
    return SamplePatient(
        scan=with_warnings(ct, _DIGITAL),
        lesions=scan.grid.image(labels.regions),
        calibration_mg_per_mm3_hu=1 / (1000 * scan.scanner.calcium_hu_per_mg_cm3),
        true_mass_mg=true_mass,
    )


REFERENCE_SCANNER = Scanner(
    kvp=120.0, slice_thickness_mm=3.0, slice_spacing_mm=1.5, field_of_view_mm=260.0, noise_hu=0.0, half_scan=True
)
"""Soft kernel, 120 kVp, slices of 3 mm that overlap by half, which averages two positions of the slices."""

STILL = ScanPose(motion_scale=0.0)
_MARGIN_MM = 6.0


def patient_of(truth: dict[str, Any]) -> Patient | None:
    """Return the patient of a scan's `truth.json`; None for inserted lesions, or if the number now gives another."""
    if "body" not in truth:
        return None  # calcium inserted into a real scan
    lesions = truth["lesions"]
    number, share = truth["patient"], 1.0 if lesions else 0.0
    # A given sex draws another body than the same sex drawn.
    variants = product((None, truth["sex"]), (False, True))
    drawings = (partial(draw_patient, number, sex, share, diverse=diverse) for sex, diverse in variants)
    for draw in (*drawings, partial(draw_lesion_patient, number, truth.get("difficulty"))):
        patient = draw()
        if patient.body.sex == truth["sex"] and _match(patient.plaques, lesions):
            return patient
    return None


def _match(plaques: Sequence[Plaque], lesions: Sequence[dict[str, Any]]) -> bool:
    return len(plaques) == len(lesions) and all(
        plaque.vessel == lesion["vessel"]
        and math.isclose(plaque.middle_mm, lesion["middle_mm"], rel_tol=1e-3, abs_tol=0.01)
        and math.isclose(plaque.mass_mg, lesion["mass_mg"], rel_tol=1e-3)
        for plaque, lesion in zip(plaques, lesions, strict=True)
    )


def reference_scores(patient: Patient) -> dict[str, Score]:
    """Return scores of ARTERIES in a still, noise-free scan by REFERENCE_SCANNER, with mass in mg.

    The clinical rule was made for such scans. Scores of real scans scatter around these with the scanner, the noise,
    the heart's phase and the slices' positions; prediction intervals of scores cover them.
    """
    if not patient.plaques:
        return dict.fromkeys(ARTERIES, score_of((), has_masses=True))
    # Lung vessels and grain take most of the time but do not change the score.
    patient = replace(patient, vessels=EMPTY, grain=EMPTY, distractors=())
    grid = scan_grid(REFERENCE_SCANNER, _heights_mm(patient))
    scan = scan_patient(patient, REFERENCE_SCANNER, STILL, 1, grid)
    per_mg = REFERENCE_SCANNER.calcium_hu_per_mg_cm3
    arteries = annotate(scan, np.random.default_rng(0)).arteries
    scores = score_labels(grid.image(scan.hu), arteries).arteries
    return {
        artery.key: replace(scores[artery], mass_mg=scores[artery].pseudo_mass_hu_mm3 / (1000.0 * per_mg))
        for artery in MAIN_ARTERIES
    }


def _heights_mm(patient: Patient) -> tuple[float, float]:
    """Return the heights that hold all coronary calcium, with a margin."""
    frame = posed_frame(patient.body, STILL)
    places = np.concatenate([frame.to_lps(patient.calcium(artery).positions_mm) for artery in ARTERIES])
    return float(places[:, 2].min()) - _MARGIN_MM, float(places[:, 2].max()) + _MARGIN_MM
