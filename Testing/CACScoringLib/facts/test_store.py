"""Facts beside a result: the same scores follow from them, and they are read only where they fit."""

import json
from dataclasses import replace

import automatic_patient
import heart_with_territories
import numpy as np
import pytest
from facts_read_back import scored_again

from CACScoringLib.core.ct import ScanWarning
from CACScoringLib.core.errors import UnreadableError
from CACScoringLib.core.files import FACTS_FILE, OutputFolder
from CACScoringLib.core.progress import Progress
from CACScoringLib.facts import store
from CACScoringLib.pipeline import ScoreSettings, score_measurement
from CACScoringLib.record.provenance import provenance_of
from CACScoringLib.record.rules import ScoringRules
from CACScoringLib.record.score_record import read_result
from CACScoringLib.run import RunSettings, write_result
from CACScoringLib.scoring.judge import verdict_calibration
from CACScoringLib.scoring.uncertainty import LesionCalibration


def written(folder, result, **score_settings):
    """Write a result as `cac score` does, and return its record."""
    settings = RunSettings(ScoreSettings(**score_settings))
    shown = json.loads(json.dumps({"score": vars(settings.score) | {"rules": vars(settings.score.rules)}}, default=str))
    write_result(OutputFolder(folder), result.stating(provenance=provenance_of(shown)), settings, Progress())
    return read_result(folder)


@pytest.fixture
def stored(tmp_path):
    """Folder and record of a result with territories, calcium in an artery and outside."""
    rules = ScoringRules(calibration_mg_per_mm3_hu=0.001)
    return tmp_path / "result", written(tmp_path / "result", heart_with_territories.score(), rules=rules)


def test_the_same_record_follows_from_stored_facts(stored):
    folder, record = stored
    again = scored_again(folder, record)
    assert again.methods == record.methods
    assert replace(again, provenance=None, seconds={}) == replace(record, provenance=None, seconds={})


def test_maps_and_verdicts_follow_from_stored_facts(tmp_path):
    result, networks = automatic_patient.score(), automatic_patient.networks()
    record = written(tmp_path / "result", result)
    measurement, settings = store.read_facts(tmp_path / "result", record), ScoreSettings()
    calibration = verdict_calibration(networks)
    again = score_measurement(measurement, settings, networks, calibration)
    before = score_measurement(result.measurement, settings, networks, calibration)
    assert again.record == before.record
    assert set(again.methods) == {"threshold", "decomposition"}
    np.testing.assert_array_equal(again.decomposition.hu, before.decomposition.hu)
    # Another calibration, in which nothing counts, needs no network either.
    strict = replace(calibration, lesions=LesionCalibration(intercept=-50.0))
    assert score_measurement(measurement, settings, networks, strict).methods["threshold"].total.lesions == 0
    assert before.methods["threshold"].total.lesions > 0


def test_facts_hold_no_names(tmp_path):
    result = heart_with_territories.score(patient_name="Okonkwo^Ada")
    doubt = ScanWarning("made", "The file Okonkwo_Ada.nii is short.")
    scan = result.measurement.scan.stating(warnings=(doubt,))
    result = replace(result, measurement=replace(result.measurement, scan=scan))
    written(tmp_path / "result", result)
    with np.load(tmp_path / "result" / FACTS_FILE) as file:
        text = file["header"].tobytes().decode()
    assert '"made"' in text
    assert "Okonkwo" not in text


def test_facts_that_do_not_fit_are_refused(stored, monkeypatch):
    folder, record = stored
    with pytest.raises(UnreadableError, match="cac score"):
        store.read_facts(folder, replace(record, provenance=replace(record.provenance, facts_sha256="")))
    other = replace(record.input, voxels_sha256="0" * 64)
    with pytest.raises(UnreadableError, match="another scan"):
        store.read_facts(folder, replace(record, input=other))
    with monkeypatch.context() as patched:
        patched.setattr(store, "code_sha256", lambda: "0" * 64)
        with pytest.raises(UnreadableError, match="another version"):
            store.read_facts(folder, record)
    file = folder / FACTS_FILE
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(UnreadableError, match="has changed"):
        store.read_facts(folder, record)
    file.unlink()
    with pytest.raises(UnreadableError, match="cannot be read"):
        store.read_facts(folder, record)
