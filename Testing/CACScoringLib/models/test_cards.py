"""Models on disk: what is saved comes back, and what is damaged or does not fit is refused."""

import contextlib
import dataclasses
import hashlib
import itertools
import json
import os
import re
import shutil
import stat
import sys
from pathlib import Path

import pytest
import torch

from CACScoringLib.calcium_map.decomposition import CALIBRATED
from CACScoringLib.models import cards as models
from CACScoringLib.models import preprocessing
from CACScoringLib.models.cards import (
    ModelError,
    Training,
    bundled_folder,
    describe,
    find_model,
    install_model,
    list_models,
    load_model,
    read_card,
    read_network,
    roll_back,
    save_model,
    user_folder,
    verify_model,
)
from CACScoringLib.models.inference import DeviceError, bfloat16_is_fast, choose_device
from CACScoringLib.networks.van_velzen import GeneratorConfig, HeartNetConfig, build
from CACScoringLib.run import SCORING_NETWORKS
from CACScoringLib.scoring.evidence import Evidence
from CACScoringLib.scoring.uncertainty import Uncertainty

BUNDLED = Path(__file__).parents[3] / "CACScoring" / "CACScoringLib" / "Resources" / "Models"

CONFIG = GeneratorConfig(width=4, residual_blocks=1, upsampling="resize", skips=True, neighbours=1)


def card_for(config=CONFIG, name="tiny"):
    return describe(
        name,
        config,
        preset="custom",
        training=Training(data="none: random weights", seed=3, settings={"steps": 0, "rates": [0.1]}, commit="0" * 40),
        validation={"n": 0},
        calibration={"floor_hu": 10.0},
        licence="Apache-2.0",
        intended_use="Tests only.",
    )


def network_for(config=CONFIG):
    torch.manual_seed(3)
    network = build(config)
    network(torch.rand(2, 3, 16, 16) * 5 if config == CONFIG else torch.rand(2, 1, 16, 16, 16))  # running statistics
    return network


