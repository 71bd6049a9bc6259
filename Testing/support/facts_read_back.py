"""Scores from the facts beside a result, compared with the result."""

from __future__ import annotations

from pathlib import Path

from CACScoringLib.core.decoding import restore
from CACScoringLib.facts.store import read_facts
from CACScoringLib.models.choice import ModelChoice, Networks, chosen_models, load_models
from CACScoringLib.pipeline import ScoreSettings, score_measurement
from CACScoringLib.record.score_record import ScoreRecord, read_result
from CACScoringLib.scoring.judge import verdict_calibration

BESIDE = {"provenance", "seconds", "second_opinions", "truth", "warnings"}
"""Keys of `scores.json` that do not follow from the facts, or not alone."""


def differing_keys(folder: Path) -> list[str]:
    """Return the keys of an automatic result in which its record differs from what its facts give."""
    record = read_result(folder)
    networks = load_models(chosen_models(ModelChoice())).networks if record.models else None
    again = scored_again(folder, record, networks)
    before, after = record.as_json(), again.as_json()
    lost = set(again.warnings) - set(record.warnings)
    return [key for key in before | after if key not in BESIDE and before.get(key) != after.get(key)] + [
        f"warnings: {warning.code}" for warning in lost
    ]


def scored_again(folder: Path, record: ScoreRecord, networks: Networks | None = None) -> ScoreRecord:
    """Return the record that follows from the facts beside a result."""
    assert record.provenance is not None
    settings = restore(record.provenance.settings["score"], ScoreSettings)
    calibration = verdict_calibration(networks, settings.decomposition)
    return score_measurement(read_facts(folder, record), settings, networks, calibration).record
