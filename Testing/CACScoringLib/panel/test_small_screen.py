"""Tests of the panel and its views on a screen of 1366 × 768 pixels, in light and dark styles."""

import pytest
import slicer
from effect_desk import EFFECTS, ROOT, load_effects
from panel_driver import least_width

from CACScoringLib.mrml.lesion_segments import HEART_ID

SCREEN_WIDTH = 1366
PANEL_HEIGHT = 410
"""Height of a module's panel in 3D Slicer on a screen of 768 pixels, above an open Data Probe."""
SCROLL_BAR = 20


pytestmark = pytest.mark.main_window


@pytest.fixture
def window(driver):
    """The main window, as wide as the screen, with a panel of PANEL_HEIGHT."""
    window = slicer.util.mainWindow()
    window.moduleSelector().selectModule("CACScoring")
    slicer.app.processEvents()
    window.resize(SCREEN_WIDTH, window.height + PANEL_HEIGHT - window._scroll.viewport().height)
    slicer.app.processEvents()
    return window


def least_window_width(driver) -> int:
    """Return the minimum width of panel and views beside each other."""
    return least_width(driver.widget) + SCROLL_BAR + slicer.app.layoutManager().viewport().minimumSizeHint.width()


def is_in_sight(widget, rect=None) -> bool:
    """Return True if a widget, or a rectangle of it, is not scrolled out of sight by anything around it."""
    rect = widget.rect if rect is None else rect
    outer = widget
    while outer is not None and widget.visible:
        corner = widget.mapTo(outer, rect.topLeft())
        if corner.y() < 0 or corner.y() + rect.height() > outer.height or corner.x() < 0 or corner.x() > outer.width:
            return False
        outer = None if outer.isWindow() else outer.parentWidget()
    return widget.visible


def rows_in_sight(table) -> list[int]:
    rects = [table.visualItemRect(table.item(row, 0)) for row in range(table.rowCount)]
    return [row for row, rect in enumerate(rects) if is_in_sight(table.viewport(), rect)]


def total_is_in_sight(driver) -> bool:
    return is_in_sight(driver.ui.headLabel) and is_in_sight(driver.ui.acceptButton)


def many_lines(driver, count: int) -> list:
    """Return a number of lines of the panel's table, two of them doubtful."""
    from dataclasses import replace

    line = driver.widget.review.table.lines[0]
    doubtful = {3, count - 2}
    return [replace(line, id=n + 1, cells=(n + 1, *line.cells[1:]), doubtful=n in doubtful) for n in range(count)]


class TestWidth:
    def test_a_result(self, driver):
        driver.score(networks=True)
        assert least_window_width(driver) <= SCREEN_WIDTH

    @pytest.mark.long
    def test_the_radiographs_layout(self, driver):
        driver.ui.pages.setCurrentIndex(2)
        driver.ui.drrLayoutButton.click()
        assert least_window_width(driver) <= SCREEN_WIDTH


class TestInSight:
    @pytest.mark.parametrize(("height", "scrolled"), [(100, 300 + 100 - 200), (500, 300)])
    def test_the_end_of_a_section_comes_into_sight_unless_its_beginning_would_leave(self, driver, height, scrolled):
        """Scroll a section of a height, 300 pixels below the top of an area of 200."""
        import qt

        from CACScoringLib.panel.widgets import InSight

        area, content, section = qt.QScrollArea(), qt.QWidget(), qt.QWidget()
        content.setFixedSize(100, 1000)
        section.setParent(content)
        section.setGeometry(0, 300, 100, height)
        area.setWidget(content)
        area.setFrameShape(qt.QFrame.NoFrame)
        area.setFixedSize(150, 200)
        area.show()
        slicer.app.processEvents()
        shown = InSight(section)
        shown.start()
        assert area.verticalScrollBar().value == scrolled
        shown.cancel()


