"""Models on disk: saved, replaced and rolled back, and undamaged at every moment."""

import contextlib
import itertools
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from handmade_networks import untrained

from CACScoringLib.core.errors import ModelError
from CACScoringLib.models.cards import (
    ModelCard,
    list_models,
    read_card,
    read_network,
    verify_model,
)
from CACScoringLib.models.store import install_model, roll_back, save_model, update_card


def files_in(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def folders(tmp_path, bundled, monkeypatch) -> Path:
    """Empty folders for bundled, installed and temporary files."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def versions(tmp_path) -> list[Path]:
    """Three models of one name with different weights, each in its folder."""
    # Discriminators have no graph, which takes time to write.
    return [untrained("discriminator", "tiny", tmp_path / f"version-{number}") for number in range(3)]


def installed() -> ModelCard:
    """Return the card of the only listed model, verified."""
    (model,) = list_models()
    return verify_model(model.path)


class _Killed(BaseException):
    pass


CHANGES = ((os, "replace"), (os, "rename"), (os, "unlink"), (os, "rmdir"), (os, "mkdir"))
CHANGES += ((shutil, "copyfile"), (shutil, "rmtree"), (Path, "write_bytes"))


def killed_at_each_change(prepare, action):
    """Prepare, then act until the n-th change to the disk, for every n; yield after each."""
    for last in itertools.count():
        prepare()
        changes_to_go = last

        def counted(change):
            def changed(*arguments, **options):
                nonlocal changes_to_go
                changes_to_go -= 1
                if changes_to_go < 0:  # and at all later changes
                    raise _Killed
                return change(*arguments, **options)

            return changed

        with pytest.MonkeyPatch.context() as patch, contextlib.suppress(_Killed):
            for owner, name in CHANGES:
                patch.setattr(owner, name, counted(getattr(owner, name)))
            action()
        yield
        if changes_to_go >= 0:
            assert last >= 2, "there is something to be killed at"
            return


class TestSaved:
    @pytest.mark.parametrize("name", ["../up", "Name"])
    def test_bad_names(self, name, tmp_path):
        with pytest.raises(ModelError, match="not a valid model name"):
            untrained("discriminator", name, tmp_path)
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize("value", [float("nan"), 1e6])
    def test_diverged_weights_are_not_saved(self, value, versions, tmp_path):
        card, network = read_network(versions[0])
        network.patches[-1].weight.data[0, 0, 0, 0] = value
        with pytest.raises(ModelError, match=r"patches\.\d+\.weight"):
            save_model(network, card, tmp_path / "diverged")

    def test_another_model_is_installed_only_if_asked(self, versions, folders):
        install_model(versions[0])
        with pytest.raises(ModelError, match="exists already"):
            install_model(versions[1])
        assert install_model(versions[1], overwrite=True).card == installed() == read_card(versions[1])


class TestRolledBack:
    def test_installed_and_earlier_model_change_places(self, versions, folders):
        for path in versions:
            install_model(path, overwrite=True)
        for number in (1, 2, 1):
            assert roll_back("tiny").card == installed() == read_card(versions[number])
        files = sorted(f.name for f in (folders / "installed").iterdir() if f.is_file())
        assert files == ["tiny.json", "tiny.safetensors"]

    def test_a_model_that_replaced_none_is_taken_out_and_comes_back(self, versions, folders):
        install_model(versions[0])
        install_model(versions[0])  # changes nothing
        assert roll_back("tiny") is None
        assert list_models() == []
        assert roll_back("tiny").card == installed() == read_card(versions[0])

    def test_a_bundled_model_is_not_rolled_back(self, versions, folders):
        shutil.copytree(versions[0].parent, folders / "bundled")
        with pytest.raises(ModelError, match=r"comes with CAC and cannot be rolled back.*Installed by you: none"):
            roll_back("tiny")

    def test_damaged_models(self, versions, folders):
        """A damaged earlier model is not put back; a damaged installed one is replaced, and not offered."""
        install_model(versions[0])
        stored = install_model(versions[1], overwrite=True)
        (weights,) = (folders / "installed" / "taken-out" / "tiny").rglob("*.safetensors")
        content = weights.read_bytes()
        weights.write_bytes(b"broken")
        before = files_in(folders / "installed")
        with pytest.raises(ModelError, match="nothing was changed"):
            roll_back("tiny")
        assert files_in(folders / "installed") == before
        weights.write_bytes(content)
        stored.path.with_suffix(".safetensors").write_bytes(b"broken")
        install_model(versions[2], overwrite=True)
        assert roll_back("tiny").card == read_card(versions[0])

    def test_a_full_disk_changes_nothing(self, versions, folders, monkeypatch):
        install_model(versions[0])
        before = files_in(folders / "installed")

        def full(*_):
            raise OSError(28, "No space left on device")

        for name, target in (("copyfile", shutil), ("write_bytes", Path)):
            with monkeypatch.context() as patch:
                patch.setattr(target, name, full)
                with pytest.raises(ModelError, match="No space left on device"):
                    install_model(versions[1], overwrite=True)
            assert {k: v for k, v in files_in(folders / "installed").items() if "/" not in k} == before


@pytest.mark.long
@pytest.mark.parametrize(
    ("count", "action", "numbers"),
    [
        (1, lambda versions: install_model(versions[1], overwrite=True), (0, 1)),
        (3, lambda versions: roll_back("tiny"), (2, 1)),
    ],
    ids=["installing", "rolling back"],
)
def test_a_model_that_is_exchanged(versions, folders, count, action, numbers):
    def prepare():
        shutil.rmtree(folders / "installed", ignore_errors=True)
        for path in versions[:count]:
            install_model(path, overwrite=True)

    before, after = (read_card(versions[number]) for number in numbers)
    hashes = set()
    for _ in killed_at_each_change(prepare, lambda: action(versions)):
        hashes.add(installed().sha256)
        if installed() == before:
            action(versions)
        assert installed() == after
        assert roll_back("tiny").card == before
    assert hashes == {before.sha256, after.sha256}


def test_a_card_that_is_changed(versions, folders):
    for _ in killed_at_each_change(lambda: None, lambda: update_card(versions[0], {"floor_hu": 12.0}, {})):
        verify_model(versions[0])
