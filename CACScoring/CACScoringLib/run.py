"""Scoring of a CT from its files to the written result, as all commands do it; `pipeline` has the steps of scoring."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import SimpleITK as sitk

from .core.acquisition import unnamed, unnamed_message, unnamed_scan, with_pseudonym
from .core.ct import CTScan, ScanWarning, mask_on_scan_grid, with_warnings
from .core.files import FACTS_FILE, LAST_FILE, OutputFolder, file_sha256
from .core.labels import Artery
from .core.progress import Progress
from .core.text import printable
from .core.version import code_sha256
from .io.dicom import is_dicom
from .io.reading import read_ct, read_lesion_labels, read_mask, with_facts
from .models.choice import LoadedModels
from .pipeline import ScoreSettings, score_scan
from .pipeline import steps as scoring_steps
from .quality.calibration import stored_repeatability
from .quality.mass_calibration import insert_calibration
from .record.findings import MassCalibration
from .record.provenance import Confirmation, Provenance, ReviewRecord
from .record.score_record import InputRecord, ScoreRecord, TruthRecord, severe_first
from .report import files as report
from .report import page
from .results import ScoreResult
from .scoring.labels import status_of_own_labels
from .scoring.reach import voxels_in_reach

if TYPE_CHECKING:
    from .exchange.belonging import Kind
    from .scoring.comparison import Comparison


@dataclass(frozen=True)
class RunSettings:
    """Settings of scoring and of the written results.

    Attributes:
        score: Settings of scoring.
        identify: Write the patient's name and ID, study date and UIDs.
        scene: Write scene.mrb.
        healthy: Write healthy.nii.gz, the scan less the map, as large as the scan.
        saliency: Compute attributions of whole-scan estimates, which take most of their time.
        dicom: Write DICOM objects for archives, of scans read from DICOM.
        reader: Reviewer of the given lesions, who makes their score a reviewed one; a DICOM person name with `dicom`,
            whose objects name the reader if `identify` is set.
    """

    score: ScoreSettings = field(default_factory=ScoreSettings)
    identify: bool = False
    scene: bool = False
    healthy: bool = False
    saliency: bool = True
    dicom: bool = False
    reader: str | None = None


@dataclass(frozen=True)
class SamplePatient:
    """A digital patient to try the software on.

    Attributes:
        scan: The CT.
        lesions: Regions as an annotator would paint them, `Artery` labels.
        calibration_mg_per_mm3_hu: Mass calibration of its scanner.
        true_mass_mg: Mass of calcium by artery.
    """

    scan: CTScan
    lesions: sitk.Image
    calibration_mg_per_mm3_hu: float
    true_mass_mg: dict[Artery, float]


@dataclass(frozen=True)
class ScanInput:
    """Input files of one scan.

    Attributes:
        ct: Image file or DICOM folder, a scan, or a function that makes a digital patient.
        series: Series of the folder, as `read_ct` takes it.
        heart: Mask of the heart, or its file.
        lesions: A reader's lesions, or their file.
        pericardium: Mask of all within the pericardium, for epicardial fat, or its file.
        acquisition: Facts that the CT's file lacks, fields of `Acquisition` or a JSON file of them.
        calibration_insert: Mask of a phantom insert in the scan and its density in mg/cm³, to calibrate mass by.
        name: Name of the scan in results; None for the name of its file.
    """

    ct: Path | CTScan | Callable[[], SamplePatient]
    series: str | None = None
    heart: Path | sitk.Image | None = None
    lesions: Path | sitk.Image | None = None
    pericardium: Path | sitk.Image | None = None
    acquisition: Path | dict[str, Any] | None = None
    calibration_insert: tuple[Path, float] | None = None
    name: str | None = None


def run_scan(
    scan_input: ScanInput,
    settings: RunSettings,
    models: LoadedModels,
    output: OutputFolder,
    progress: Progress | None = None,
    earlier: ScoreRecord | None = None,
    different_patients: bool = False,
) -> tuple[ScoreResult, Comparison | None]:
    """Read a scan, score it, and write all of its result.

    Args:
        scan_input: Input files of the scan.
        settings: Settings of scoring and of the written results.
        models: The models.
        output: The folder of results.
        progress: Receives the steps and all warnings.
        earlier: Result of an earlier scan of the patient, as returned by `read_result`.
        different_patients: As in `compare`.

    Returns:
        The result, and the comparison with an `earlier` one.

    Raises:
        CTError: The input cannot be used.
        OutputError: The results cannot be written.
    """
    progress = progress or Progress()
    progress.begin(_steps(settings, models))
    result = read_and_score(scan_input, settings, models, progress, None if different_patients else earlier)
    comparison = None
    if earlier is not None:
        from .scoring.comparison import compare

        limits = stored_repeatability(result.record)
        comparison = compare(earlier, result.record, limits, different_patients, settings.identify)
    write_result(output, result, settings, progress, comparison)
    warnings = result.record.warnings
    before = [] if earlier is None else earlier.severe_warnings("Earlier scan")
    for warning in severe_first((*warnings, *before, *(comparison.warnings if comparison else ()))):
        progress.warning(warning)
    progress.done(output.path)
    return result, comparison


def _steps(settings: RunSettings, models: LoadedModels) -> list[str]:
    optional_steps = {
        "whole-scan estimates": bool(models.estimates),
        "report": True,
        "scene": settings.scene,
        "dicom": settings.dicom,
    }
    return ["reading", *scoring_steps(models.networks), *(name for name, is_on in optional_steps.items() if is_on)]


def read_and_score(
    scan_input: ScanInput,
    settings: RunSettings,
    models: LoadedModels,
    progress: Progress,
    of_patient: ScoreRecord | None = None,
) -> ScoreResult:
    """Read a scan and score it. of_patient: Result that must be of the same patient. The rest as in `run_scan`."""
    score_settings = settings.score
    with progress.step("reading"):
        source, sample = scan_input.ct, None
        if not isinstance(source, Path | CTScan):
            sample = source()
            source = sample.scan
        scan = read_ct(source, scan_input.series) if isinstance(source, Path) else source
        if scan_input.acquisition:
            scan = scan.stating(acquisition=with_facts(scan.acquisition, scan_input.acquisition))
        if scan_input.name:
            scan = scan.stating(source=Path(scan_input.name))
        if of_patient is not None:
            from .scoring.comparison import check_patients

            check_patients(of_patient.acquisition, with_pseudonym(scan.acquisition))
        masks: dict[Kind, Path | sitk.Image | None] = {"heart": scan_input.heart, "pericardium": scan_input.pericardium}
        heart, pericardium = (read_mask(mask) if isinstance(mask, Path) else mask for mask in masks.values())
        mask_doubts = [doubt for kind, mask in masks.items() for doubt in _origin_warnings(mask, scan, kind)]
        if settings.dicom:
            from .exchange.source import check_reader, check_series

            check_reader(settings.reader)
            check_series(scan)
        lesions, status, doubts = read_lesions(scan_input.lesions, scan, settings.reader)
        if sample and lesions is None:
            lesions, status = sample.lesions, "reviewed"
        calibration, warnings = _calibration(scan_input, score_settings, scan, sample)
        scan = with_warnings(scan, *mask_doubts, *doubts, *warnings, *models.warnings)
    score_settings = replace(score_settings, calibration=calibration)
    result = score_scan(scan, score_settings, heart, lesions, models.networks, progress, pericardium, status)
    if models.estimates:
        from .whole_scan.estimates import estimate_record
        from .whole_scan.run import estimate_whole_scan

        parts = result.scored_scan, result.region, result.methods
        whole_scan = estimate_whole_scan(*parts, models.estimates, settings.saliency, progress)
        warnings = tuple(dict.fromkeys((*result.record.warnings, *whole_scan.warnings)))
        opinions = {estimate.network: estimate_record(estimate, result.methods) for estimate in whole_scan.estimates}
        result = replace(result.stating(warnings=warnings, second_opinions=opinions), estimates=whole_scan.estimates)
    if settings.dicom:
        from .exchange.write import dicom_warnings

        result = result.stating(warnings=(*result.record.warnings, *dicom_warnings(result)))
    provenance = _provenance(scan_input, settings, models)
    result = result.stating(
        provenance=provenance,
        review=review_of(result.record, settings.reader, provenance.created),
        truth=None if sample is None else TruthRecord.of(sample.true_mass_mg),
    )
    return result if settings.identify else _unnamed(result)


def _unnamed(result: ScoreResult) -> ScoreResult:
    """Return a result whose scan and command do not name the patient."""
    record, acquisition = result.record, result.record.acquisition
    name = record.input.name and unnamed_scan(record.input.name, acquisition)
    scan, provenance = result.scan.stating(source=Path(name) if name else None), record.provenance
    warnings = tuple(replace(w, message=unnamed_message(w.message, acquisition)) for w in record.warnings)
    if provenance is not None and provenance.command is not None:
        provenance = replace(provenance, command=unnamed(provenance.command, acquisition))
    return replace(result, scan=scan).stating(
        input=replace(record.input, name=name), provenance=provenance, warnings=warnings
    )


def review_of(record: ScoreRecord, reader: str | None, time: str) -> ReviewRecord | None:
    """Return the record of a review that --reader states; None without one."""
    method = record.methods["threshold"]
    if reader is None or not method.reviewed:
        return None
    confirmation = Confirmation(reader, time, len(method.lesions) + len(method.outside))
    reviewed = {name: method.reviewed for name, method in record.methods.items()}
    return ReviewRecord("cac score --reader", reviewed, confirmations={"threshold": confirmation})


def _provenance(scan_input: ScanInput, settings: RunSettings, models: LoadedModels) -> Provenance:
    """Return the provenance of a result."""
    score, insert = settings.score, scan_input.calibration_insert
    inputs = {name: getattr(scan_input, name) for name in ("heart", "lesions", "pericardium")}
    inputs |= {"calibration_insert": insert and insert[0], "acquisition": scan_input.acquisition}
    inputs |= {"percentile_table": score.percentile_table, "mass_table": score.mass_table}
    paths = {role: path for role, path in inputs.items() if isinstance(path, Path)}
    return models.provenance(asdict(settings), paths)


def read_lesions(
    path: Path | sitk.Image | None, scan: CTScan, reader: str | None, recorded: InputRecord | None = None
) -> tuple[sitk.Image | None, str, Sequence[ScanWarning]]:
    """Read the lesions of a scan, if any.

    Lesions count as reviewed if a reader is named, or if CAC wrote the file after a review. What CAC wrote without one
    stays automatic; other labels are "given".

    Args:
        path: Label map, or file of one, of a DICOM Segmentation or of an RT Structure Set; None without one.
        scan: The scan.
        reader: Who reviewed the lesions; None if nobody says so.
        recorded: Record of the scan, if that was restored from a result.

    Returns:
        Labels, status of their score, and warnings.

    Raises:
        CTError: As `read_lesion_labels` and `read_reviewed`.
    """
    if path is None:
        return None, "reviewed", ()
    warnings: tuple[ScanWarning, ...] = ()
    if isinstance(path, Path) and path.is_file() and is_dicom(path):
        from .exchange.reviewed import read_review_file, read_reviewed

        labels, warnings = read_reviewed(path, scan, recorded)
        origin = read_review_file(path).status
    else:
        labels = read_lesion_labels(path) if isinstance(path, Path) else path
        origin = status_of_own_labels(labels)
        warnings = _origin_warnings(path, scan, "lesions", recorded)
    status = "reviewed" if reader else origin or "given"
    name = f" in {printable(path.name)}" if isinstance(path, Path) else ""
    ask = "If you have reviewed them, score again in your name."
    if status == "automatic":
        message = f"The lesions{name} are CAC's own, which no reader has changed. {ask}"
        warnings = (*warnings, ScanWarning("lesions-automatic", message))
    if status == "given":
        message = f"The lesions{name} were scored as given: nobody says who has reviewed them. {ask}"
        warnings = (*warnings, ScanWarning("lesions-given", message))
    return labels, status, warnings


def _origin_warnings(
    file: Path | sitk.Image | None, scan: CTScan, kind: Kind, recorded: InputRecord | None = None
) -> tuple[ScanWarning, ...]:
    """Check series and patient of a label map or mask as far as it states them. Raises MaskError."""
    if file is None:
        return ()
    from .exchange.belonging import check_image_file, check_origin, origin_of_image  # loads pydicom

    if isinstance(file, Path):
        return check_image_file(file, scan, kind, recorded)
    name = "The label map" if kind == "lesions" else f"The {kind}"
    metadata = {key: file.GetMetaData(key) for key in file.GetMetaDataKeys()}
    return check_origin(origin_of_image(metadata, name), scan, name, kind, recorded)


def _calibration(
    scan_input: ScanInput, settings: ScoreSettings, scan: CTScan, sample: SamplePatient | None
) -> tuple[MassCalibration | None, tuple[ScanWarning, ...]]:
    """Return the mass calibration of an insert or of the sample, None without either; and warnings."""
    if scan_input.calibration_insert:
        path, density = scan_input.calibration_insert
        insert, warnings = mask_on_scan_grid(read_mask(path), scan, "calibration insert")
        doubts = _origin_warnings(path, scan, "calibration insert")
        return insert_calibration(scan.hu, insert > 0, density), (*doubts, *warnings)
    if settings.rules.calibration_mg_per_mm3_hu is None and sample:
        return MassCalibration("given", 1000 * sample.calibration_mg_per_mm3_hu, 0.0), ()
    return None, ()


def write_result(
    output: OutputFolder,
    result: ScoreResult,
    settings: RunSettings,
    progress: Progress,
    comparison: Comparison | None = None,
) -> None:
    """Write all files of a result, `LAST_FILE` at the end; the seconds in it are the progress's. Raises OutputError."""
    result = result if settings.identify else _unnamed(result)
    with output.being_written() as folder, ThreadPoolExecutor(1) as thread:
        with progress.step("report"):
            images = thread.submit(report.write_images, folder, result, settings.healthy)
            report.write_csv(folder, result.record, settings.identify)
            html = page.result_as_html(result, settings.identify, comparison)
            (folder / "report.html").write_text(html, encoding="utf-8")
        if result.measurement is not None:
            result = _with_facts(folder, result, settings.identify)
        if settings.scene:
            with progress.step("scene"):
                from .mrml import scene  # takes a second, and needs MRML

                scene.write_scene(folder / "scene.mrb", result, settings.identify)
        if settings.dicom:
            with progress.step("dicom"):
                from .exchange.write import write_objects  # takes seconds, and needs highdicom

                write_objects(folder, result, name_reader=settings.identify)
        images.result()
        compared = None if comparison is None else comparison.as_json()
        report.write_json(folder / LAST_FILE, result.record, progress.seconds, settings.identify, compared)


def _with_facts(folder: Path, result: ScoreResult, identify: bool) -> ScoreResult:
    """Write the facts of a result, and return it with their hash in its provenance."""
    from .facts.store import write_facts

    measurement, provenance = result.measurement, result.record.provenance
    assert measurement is not None
    acquisition = result.record.acquisition
    in_messages = str if identify else partial(unnamed_message, acquisition=acquisition)
    write_facts(folder / FACTS_FILE, measurement, voxels_in_reach(measurement), in_messages)
    if provenance is None:
        return result
    facts_sha256 = file_sha256(folder / FACTS_FILE)
    return result.stating(provenance=replace(provenance, facts_sha256=facts_sha256, code_sha256=code_sha256()))
