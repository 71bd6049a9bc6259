"""Plot along the body axis: each slice's probability of calcium, and marks for lesions."""

# Qt's names.
# ruff: noqa: N802

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import qt
from slicer.i18n import tr as _

from .lifecycle import Signal

_USED = (77, 182, 172)
_UNUSED = (144, 150, 156)
_HEIGHT_PIXELS = 24
_MARGIN_PIXELS = 2
_MARK_PIXELS = 6


class SlicePlot(qt.QWidget):
    """Plot with the feet on the left and the head on the right. A click, or dragging, chooses a slice.

    Attributes:
        chosen: Signal with the slice's k.
    """

    def __init__(self, parent=None) -> None:
        qt.QWidget.__init__(self, parent)
        self.chosen = Signal()
        self._slices: dict[int, float | None] = {}
        self._current: int | None = None
        self.setFixedHeight(_HEIGHT_PIXELS)
        self.setToolTip(
            _("Slices from feet to head. Height: probability of calcium; marks: lesions. Click to go to a slice.")
        )

    def setSlices(
        self,
        probabilities: Mapping[int, float | None],
        colours: Mapping[int, Sequence[tuple[int, int, int]]],
        unused: Collection[int] = (),
        limits: Sequence[float] = (),
    ) -> None:
        """Show slices.

        Args:
            probabilities: Probability of calcium, 0 to 1, by slice index k; None if the network did not evaluate it.
            colours: RGB of a slice's marks, by slice index; slices without marks may be absent.
            unused: Slices whose calcium does not count in the map.
            limits: Probabilities to draw a line at.
        """
        self._slices, self._colours, self._unused, self._limits = dict(probabilities), colours, unused, limits
        self.update()

    def setCurrent(self, k: int | None) -> None:
        """Mark the slice that the views show."""
        if k != self._current:
            self._current = k
            self.update()

    def sliceAt(self, x: float) -> int | None:
        """Return the slice at x pixels from the left."""
        if not self._slices:
            return None
        first, last = min(self._slices), max(self._slices)
        left_edge, width = self._span()
        place = (x - left_edge) / width * (last - first + 1)
        return min(max(first + int(place), first), last)

    def placeOf(self, k: int) -> float:
        """Return the x of a slice's middle in pixels from the left."""
        first, last = min(self._slices), max(self._slices)
        left_edge, width = self._span()
        return left_edge + (k - first + 0.5) * width / (last - first + 1)

    def mousePressEvent(self, event) -> None:
        # Qt 6 has position(), Qt 5 localPos().
        place = event.position() if hasattr(event, "position") else event.localPos()
        k = self.sliceAt(place.x())
        if k is not None:
            self.chosen.emit(k)

    def mouseMoveEvent(self, event) -> None:
        # Only called while a button is held.
        self.mousePressEvent(event)

    def paintEvent(self, event) -> None:
        painter = qt.QPainter(self)
        painter.setRenderHint(qt.QPainter.Antialiasing)
        palette = self.palette
        painter.fillRect(self.rect, palette.color(qt.QPalette.Base))
        if not self._slices:
            painter.setPen(palette.color(qt.QPalette.Disabled, qt.QPalette.Text))
            painter.drawText(self.rect, int(qt.Qt.AlignCenter), _("Nothing to show"))
            painter.end()
            return
        self._drawBars(painter)
        painter.setPen(palette.color(qt.QPalette.Disabled, qt.QPalette.Text))
        for limit in self._limits:
            y = int(self._bottom() - self._height(limit)) + 0.5  # the middle of a pixel
            painter.drawLine(qt.QPointF(0, y), qt.QPointF(self.width, y))
        if self._current in self._slices:
            x = self.placeOf(self._current)
            painter.setPen(qt.QPen(palette.color(qt.QPalette.Highlight), 2))
            painter.drawLine(qt.QPointF(x, 2), qt.QPointF(x, self._bottom() + _MARK_PIXELS + 2))
        painter.end()

    def _span(self) -> tuple[float, float]:
        return _MARGIN_PIXELS, max(1.0, self.width - 2.0 * _MARGIN_PIXELS)

    def _bottom(self) -> float:
        return self.height - _MARK_PIXELS - 1.0

    def _height(self, probability: float) -> float:
        return probability * (self._bottom() - _MARGIN_PIXELS)

    def _drawBars(self, painter) -> None:
        bottom = self._bottom()
        width = self._span()[1] / (max(self._slices) - min(self._slices) + 1)
        thickness = max(1.0, width - 1.0)
        for k, probability in self._slices.items():
            left_edge = self.placeOf(k) - thickness / 2
            colour = qt.QColor(*(_UNUSED if k in self._unused else _USED))
            if probability is not None:
                height = max(1.0, self._height(probability))
                painter.fillRect(qt.QRectF(left_edge, bottom - height, thickness, height), colour)
            colours = self._colours.get(k, ())
            for n, rgb in enumerate(colours):
                share = _MARK_PIXELS / len(colours)
                mark = qt.QRectF(left_edge, bottom + 1 + n * share, max(thickness, 2.0), share)
                painter.fillRect(mark, qt.QColor(*rgb))