@pytest.fixture
def saved(tmp_path) -> Path:
    return save_model(network_for(), card_for(), tmp_path / "made")


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Empty places for bundled and user models."""
    monkeypatch.setenv("CAC_MODEL_DIR", str(tmp_path / "user"))
    monkeypatch.setattr(models, "bundled_folder", lambda: tmp_path / "bundled")
    return tmp_path


def change(path: Path, **fields) -> None:
    content = json.loads(path.read_text())
    content.update(fields)
    path.write_text(json.dumps(content))


class TestSaved:
    def test_card_comes_back(self, saved):
        card = read_card(saved)
        weights = saved.with_suffix(".safetensors").read_bytes()
        assert card == dataclasses.replace(card_for(), sha256=hashlib.sha256(weights).hexdigest())
        assert card.preprocessing_version == preprocessing.VERSION
        assert card.network == "decomposition"
        assert sorted(f.name for f in saved.parent.iterdir()) == ["tiny.json", "tiny.safetensors"]

    def test_network_comes_back_in_half_precision(self, saved):
        card, network = read_network(saved)
        assert card.config == dataclasses.asdict(CONFIG)
        original = network_for().state_dict()
        for key, tensor in network.state_dict().items():
            expected = original[key].half().to(tensor.dtype) if tensor.ndim > 1 else original[key]
            torch.testing.assert_close(tensor, expected, rtol=0, atol=0, msg=key)
        size = saved.with_suffix(".safetensors").stat().st_size
        assert size < 2.5 * sum(p.numel() for p in network.parameters()) + 8000

    def test_loaded_model_answers_like_the_saved_network(self, saved):
        loaded = load_model(saved, "cpu")
        x = torch.rand(2, 3, 32, 32)
        with torch.no_grad():
            torch.testing.assert_close(loaded.network(x), network_for().eval()(x), rtol=1e-2, atol=1e-3)
        assert not loaded.network.training
        assert not [m for m in loaded.network.modules() if isinstance(m, torch.nn.BatchNorm2d)]
        assert {p.dtype for p in loaded.network.parameters()} == {torch.float32}

    def test_heart_and_classifier_run_in_half_precision_where_it_is_fast(self, tmp_path):
        config = HeartNetConfig(width=2, residual_blocks=1)
        path = save_model(network_for(config), card_for(config), tmp_path)
        expected = torch.bfloat16 if bfloat16_is_fast("cpu") else torch.float32
        assert {p.dtype for p in load_model(path, "cpu").network.parameters()} == {expected}

    def test_nothing_is_overwritten_unasked(self, saved):
        with pytest.raises(ModelError, match="exists already"):
            save_model(network_for(), card_for(), saved.parent)
        save_model(network_for(), card_for(), saved.parent, overwrite=True)

    @pytest.mark.parametrize("name", ["", "../up", "Name", "a/b", ".hidden"])
    def test_bad_names(self, name, tmp_path):
        with pytest.raises(ModelError, match="not a valid model name"):
            save_model(network_for(), card_for(name=name), tmp_path)
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize("value", [float("nan"), 1e6])
    def test_diverged_weights_are_not_saved(self, value, tmp_path):
        network = network_for()
        network.last.weight.data[0, 0, 0, 0] = value
        with pytest.raises(ModelError, match=r"last\.weight"):
            save_model(network, card_for(), tmp_path)

    @pytest.mark.skipif(sys.platform == "win32", reason="file modes of POSIX")
    def test_others_may_read_the_files(self, saved):
        assert all(f.stat().st_mode & stat.S_IRGRP for f in saved.parent.iterdir())


class TestRefused:
    def test_exchanged_weights(self, saved):
        weights = saved.with_suffix(".safetensors")
        data = bytearray(weights.read_bytes())
        data[-1] ^= 1
        weights.write_bytes(data)
        for use in (verify_model, load_model):
            with pytest.raises(ModelError, match="SHA-256"):
                use(saved)

    def test_other_preprocessing(self, saved):
        change(saved, preprocessing_version=preprocessing.VERSION + 1)
        with pytest.raises(ModelError, match=r"version 2 of the preprocessing.*version 1"):
            load_model(saved)

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"schema": "cac-model/9"}, "schema cac-model/1"),
            ({"network": "kidney"}, "'kidney'"),
            ({"licence": None, "colour": "red"}, "colour"),
            ({"training": {"data": "x"}}, "missing fields"),
            ({"training": "x"}, "missing fields"),
            ({"config": {"width": 4}}, "residual_blocks"),
            ({"config": dataclasses.asdict(CONFIG) | {"dropout": 0.5}}, "dropout"),
            ({"config": dataclasses.asdict(CONFIG) | {"upsampling": "bicubic"}}, "bicubic"),
            ({"config": dataclasses.asdict(CONFIG) | {"width": "four"}}, "No network can be built"),
            ({"config": dataclasses.asdict(CONFIG) | {"width": 8}}, "do not fit"),
            ({"config": dataclasses.asdict(CONFIG) | {"residual_blocks": 2}}, "do not fit"),
            ({"name": "other"}, "'other'"),
            ({"name": 5}, "no valid name"),
            ({"config": 7, "licence": {}}, "no valid licence, config"),
            ({"training": {"data": "x", "seed": 0, "settings": [], "commit": ""}}, "no valid training"),
            ({"repeatability": 1}, "no valid repeatability"),
        ],
    )
    def test_card_that_does_not_fit(self, saved, fields, message):
        change(saved, **fields)
        with pytest.raises(ModelError, match=message):
            verify_model(saved)

    @pytest.mark.parametrize(("width", "message"), [(5000, "values above 4096: width"), (4096, "do not fit")])
    def test_a_network_larger_than_memory_is_not_made(self, saved, width, message):
        change(saved, config=dataclasses.asdict(CONFIG) | {"width": width, "residual_blocks": 40})
        with pytest.raises(ModelError, match=message):
            verify_model(saved)

    def test_other_weights_under_a_right_hash(self, saved):
        """A pickle is not even looked into."""
        weights = saved.with_suffix(".safetensors")
        torch.save(network_for().state_dict(), weights)
        change(saved, sha256=hashlib.sha256(weights.read_bytes()).hexdigest())
        with pytest.raises(ModelError, match="safetensors"):
            load_model(saved)

    def test_missing_files(self, saved):
        saved.with_suffix(".safetensors").unlink()
        with pytest.raises(ModelError, match="weights of tiny cannot be read"):
            verify_model(saved)
        with pytest.raises(ModelError, match=r"none\.json"):
            verify_model(saved.with_name("none.json"))
        saved.write_text("{")
        with pytest.raises(ModelError, match="cannot be read"):
            verify_model(saved)


class TestInstalled:
    def test_install_and_find(self, saved, folders):
        assert list_models() == []
        with pytest.raises(ModelError, match="Installed: none"):
            find_model("decomposition", "tiny")
        stored = install_model(saved)
        assert stored.path.parent == folders / "user"
        assert find_model("decomposition", "tiny") == stored
        assert list_models("heart") == []
        assert load_model(stored.path).card == stored.card

    def test_installing_twice(self, saved, folders):
        install_model(saved)
        install_model(saved)
        other = network_for()
        other.last.bias.data += 1
        save_model(other, card_for(), saved.parent, overwrite=True)
        with pytest.raises(ModelError, match="exists already"):
            install_model(saved)
        assert install_model(saved, overwrite=True).card == read_card(saved)

    def test_damaged_model_is_not_installed(self, saved, folders):
        change(saved, sha256="0" * 64)
        with pytest.raises(ModelError, match="SHA-256"):
            install_model(saved)
        assert list_models() == []

    def test_a_model_from_other_preprocessing_changes_nothing(self, saved, folders):
        installed = install_model(saved)
        before = files_in(folders / "user")
        change(saved, preprocessing_version=preprocessing.VERSION + 1)
        with pytest.raises(ModelError, match=r"trained on scans prepared by version 2.*Install a model or a program"):
            install_model(saved, overwrite=True)
        assert files_in(folders / "user") == before
        verify_model(installed.path)

    def test_bundled_model_is_the_default_and_a_users_has_to_be_named(self, saved, folders):
        install_model(saved)
        with pytest.raises(ModelError, match="0 models"):
            find_model("decomposition")
        save_model(network_for(), card_for(name="shipped"), folders / "bundled")
        assert find_model("decomposition").card.name == "shipped"
        assert [(m.card.name, m.origin) for m in list_models()] == [("shipped", "bundled"), ("tiny", "user")]
        save_model(network_for(), card_for(name="second"), folders / "bundled")
        with pytest.raises(ModelError, match=r"2 models.*second \(bundled\), shipped"):
            find_model("decomposition")

    def test_an_alternative_is_used_where_it_is_named(self, folders):
        save_model(network_for(), card_for(), folders / "bundled")
        save_model(network_for(), dataclasses.replace(card_for(), name="other"), folders / "bundled" / "Alternatives")
        assert find_model("decomposition").card.name == "tiny"
        assert find_model("decomposition", "other").origin == "alternative"

    def test_users_model_hides_a_bundled_one_of_its_name(self, saved, folders):
        save_model(network_for(), card_for(), folders / "bundled")
        install_model(saved)
        assert find_model("decomposition", "tiny").origin == "user"

    def test_folders(self, monkeypatch, tmp_path):
        monkeypatch.delenv("CAC_MODEL_DIR", raising=False)
        monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
        monkeypatch.setattr(sys, "platform", "linux")
        assert user_folder() == tmp_path / "CAC" / "Models"
        monkeypatch.setattr(sys, "platform", "win32")
        monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
        assert user_folder() == tmp_path / "local" / "CAC" / "Models"
        assert bundled_folder() == Path(models.__file__).parents[1] / "Resources" / "Models"

    def test_bundled_models_are_whole_and_small(self):
        """What the repository ships: 36 MB at most in all."""
        for path in sorted(bundled_folder().rglob("*.json")):
            verify_model(path)
        assert sum(f.stat().st_size for f in bundled_folder().rglob("*") if f.is_file()) < 36e6


def files_in(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def versions(tmp_path) -> list[Path]:
    """Three models of one name, each in a folder of its own."""
    paths = []
    for number in range(3):
        network = network_for()
        network.last.bias.data += number
        card = dataclasses.replace(card_for(), validation={"version": number})
        paths.append(save_model(network, card, tmp_path / f"version-{number}"))
    return paths


def installed_version() -> int:
    """Of the only model that is listed, which has to be whole."""
    (model,) = list_models()
    return verify_model(model.path).validation["version"]


class _Killed(BaseException):
    pass


class _Disk:
    """Counts what changes a file, and ends there at one of these moments: nothing is changed any more, as if killed."""

    CHANGES = ((os, "replace"), (os, "rename"), (os, "unlink"), (os, "rmdir"), (os, "mkdir"))
    CHANGES += ((shutil, "copyfile"), (shutil, "rmtree"), (Path, "write_bytes"))

    def __init__(self, monkeypatch, last: int) -> None:
        self.left = last
        for owner, name in self.CHANGES:
            monkeypatch.setattr(owner, name, self._counted(getattr(owner, name)))

    def _counted(self, change):
        def changed(*arguments, **options):
            self.left -= 1
            if self.left < 0:
                raise _Killed
            return change(*arguments, **options)

        return changed


def killed_at_each_change(prepare, action):
    """Prepares, then does something until the n-th change to the disk, for every n; yields after each time."""
    for last in itertools.count():
        prepare()
        with pytest.MonkeyPatch.context() as patch:
            disk = _Disk(patch, last)
            with contextlib.suppress(_Killed):
                action()
        yield
        if disk.left >= 0:
            assert last >= 2, "there is something to be killed at"
            return


class TestReplaced:
    def test_models_that_were_replaced_come_back_in_turn(self, versions, folders):
        for path in versions:
            install_model(path, overwrite=True)
        assert installed_version() == 2
        assert sorted(f.name for f in (folders / "user" / "earlier" / "tiny").iterdir()) == ["1", "2"]
        assert roll_back("tiny").card == read_card(versions[1])
        assert installed_version() == 1
        assert roll_back("tiny") == find_model("decomposition", "tiny")
        assert installed_version() == 0
        assert sorted(f.name for f in (folders / "user").iterdir() if f.is_file()) == ["tiny.json", "tiny.safetensors"]

    def test_a_model_that_replaced_none_is_taken_out_and_kept(self, versions, folders):
        install_model(versions[0])
        content = files_in(folders / "user")
        assert roll_back("tiny") is None
        assert list_models() == []
        assert files_in(folders / "user" / "taken-out" / "tiny" / "1") == content
        with pytest.raises(ModelError, match=r"not installed a model 'tiny'\. Installed by you: none"):
            roll_back("tiny")

    def test_what_was_rolled_back_is_kept_but_not_offered(self, versions, folders):
        install_model(versions[0])
        install_model(versions[1], overwrite=True)
        roll_back("tiny")
        assert read_card(folders / "user" / "taken-out" / "tiny" / "1" / "tiny.json") == read_card(versions[1])
        assert roll_back("tiny") is None, "not the one that was rolled back"

    def test_installing_the_same_again_keeps_nothing_twice(self, versions, folders):
        install_model(versions[0])
        before = files_in(folders / "user")
        assert install_model(versions[0]) == install_model(find_model("decomposition", "tiny").path)
        assert files_in(folders / "user") == before

    def test_a_to_b_to_a(self, versions):
        for n in (0, 1, 0):
            install_model(versions[n], overwrite=True)
        assert roll_back("tiny").card == read_card(versions[1])
        assert roll_back("tiny").card == read_card(versions[0])
        assert roll_back("tiny") is None

    def test_a_damaged_earlier_model_is_not_put_back(self, versions, folders):
        for path in versions:
            install_model(path, overwrite=True)
        (weights,) = (folders / "user" / "earlier" / "tiny" / "2").glob("*.safetensors")
        weights.write_bytes(b"broken")
        before = files_in(folders / "user")
        with pytest.raises(ModelError, match=r"nothing was changed.*SHA-256.*without that folder"):
            roll_back("tiny")
        assert files_in(folders / "user") == before
        shutil.rmtree(weights.parent)
        assert roll_back("tiny").card == read_card(versions[0])

    def test_an_installed_model_that_is_damaged_can_be_replaced_and_is_not_offered(self, versions, folders):
        stored = install_model(versions[0])
        stored.path.with_suffix(".safetensors").write_bytes(b"broken")
        with pytest.raises(ModelError, match="exists already"):
            install_model(versions[1])
        install_model(versions[1], overwrite=True)
        assert installed_version() == 1
        kept = folders / "user" / "taken-out" / "tiny" / "1"
        assert (kept / "tiny.safetensors").read_bytes() == b"broken"
        assert roll_back("tiny") is None

    def test_a_bundled_model_cannot_be_rolled_back(self, versions, folders):
        shutil.copytree(versions[0].parent, folders / "bundled")
        with pytest.raises(ModelError, match="comes with CAC and cannot be rolled back"):
            roll_back("tiny")

    @pytest.mark.parametrize("name", ["", "..", "../made/tiny", "Tiny", "a/b"])
    def test_names_are_checked_before_they_become_paths(self, name, folders):
        with pytest.raises(ModelError, match="not a valid model name"):
            roll_back(name)

    @pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root may write anywhere")
    def test_a_folder_that_cannot_be_written(self, versions, folders):
        install_model(versions[0])
        (folders / "user").chmod(0o500)
        try:
            for action in (lambda: install_model(versions[1], overwrite=True), lambda: roll_back("tiny")):
                with pytest.raises(ModelError, match="Permission denied"):
                    action()
        finally:
            (folders / "user").chmod(0o700)
        assert installed_version() == 0

    def test_a_full_disk_changes_nothing(self, versions, folders, monkeypatch):
        install_model(versions[0])
        before = files_in(folders / "user")

        def full(*_):
            raise OSError(28, "No space left on device")

        for name, target in (("copyfile", shutil), ("write_bytes", Path)):
            with monkeypatch.context() as patch:
                patch.setattr(target, name, full)
                with pytest.raises(ModelError, match="No space left on device"):
                    install_model(versions[1], overwrite=True)
            assert {k: v for k, v in files_in(folders / "user").items() if "/" not in k} == before
        assert installed_version() == 0


class TestKilled:
    """At every moment one of both models is whole, and what was replaced can be put back."""

    def test_installing(self, versions, folders):
        def prepare():
            shutil.rmtree(folders / "user", ignore_errors=True)
            install_model(versions[0])

        seen = set()
        for _ in killed_at_each_change(prepare, lambda: install_model(versions[1], overwrite=True)):
            version = installed_version()
            seen.add(version)
            if version == 0:
                install_model(versions[1], overwrite=True)
            assert roll_back("tiny").card == read_card(versions[0])
            assert installed_version() == 0
            assert roll_back("tiny") is None
        assert seen == {0, 1}

    def test_rolling_back(self, versions, folders):
        def prepare():
            shutil.rmtree(folders / "user", ignore_errors=True)
            for path in versions:
                install_model(path, overwrite=True)

        seen = set()
        for _ in killed_at_each_change(prepare, lambda: roll_back("tiny")):
            version = installed_version()
            seen.add(version)
            if version == 2:
                roll_back("tiny")
            assert installed_version() == 1
            assert roll_back("tiny").card == read_card(versions[0])
        assert seen == {1, 2}

    def test_taking_out(self, versions, folders):
        def prepare():
            shutil.rmtree(folders / "user", ignore_errors=True)
            install_model(versions[0])

        for _ in killed_at_each_change(prepare, lambda: roll_back("tiny")):
            if list_models():
                assert installed_version() == 0
                assert roll_back("tiny") is None
            verify_model(folders / "user" / "taken-out" / "tiny" / "1" / "tiny.json")
            install_model(versions[1])
            assert installed_version() == 1

    def test_a_card_that_is_changed(self, versions, folders):
        for _ in killed_at_each_change(lambda: None, lambda: models.update_card(versions[0], {"floor_hu": 12.0}, {})):
            verify_model(versions[0])

    def test_a_model_trained_over_another(self, versions):
        network = network_for()

        def save():
            save_model(network, card_for(), versions[0].parent, overwrite=True)

        for _ in killed_at_each_change(lambda: None, save):
            verify_model(versions[0])


def test_device_choice(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == choose_device("cpu") == "cpu"
    with pytest.raises(DeviceError, match="no usable GPU"):
        choose_device("cuda")
    with pytest.raises(DeviceError, match="'tpu'"):
        choose_device("tpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert (choose_device("auto"), choose_device("cpu"), choose_device("cuda")) == ("cuda", "cpu", "cuda")


@pytest.fixture(scope="module")
def bundled():
    """Those that score a CT."""
    stored = [models.StoredModel(models.read_card(p), p, "bundled") for p in sorted(BUNDLED.glob("*.json"))]
    return [model for model in stored if model.card.network in SCORING_NETWORKS]


class TestModelsThatComeWithCAC:
    def test_one_whole_model_for_each_network(self, bundled):
        assert sorted(model.card.network for model in bundled) == ["decomposition", "slices", "territories"]
        cards = [models.verify_model(path) for path in BUNDLED.glob("*.json")]
        assert len({card.network for card in cards}) == len(cards)
        assert "super_resolution" in {card.network for card in cards}

    def test_small_enough_for_the_extension_index(self, bundled):
        assert sum(path.stat().st_size for path in BUNDLED.iterdir()) < 36e6

    def test_cards_say_what_they_are_for_and_from(self, bundled):
        for model in bundled:
            assert "For research; not a medical device." in model.card.intended_use
            assert model.card.licence == "Apache-2.0"
            data = model.card.training.data
            assert re.search(r"numbers \d+(-| to )\d+", data)
            # Real scans are named with their collections and licences.
            assert "no real scan" in data or ("table SHA-256" in data and re.search(r"TCIA .*, CC BY \d", data))
            assert model.card.validation
            assert not re.search(r"/(home|root|tmp|work)/", model.path.read_text(encoding="utf-8"))

    def test_the_whole_method_is_calibrated(self, bundled):
        card = next(model.card for model in bundled if model.card.network == "decomposition")
        classifier = next(model.card for model in bundled if model.card.network == "slices")
        beside = {"candidates", "uncertainty", "known"}
        assert {*card.calibration, *classifier.calibration} == {*CALIBRATED, *beside}
        assert Evidence.stored(card.calibration) is not None
        for kind in ("automatic", "decomposition"):
            assert Uncertainty.stored(card.calibration, kind) is not None
        assert set(classifier.calibration) == {"slice_threshold"}
        whole = card.validation["whole_method"]
        assert whole["models"] == {model.card.network: model.card.sha256 for model in bundled}
