"""Base classes of the hidden modules that register the effects with Segment Editor, and of their self tests.

Modules import this file rather than the classes, which unittest would run when it finds them in a module.
"""

# Slicer's own naming is its API's.
# ruff: noqa: N802

from __future__ import annotations

import importlib
from pathlib import Path

import slicer
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import ScriptedLoadableModule, ScriptedLoadableModuleTest

PREFIX = "SegmentEditorCAC"


class EffectModule(ScriptedLoadableModule):
    """Description of a hidden module, named PREFIX and its effect; the effect is a button of Segment Editor."""

    def __init__(self, parent) -> None:
        super().__init__(parent)
        module = type(self).__name__
        parent.title = module
        parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        parent.dependencies = ["Segmentations", "CACScoring"]
        parent.contributors = ["CAC developers"]
        parent.hidden = True
        help_text = _("Adds the effect {effect} to Segment Editor. It is used in the CAC Scoring module, too.")
        parent.helpText = help_text.format(effect=module.replace(PREFIX, "CAC "))
        parent.acknowledgementText = _("Developed by the CAC developers. Licence: Apache-2.0.")
        slicer.app.startupCompleted.connect(lambda: registerEffect(module))


def registerEffect(module: str) -> None:
    """Register the effect of a module; a second call changes nothing."""
    import qSlicerSegmentationsEditorEffectsPythonQt as effects

    # The package has to be imported first, see its `__init__`.
    package = importlib.import_module(f"{module}Lib")
    instance = effects.qSlicerSegmentEditorScriptedEffect(None)
    instance.setPythonSource((Path(package.__file__).parent / "SegmentEditorEffect.py").as_posix())
    instance.self().register()


class EffectTest(ScriptedLoadableModuleTest):
    """Self test of an effect on a synthetic lesion, run in Slicer and in the project's desktop host."""

    def setUp(self) -> None:
        slicer.mrmlScene.Clear()
        # Startup has not completed in a test run.
        registerEffect(type(self).__name__.removesuffix("Test"))

    def tearDown(self) -> None:
        slicer.mrmlScene.Clear()
