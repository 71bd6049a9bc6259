"""The hidden modules that register the effects."""

import sys

import pytest
import slicer

from effect_desk import EFFECTS


@pytest.mark.usefixtures("host")
class TestModules:
    def test_effects_are_registered_once(self, desk):
        for module in EFFECTS.values():
            sys.modules[module].registerEffect()
        names = slicer.qMRMLSegmentEditorWidget().availableEffectNames()
        assert sorted(name for name in names if name.startswith("CAC")) == sorted(EFFECTS)

    @pytest.mark.parametrize("name", EFFECTS)
    def test_each_effect_is_its_own(self, desk, name):
        effect = desk.editor.effectByName(name)
        assert type(effect.self()).__module__.startswith(EFFECTS[name])
        assert not effect.icon().isNull()
        assert "Keys 1 to 5" in effect.helpText()

    @pytest.mark.parametrize("name", EFFECTS)
    def test_module_is_hidden(self, name):
        module = getattr(slicer.modules, EFFECTS[name].lower())
        assert module.hidden
        assert "Segmentations" in module.dependencies
        assert module.icon is not None

    @pytest.mark.parametrize("module", EFFECTS.values())
    def test_own_self_test(self, module):
        kind = getattr(sys.modules[module], f"{module}Test")
        own = [name for name in vars(kind) if name.startswith("test_")]
        assert own
        for name in own:
            test = kind(name)
            test.setUp()
            getattr(test, name)()
            test.tearDown()

    @pytest.mark.parametrize("name", EFFECTS)
    def test_nothing_heavy_before_it_is_used(self, desk, name):
        """Segment Editor makes the options of all effects when it opens, in any session."""
        effect = desk.editor.effectByName(name).self()
        assert effect.scan is None
        effect.sourceVolumeNodeChanged()
        effect.layoutChanged()
        effect.cleanup()
