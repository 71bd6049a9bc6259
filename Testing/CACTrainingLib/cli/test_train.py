"""`cac train NETWORK`: options, presets and settings reach the network's training, and foreign ones are refused."""

import json

import pytest

from CACScoringLib.cli.main import BAD_USAGE
from CACTrainingLib.cli.main import main
from CACTrainingLib.training import decomposition, slices, territories


@pytest.fixture
def train(tmp_path, monkeypatch):
    """Function that runs the command without training; returns exit code, options and settings."""

    def run(network, *words):
        received = []
        for module in (territories, slices, decomposition):
            monkeypatch.setattr(module, "train", lambda options, settings, _: received.extend((options, settings)))
        command = ["train", network, "--output", str(tmp_path / "m"), "--progress", "none", *map(str, words)]
        return main(command), *received

    return run


def test_settings_change_the_preset(train, tmp_path):
    table = tmp_path / "settings.json"
    table.write_text(json.dumps({"loop": {"patience": 3}, "batch_size": 7}), encoding="utf-8")
    words = ("--settings", table, "--steps", 5, "--annotator", "Ada", "--workers", 2)
    code, options, settings = train("territories", *words)
    assert code == 0
    assert (settings.batch_size, settings.learning_rate, settings.network.width) == (7, 1e-3, 16)
    assert (settings.loop.patience, settings.loop.steps, settings.loop.validate_every) == (3, 5, 400)
    assert (options.annotator, options.workers, options.preset) == ("Ada", 2, "compact")


def test_a_preset_names_size_and_method(train, tmp_path):
    _, _, settings = train("decomposition", "--data", tmp_path, "--preset", "paper-labels")
    assert (settings.method, settings.network.width, settings.spot_weight) == ("labels", 64, 10.0)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["slices", "--data", "d", "--preset", "huge"], "no preset 'huge'; choose one of compact, real-slices, paper"),
        (["slices"], "--data"),
        (["radiomics", "--data", "d", "--steps", "3", "--resume"], "`cac train radiomics` has no --resume, --steps"),
        (["slices", "--data", "d", "--settings", '{"dither_hu": 3}'], "fields of these names"),
        (["slices", "--data", "d", "--settings", '{"loop": {"steps": "many"}}'], "wrong type"),
    ],
)
def test_what_a_network_does_not_know_is_refused(train, words, message, capsys):
    assert train(*words) == (BAD_USAGE,)
    assert message in capsys.readouterr().err
