"""Tests of the hidden modules that register the effects."""

import sys

import pytest
import slicer
from cmake_lists import install
from effect_desk import EFFECTS, ROOT, load_effects

import desktop_host


@pytest.mark.usefixtures("host")
class TestModules:
    def test_effects_are_registered_once(self, desk):
        from CACScoringLib.panel.effects.module import registerEffect

        for module in EFFECTS.values():
            registerEffect(module)
        names = slicer.qMRMLSegmentEditorWidget(slicer.util.mainWindow()).availableEffectNames()
        assert sorted(name for name in names if name.startswith("CAC")) == sorted(EFFECTS)

    def test_own_self_tests(self):
        for module in EFFECTS.values():
            kind = getattr(sys.modules[module], f"{module}Test")
            names = [name for name in vars(kind) if name.startswith("test_")]
            assert names
            for name in names:
                test = kind(name)
                test.setUp()
                getattr(test, name)()
                test.tearDown()

    def test_nothing_heavy_before_first_use(self, desk):
        """Load nothing when Segment Editor opens, which sets up all effects."""
        for name in EFFECTS:
            effect = desk.editor.effectByName(name).self()
            assert effect.scan is None
            effect.sourceVolumeNodeChanged()
            effect.layoutChanged()
            effect.cleanup()


class TestInstalled:
    @pytest.fixture
    def installed(self, monkeypatch, tmp_path):
        """Folder with the files of all modules, as Slicer installs them."""
        folder = tmp_path / "qt-scripted-modules"
        for module in EFFECTS.values():
            install(ROOT / "CACScoring" / module, folder)
        desktop_host.install(monkeypatch)
        load_effects(monkeypatch, [folder])
        return folder

    def test_icons(self, installed):
        editor = slicer.qMRMLSegmentEditorWidget()
        for name, module in EFFECTS.items():
            effect = editor.effectByName(name)
            assert effect.pythonSource().startswith((installed / f"{module}Lib").as_posix())
            assert slicer.util.findChild(editor, name).icon.availableSizes()
