"""A stored result scored again by a reader's labels, from its facts: without the CT, and no network runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from .core.ct import CTScan
from .core.decoding import restore
from .core.errors import CTError, UnreadableError, WrongValueError
from .core.files import FACTS_FILE
from .core.progress import Progress
from .facts.store import read_facts
from .models.choice import recorded_networks
from .pipeline import ScoreSettings, score_measurement
from .record.provenance import provenance_of
from .record.score_record import ScoreRecord, read_result
from .results import ScoreResult
from .run import read_lesions, review_of
from .scoring.judge import verdict_calibration
from .scoring.labels import reader_labels
from .scoring.reach import require_in_reach
from .whole_scan.estimates import estimate_record, recorded_estimates

_ABOUT_LESIONS = ("lesions-given", "lesions-automatic")
"""Warnings of a scan about the lesions that it was scored with before."""


def rescore(folder: Path, lesions: Path, reader: str | None, progress: Progress) -> ScoreResult:
    """Score a result again by a reader's labels, with the settings and models that it was made with.

    Args:
        folder: Folder of the result.
        lesions: File of the labels, as `run.read_lesions` reads it.
        reader: Reviewer of the labels; None if nobody says so.
        progress: Shows the steps.

    Raises:
        UnreadableError: The result has no facts, or they do not fit.
        MaskError: The labels do not fit the scan, or reach beyond its facts.
        ModelError: A model of the result is not installed.
    """
    with progress.step("reading"):
        record = read_result(folder)
        measurement, settings = read_facts(folder, record), settings_of(record, folder)
        kept = tuple(warning for warning in measurement.scan.warnings if warning.code not in _ABOUT_LESIONS)
        scan: CTScan = measurement.scan.stating(warnings=kept)
        labels, status, doubts = read_lesions(lesions, scan, reader, record.input)
        assert labels is not None
        measurement = replace(measurement, scan=scan.stating(warnings=(*kept, *doubts)))
        networks = recorded_networks(record.models)
    with progress.step("scores"):
        rules = measurement.facts.rules
        labelled = reader_labels(labels, scan, rules, settings.arteries_by_territory)
        require_in_reach(measurement, labelled.sites)
        calibration = verdict_calibration(networks, settings.decomposition)
        result = score_measurement(measurement, settings, networks, calibration, labelled, status)
    estimates = {e.network: estimate_record(e, result.methods) for e in recorded_estimates(record)}
    cards = {} if record.provenance is None else record.provenance.cards_sha256
    provenance = provenance_of({"reader": reader}, {"facts": folder / FACTS_FILE, "lesions": lesions}, cards)
    if record.provenance is not None:
        provenance = replace(provenance, settings=record.provenance.settings)
    return result.stating(
        second_opinions=estimates,
        truth=record.truth,
        provenance=provenance,
        review=review_of(result.record, reader, provenance.created),
    )


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
