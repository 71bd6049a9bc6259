"""MONAI bundles of models: run by MONAI, and taken back as they were."""

import dataclasses
import json
import shlex
import shutil

import numpy as np
import pytest

from CACScoringLib.cli.main import main
from CACScoringLib.models import bundle as bundle_format
from CACScoringLib.models import cards
from CACScoringLib.models.cards import list_models, load_model, read_card
from CACScoringLib.models.inference import predict
from CACScoringLib.scoring import lesion_network

NAMES = ("territories-compact", "slices-compact", "map-compact", "lesions-compact")

pytest.importorskip("torch")


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    """Bundles of the models that come with CAC, by name."""
    folder = tmp_path_factory.mktemp("bundles")
    for name in NAMES:
        assert main(["models", "export", name, "--bundle", str(folder / name)]) == 0
    return folder


@pytest.fixture
def bundle(bundles, tmp_path, monkeypatch):
    """Copy of a bundle; nothing is installed."""
    monkeypatch.setenv("CAC_MODEL_DIR", str(tmp_path / "user"))
    return shutil.copytree(bundles / "slices-compact", tmp_path / "bundle")


def install(folder, capsys):
    """Return the exit code and message of an installation."""
    return main(["models", "install", str(folder)]), capsys.readouterr().err


@pytest.mark.long
def test_a_bundle_is_installed_with_its_figures_of_the_sample(bundle, tmp_path, capsys):
    code, _ = install(bundle, capsys)
    assert code == 0
    installed, stored = (folder / "slices-compact.json" for folder in (tmp_path / "user", cards.bundled_folder()))
    card, usual = cards.verify_model(installed), cards.verify_model(stored)
    assert card == dataclasses.replace(usual, validation={**usual.validation, "sample": card.validation["sample"]})
    same_name = [model for model in list_models("slices") if model.card.name == card.name]
    assert [model.origin for model in same_name] == ["bundled", "user"]


def commands_of(bundle):
    """Lines of commands in a bundle's README, each as words."""
    block = (bundle / "docs" / "README.md").read_text(encoding="utf-8").split("```")[1].replace("\\\n", " ")
    return [shlex.split(line) for line in block.strip().splitlines()]


@pytest.mark.long
def test_commands_of_the_readme_run_in_the_bundle(bundle, monkeypatch, capsys):
    """MONAI reads the first word after its module as a function, and options as its arguments (by the package fire)."""
    monai = pytest.importorskip("monai.bundle")
    monkeypatch.chdir(bundle)
    install_packages, *lines, install_model = commands_of(bundle)
    assert install_packages[:2] == ["pip", "install"]
    for words in lines:
        assert words[:3] == ["python", "-m", "monai.bundle"]
        assert callable(getattr(monai, words[3]))
        assert all((bundle / word).is_file() for word in words if word.startswith("configs/"))
    assert [words[3] for words in lines] == ["run", "verify_metadata", "verify_net_in_out"]
    assert install_model[0] == "cac"
    assert main(install_model[1:]) == 0


@pytest.mark.long
def test_metadata_describe_the_network_and_its_intended_use(bundle):
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text(encoding="utf-8"))
    card = read_card(bundle / metadata["card"])
    assert metadata["intended_use"] == card.intended_use
    image, predicted = (metadata["network_data_format"][key] for key in ("inputs", "outputs"))
    assert list(image["image"]["channel_def"].values()) == [
        "slice, -50 to 950 HU", "slice -1, -50 to 950 HU", "slice +1, -50 to 950 HU", "left", "posterior", "superior",
    ]  # fmt: skip
    assert predicted["pred"]["channel_def"] == {"0": "no calcium", "1": "calcium"}
    for words in (card.intended_use, metadata["preparation"]):
        assert words in (bundle / "docs" / "README.md").read_text(encoding="utf-8")


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning", "ignore:parsing config_file:UserWarning")
@pytest.mark.parametrize("name", NAMES)
def test_monai_verifies_and_runs_a_bundle(bundles, name, tmp_path, monkeypatch):
    bundle = pytest.importorskip("monai.bundle")
    folder = shutil.copytree(bundles / name, tmp_path / name)
    monkeypatch.chdir(folder)
    files = {"meta_file": "configs/metadata.json", "config_file": "configs/inference.json"}
    bundle.verify_net_in_out("network_def", **files)
    metadata = json.loads((folder / "configs" / "metadata.json").read_text(encoding="utf-8"))
    image = metadata["network_data_format"]["inputs"]["image"]
    inputs = np.random.default_rng(0).random((image["num_channels"], *image["spatial_shape"])).astype(np.float32)
    (folder / "inputs").mkdir()
    np.save(folder / "inputs" / "scan.npy", inputs)
    bundle.run(config_file=files["config_file"])
    network = load_model(cards.bundled_folder() / f"{name}.json", "cpu").network
    np.testing.assert_allclose(np.load("eval/scan.npy"), predict(network, inputs[None], 1)[0][0], atol=1e-3)


@pytest.mark.long
def test_broken_bundles_are_refused(bundle, capsys):
    weights = bundle / "models" / "slices-compact.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    code, message = install(bundle, capsys)
    assert (code, "damaged" in message) == (3, True)
    weights.unlink()
    assert "cannot be read" in install(bundle, capsys)[1]
    card = bundle / "models" / "slices-compact.json"
    renamed = json.loads(card.read_text(encoding="utf-8")) | {"name": "../slices-compact"}
    card.write_text(json.dumps(renamed), encoding="utf-8")
    assert "file and name must agree" in install(bundle, capsys)[1]
    card.unlink()
    assert "0 cards" in install(bundle, capsys)[1]
    (bundle / "configs" / "metadata.json").unlink()
    assert "is no MONAI bundle" in install(bundle, capsys)[1]
    assert not cards.user_folder().exists()


def test_lesion_patches_are_described_as_scoring_makes_them():
    words = [f"{low:g} to {high:g}" for low, high in lesion_network.WINDOWS_HU]
    words += [" × ".join(f"{mm:g}" for mm in lesion_network.PATCH_STEP_MM), f"{lesion_network.NOISE_SCALE_HU:g} HU"]
    assert all(word in bundle_format.PREPARATION["lesions"] for word in words)


def test_reasons_against_an_export_are_named(tmp_path, capsys):
    for name, code, reason in (
        ("slices-compact", 0, ""),
        ("sharpener-compact", 3, "for 'super_resolution'"),
        ("../map-compact", 3, "There is no model"),
        ("map-compact", 2, "exists already"),
    ):
        assert main(["models", "export", name, "--bundle", str(tmp_path / "bundle")]) == code
        assert reason in capsys.readouterr().err
