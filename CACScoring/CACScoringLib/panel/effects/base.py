"""What the segment editor effects share towards Slicer: how they are registered, copied and shown, and their artery."""

# Slicer's naming.
# ruff: noqa: N802, N803, N806

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path
from types import ModuleType

import qt
from SegmentEditorEffects import AbstractScriptedSegmentEditorEffect


def registerEffect(package: ModuleType) -> None:
    """Make known the effect whose `SegmentEditorEffect.py` lies in a package; a second call changes nothing.

    The package has to be imported before: see its `__init__`.
    """
    import qSlicerSegmentationsEditorEffectsPythonQt as effects

    instance = effects.qSlicerSegmentEditorScriptedEffect(None)
    instance.setPythonSource((Path(package.__file__).parent / "SegmentEditorEffect.py").as_posix())
    instance.self().register()


def helpOf(summary: str, actions: Mapping[str, str], closing: str) -> str:
    """An effect's help as HTML, from plain text.

    summary: always shown; the rest opens by "Show details". actions: what a user does, and what that does.
    """
    listed = "".join(f"<li><b>{escape(does)}:</b> {escape(text)}</li>" for does, text in actions.items())
    # Segment Editor cuts at the first line break.
    return f'<html>{escape(summary)}<br>.<ul style="margin: 0">{listed}</ul><p>{escape(closing)}</p></html>'


class LesionEffect(AbstractScriptedSegmentEditorEffect):
    """An effect on the segment of an artery.

    name: not translated, because modules find effects by it. source: the effect's own file. scan: an `EffectScan`, and
    _arteries: its `SiteButtons`; both are made when the effect is used for the first time.
    """

    def __init__(self, scriptedEffect, name: str, title: str, source: str) -> None:
        scriptedEffect.name = name
        scriptedEffect.title = title
        super().__init__(scriptedEffect)
        self._source = Path(source)
        self.scan = None
        self._arteries = None

    def clone(self):
        import qSlicerSegmentationsEditorEffectsPythonQt as effects

        clonedEffect = effects.qSlicerSegmentEditorScriptedEffect(None)
        clonedEffect.setPythonSource(self._source.as_posix())
        return clonedEffect

    def icon(self):
        # The folder of the source tree is named as the module; where Slicer installs it, all modules lie together.
        name = self._source.parent.name.removesuffix("Lib")
        return qt.QIcon(str(self._source.parents[1] / "Resources" / "Icons" / f"{name}.png"))

    def setupOptionsFrame(self) -> None:
        """Nothing yet: Segment Editor makes the options of all effects when it opens, and what these need takes long
        to load."""

    def _showArtery(self) -> None:
        segmentation = self.scan.segmentation
        self._arteries.show(self.scan.name_of(self.scan.selected) if segmentation is not None else "")
