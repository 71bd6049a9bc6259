"""Smoke test in 3D Slicer: open every module and page, score the sample, activate every effect.

    Slicer --testing --no-splash --python-script "$PWD/Testing/slicer_smoke.py"

with the extension installed, or from the source tree as in docs/developer/tests.md. It prints what failed and
exits with 1, or with 0 when nothing did. Scoring is skipped in a Slicer without the packages that the panel installs,
and uses the networks where theirs are installed. Open scenes are closed. It runs without a main window, too
(--no-main-window).
"""

from __future__ import annotations

import sys
import time

import slicer

MODULES = ("CACScoring", "CACTraining")
EFFECTS = {
    "CAC Lesion": "SegmentEditorCACLesion",
    "CAC Region": "SegmentEditorCACRegion",
    "CAC Decompose": "SegmentEditorCACDecompose",
}
SCORING_SECONDS = 1800


def failures() -> list[str]:
    """Run all checks; return a line per failure."""
    absent = [name for name in (*MODULES, *EFFECTS.values()) if not hasattr(slicer.modules, name.lower())]
    if absent:
        return [f"{name}: the module is not loaded" for name in absent]
    from CACScoringLib.panel.lifecycle import deadPages

    slicer.mrmlScene.Clear()
    lines = [line for name in MODULES for line in deadPages(name)]
    lines += scoring_failures()
    lines += [line for name, module in EFFECTS.items() for line in effect_failures(name, module)]
    slicer.mrmlScene.Clear()
    return lines


def scoring_failures() -> list[str]:
    """Score the digital patient that comes with CAC by the panel's button, and open every page with its result."""
    from CACScoringLib.mrml.sample_data import sample_file
    from CACScoringLib.panel.lifecycle import PrintedErrors, deadPages, entered
    from CACScoringLib.panel.packages import CLINICAL_REQUIREMENTS, missingPackages, namesOf

    if missing := missingPackages(CLINICAL_REQUIREMENTS):
        print(f"CAC smoke test: scoring is skipped, because it needs {namesOf(missing)}")
        return []
    with PrintedErrors("scoring the sample") as errors:
        panel = slicer.util.getModule("CACScoring").widgetRepresentation()
        with entered(panel, "CACScoring"):
            widget = panel.self()
            volume = slicer.util.loadVolume(str(sample_file()))
            state = widget.logic.getParameterNode()
            state.inputVolume = volume
            if missingPackages():
                state.method = type(state.method).CLINICAL_RULE
            widget.ui.scoreButton.click()
            deadline = time.monotonic() + SCORING_SECONDS
            while widget.scorer.isRunning and time.monotonic() < deadline:
                slicer.app.processEvents()
                time.sleep(0.01)
            if state.result is None:
                raise RuntimeError(f"there is no result: {widget.ui.statusLabel.text}")
            if not widget.ui.lesionTable.rowCount:
                raise RuntimeError("no lesion was found")
            errors.lines += deadPages("CACScoring")
    return errors.lines


def effect_failures(name: str, module: str) -> list[str]:
    """Activate and deactivate an effect on a small lesion."""
    from CACScoringLib.panel.effects.module import editorOnLesion, registerEffect
    from CACScoringLib.panel.lifecycle import PrintedErrors

    slicer.mrmlScene.Clear()
    with PrintedErrors(name) as errors:
        # With --python-script Slicer's startup has not completed yet.
        registerEffect(module)
        with editorOnLesion(name, withMap=True) as (editor, _segmentation, _effect):
            slicer.app.processEvents()
            editor.grab()
            if editor.activeEffect().name != name:
                raise RuntimeError("another effect is active")
        slicer.app.processEvents()
    return errors.lines


if __name__ == "__main__":
    failed = failures()
    print("\n".join([*failed, f"CAC smoke test: {len(failed)} failed" if failed else "CAC smoke test: passed"]))
    sys.stdout.flush()
    slicer.util.exit(1 if failed else 0)
