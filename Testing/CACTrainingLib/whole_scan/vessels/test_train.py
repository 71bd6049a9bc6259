"""`cac train vessels`: from a table to a model evaluated on held-out patients."""

import json
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from made_experiments import Warned

from CACScoringLib.models.cards import load_model
from CACScoringLib.networks.configs import VesselNetConfig
from CACScoringLib.whole_scan.trust import NO_TEST, trust_in
from CACTrainingLib.data.scan_table import held_out, read_cts
from CACTrainingLib.training.loop import LoopSettings
from CACTrainingLib.training.runs import RunOptions
from CACTrainingLib.whole_scan.sources import SourceSettings
from CACTrainingLib.whole_scan.vessels import fitting
from CACTrainingLib.whole_scan.vessels import study as train_vessels
from CACTrainingLib.whole_scan.vessels.task import VesselTraining

CONFIG = VesselNetConfig(kind="voxel-sum", slices=2, size=16, field="heart", field_mm=20.0, width=2)
TRAINING = VesselTraining(LoopSettings(4, half_precision=False, validate_every=1), 8)
COUNT = 30


def write_table(folder: Path, first: int, calcium: bool = True) -> Path:
    """Write patients whose score is that of their bright voxels; every third has none."""
    folder.mkdir()
    lines = ["name,patient,ct,age_years,sex,agatston_LM,agatston_LAD,agatston_LCX,agatston_RCA"]
    for n in range(first, first + COUNT):
        (folder / f"{n}.nii.gz").touch()
        score = 10 * (n % 3) * (n % 10) if calcium else 0
        lines.append(f"s{n},p{n},{n}.nii.gz,{50 + n % 20},{'FM'[n % 2]},0,{score},0,0")
    (folder / "table.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / "table.csv"


@pytest.fixture
def prepared(monkeypatch):
    """Prepare scans without reading them, one of them with a failure."""
    names = []

    def prepare(scans, folder, config, workers, progress):
        folder.mkdir(parents=True, exist_ok=True)
        names.extend(scan.name for scan in scans)
        files = {}
        for scan in scans:
            x = np.full(512, 0.14, np.float16)
            x[: int(scan.total // 10)] = 0.8
            files[scan.name] = folder / f"{scan.name}.npz"
            np.savez(files[scan.name], input=x.reshape(2, 16, 16), heart_ml=np.array(600.0))
        failed = {"s7": "it is no CT"} if "s7" in files else {}
        return {name: file for name, file in files.items() if name not in failed}, failed

    monkeypatch.setattr(fitting, "prepare_vessels", prepare)
    return names


def test_model_and_its_card(tmp_path, prepared, monkeypatch):
    table = write_table(tmp_path / "scans", 0)
    controls = write_table(tmp_path / "controls", 100, calcium=False)
    progress, fit = Warned(), Mock(wraps=fitting.fit_vessels)
    monkeypatch.setattr(fitting, "fit_vessels", fit)
    options = RunOptions((table,), tmp_path / "model", device="cpu")
    sources = SourceSettings(None, controls, tmp_path / "cache")
    path = train_vessels.train(options, fitting.VesselSettings(CONFIG, TRAINING, sources), progress)
    assert [warning.message for warning in progress.warnings] == ["s7 was left out: it is no CT"]
    assert len(prepared) == 2 * COUNT
    model = load_model(path, "cpu")
    card = model.card
    scans = read_cts(table)
    test_names = set(held_out(scans)) - {"s7"}
    training_names = {scan.name for scan in scans} - test_names - {"s7"}
    training, validation = map(set, fit.call_args.args[2:4])
    assert training | validation == training_names
    assert not training & validation
    largest = max(scan.total for scan in scans if scan.name in training_names)
    assert 0 < card.calibration["agatston_scale"] == float(model.network.largest) <= largest
    assert f"test {len(test_names)} scans" in card.training.data
    assert "user's table" in card.training.data
    test = card.validation["test"]
    assert test["patients"] == len(test_names)
    assert test["non_coronary_only"] == {"patients": COUNT, "called_coronary": 0}
    assert test["mse_normalised"] >= 0
    for name in ("rank_correlation", "rank_correlation_age_and_heart_size", "kappa_categories"):
        assert set(test[name]) == {"estimate", "low", "high"}
    assert test["rank_correlation"]["estimate"] > 0.9, "brightness is all there is to learn"
    assert trust_in("vessels", card.validation) != NO_TEST
    json.dumps(test, allow_nan=False)
