"""A stored result scored again from its facts, by a reader's labels or after a new calibration.

It takes neither the CT nor a network.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from .calcium_map.decomposition import (
    CALIBRATION_CODES,
    DecompositionSettings,
    calibration_warnings,
    companions,
    needed_probabilities,
    overlaps,
)
from .core.ct import CTScan
from .core.decoding import restore
from .core.errors import CTError, UnreadableError, WrongValueError
from .core.files import FACTS_FILE
from .core.progress import Progress
from .facts.measurement import Measurement
from .facts.store import read_facts
from .models.choice import LoadedModels, Networks, recorded_networks
from .pipeline import ScoreSettings, score_measurement
from .record.provenance import provenance_of
from .record.score_record import ScoreRecord, read_result
from .results import ScoreResult
from .run import read_lesions, review_of
from .scoring.judge import coronary_slices, verdict_calibration, verdicts
from .scoring.labels import reader_labels
from .scoring.reach import require_in_reach
from .scoring.uncertainty import VerdictCalibration
from .whole_scan.estimates import estimate_record, recorded_estimates

_ABOUT_LESIONS = ("lesions-given", "lesions-automatic")
"""Warnings of a scan about the lesions that it was scored with before."""


def rescore(
    folder: Path, lesions: Path | None, reader: str | None, progress: Progress, models: LoadedModels | None = None
) -> ScoreResult:
    """Score a result again by a reader's labels or by models calibrated anew, with the settings that it was made with.

    Args:
        folder: Folder of the result.
        lesions: File of the labels, as `run.read_lesions` reads it; None for an automatic score.
        reader: Reviewer of the labels; None if nobody says so.
        progress: Shows the steps.
        models: The result's models with other calibrations; None for those that the result was made with.

    Raises:
        UnreadableError: The result has no facts, or they do not fit, or do not hold what the calibration needs.
        MaskError: The labels do not fit the scan, or reach beyond its facts.
        ModelError: A model of the result is not installed.
    """
    labelled, status = None, "reviewed"
    with progress.step("reading"):
        record = read_result(folder)
        measurement, settings = read_facts(folder, record), settings_of(record, folder)
        kept = tuple(warning for warning in measurement.scan.warnings if warning.code not in _ABOUT_LESIONS)
        scan: CTScan = measurement.scan.stating(warnings=kept)
        networks = recorded_networks(record.models) if models is None else models.networks
        calibration = verdict_calibration(networks, settings.decomposition)
        if models is not None and networks is not None:
            measurement = _recalibrated(measurement, settings, networks, calibration)
        if lesions is not None:
            labels, status, doubts = read_lesions(lesions, scan, reader, record.input)
            assert labels is not None
            scan = scan.stating(warnings=(*kept, *doubts))
            labelled = reader_labels(labels, scan, measurement.facts.rules, settings.arteries_by_territory)
            require_in_reach(measurement, labelled.sites)
        measurement = replace(measurement, scan=scan)
    with progress.step("scores"):
        result = score_measurement(measurement, settings, networks, calibration, labelled, status)
    estimates = {e.network: estimate_record(e, result.methods) for e in recorded_estimates(record)}
    cards = {} if record.provenance is None else record.provenance.cards_sha256
    cards = cards if models is None else models.cards_sha256
    inputs = {"facts": folder / FACTS_FILE} | ({} if lesions is None else {"lesions": lesions})
    provenance = provenance_of({"reader": reader}, inputs, cards)
    if record.provenance is not None:
        provenance = replace(provenance, settings=record.provenance.settings)
    return result.stating(
        second_opinions=estimates,
        truth=record.truth,
        provenance=provenance,
        review=review_of(result.record, reader, provenance.created),
    )


def _recalibrated(
    measurement: Measurement, settings: ScoreSettings, networks: Networks, calibration: VerdictCalibration
) -> Measurement:
    """Return facts as networks with another calibration measure them; no network runs.

    Raises UnreadableError if these would draw another calcium map, or ask the lesion network, which was not asked.
    """
    facts, decomposed = measurement.facts, measurement.decomposed
    asks = calibration.lesions is not None and networks.lesions is not None and facts.region.territories is not None
    if asks and facts.answers is None:
        raise UnreadableError("Its facts lack the lesion network's answers, which this calibration needs.")
    if decomposed is None:
        raise UnreadableError("Its facts have no calcium map.")
    automatic, former = verdicts(facts, calibration), decomposed.parts.settings
    new = settings.decomposition or DecompositionSettings.of(networks.slices.card, networks.decomposition.card)
    new = replace(new, without_completion=former.without_completion, batch_size=former.batch_size)
    if replace(former, evidence_weights=None, most_not_coronary=1.0, slice_threshold=new.slice_threshold) != replace(
        new, evidence_weights=None, most_not_coronary=1.0
    ):
        raise UnreadableError("Its calcium map was drawn with other settings than this calibration has.")
    coronary = () if automatic is None or automatic.judged is None else coronary_slices(automatic.judged)
    overlap = overlaps(decomposed.slices.grid, facts.scan.image.GetSize()[2])
    needed = needed_probabilities(decomposed.slices, overlap, settings.slices, coronary) >= new.slice_threshold
    if not np.array_equal(needed, decomposed.parts.decomposed):
        raise UnreadableError("This calibration decomposes other slices than those whose calcium map the facts hold.")
    warnings = [warning for warning in decomposed.warnings if warning.code not in CALIBRATION_CODES]
    if settings.decomposition is None:
        warnings += calibration_warnings(networks.decomposition, companions(networks))
    parts = replace(decomposed.parts, settings=new)
    return replace(measurement, decomposed=replace(decomposed, parts=parts, warnings=tuple(warnings)))


def settings_of(record: ScoreRecord, folder: Path) -> ScoreSettings:
    """Return the settings of scoring that a result was made with. Raises UnreadableError, CTError."""
    stored = {} if record.provenance is None else record.provenance.settings.get("score", {})
    try:
        settings = restore(stored, ScoreSettings)
    except WrongValueError as wrong:
        raise UnreadableError(f"{folder.name} has no valid setting {wrong}. Score the CT again.") from None
    if settings.percentile_table is not None:
        raise CTError("The result has percentiles of a table that it does not hold. Score the CT with --lesions.")
    return settings