@pytest.mark.long
class TestList:
    @pytest.fixture
    def listed(self, driver, window, monkeypatch):
        """A list of thirty lesions, two of them doubtful."""
        driver.score()
        monkeypatch.setattr(type(driver.review), "position_of", lambda *_: (0.0, 0.0, 0.0))
        driver.widget.review._list(many_lines(driver, 30))
        slicer.app.processEvents()
        return driver

    def test_six_rows_the_chosen_row_and_the_total_are_visible(self, listed):
        listed.widget.review.table.showLesion(1)
        slicer.app.processEvents()
        assert rows_in_sight(listed.ui.lesionTable)[:6] == list(range(6))
        assert total_is_in_sight(listed)
        assert listed.ui.scanArea.height > 0.67 * PANEL_HEIGHT, "also beside an open Data Probe"
        for doubtful in (4, 29):
            listed.key("N")
            assert listed.current == doubtful
            assert doubtful - 1 in rows_in_sight(listed.ui.lesionTable)
            assert is_in_sight(listed.ui.headLabel)
        listed.score()
        assert rows_in_sight(listed.ui.lesionTable)[0] == 0, "another result begins at its top"
        assert total_is_in_sight(listed)

    def test_the_last_column_is_visible_beside_long_names_and_a_scroll_bar(self, listed):
        from dataclasses import replace

        table, lines = listed.ui.lesionTable, many_lines(listed, 30)
        for name in ("LAD?", "thoracic aorta or mitral annulus, not assigned? out"):
            named = [replace(line, cells=(line.cells[0], name, *line.cells[2:])) for line in lines]
            listed.widget.review._list(named)
            listed.settle()
            assert table.verticalScrollBar().visible
            assert table.horizontalHeader().length() <= table.viewport().width

    def test_columns_from_the_menu_are_reached(self, listed):
        table = listed.ui.lesionTable
        for action in table.horizontalHeader().actions():
            action.trigger()
        listed.widget.review._list(many_lines(listed, 30))
        listed.widget.review.table.showLesion(1)
        listed.settle()
        assert len(rows_in_sight(table)) >= 6
        bar, last = table.horizontalScrollBar(), table.columnCount - 1
        assert is_in_sight(bar)
        bar.setValue(bar.maximum)
        header = table.horizontalHeader()
        assert 0 < header.sectionViewportPosition(last) <= table.viewport().width - header.sectionSize(last)

    def test_the_total_is_visible_while_lesions_are_painted(self, listed, monkeypatch):
        import qt

        load_effects(monkeypatch, [ROOT / "CACScoring" / name for name in EFFECTS.values()])
        listed.ui.editorBox.collapsed = False
        for _ in range(3):
            slicer.app.processEvents()
        assert total_is_in_sight(listed)
        editor = listed.widget.review._editor.widget
        editor.layout().addWidget(qt.QPushButton("as wide as Slicer's Paint" * 5))
        slicer.app.processEvents()
        area = listed.ui.scanArea
        assert area.widget().width <= area.viewport().width < editor.minimumSizeHint.width()

    def test_all_warnings_come_into_sight_above_a_filled_data_probe(self, listed, window):
        window.resize(SCREEN_WIDTH, window.height - 140)
        listed.settle()
        listed.ui.warningsLabel.setText("Look.")
        listed.ui.headLabel.linkActivated.emit("more")
        listed.settle()
        assert is_in_sight(listed.ui.warningsLabel)


@pytest.mark.long
class TestLayouts:
    @pytest.fixture
    def manager(self, driver):
        return slicer.app.layoutManager()

    def test_the_former_layout_is_restored_after_both_of_ours(self, driver, manager):
        before = manager.layout
        driver.ui.pages.setCurrentIndex(2)
        driver.ui.drrLayoutButton.click()
        driver.ui.pages.setCurrentIndex(0)
        driver.score(networks=True)
        driver.widget.exit()
        assert manager.layout == before

    def test_a_reopened_scene_shows_its_result_and_leaves_no_empty_views(self, driver, manager, tmp_path):
        driver.score(networks=True)
        driver.review.nodes.heart.GetDisplayNode().SetSegmentVisibility(HEART_ID, False)
        ours = manager.layout
        assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
        driver.widget.exit()
        manager.setProperty("CACLayoutBefore", None)  # as in a Slicer that has only opened the scene
        slicer.mrmlScene.Clear()
        slicer.util.loadScene(str(tmp_path / "scene.mrb"))
        driver.widget.enter()
        driver.settle()
        assert manager.layout == ours
        display = driver.review.nodes.heart.GetDisplayNode()
        assert display.GetVisibility()
        assert display.GetSegmentVisibility(HEART_ID)
        slicer.mrmlScene.Clear()
        driver.settle()
        assert manager.layout == slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView
        assert driver.ui.statusLabel.text == ""


class TestStyles:
    @pytest.mark.parametrize("background", ["#ffffff", "#2b2b2b"])
    def test_severe_and_left_out_are_legible(self, driver, background):
        """Require a contrast of 4.5 : 1, as WCAG 2.1 does for text."""
        import qt

        from CACScoringLib.panel import widgets

        dark = background != "#ffffff"
        label = qt.QLabel()
        palette = label.palette
        for role in (qt.QPalette.Window, qt.QPalette.Base):
            palette.setColor(role, qt.QColor(background))
        palette.setColor(qt.QPalette.Text, qt.QColor("#f0f0f0" if dark else "#101010"))
        label.setPalette(palette)
        for colour in (qt.QColor(widgets.severeColour(label)), widgets.faintColour(label)):
            assert contrast(colour, qt.QColor(background)) >= 4.5


def contrast(first, second) -> float:
    """Return the contrast ratio of two colours (WCAG 2.1)."""

    def luminance(colour) -> float:
        parts = (part / 255 for part in (colour.red(), colour.green(), colour.blue()))
        linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    dark, light = sorted((luminance(first), luminance(second)))
    return (light + 0.05) / (dark + 0.05)
