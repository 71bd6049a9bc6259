"""Tests of the segment editor inside the panel: its position and its active effect."""

import numpy as np
import pytest
import slicer
from effect_desk import EFFECTS, ROOT, load_effects
from panel_driver import eventually

from CACScoringLib.core.labels import Artery

PANEL_WIDTH, PANEL_HEIGHT = 420, 499
"""Size of a module's panel in 3D Slicer on a screen of 1366 × 768 pixels, in pixels."""


pytestmark = pytest.mark.main_window


@pytest.fixture
def scored(driver, monkeypatch):
    load_effects(monkeypatch, [ROOT / "CACScoring" / name for name in EFFECTS.values()])
    window = slicer.util.mainWindow()
    window.moduleSelector().selectModule("CACScoring")
    slicer.app.processEvents()
    window.resize(1366, window.height + PANEL_HEIGHT - window._scroll.viewport().height)
    driver.score(networks=True)
    return driver


def active(driver) -> str:
    effect = driver.widget.review._editor.widget.activeEffect()
    return "" if effect is None else effect.name


def open_editor(driver, is_open: bool = True) -> None:
    driver.ui.editorBox.collapsed = not is_open
    driver.settle()
    timer = driver.widget.review._editor._inSight._timer
    assert eventually(lambda: slicer.app.processEvents() or not timer.active)


class TestOpening:
    def test_a_click_picks_lesions_while_the_editor_is_open(self, scored):
        open_editor(scored)
        assert active(scored) == "CAC Lesion"
        scored.widget.exit()
        assert active(scored) == ""
        scored.widget.enter()
        assert active(scored) == "CAC Lesion"
        open_editor(scored, False)
        assert active(scored) == ""

    @pytest.mark.parametrize("name", ["CAC Lesion", "CAC Region"])
    def test_nothing_is_painted_before_an_artery_is_chosen(self, scored, name):
        open_editor(scored)
        editor, before = scored.widget.review._editor.widget, scored.scores()
        editor.setActiveEffectByName(name)
        effect = editor.activeEffect().self()
        effect.scan.update()
        review = scored.review
        ras = np.array(review.position_of("threshold", review.lesions("threshold")[0].id))
        assert not effect.scan.selected
        if name == "CAC Lesion":
            assert effect.addAt(ras) == 0
        else:
            effect._mouse = (slicer.app.layoutManager().sliceWidget("CACOriginal"), (0, 0))
            assert effect._beginStroke()
            assert effect._stroke is None
        assert "Choose an artery first" in effect.statusLabel.text
        scored.settle()
        assert scored.scores() == before
        editor.activeEffect().self().chooseArtery(Artery.RCA)
        assert effect.scan.selected == "RCA"

    @pytest.mark.long
    def test_messages_and_arteries_are_in_sight(self, scored):
        open_editor(scored)
        area = slicer.util.mainWindow()._scroll.viewport()
        effect = scored.widget.review._editor.widget.activeEffect().self()
        for widget in (effect.statusLabel, effect.hintLabel, *effect._arteries._buttons.values()):
            top = widget.mapTo(area, widget.rect.topLeft()).y()
            assert top >= 0
            assert top + widget.height <= area.height

    @pytest.mark.long
    def test_the_readers_choice_of_an_effect_stays(self, scored):
        open_editor(scored)
        editor = scored.widget.review._editor.widget
        editor.setActiveEffectByName("CAC Region")
        scored.ui.reviewMethodBox.setCurrentIndex(1)
        scored.settle()
        assert active(scored) == "CAC Region", "with the lesions of the calcium map"
        editor.setActiveEffect(None)
        scored.press_artery("LAD")
        assert active(scored) == ""

    @pytest.mark.long
    def test_without_a_result_no_effect_is_on(self, driver, monkeypatch):
        load_effects(monkeypatch, [ROOT / "CACScoring" / name for name in EFFECTS.values()])
        open_editor(driver)
        assert active(driver) == ""
